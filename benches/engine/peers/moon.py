"""moon: each target a project with one task."""

import json
import subprocess

from common import install

from .base import Peer


class Moon(Peer):
    name = "moon"
    most = 100

    def install(self):
        install.npm("@moonrepo/cli", "@moonrepo/cli/moon.js")
        self.program = install.npm("@moonrepo/cli", "@moonrepo/core-linux-x64-gnu/moon")

    def version(self):
        return install.version(self.program, "--version")

    def source(self, root, target):
        return root / "packages" / target.flat / "src"

    def output(self, root, target):
        return root / "packages" / target.flat / "o"

    def write(self, targets, root):
        (root / ".moon").mkdir()
        (root / ".moon/workspace.yml").write_text(json.dumps({"projects": ["packages/*"], "telemetry": False}))
        (root / ".gitignore").write_text(".moon/cache\npackages/*/o\n")
        for t in targets:
            needs = [n.replace("/", "-") for n in t.needs]
            files = " ".join(["src", *(f"../{n}/o" for n in needs)])
            task = {
                "script": f"head -qc 32 {files} > o",
                "inputs": ["src", *(f"/packages/{n}/o" for n in needs)],
                "outputs": ["o"],
                "deps": [f"{n}:build" for n in needs],
                "toolchain": "system",
            }
            (root / "packages" / t.flat / "moon.yml").write_text(json.dumps({"tasks": {"build": task}}))
        for argv in (["init", "-q"], ["add", "-A"], ["-c", "user.name=b", "-c", "user.email=b@b", "commit", "-qm", "b"]):
            subprocess.run(["git", *argv], cwd=root, check=True, capture_output=True)

    def argv(self, root):
        return [self.program, "run", ":build", "--concurrency", "2", "--quiet"]
