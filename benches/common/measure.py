"""Runs commands and measures them: wall time, user and system time of the whole process tree, peak memory."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


class Wrong(Exception):
    """A command failed, or did not do what its row says."""


@dataclass
class Command:
    """What is to be run."""

    argv: list
    cwd: Path
    env: dict = field(default_factory=dict)
    # Processes that work for it and outlive it.
    daemons: list = field(default_factory=list)


@dataclass
class Cost:
    """What a command cost: seconds, and the peak memory of its largest process in KiB."""

    wall_s: float
    cpu_s: float
    peak_kib: int
    text: str = ""


def environment(more):
    """A small environment, the same for everybody; no tool phones home."""
    keep = {k: os.environ[k] for k in ("HOME", "PATH", "LANG", "USER") if k in os.environ}
    quiet = {"DO_NOT_TRACK": "1", "DVC_NO_ANALYTICS": "1", "TURBO_TELEMETRY_DISABLED": "1", "MOON_TOOLCHAIN_FORCE_GLOBALS": "1"}
    return keep | quiet | {k: str(v) for k, v in more.items()}


def daemon_cpu(pids):
    """CPU seconds of these processes and of the children they waited for."""
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except FileNotFoundError:
            continue
        total += sum(int(n) for n in fields[11:15]) / TICK
    return total


class Starter:
    """Where measured commands start: see starter.py."""

    def __init__(self, work):
        self.output = work / "output.txt"
        script = Path(__file__).with_name("starter.py")
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, command):
        """Runs a command to its end. One that fails is `Wrong`."""
        env = environment(command.env)
        program = shutil.which(str(command.argv[0]), path=env["PATH"])
        if program is None:
            raise Wrong(f"{command.argv[0]} is not here")
        argv = [program, *map(str, command.argv[1:])]
        before = daemon_cpu(command.daemons)
        request = {"argv": argv, "cwd": str(command.cwd), "env": env, "stdout": str(self.output)}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline() or '{"failed": "the starter ended"}')
        if "failed" in answer:
            raise Wrong(f"{command.argv[0]}: {answer['failed']}")
        text = self.output.read_text(errors="replace")
        if answer["code"] != 0:
            raise Wrong(f"`{' '.join(argv)[:200]}` ended with {answer['code']}: {text[-600:].strip()}")
        cpu = answer["cpu_s"] + daemon_cpu(command.daemons) - before
        return Cost(answer["wall_s"], cpu, answer["peak_kib"], text)

    def close(self):
        self.process.stdin.close()
        self.process.wait()
