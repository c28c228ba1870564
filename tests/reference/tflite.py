"""Exported TensorFlow Lite files, under LiteRT as the models are in PyTorch and transformers.

    python tests/reference/tflite.py
"""

import json
import sys
import zipfile

import flatbuffers
import numpy
import torch
from ai_edge_litert.interpreter import Interpreter
from export import EXPORTS, TOLERANCE_OF_MANY_LAYERS, padded
from peft import PeftModel
from torch_models import (
    LABELS,
    OUT,
    DualEncoder,
    bert,
    efficientnet,
    likely,
    load,
    mean_pooled,
    photographs,
    pictures,
    pixels,
    smollm2,
    texts,
)

# Of the largest value.
TOLERANCE = {"f32": 1e-4, "f16-weights": 2e-3}
# Of the least of the rows. Where what is multiplied is rounded to 8 bits as it comes, MiniLM has .9963 and EfficientNet .9856;
# of rounding weights alone, with a scale for each row, .9984 and .9986.
COSINE = {
    ("minilm", "rtn8"): 0.999,
    ("minilm", "rtn4"): 0.9,
    ("minilm", "int8"): 0.99,
    ("minilm", "int8-weights"): 0.998,
    ("efficientnet-lite0", "int8"): 0.97,
    ("efficientnet-lite0", "int8-calibrated"): 0.99,
    ("efficientnet-lite0", "int8-weights"): 0.998,
}


class Model:
    """A file under LiteRT, with the kernels that it takes by itself."""

    def __init__(self, name):
        self.interpreter = Interpreter(model_path=str(EXPORTS / name / "model.tflite"))
        signature = self.interpreter.get_signature_list()["serving_default"]
        self.inputs = {detail["name"]: detail for detail in self.interpreter.get_input_details()}
        self.outputs = {detail["name"]: detail["index"] for detail in self.interpreter.get_output_details()}
        assert sorted(signature["inputs"]) == sorted(self.inputs), signature
        assert sorted(signature["outputs"]) == sorted(self.outputs), signature

    def __call__(self, given):
        for name, values in given.items():
            self.interpreter.resize_tensor_input(self.inputs[name]["index"], values.shape, strict=True)
        self.interpreter.allocate_tensors()
        for name, values in given.items():
            self.interpreter.set_tensor(self.inputs[name]["index"], values.astype(self.inputs[name]["dtype"]))
        self.interpreter.invoke()
        return {name: self.interpreter.get_tensor(at) for name, at in self.outputs.items()}


def hold(what, precision, ours, theirs, tolerance=None):
    ours, theirs = torch.as_tensor(ours).flatten(1), torch.as_tensor(theirs).flatten(1)
    assert ours.shape == theirs.shape, f"{what}: {tuple(ours.shape)} and {tuple(theirs.shape)}"
    far = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    cosine = torch.nn.functional.cosine_similarity(ours, theirs).min().item()
    print(f"{what}, {precision}: off by {far:.1e} of the largest value, cosine at least {cosine:.6f}")
    return far <= (tolerance or TOLERANCE[precision]) if precision in TOLERANCE else cosine >= COSINE[what, precision]


def encoders():
    directory = OUT / "models/minilm"
    encoder = bert(json.loads((directory / "config.json").read_text()))
    load(encoder, directory)
    ids = texts(directory)
    read = torch.cat([mean_pooled(encoder, i) for i in ids])
    directory = OUT / "models/efficientnet-lite0"
    tower = efficientnet(json.loads((directory / "config.json").read_text()))
    load(tower, directory)
    seen = tower(pictures())
    # Channels last, as the file takes them.
    prepared = {"pixel_values": numpy.ascontiguousarray(pictures().permute(0, 2, 3, 1).numpy())}
    fits = True
    for precision in ("f32", "f16-weights", "int8", "int8-weights"):
        found = Model(f"minilm-tflite-{precision}")(padded(ids))["sentence_embedding"]
        fits &= hold("minilm", precision, found, read)
        found = Model(f"efficientnet-lite0-tflite-{precision}")(prepared)["pooler_output"]
        tolerance = TOLERANCE_OF_MANY_LAYERS if precision == "f16-weights" else None
        fits &= hold("efficientnet-lite0", precision, found, seen, tolerance)
    for form in ("rtn8", "rtn4"):
        fits &= hold("minilm", form, Model(f"minilm-tflite-{form}")(padded(ids))["sentence_embedding"], read)
    found = Model("efficientnet-lite0-pixels-tflite")({"pixel_values": pixels().transpose(0, 2, 3, 1)})["pooler_output"]
    fits &= hold("efficientnet-lite0, bytes", "f32", found, seen) & says_what_it_is()
    taken, brought = photographs()
    found = Model("efficientnet-lite0-camera-tflite")({"pixel_values": taken})["pooler_output"]
    fits &= hold("efficientnet-lite0, a camera's pictures", "f32", found, tower(brought))
    whole = Model("efficientnet-lite0-tflite-int8-calibrated")
    fits &= hold("efficientnet-lite0", "int8-calibrated", whole(prepared)["pooler_output"], seen) & is_of_integers(whole)
    fixed = Model("minilm-tflite-fixed")
    for at, row in enumerate(ids[:3]):
        given = {name: numpy.zeros((1, 64), numpy.int32) for name in ("input_ids", "attention_mask")}
        given["input_ids"][0, : row.shape[1]], given["attention_mask"][0, : row.shape[1]] = row[0], 1
        fits &= hold("minilm of one size", "f32", fixed(given)["sentence_embedding"], read[at : at + 1])
    return fits


