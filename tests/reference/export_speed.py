"""Exported ONNX files under onnxruntime, beside the same models as PyTorch exports them: whose runs take how long.

    python tests/reference/export_speed.py [SECONDS]      for each model, after tests/reference/export; 20 s where nothing is said

Both files are run in turn (A B B A) in one process and one thread, so that a busy moment falls on both. A ratio is of the medians,
its interval the 2.5th and 97.5th percentile of 2,000 resamples of the pairs.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy
import onnxruntime
import torch
from export import EXPORTS
from torch_models import OUT, bert, efficientnet, load, pictures
from transformers import AutoModelForCausalLM

AT_MOST = 1.05


def session(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class Reader(torch.nn.Module):
    """An encoder of texts, with the mean of the tokens that count, as the exported file has it."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids, attention_mask):
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1)


class Speaker(torch.nn.Module):
    """A language model that reads a prompt."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        return self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits


def sentences():
    """16 texts of 32 tokens."""
    ids = torch.randint(1000, 20000, (16, 32), generator=torch.Generator().manual_seed(7))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def models():
    """Name, module, inputs, the exported file, and what that is given besides."""
    encoder = bert(json.loads((OUT / "models/minilm/config.json").read_text()))
    load(encoder, OUT / "models/minilm")
    yield "minilm", Reader(encoder), sentences(), "minilm-f32", {}
    tower = efficientnet(json.loads((OUT / "models/efficientnet-lite0/config.json").read_text()))
    load(tower, OUT / "models/efficientnet-lite0")
    pixels = torch.cat([pictures()] * 2)[:8]
    yield "efficientnet-lite0", tower, {"pixel_values": pixels}, "efficientnet-lite0-f32", {}
    speaker = AutoModelForCausalLM.from_pretrained(
        OUT / "models/smollm2", dtype=torch.float32, gguf_file="model.gguf", attn_implementation="eager"
    )
    ids = torch.randint(0, speaker.config.vocab_size, (1, 64), generator=torch.Generator().manual_seed(7))
    heads, width = speaker.config.num_key_value_heads, speaker.config.head_dim
    names = [f"past_key_values.{i}.{part}" for i in range(speaker.config.num_hidden_layers) for part in ("key", "value")]
    empty = {name: numpy.zeros((1, heads, 0, width), numpy.float32) for name in names}
    yield "smollm2, a prompt", Speaker(speaker.eval()), {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, "smollm2-f32", empty


def measured(ours, theirs, given, more, seconds):
    """Seconds of pairs of runs."""
    mine = lambda: ours.run([ours.get_outputs()[0].name], {**given, **more})[0]
    other = lambda: theirs.run(None, given)[0]
    far = numpy.abs(mine() - other()).max() / numpy.abs(other()).max()
    assert far < 1e-4, f"they differ by {far} of the largest value"
    for _ in range(3):
        mine(), other()
    pairs, turn, until = [], 0, time.perf_counter() + seconds
    while len(pairs) < 12 or time.perf_counter() < until:
        took = {}
        for name, run in ((("a", mine), ("b", other)) if turn % 2 == 0 else (("b", other), ("a", mine))):
            begin = time.perf_counter()
            run()
            took[name] = time.perf_counter() - begin
        pairs.append((took["a"], took["b"]))
        turn += 1
    return numpy.array(pairs)


def main():
    seconds, fits = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0, True
    with tempfile.TemporaryDirectory() as directory:
        for name, module, inputs, exported, more in models():
            path = Path(directory) / "model.onnx"
            axes = {key: {0: "batch", 1: "sequence"} if value.ndim == 2 else {0: "batch"} for key, value in inputs.items()}
            torch.onnx.export(
                module, tuple(inputs.values()), str(path), input_names=list(inputs), output_names=["out"], dynamic_axes=axes,
                opset_version=17, dynamo=False,
            )
            given = {key: value.numpy() for key, value in inputs.items()}
            pairs = measured(session(EXPORTS / exported / "model.onnx"), session(path), given, more, seconds)
            random = numpy.random.default_rng(7)
            drawn = pairs[random.integers(0, len(pairs), (2000, len(pairs)))]
            ratios = numpy.median(drawn[..., 0], 1) / numpy.median(drawn[..., 1], 1)
            (ours, theirs), (low, high) = numpy.median(pairs, 0), numpy.percentile(ratios, (2.5, 97.5))
            print(f"{name}: {1e3 * ours:.1f} ms, PyTorch's {1e3 * theirs:.1f} ms: {ours / theirs:.3f} x ({low:.3f} to {high:.3f}), {len(pairs)} pairs")
            fits &= ours / theirs <= AT_MOST
    sys.exit(not fits)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
