"""The tools that are compared: one file each, and this list."""

from . import bazel, dvc, effai, make, moon, ninja, shake, snakemake, tup, turborepo
from .base import Peer

ALL = [
    effai.Effai(),
    ninja.Ninja(),
    make.Make(),
    tup.Tup(),
    shake.Shake(),
    bazel.Bazel(),
    turborepo.Turborepo(),
    moon.Moon(),
    dvc.Dvc(),
    snakemake.Snakemake(),
]

# Peers of the issue that no registry has: said in the table, not left out in silence.
NOT_HERE = {"n2": "not here: n2 is in no package registry (crates.io's and PyPI's `n2` are other programs)"}

__all__ = ["ALL", "NOT_HERE", "Peer"]
