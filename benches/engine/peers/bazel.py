"""Bazel with a warm server: the last one that npm has with its program inside."""

import subprocess
from pathlib import Path

from common import install

from .base import Peer


class Bazel(Peer):
    name = "Bazel (warm server)"
    most = 1_000

    def install(self):
        self.program = install.npm("@bazel/bazel-linux_x64", "@bazel/bazel-linux_x64/bazel-2.1.0-linux-x86_64")

    def version(self):
        return "Bazel 2.1.0 (npm)"

    def source(self, root, target):
        return root / "src" / target.flat

    def output(self, root, target):
        return root / "bazel-bin" / "o" / target.flat

    def write(self, targets, root):
        (root / "WORKSPACE").write_text('workspace(name = "bench")\n')
        lines = []
        for t in targets:
            srcs = ", ".join(f'"{s}"' for s in [f"src/{t.flat}", *(f"o/{n.replace('/', '-')}" for n in t.needs)])
            lines.append(
                f'genrule(name = "t-{t.flat}", srcs = [{srcs}], outs = ["o/{t.flat}"], cmd = "head -qc 32 $(SRCS) > $@")'
            )
        (root / "BUILD").write_text("\n".join(lines) + "\n")

    def start(self, root, *words):
        base = root.parent / (root.name + ".bazel")
        return [self.program, "--noworkspace_rc", "--nosystem_rc", "--nohome_rc", f"--output_user_root={base}", *words]

    def argv(self, root):
        return self.start(
            root, "build", "--jobs=2", "--noshow_progress", f"--disk_cache={root}.disk", "//:all"
        )

    def daemons(self, root):
        pids = Path(f"{root}.bazel").glob("*/server/server.pid.txt")
        return [int(path.read_text()) for path in pids]

    def settle(self, root):
        if root.exists():
            subprocess.run(list(map(str, self.start(root, "shutdown"))), cwd=root, capture_output=True)
