"""onnxruntime on the encoder as transformers exports it, in f32 and with int8 weights and activations (dynamic)."""

import numpy
import onnxruntime
from peers.serve import THREADS, directory, ids, serve


def session(name):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    # Threads that wait by spinning would be counted as work of the next tool's turn.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(directory() / name), options, providers=["CPUExecutionProvider"])
    batch = numpy.array(ids(), dtype=numpy.int64)
    inputs = {"input_ids": batch, "attention_mask": numpy.ones_like(batch)}

    def step():
        return float(numpy.abs(session.run(None, inputs)[0].mean(1)).mean())

    return step


serve({"minilm": lambda: session("model.onnx"), "minilm-int8": lambda: session("model.int8.onnx")})
