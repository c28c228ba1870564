"""What was measured on."""

import os
import platform
import subprocess
from pathlib import Path


def describe(directory):
    """One line of the machine: processor, cores, memory, kernel, file system of a directory."""
    cpu = next((line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), platform.processor())
    memory = next((int(line.split()[1]) // 2**20 for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    kind = subprocess.run(["stat", "-f", "-c", "%T", str(directory)], capture_output=True, text=True).stdout.strip()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cpu}, {cores} cores, {memory} GiB, {platform.system()} {platform.release()}, {kind}"


def load():
    """How many processes wanted to run in the last minute."""
    return round(os.getloadavg()[0], 1)


def _lines(path):
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
