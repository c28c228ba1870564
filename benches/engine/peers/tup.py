"""tup, from Debian's package, unpacked beside."""

import os
import subprocess

from common import install

from .base import Peer, make_directories


class Tup(Peer):
    name = "tup"
    most = 10_000

    def install(self):
        self.program = install.apt("tup", "tup", "libfuse3-3", "fuse3", "libpcre3")

    def version(self):
        return install.version(self.program, "--version", env=self.env(None))

    def env(self, root):
        # Its libraries lie beside it.
        lib = install.HOME / "apt"
        path = f"{lib}/bin:{lib}/usr/bin:/usr/bin:/bin"
        return {"PATH": path, "LD_LIBRARY_PATH": f"{lib}/usr/lib/x86_64-linux-gnu:{lib}/lib/x86_64-linux-gnu"}

    def write(self, targets, root):
        make_directories(self, targets, root)
        lines = []
        for t in targets:
            files = " ".join([f"src/{t.name}", *(f"o/{n}" for n in t.needs)])
            lines.append(f": {files} |> head -qc 32 {files} > o/{t.name} |> o/{t.name}")
        (root / "Tupfile").write_text("\n".join(lines) + "\n")
        subprocess.run([self.program, "init"], cwd=root, env=self.env(root), check=True, capture_output=True)

    def settle(self, root):
        # A run that was stopped leaves its file system mounted.
        if os.path.lexists(root / ".tup/mnt"):
            subprocess.run(["umount", "-l", root / ".tup/mnt"], capture_output=True)

    def argv(self, root):
        return [self.program, "-j2"]
