"""Logits of effai, by its example `logits`, held against another library's."""

import subprocess
import tempfile
from pathlib import Path

from safetensors.torch import load_file

# Of the largest logit of a text, in 32-bit floats on both sides, whose sums are in another order.
TOLERANCE = 1e-5


class Logits:
    def __init__(self, example):
        """By the built example."""
        self.example = Path(example).resolve()

    def of(self, text, directory, base=None):
        """Token ids of a text, and what is given for each."""
        with tempfile.TemporaryDirectory() as made:
            out = Path(made) / "logits.safetensors"
            more = ["--base", str(base)] if base else []
            subprocess.run([self.example, str(directory), text, str(out), *more], check=True)
            arrays = load_file(out)
        return arrays["ids"].tolist(), arrays["logits"]

    def close(self, what, theirs, texts, directory, base=None, tolerance=TOLERANCE, ids_of=None):
        """`theirs` gives logits for token ids; `ids_of`, where it is given, their token ids of a text."""
        worst, largest, tokens = 0.0, 0.0, 0
        for text in texts:
            ids, own = self.of(text, directory, base)
            assert ids_of is None or ids == ids_of(text), f"{what}: other tokens of {text!r}"
            other = theirs(ids)
            assert own.shape == other.shape, (what, own.shape, other.shape)
            top = other.abs().max().item()
            worst = max(worst, (own - other).abs().max().item() / top)
            largest, tokens = max(largest, top), tokens + len(ids)
        print(f"{what}: {tokens} tokens, {worst:.1e} off of the largest logit ({largest:.1f})")
        assert worst < tolerance, what
