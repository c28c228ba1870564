"""ninja, of the Python package index."""

from common import install

from .base import Peer


class Ninja(Peer):
    name = "ninja"

    def install(self):
        self.program = install.pip("ninja", "ninja")

    def version(self):
        return "ninja " + install.version(self.program, "--version")

    def write(self, targets, root):
        lines = ["rule t", "  command = head -qc 32 $in > $out"]
        lines += [f"build o/{t.name}: t src/{t.name} {' '.join(f'o/{n}' for n in t.needs)}".rstrip() for t in targets]
        (root / "build.ninja").write_text("\n".join(lines) + "\n")

    def argv(self, root):
        return [self.program, "-j2"]
