"""Switching git branches and back: every input is another and then what it was, with new times."""

import subprocess

from common.measure import Command

from ..graph import layered, source_text
from ..peers.effai import Effai, counted
from .base import Case, Row, absent, clean, expect, grain

SWITCH = "git checkout -q other{run} && git checkout -q main{run}"


def git(root, *words):
    subprocess.run(["git", "-c", "user.name=b", "-c", "user.email=b@b", *words], cwd=root, check=True, capture_output=True)


def effai(ctx, root, targets):
    peer = ctx.peer("effai")

    def prepare():
        clean(root)
        root.mkdir(parents=True)
        peer.lay(targets, root)
        (root / ".gitignore").write_text(".cache\n.effai\nout\n")
        git(root, "init", "-q", "-b", "main")
        git(root, "add", "-A")
        git(root, "commit", "-qm", "main")
        git(root, "checkout", "-q", "-b", "other")
        for target in targets:
            peer.source(root, target).write_text(source_text(target, 1))
        git(root, "commit", "-qam", "other")
        git(root, "checkout", "-q", "main")
        grain()
        ctx.run(peer.build(root))
        grain()
        ctx.run(peer.build(root))

    def after(_, cost):
        expect("commands run", counted(cost.text, "built"), 0)
        return "there, back and `effai build`; nothing ran"

    script = f"{SWITCH.format(run='')} && exec {Effai.program} build"
    command = lambda: Command(["sh", "-c", script], root, peer.env(root))
    return Case("effai", command, prepare, lambda _: grain(), after)


def bare(ctx, root):
    """After effai's, in its directory."""
    return Case("git checkout alone", lambda: Command(["sh", "-c", SWITCH.format(run="")], root), after=lambda *_: "there and back")


def dvc(ctx, root, targets):
    """The sources tracked as one directory; each checkout of git is followed by DVC's."""
    peer = ctx.peer("DVC")

    def prepare():
        clean(root)
        root.mkdir(parents=True)
        git(root, "init", "-q", "-b", "main")
        subprocess.run([peer.program, "init", "-q"], cwd=root, check=True, capture_output=True)
        for version, branch in enumerate(("main", "other")):
            if version:
                git(root, "checkout", "-q", "-b", branch)
            for target in targets:
                path = root / "data" / target.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(source_text(target, version))
            ctx.run(Command([peer.program, "add", "-q", "data"], root))
            git(root, "add", "-A")
            git(root, "commit", "-qm", branch)
        git(root, "checkout", "-q", "main")
        ctx.run(Command([peer.program, "checkout", "-q"], root))

    def after(*_):
        first = targets[0]
        expect("data", (root / "data" / first.name).read_text(), source_text(first))
        return "`dvc checkout` after each"

    script = SWITCH.format(run=f" && {peer.program} checkout -q")
    return Case("DVC", lambda: Command(["sh", "-c", script], root), prepare, after=after, rounds_max=3)


def switch(ctx):
    targets = layered(ctx.scaled(10_000))
    base = ctx.fresh("switch")
    return [
        effai(ctx, base / "effai", targets),
        bare(ctx, base / "effai"),
        absent("DVC", ctx.lacks("DVC")) if ctx.lacks("DVC") else dvc(ctx, base / "dvc", targets),
    ]


ROWS = [
    Row(
        "switch", "Switch git branches and back, 10,000 inputs", switch, 5,
        "nothing runs; ten times quicker than DVC checkout", [("DVC", 0.1)],
    )
]
