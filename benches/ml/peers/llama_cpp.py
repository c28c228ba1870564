"""llama.cpp by llama-cpp-python: the same GGUF file, and its library's own rounding and products."""

import ctypes
from pathlib import Path

import llama_cpp
import numpy
from llama_cpp import Llama
from peers.serve import THREADS, directory, ids, serve

TYPES = {"F32": 0, "Q4_0": 2, "Q8_0": 8, "Q4_K": 12, "Q6_K": 14}
SIDE = 4096


def chat():
    model = Llama(str(directory() / "model.gguf"), n_ctx=512, n_threads=THREADS, n_threads_batch=THREADS, verbose=False)
    prompt = ids()[0]

    def step():
        model.reset()
        made = 0
        for _ in model.generate(prompt, temp=0.0, repeat_penalty=1.0):
            made += 1
            if made == 64:
                break
        return made

    return step


def library(name):
    return ctypes.CDLL(str(Path(llama_cpp.__file__).parent / f"lib/libggml-{name}.so.0"))


def quantizer():
    """`ggml_quantize_chunk` of a square of floats: one thread, as it comes."""
    quantize = library("base").ggml_quantize_chunk
    quantize.restype = ctypes.c_size_t
    quantize.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p]
    values = numpy.load(directory() / "square.npy")
    return lambda form, to: quantize(TYPES[form], values.ctypes.data, to, 0, SIDE, SIDE, None)


def rounded(form):
    quantize, out = quantizer(), numpy.zeros(SIDE * SIDE * 2, dtype=numpy.uint8)
    return lambda: quantize(form, out.ctypes.data)


def product(form):
    """A graph of one `ggml_mul_mat`."""
    base, cpu = library("base"), library("cpu")

    class Params(ctypes.Structure):
        _fields_ = [("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]

    pointer = ctypes.c_void_p
    for function, result, arguments in (
        (base.ggml_init, pointer, [Params]), (base.ggml_new_tensor_2d, pointer, [pointer, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]),
        (base.ggml_get_data, pointer, [pointer]), (base.ggml_mul_mat, pointer, [pointer] * 3), (base.ggml_new_graph, pointer, [pointer]),
        (base.ggml_build_forward_expand, None, [pointer] * 2), (cpu.ggml_graph_compute_with_ctx, ctypes.c_int, [pointer, pointer, ctypes.c_int]),
    ):
        function.restype, function.argtypes = result, arguments
    cpu.ggml_cpu_init()
    # Each product takes its buffer of a few kilobytes from the context, which has room for two hundred thousand.
    context = base.ggml_init(Params(1 << 30, None, False))
    matrix = base.ggml_new_tensor_2d(context, TYPES[form], SIDE, SIDE)
    quantizer()(form, base.ggml_get_data(matrix))
    x = base.ggml_new_tensor_2d(context, TYPES["F32"], SIDE, 1)
    values = numpy.random.default_rng(0).standard_normal(SIDE, dtype=numpy.float32)
    ctypes.memmove(base.ggml_get_data(x), values.ctypes.data, values.nbytes)
    y = base.ggml_mul_mat(context, matrix, x)
    graph = base.ggml_new_graph(context)
    base.ggml_build_forward_expand(graph, y)
    found = numpy.ctypeslib.as_array(ctypes.cast(base.ggml_get_data(y), ctypes.POINTER(ctypes.c_float)), (SIDE,))

    def step():
        assert cpu.ggml_graph_compute_with_ctx(context, graph, THREADS) == 0
        return float(numpy.abs(found).mean())

    return step


serve(
    {"chat": chat, "matvec-4": lambda: product("Q4_0"), "matvec-8": lambda: product("Q8_0")}
    | {form: lambda form=form: rounded(form) for form in ("Q4_0", "Q8_0", "Q6_K", "Q4_K")}
)