def is_of_integers(model):
    """Whether all but what goes in and comes out is integers."""
    outer = {d["index"] for d in model.inputs.values()} | set(model.outputs.values())
    floats = [d["name"] for d in model.interpreter.get_tensor_details() if d["index"] not in outer and d["dtype"] == numpy.float32]
    print(f"efficientnet-lite0, int8-calibrated: {len(floats)} tensors of floats inside")
    return not floats


def table(buffer, pos):
    return flatbuffers.table.Table(buffer, pos)


def slot(of, number):
    offset = of.Offset(4 + 2 * number)
    return None if offset == 0 else of.Pos + offset


def child(of, number):
    return table(of.Bytes, of.Indirect(slot(of, number)))


def children(of, number):
    offset = of.Offset(4 + 2 * number)
    first = of.Vector(offset)
    return [table(of.Bytes, of.Indirect(first + 4 * i)) for i in range(of.VectorLen(offset))]


def text(of, number):
    return of.String(slot(of, number)).decode()


def byte(of, number):
    return of.Get(flatbuffers.number_types.Uint8Flags, slot(of, number))


def root(buffer):
    return table(buffer, flatbuffers.encode.Get(flatbuffers.packer.uoffset, buffer, 0))


def floats(of, number):
    return of.GetVectorAsNumpy(flatbuffers.number_types.Float32Flags, of.Offset(4 + 2 * number)).tolist()


def described(name):
    """The metadata of TensorFlow Lite's tools, by the numbers of `metadata_schema.fbs`: of the model, an input and an output."""
    model = root((EXPORTS / name / "model.tflite").read_bytes())
    buffers = children(model, 4)
    entries = {text(e, 0): buffers[e.Get(flatbuffers.number_types.Uint32Flags, slot(e, 1))] for e in children(model, 6)}
    own = entries["TFLITE_METADATA"]
    about = own.GetVectorAsNumpy(flatbuffers.number_types.Uint8Flags, own.Offset(4)).tobytes()
    assert about[4:8] == b"M001", about[:8]
    about = root(about)
    (graph,) = children(about, 3)
    (given,), (made,) = children(graph, 2), children(graph, 3)
    return about, given, made


def says_what_it_is():
    about, given, made = described("efficientnet-lite0-pixels-tflite")
    assert text(about, 5) == "apache-2.0" and "imported from" in text(about, 1)
    assert (text(given, 0), text(made, 0)) == ("pixel_values", "pooler_output")
    (unit,) = children(given, 4)
    # Nothing is left to be done to a value.
    assert (floats(child(unit, 1), 0), floats(child(unit, 1), 1)) == ([0.0] * 3, [1.0] * 3)
    return True


def says_its_labels(name):
    """The file of labels that the metadata names, in the archive behind the model."""
    _, _, made = described(name)
    (file,) = children(made, 6)
    assert (text(made, 0), text(file, 0), byte(file, 2)) == ("probabilities", "labels.txt", 2)
    assert (floats(child(made, 5), 0), floats(child(made, 5), 1)) == ([1.0], [0.0])
    with zipfile.ZipFile(EXPORTS / name / "model.tflite") as archive:
        (own,) = archive.infolist()
        assert (own.filename, own.compress_type) == ("labels.txt", zipfile.ZIP_STORED), own
        assert archive.testzip() is None and archive.read(own).decode().splitlines() == list(LABELS), own
    return True


def towers():
    base = DualEncoder(OUT / "models/emoji-clip")
    ids = texts(OUT / "models/emoji-clip")
    model = PeftModel.from_pretrained(base, OUT / "adapters/emoji-clip-lora").eval().get_base_model()
    seen, read = model.see(pictures()), torch.cat([model.read(i) for i in ids])
    prepared = numpy.ascontiguousarray(pictures().permute(0, 2, 3, 1).numpy())
    found = Model("emoji-clip-picture-tflite")({"pixel_values": prepared})["image_embeds"]
    fits = hold("emoji-clip, pictures", "f32", found, seen)
    found = Model("emoji-clip-labels-tflite")({"pixel_values": pixels().transpose(0, 2, 3, 1)})["probabilities"]
    fits &= hold("emoji-clip, labels", "f32", found, likely(model, OUT / "models/emoji-clip", seen))
    fits &= says_its_labels("emoji-clip-labels-tflite")
    found = Model("emoji-clip-text-tflite")(padded(ids))["text_embeds"]
    return fits & hold("emoji-clip, texts", "f32", found, read)


def language():
    """A prompt, then a token after it by the caches that came out."""
    directory = OUT / "models/smollm2"
    model = smollm2(directory)
    ids = torch.randint(0, model.config.vocab_size, (2, 17), generator=torch.Generator().manual_seed(7))
    theirs = model(ids).logits
    ours = Model("smollm2-tflite")
    past = [name for name in ours.inputs if name.startswith("past")]
    shape = ours.inputs[past[0]]["shape"]
    empty = {name: numpy.zeros((len(ids), shape[1], 0, shape[3]), numpy.float32) for name in past}
    mask = numpy.ones(ids.shape, numpy.int32)
    after = ours({"input_ids": ids[:, :-1].numpy(), "attention_mask": mask[:, :-1], **empty})
    fits = hold("smollm2, a prompt", "f32", after["logits"], theirs[:, :-1])
    read = {name: after[name.replace("past_key_values", "present")] for name in past}
    last = ours({"input_ids": ids[:, -1:].numpy(), "attention_mask": mask, **read})["logits"]
    return fits & hold("smollm2, a token after it", "f32", last, theirs[:, -1:])


if __name__ == "__main__":
    with torch.inference_mode():
        fits = encoders()
        fits &= towers()
        fits &= language()
    sys.exit(not fits)
