"""What hooks cost whoever commits and checks out."""

import subprocess

from common.measure import Command

from ..graph import layered
from ..peers.effai import Effai
from .base import Case, Row, absent, clean, expect, grain
from .switch import git

COMMITTED = 200
RESTORED = 1_000
MIB = 2**20


def start(root):
    clean(root)
    root.mkdir(parents=True)
    (root / ".gitignore").write_text(".cache\n.effai\nout\ndata\n/data\n")
    git(root, "init", "-q", "-b", "main")


def commit(root, title):
    git(root, "add", "-A")
    # What hooks do is measured, not prepared.
    git(root, "commit", "-qnm", title)


def with_effai(root, env):
    """git finds this effai: hooks look for it on the search path."""
    return env | {"PATH": f"{Effai.program.parent}:/usr/bin:/bin"}


def effai_commit(ctx, root, targets):
    peer = ctx.peer("effai")

    def prepare():
        start(root)
        peer.lay(targets, root)
        (root / ".gitignore").write_text(".cache\n.effai\nout\n")
        ctx.run(Command([Effai.program, "build", "--lock"], root, peer.env(root)))
        ctx.run(Command([Effai.program, "hooks", "install", "pre-commit"], root, peer.env(root)))
        commit(root, "main")
        grain()

    def after(_, cost):
        expect("what it says", cost.text, "")
        return "recipes and lock are as they should be"

    command = lambda: Command([root / ".git/hooks/pre-commit"], root, with_effai(root, peer.env(root)))
    return Case("effai", command, prepare, lambda _: grain(), after)


def dvc_commit(ctx, root, targets):
    """DVC's own hook, which says what is not as its lock has it."""
    peer = ctx.peer("DVC")

    def prepare():
        start(root)
        subprocess.run([peer.program, "init", "-q"], cwd=root, check=True, capture_output=True)
        peer.init = lambda _: None
        peer.lay(targets, root)
        del peer.init
        ctx.run(peer.build(root))
        subprocess.run([peer.program, "install"], cwd=root, check=True, capture_output=True)
        commit(root, "main")

    path = {"PATH": f"{peer.program.parent}:/usr/bin:/bin"}
    return Case("DVC", lambda: Command([root / ".git/hooks/pre-commit"], root, path), prepare, rounds_max=3)


def bare_commit(root):
    """After effai's, in its directory."""
    return Case("sh that does nothing", lambda: Command(["sh", "-c", ":"], root))


def pre_commit(ctx):
    base = ctx.fresh("pre-commit")
    targets = layered(ctx.scaled(COMMITTED))
    few = layered(min(ctx.scaled(COMMITTED), 100))
    return [
        effai_commit(ctx, base / "effai", targets),
        bare_commit(base / "effai"),
        absent("DVC", ctx.lacks("DVC")) if ctx.lacks("DVC") else dvc_commit(ctx, base / "dvc", few),
    ]


def other(number):
    """Every round goes to the other branch."""
    return ("other", "main")[number % 2]


def effai_checkout(ctx, root, count):
    """Each file the artifact of a target; both branches' are in the store."""
    peer = ctx.peer("effai")
    state = {}

    def prepare():
        start(root)
        for branch in ("main", "other"):
            if branch != "main":
                git(root, "checkout", "-q", "-b", branch)
            run = f"yes {branch}$N | head -c {MIB} > data"
            lines = [f'command "a{i}" {{ run "sh" "-c" "{run}"; output "data"; env {{ N "{i}"; }}; }}' for i in range(count)]
            (root / "effai.kdl").write_text("\n".join(lines) + "\n")
            ctx.run(Command([Effai.program, "build", "--lock"], root, peer.env(root)))
            commit(root, branch)
        ctx.run(Command([Effai.program, "hooks", "install", "post-checkout"], root, peer.env(root)))
        git(root, "config", "effai.checkout", "foreground")

    def before(number):
        state["branch"] = other(number)
        grain()

    def command():
        return Command(["git", "checkout", "-q", state["branch"]], root, with_effai(root, peer.env(root)))

    def after(*_):
        for i in (0, count - 1):
            text = (root / f"out/a{i}/data").read_text()
            expect("the first line", text.split("\n", 1)[0], f"{state['branch']}{i}")
            expect("its size", len(text), MIB)
        return "the hook is installed and waits for the files"

    return Case("effai", command, prepare, before, after, lambda: clean(root))


def dvc_checkout(ctx, root, count, link):
    """Its own hook, and one directory of as many files."""
    peer = ctx.peer("DVC")
    state = {}
    path = {"PATH": f"{peer.program.parent}:/usr/bin:/bin"}

    def prepare():
        start(root)
        (root / ".gitignore").write_text("/data\n")
        subprocess.run([peer.program, "init", "-q"], cwd=root, check=True, capture_output=True)
        subprocess.run([peer.program, "config", "cache.type", link], cwd=root, check=True, capture_output=True)
        for branch in ("main", "other"):
            if branch != "main":
                git(root, "checkout", "-q", "-b", branch)
            clean(root / "data")
            (root / "data").mkdir()
            for i in range(count):
                line = f"{branch}{i}\n"
                (root / "data" / f"a{i}").write_text((line * (MIB // len(line) + 1))[:MIB])
            ctx.run(Command([peer.program, "add", "-q", "data"], root))
            commit(root, branch)
        subprocess.run([peer.program, "install"], cwd=root, check=True, capture_output=True)
        for branch in ("main", "other"):
            ctx.run(Command(["git", "checkout", "-q", branch], root, path))

    def before(number):
        state["branch"] = other(number + 1)

    def after(*_):
        expect("the first line", (root / "data/a0").read_text().split("\n", 1)[0], f"{state['branch']}0")
        return ""

    command = lambda: Command(["git", "checkout", "-q", state["branch"]], root, path)
    return Case(f"DVC, by {link}", command, prepare, before, after, lambda: clean(root), rounds_max=3)


def post_checkout(ctx):
    base = ctx.fresh("post-checkout")
    count = ctx.scaled(RESTORED)
    lacks = ctx.lacks("DVC")
    links = ("hardlink", "copy")
    return [
        effai_checkout(ctx, base / "effai", count),
        *(absent(f"DVC, by {link}", lacks) if lacks else dvc_checkout(ctx, base / f"dvc-{link}", count, link) for link in links),
    ]


ROWS = [
    Row("pre-commit", f"The pre-commit hook with nothing to do, {COMMITTED} targets", pre_commit, 9, "10 ms at most, 5 aimed"),
    Row(
        "post-checkout", f"git checkout, and its hook restores {RESTORED:,} artifacts of 1 MiB", post_checkout, 5,
        "ten times quicker than DVC's", [("DVC, by hardlink", 0.1)],
    ),
]
