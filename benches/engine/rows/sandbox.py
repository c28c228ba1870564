"""What it costs to hold a program to what it declares, beside starting it and nothing else."""

import json
import statistics
import subprocess

from common.measure import Command

from ..peers.effai import Effai, counted
from .base import Case, Row, absent, clean, expect

COUNT = 200

# A program's own work: as little as leaves a file.
PROGRAM = "touch"


class Bare:
    """The same programs by fork and exec alone; what the others take above it is told."""

    def __init__(self, ctx, count):
        self.count = count
        self.root = ctx.fresh("sandbox") / "bare"
        self.root.mkdir()
        self.walls = []
        self.others = {}

    def case(self):
        def after(_, cost):
            self.walls.append(cost.wall_s)
            return f"{1e3 * statistics.median(self.walls) / self.count:.2f} ms each"

        return Case("fork and exec", lambda: loop(self.count, self.root, f"/usr/bin/{PROGRAM} o"), after=after)

    def above(self, name, cost, count):
        """A remark: how much longer each took than by fork and exec, by the medians so far."""
        walls = self.others.setdefault(name, [])
        walls.append(cost.wall_s)
        if not self.walls:
            return ""
        each = statistics.median(walls) / count - statistics.median(self.walls) / self.count
        return f"{1e3 * each:.2f} ms each above fork and exec"


def loop(count, root, run):
    return Command(["sh", "-c", f"i=0; while [ $i -lt {count} ]; do {run} || exit; i=$((i+1)); done"], root)


def effai(ctx, bare, name, *options):
    """All of a cold build: recipes read, programs run one at a time, outputs hashed and kept, the record written."""
    peer = ctx.peer("effai")
    # One for each round, and none deleted before the end: ext4 is slow at making files where many were just deleted.
    roots = [bare.root.parent / name.replace(" ", "-")]

    def before(number):
        roots.append(roots[0] / str(number))
        roots[-1].mkdir(parents=True)
        lines = [f'command "a{i}" {{ run "{PROGRAM}" "o"; output "o"; env {{ N "{i}"; }}; }}' for i in range(bare.count)]
        (roots[-1] / "effai.kdl").write_text("\n".join(lines) + "\n")

    def after(_, cost):
        expect("commands run", counted(cost.text, "built"), bare.count)
        return bare.above(name, cost, bare.count)

    command = lambda: Command([Effai.program, "build", "-j", "1", *options], roots[-1], peer.env(roots[-1]))
    return Case(name, command, before=before, after=after, finish=lambda: clean(roots[0]))


def linux_sandbox(ctx, bare):
    """The program that Bazel starts each action by, by itself: it hashes and keeps nothing."""
    peer = ctx.peer("Bazel (warm server)")
    name = "Bazel's linux-sandbox alone"
    root = bare.root.parent / "linux-sandbox"
    state = {}

    def prepare():
        clean(root)
        root.mkdir()
        (root / "WORKSPACE").touch()
        # Its server brings the program along.
        subprocess.run([str(w) for w in peer.start(root, "version")], cwd=root, capture_output=True, check=True)
        peer.settle(root)
        base = root.parent / (root.name + ".bazel")
        state["program"] = next(path for path in base.rglob("linux-sandbox") if path.is_file())

    def command():
        return loop(bare.count, root, f"{state['program']} -W {root} -w {root} -- /usr/bin/{PROGRAM} o")

    return Case(name, command, prepare, after=lambda _, cost: bare.above(name, cost, bare.count))


def dvc(ctx, bare):
    """Each program a stage, which is held to nothing."""
    peer = ctx.peer("DVC")
    name = "DVC's stage, not sandboxed"
    root = bare.root.parent / "dvc"
    count = max(1, bare.count // 10)

    def before(_):
        clean(root)
        root.mkdir()
        peer.init(root)
        stages = {f"a{i}": {"cmd": f"{PROGRAM} o{i}", "outs": [f"o{i}"]} for i in range(count)}
        (root / "dvc.yaml").write_text(json.dumps({"stages": stages}))

    def after(_, cost):
        expect("outputs there", all((root / f"o{i}").exists() for i in range(count)), True)
        return bare.above(name, cost, count) + f", of {count}"

    return Case(name, lambda: peer.build(root), before=before, after=after, rounds_max=3)


def sandbox(ctx):
    bare = Bare(ctx, ctx.scaled(COUNT))
    lacks = {peer: ctx.lacks(peer) for peer in ("Bazel (warm server)", "DVC")}
    return [
        bare.case(),
        effai(ctx, bare, "effai"),
        effai(ctx, bare, "effai --sandbox off", "--sandbox", "off"),
        absent("Bazel's linux-sandbox alone", lacks["Bazel (warm server)"])
        if lacks["Bazel (warm server)"]
        else linux_sandbox(ctx, bare),
        absent("DVC's stage, not sandboxed", lacks["DVC"]) if lacks["DVC"] else dvc(ctx, bare),
    ]


ROWS = [
    Row(
        "sandbox", f"{COUNT} programs that do nothing, one after the other, each held to what it declares", sandbox, 7,
        "no more than Bazel's linux-sandbox alone", [("Bazel's linux-sandbox alone", 1.0)],
    )
]
