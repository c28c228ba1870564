"""DVC: each target a stage."""

import json
import subprocess

from common import install

from .base import Peer, make_directories


class Dvc(Peer):
    name = "DVC"
    most = 100

    def install(self):
        self.program = install.pip("dvc", "dvc")

    def version(self):
        return "DVC " + install.version(self.program, "--version")

    def source(self, root, target):
        return root / "src" / target.flat

    def output(self, root, target):
        return root / "o" / target.flat

    def init(self, root):
        subprocess.run([self.program, "init", "--no-scm", "-q"], cwd=root, check=True, capture_output=True)

    def write(self, targets, root):
        make_directories(self, targets, root)
        self.init(root)
        stages = {}
        for t in targets:
            files = [f"src/{t.flat}", *(f"o/{n.replace('/', '-')}" for n in t.needs)]
            stages[t.flat] = {"cmd": f"head -qc 32 {' '.join(files)} > o/{t.flat}", "deps": files, "outs": [f"o/{t.flat}"]}
        # YAML holds JSON.
        (root / "dvc.yaml").write_text(json.dumps({"stages": stages}))

    def argv(self, root):
        return [self.program, "repro", "-q"]
