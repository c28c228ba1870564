"""Where peers come from: the ordinary clients, into benches/.peers, with whatever index the machine has set."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent / ".peers"


class NotHere(Exception):
    """A peer that cannot be had here, and why."""


def _call(argv, cwd=None, env=None):
    HOME.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(argv, cwd=cwd or HOME, env=env, capture_output=True, text=True, timeout=900)
    except FileNotFoundError:
        raise NotHere(f"there is no {argv[0]}") from None
    except subprocess.TimeoutExpired:
        raise NotHere(f"`{' '.join(argv)}` took more than 15 minutes") from None
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no word why"]
        raise NotHere(f"`{' '.join(map(str, argv))}` failed: {last[0][:160]}")
    return done.stdout


def pip(package, program):
    """A program of a Python package, in a virtual environment of its own."""
    venv = HOME / f"pip-{package}"
    path = venv / "bin" / program
    if not path.exists():
        _call([sys.executable, "-m", "venv", str(venv)])
        _call([str(venv / "bin/pip"), "install", "-q", package])
    return path


def npm(package, program):
    """A program that a package of npm brings, by its path below node_modules."""
    path = HOME / "npm" / "node_modules" / program
    if not path.exists():
        (HOME / "npm").mkdir(parents=True, exist_ok=True)
        _call(["npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", str(HOME / "npm"), package])
    if not path.exists():
        raise NotHere(f"the npm package {package} has no {program} for this machine")
    return path


def cargo(crate, *options):
    """A program of a crate."""
    path = HOME / "cargo/bin" / crate
    if not path.exists():
        _call(["cargo", "install", "-q", "--locked", "--root", str(HOME / "cargo"), *options, crate])
    return path


def apt(program, *packages):
    """A program of Debian packages, unpacked beside, without installing them."""
    root = HOME / "apt"
    path = root / "usr/bin" / program
    if not path.exists():
        downloads = HOME / "apt-archives"
        downloads.mkdir(parents=True, exist_ok=True)
        for package in packages:
            _call(["apt-get", "download", package], cwd=downloads)
        for archive in downloads.glob("*.deb"):
            _call(["dpkg", "-x", str(archive), str(root)])
    return path


def system(program):
    """A program of the machine."""
    path = shutil.which(program)
    if path is None:
        raise NotHere(f"there is no {program} on this machine")
    return Path(path)


def version(*argv, env=None):
    """The first line a program says of its version."""
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, env=dict(os.environ) | (env or {}), timeout=120)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if any(c.isdigit() for c in line)]
    return lines[0].strip() if lines else "unknown"
