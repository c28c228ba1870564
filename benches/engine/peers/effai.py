"""effai itself, a release build of this tree unless another program is named."""

import re
from pathlib import Path

from common import install

from .base import Peer

HERE = Path(__file__).resolve().parents[3]


class Effai(Peer):
    name = "effai"
    program = HERE / "target/release/effai"

    def install(self):
        if not self.program.exists():
            raise install.NotHere(f"not here: no {self.program.name} in target/release: `cargo build --release` makes it")

    def version(self):
        return install.version(self.program, "--version")

    def env(self, root):
        return {"EFFAI_CACHE_DIR": root / ".cache"}

    def output(self, root, target):
        return root / "out" / target.name / "o"

    def write(self, targets, root):
        lines = ['project "bench"']
        for t in targets:
            parts = " ".join([f"src/{t.name}", *(f"{n}/o" for n in t.needs)])
            needs = "".join(f'; needs "{n}"' for n in t.needs)
            lines.append(
                f'command "{t.name}" {{ run "sh" "-c" "head -qc 32 {parts} > o"; input "src/{t.name}"{needs}; output "o" }}'
            )
        (root / "effai.kdl").write_text("\n".join(lines) + "\n")

    def argv(self, root):
        return [self.program, "build", "-j", "2"]

    def ran(self, text, before, after):
        return counted(text, "built")


def counted(text, word):
    """A number of the line that ends a build: `3 built, 9997 fresh`."""
    found = re.search(rf"([\d,]+) {word}", text)
    return int(found.group(1).replace(",", "")) if found else 0
