"""What the example measured of files by onnxruntime and LiteRT: its vectors, and what its language model answers, are those that both give
Python, and its reports say so."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from ai_edge_litert.interpreter import Interpreter
from jinja2 import Template
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
for label in ["minilm-phone", "efficientnet-lite0-phone"]:
    assert program(label).startswith("effai's evaluator of TensorFlow Lite and LiteRT 2."), program(label)


class Lite:
    """A TensorFlow Lite file by LiteRT's own interpreter."""

    def __init__(self, label):
        self.interpreter = Interpreter(model_path=str(out / "exports" / label / "model.tflite"))
        self.inputs = {detail["name"]: detail["index"] for detail in self.interpreter.get_input_details()}
        self.outputs = {detail["name"]: detail["index"] for detail in self.interpreter.get_output_details()}

    def __call__(self, given):
        for name, values in given.items():
            self.interpreter.resize_tensor_input(self.inputs[name], values.shape)
        self.interpreter.allocate_tensors()
        for name, values in given.items():
            self.interpreter.set_tensor(self.inputs[name], values)
        self.interpreter.invoke()
        return {name: self.interpreter.get_tensor(at) for name, at in self.outputs.items()}


# The same texts by the same files, from Python.
session = onnxruntime.InferenceSession(out / "exports/minilm-int8-weights/model.onnx", providers=["CPUExecutionProvider"])
lite = Lite("minilm-phone")


def by_lite(ids):
    ids = ids.astype(np.int32)
    return lite({"input_ids": ids, "attention_mask": np.ones_like(ids)})["sentence_embedding"][0]


def by_onnxruntime(ids):
    return session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0][0]


tokenizer = Tokenizer.from_file(str(out / "exports/minilm-phone/tokenizer.json"))
tokenizer.no_padding()
tokenizer.enable_truncation(64)
for label, encode in [("features", by_onnxruntime), ("features-phone", by_lite)]:
    texts = json.loads((out / label / "texts.json").read_text())
    own = load_file(out / label / "texts.safetensors")["text"]
    for text, vector in zip(texts, own, strict=True):
        found = encode(np.array([tokenizer.encode(text).ids]))
        far = np.abs(found - vector).max() / np.abs(found).max()
        assert far < 1e-5, (label, text, far)
    print(f"{label}: {len(texts)} texts have the same vectors from Python")

near = {row["subject"]: row["distance"]["value"] for row in read("reports/minilm/report.json")["encoded"][0]["rows"]}
assert near["exports/minilm-f32"] < 1e-9, near
assert near["exports/minilm-f16"] < 1e-5 < near["exports/minilm-int8-weights"] < 1e-3 < near["exports/minilm-int8"] < 2e-2, near
assert 1e-3 < near["exports/minilm-phone"] < 1e-2, near
subjects = read("reports/minilm/report.json")["subjects"]
assert subjects[1]["speed"]["backend"].startswith("onnxruntime 1."), subjects
assert subjects[5]["speed"]["backend"].startswith("LiteRT 2."), subjects
pictures = {row["subject"]: row["distance"]["value"] for row in read("reports/efficientnet-lite0/report.json")["encoded"][0]["rows"]}
assert len(pictures) == 4 and max(pictures.values()) < 1e-9, pictures

language = read("reports/smollm2/report.json")
[texts] = language["texts"]
model, whole, rounded, phone = (row["loss"]["value"] for row in texts["rows"])
assert abs(model - whole) < 1e-4, texts["rows"]
assert abs(model - rounded) < 0.05, texts["rows"]
assert abs(model - phone) < 1e-4, texts["rows"]
assert texts["rows"][3]["divergence"]["value"] < 1e-5, texts["rows"]
assert texts["rows"][1]["divergence"]["value"] < 1e-5 < texts["rows"][2]["divergence"]["value"] < 0.05, texts["rows"]
print(f"SmolLM2: loss {model:.5f}, as a file {whole:.5f}, in bytes {rounded:.5f}, by LiteRT {phone:.5f}")

# What it answers, from Python: the most likely token each time. Caches are empty at first there.
lite = Lite("smollm2-phone")
[asked] = language["answers"]
exported = out / "exports/smollm2-phone"
tokenizer = Tokenizer.from_file(str(exported / "tokenizer.json"))
template = Template(json.loads((exported / "tokenizer_config.json").read_text())["chat_template"])
prompt = template.render(messages=[{"role": "user", "content": asked["prompt"]}], add_generation_prompt=True)
ids = np.array([tokenizer.encode(prompt, add_special_tokens=False).ids], np.int32)
shapes = {detail["name"]: detail["shape_signature"] for detail in lite.interpreter.get_input_details()}
caches = {name: np.zeros((1, shape[1], 0, shape[3]), np.float32) for name, shape in shapes.items() if name.startswith("past")}
read_before, answer = 0, []
for _ in range(6):
    mask = np.ones((1, read_before + ids.shape[1]), np.int32)
    given = lite({"input_ids": ids, "attention_mask": mask} | caches)
    caches = {name: given[name.replace("past_key_values", "present")] for name in caches}
    read_before = mask.shape[1]
    ids = given["logits"][:, -1:].argmax(-1).astype(np.int32)
    answer.append(ids.item())
wanted = tokenizer.decode(answer)
assert asked["answers"][3]["text"].strip() == wanted.strip(), (asked, wanted)

rows = read("benchmarks/minilm/report.json")["timing"]["rows"]
assert {row["model"]["backend"] for row in rows} == {"candle", "onnxruntime", "rten", "LiteRT"}, rows
for row in rows:
    print(row["model"]["workload"]["name"], row["subject"], row["model"]["backend"], f"{row['p50_s']['value']:.4f} s")
