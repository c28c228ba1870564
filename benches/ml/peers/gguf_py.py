"""The package `gguf`, which rounds by NumPy."""

import gguf
import numpy
from peers.serve import directory, serve


def rounded(form):
    values = numpy.load(directory() / "square.npy")
    kind = gguf.GGMLQuantizationType[form]
    return lambda: gguf.quants.quantize(values, kind).size


serve({form: lambda form=form: rounded(form) for form in ("Q4_0", "Q8_0")})
