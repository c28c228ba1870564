"""What the example of ONNX files measured by onnxruntime: its vectors are those that onnxruntime gives Python, and its reports say so."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from safetensors.numpy import load_file
from tokenizers import Tokenizer

project = Path(sys.argv[1])
out = project / "out"


def read(path):
    return json.loads((out / path).read_text())


def program(label):
    return read(f"exports/{label}/verify.json")["program"]


for label in ["minilm-f32", "minilm-f16", "minilm-int8", "efficientnet-lite0-uint8"]:
    assert "onnxruntime 1." in program(label), program(label)
assert program("minilm-rten") == "rten 0.24.0"

# The same texts by the same file, from Python.
features = out / "features"
texts = json.loads((features / "texts.json").read_text())
own = load_file(features / "texts.safetensors")["text"]
exported = out / "exports/minilm-int8-weights"
session = onnxruntime.InferenceSession(exported / "model.onnx", providers=["CPUExecutionProvider"])
tokenizer = Tokenizer.from_file(str(exported / "tokenizer.json"))
tokenizer.no_padding()
tokenizer.enable_truncation(64)
for text, vector in zip(texts, own, strict=True):
    ids = np.array([tokenizer.encode(text).ids])
    [[found]] = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
    far = np.abs(found - vector).max() / np.abs(found).max()
    assert far < 1e-5, (text, far)
print(f"{len(texts)} texts by onnxruntime {onnxruntime.__version__} from Python: the same vectors")

near = {row["subject"]: row["distance"]["value"] for row in read("reports/minilm/report.json")["encoded"][0]["rows"]}
assert near["exports/minilm-f32"] < 1e-9, near
assert near["exports/minilm-f16"] < 1e-5 < near["exports/minilm-int8-weights"] < 1e-3 < near["exports/minilm-int8"] < 2e-2, near
subjects = read("reports/minilm/report.json")["subjects"]
assert subjects[1]["speed"]["backend"].startswith("onnxruntime 1."), subjects
pictures = {row["subject"]: row["distance"]["value"] for row in read("reports/efficientnet-lite0/report.json")["encoded"][0]["rows"]}
assert len(pictures) == 3 and max(pictures.values()) < 1e-9, pictures

language = read("reports/smollm2/report.json")
[texts] = language["texts"]
model, whole, rounded = (row["loss"]["value"] for row in texts["rows"])
assert abs(model - whole) < 1e-4, texts["rows"]
assert abs(model - rounded) < 0.05, texts["rows"]
assert texts["rows"][1]["divergence"]["value"] < 1e-5 < texts["rows"][2]["divergence"]["value"] < 0.05, texts["rows"]
print(f"SmolLM2: loss {model:.5f}, as a file {whole:.5f}, in bytes {rounded:.5f}")

rows = read("benchmarks/minilm/report.json")["timing"]["rows"]
assert {row["model"]["backend"] for row in rows} == {"candle", "onnxruntime", "rten"}, rows
for row in rows:
    print(row["model"]["workload"]["name"], row["subject"], row["model"]["backend"], f"{row['p50_s']['value']:.4f} s")
