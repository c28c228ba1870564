"""Writes what all sides read: models with random weights in Hugging Face's layout, and their inputs.

    python -m ml.prepare DIR
"""

import json
import sys
from pathlib import Path

import numpy
import safetensors.numpy
import torch
import transformers

root = Path(sys.argv[1])
random = numpy.random.default_rng(0)


def rows(count, length, vocabulary):
    return random.integers(5, vocabulary, (count, length)).tolist()


def write(name, model, ids):
    directory = root / name
    model.save_pretrained(directory, safe_serialization=True)
    (directory / "ids.json").write_text(json.dumps(ids))
    return directory


torch.manual_seed(0)
llama = transformers.LlamaConfig(
    hidden_size=256, num_hidden_layers=6, num_attention_heads=8, num_key_value_heads=4, intermediate_size=704, vocab_size=4096,
    max_position_embeddings=512, tie_word_embeddings=True, rope_theta=10000.0, eos_token_id=2, bos_token_id=1,
)
write("lora", transformers.LlamaForCausalLM(llama), rows(8, 128, 4096))

CLIP_PAIRS = 64
clip = transformers.CLIPConfig(
    text_config=dict(hidden_size=192, num_hidden_layers=6, num_attention_heads=3, intermediate_size=768, vocab_size=8192, eos_token_id=8191),
    vision_config=dict(hidden_size=192, num_hidden_layers=12, num_attention_heads=3, intermediate_size=768, image_size=224, patch_size=32),
    projection_dim=128,
)
# As long as CLIP's texts are padded to by its tokenizer's own default: 77, the last of which ends the text.
texts = [[*row, 8191] for row in (random.integers(5, 8190, (CLIP_PAIRS, 76)).tolist())]
directory = write("clip", transformers.CLIPModel(clip), texts)
pixels = random.standard_normal((CLIP_PAIRS, 224, 224, 3), dtype=numpy.float32)
safetensors.numpy.save_file({"pixels": pixels}, directory / "pixels.safetensors")

bert = transformers.BertConfig(
    hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, vocab_size=30522,
)
encoder = transformers.BertModel(bert, add_pooling_layer=False).eval()
batch = rows(64, 64, 30522)
directory = write("minilm", encoder, batch)
example = torch.tensor(batch)


class Plain(torch.nn.Module):
    """The encoder with just the two inputs that are exported."""

    def __init__(self):
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids, attention_mask):
        return self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


torch.onnx.export(
    Plain().eval(), (example, torch.ones_like(example)), str(directory / "model.onnx"), input_names=["input_ids", "attention_mask"],
    output_names=["last_hidden_state"], dynamo=False, opset_version=17,
    dynamic_axes={"input_ids": {0: "n", 1: "l"}, "attention_mask": {0: "n", 1: "l"}},
)
from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: E402

quantize_dynamic(directory / "model.onnx", directory / "model.int8.onnx", weight_type=QuantType.QInt8)

directory = root / "mlp"
directory.mkdir(exist_ok=True)
normal = lambda *shape: random.standard_normal(shape, dtype=numpy.float32)
safetensors.numpy.save_file(
    {
        "w1": normal(1024, 512) * 0.04, "b1": normal(1024) * 0.04, "w2": normal(10, 1024) * 0.03, "b2": normal(10) * 0.03,
        "x": normal(256, 512), "one_hot": numpy.eye(10, dtype=numpy.float32)[random.integers(0, 10, 256)],
    },
    directory / "mlp.safetensors",
)

directory = root / "square"
directory.mkdir(exist_ok=True)
square = normal(4096, 4096) * numpy.float32(0.02)
numpy.save(directory / "square.npy", square)
safetensors.numpy.save_file({"square": square, "x": normal(4096)}, directory / "square.safetensors")
