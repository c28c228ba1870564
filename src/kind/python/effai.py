"""Tells effai how a script is getting on: progress, numbers, lines.

Where effai does not run the script, nothing happens: it runs by hand as it is.
"""

import json
import math
import os
import pathlib
import stat
import time

__all__ = ["checkpoint", "log", "metric", "progress", "warning"]

_PROGRESS_EVERY_SECONDS = 0.05
_last_progress = -math.inf


def metric(name, value, step=None):
    """Keeps a number with the action; with a step it is a point of a curve."""
    value = float(value)
    if not math.isfinite(value):
        at = "" if step is None else " at step {}".format(step)
        return warning("{}{} is {}, which is not kept".format(name, at, value))
    _say({"event": "metric", "name": str(name), "step": None if step is None else int(step), "value": value})


def progress(done, total=None, what="", unit="steps"):
    """Shows how far the script is."""
    global _last_progress
    now = time.monotonic()
    if now - _last_progress < _PROGRESS_EVERY_SECONDS and done != total:
        return
    _last_progress = now
    total = None if total is None else int(total)
    _say({"event": "progress", "what": str(what), "done": int(done), "total": total, "unit": str(unit)})


def checkpoint():
    """The directory of what the script keeps of its work (`checkpoint` in the recipe), or None where it has none.

    What lies there is there again when the script is run again after it was killed or failed. It may be killed at any
    instant: write beside, and `replace` then.
    """
    path = os.environ.get("EFFAI_CHECKPOINT")
    return None if path is None else pathlib.Path(path)


def log(text):
    """A line for whoever follows the action (`effai build -v`)."""
    _say({"event": "log", "text": str(text)})


def warning(text, help=None):
    """Something the user should know although the script goes on."""
    _say({"event": "warning", "text": str(text), "help": None if help is None else str(help)})


def _pipe():
    """The descriptor that takes events, or none.

    A process that this one starts has its variables and may have another file at that number, so the pipe's own
    number is kept in a variable too, and has to agree.
    """
    try:
        descriptor = int(os.environ["EFFAI_EVENTS"])
        status = os.fstat(descriptor)
    except (KeyError, OSError, ValueError):
        return None
    if not stat.S_ISFIFO(status.st_mode):
        return None
    pipe = "{}:{}".format(status.st_dev, status.st_ino)
    return descriptor if os.environ.setdefault("EFFAI_EVENTS_PIPE", pipe) == pipe else None


_descriptor = _pipe()


def _say(event):
    if _descriptor is None:
        return
    line = json.dumps(event) + "\n"
    try:
        # One write: lines of several processes do not mix.
        os.write(_descriptor, line.encode())
    except OSError:
        # If effai is gone, so is the reason to speak.
        pass
