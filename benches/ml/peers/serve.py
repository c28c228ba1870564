"""A peer's side of a measurement: prepare, say `ready`, then do the work once for each line on standard input."""

import json
import os
import sys
from pathlib import Path

THREADS = 2


def directory():
    """Where the model lies that all sides read."""
    return Path(sys.argv[2])


def ids():
    return json.loads((directory() / "ids.json").read_text())


def serve(works):
    """Runs the work that the command line names; each gives a function that does it and returns a number."""
    os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))
    step = works[sys.argv[1]]()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(float(step()), flush=True)
