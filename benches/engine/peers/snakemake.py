"""Snakemake: one rule for all, its inputs by a table."""

import json

from common import install

from .base import Peer, make_directories

RULES = """\
import json
graph = json.load(open("graph.json"))

rule all:
    input: list(graph)

rule t:
    input: lambda w: graph["o/" + w.name]
    output: "o/{name}"
    shell: "head -qc 32 {input} > {output}"
"""


class Snakemake(Peer):
    name = "Snakemake"
    most = 100

    def install(self):
        self.program = install.pip("snakemake", "snakemake")

    def version(self):
        return "Snakemake " + install.version(self.program, "--version")

    def source(self, root, target):
        return root / "src" / target.flat

    def output(self, root, target):
        return root / "o" / target.flat

    def write(self, targets, root):
        make_directories(self, targets, root)
        table = {f"o/{t.flat}": [f"src/{t.flat}", *(f"o/{n.replace('/', '-')}" for n in t.needs)] for t in targets}
        (root / "graph.json").write_text(json.dumps(table))
        (root / "Snakefile").write_text(RULES)

    def argv(self, root):
        return [self.program, "-c2", "-q", "all"]

    def env(self, root):
        return {"XDG_CACHE_HOME": root / ".cache"}
