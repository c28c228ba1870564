"""Rows about bytes: restoring many small files and a large one, hashing."""

import json
import os
import subprocess

from common import install
from common.measure import Command

from ..peers.effai import Effai, counted
from .base import Case, Row, absent, clean, expect, grain

MIB = 2**20


def small_files(directory, count, size=40, fan=1000):
    """Small files, a thousand to a directory."""
    for i in range(count):
        if i % fan == 0:
            (directory / f"d{i // fan:03}").mkdir(parents=True)
        text = f"{i:08} a small file\n".encode()
        (directory / f"d{i // fan:03}/{i:06}").write_bytes((text * (size // len(text) + 1))[:size])


def large_file(path, size):
    """A file whose mebibytes differ, for copying by whoever likes holes."""
    block = os.urandom(MIB - 8)
    with path.open("wb") as file:
        for i in range(size // MIB):
            file.write(i.to_bytes(8, "little") + block)


def counted_files(directory):
    return sum(len(files) for _, _, files in os.walk(directory))


def effai_project(ctx, root, recipe):
    root.mkdir(parents=True)
    (root / "effai.kdl").write_text('project "bench"\n' + recipe)
    return lambda *words: Command([Effai.program, *words], root, {"EFFAI_CACHE_DIR": root / ".cache"})


def effai_restore(ctx, root, source, holds):
    """One target that copies a directory outside the project; what it made is taken away and built again."""

    def prepare():
        clean(root)
        run = effai_project(ctx, root, f'command "data" {{ run "cp" "-r" "{source.name}" "data"; input "{source.name}"; output "data" }}\n')
        subprocess.run(["cp", "-r", source, root / source.name], check=True)
        grain()
        ctx.run(run("build"))
        grain()
        ctx.run(run("build"))

    def before(_):
        clean(root / "out")
        grain()

    def after(_, cost):
        expect("commands run", counted(cost.text, "built"), 0)
        return holds(root / "out/data/data")

    command = lambda: Command([Effai.program, "build"], root, {"EFFAI_CACHE_DIR": root / ".cache"})
    return Case("effai", command, prepare, before, after, lambda: clean(root))


def dvc_restore(ctx, root, source, holds, link):
    def prepare():
        clean(root)
        root.mkdir(parents=True)
        dvc = ctx.peer("DVC")
        dvc.init(root)
        subprocess.run([dvc.program, "config", "cache.type", link], cwd=root, check=True, capture_output=True)
        subprocess.run(["cp", "-r", source, root / "data"], check=True)
        ctx.run(Command([dvc.program, "add", "-q", "data"], root))

    def before(_):
        clean(root / "data")

    def after(_, cost):
        return holds(root / "data")

    command = lambda: Command([ctx.peer("DVC").program, "checkout", "-q"], root)
    return Case(f"DVC, by {link}", command, prepare, before, after, lambda: clean(root), rounds_max=3)


def bare(name, argv, root, holds):
    def before(_):
        clean(root)

    return Case(name, lambda: Command([*argv, root], root.parent), lambda: None, before, lambda *_: holds(root), lambda: clean(root))


def turborepo_restore(ctx, root, source, holds):
    """One package whose task makes the files."""
    peer = ctx.peer("Turborepo")

    def prepare():
        clean(root)
        package = root / "packages/data"
        package.mkdir(parents=True)
        (package / "package.json").write_text(
            json.dumps({"name": "data", "version": "1.0.0", "scripts": {"build": f"cp -r {source} data"}})
        )
        (package / "src").write_text("x\n")
        lock = {"packages/data": {"version": "1.0.0"}, "node_modules/data": {"resolved": "packages/data", "link": True}}
        packages = {"": {"workspaces": ["packages/*"]}} | lock
        (root / "package-lock.json").write_text(json.dumps({"name": "bench", "lockfileVersion": 3, "packages": packages}))
        peer.workspace(root, ["data/**"])
        ctx.run(peer.build(root))

    def before(_):
        clean(root / "packages/data/data")

    return Case("Turborepo", lambda: peer.build(root), prepare, before, lambda *_: holds(root / "packages/data/data"), lambda: clean(root), rounds_max=3)


def bazel_restore(ctx, root, source, holds, count):
    """One rule with as many outputs, from the disk cache after `bazel clean`."""
    peer = ctx.peer("Bazel (warm server)")

    def prepare():
        finish()
        root.mkdir(parents=True)
        (root / "WORKSPACE").write_text('workspace(name = "bench")\n')
        names = sorted(str(p.relative_to(source)) for p in source.rglob("*") if p.is_file())
        outs = ", ".join(f'"data/{n}"' for n in names)
        (root / "BUILD").write_text(f'genrule(name = "data", outs = [{outs}], cmd = "cp -r {source}/. $(RULEDIR)/data")\n')
        ctx.run(peer.build(root))

    def before(_):
        ctx.run(Command(peer.start(root, "clean"), root))

    def after(*_):
        return holds(root / "bazel-bin/data")

    def finish():
        peer.settle(root)
        for path in (root, *root.parent.glob(root.name + ".*")):
            if path.exists():
                subprocess.run(["chmod", "-R", "u+w", path], capture_output=True)
            clean(path)

    return Case("Bazel (warm server)", lambda: peer.build(root), prepare, before, after, finish, rounds_max=3)


def guarded(ctx, name, make):
    """A case of a peer, or why there is none."""
    why = ctx.lacks(name)
    return absent(name, why) if why else make()


def restore_small(ctx):
    count = ctx.scaled(10_000)
    base = ctx.fresh("restore-small")
    source = base / "source"
    small_files(source, count)
    size = sum(p.stat().st_size for p in source.rglob("*") if p.is_file())

    def holds(directory):
        expect("files", counted_files(directory), count)
        return f"{count} files, {size >> 10} KiB"

    return [
        effai_restore(ctx, base / "effai", source, holds),
        bare("a loop of links (cp -rl)", ["cp", "-rl", source], base / "links", holds),
        bare("a loop of copies (cp -r)", ["cp", "-r", source], base / "copies", holds),
        *(
            guarded(ctx, "DVC", lambda link=link: dvc_restore(ctx, base / f"dvc-{link}", source, holds, link))
            for link in ("hardlink", "copy")
        ),
        guarded(ctx, "Turborepo", lambda: turborepo_restore(ctx, base / "turborepo", source, holds)),
        guarded(ctx, "Bazel (warm server)", lambda: bazel_restore(ctx, base / "bazel", source, holds, count)),
    ]


def restore_large(ctx):
    size = ctx.scaled(4096) * MIB
    base = ctx.fresh("restore-large")
    source = base / "source"
    large_file(source, size)

    def holds(path):
        expect("bytes", path.stat().st_size, size)
        linked = path.stat().st_nlink > 1
        return f"{size / 2**30:.2f} GiB, {'a link' if linked else 'a copy or clone'}"

    return [
        effai_restore(ctx, base / "effai", source, holds),
        bare("ln", ["ln", source], base / "link", holds),
        bare("cp", ["cp", source], base / "copy", holds),
        guarded(ctx, "DVC", lambda: dvc_restore(ctx, base / "dvc-hardlink", source, holds, "hardlink")),
    ]


def effai_hash(ctx, root, pattern):
    """`effai status` of a target that was never built reads all its files, every time."""

    def after(_, cost):
        expect("targets", "1 stale" in cost.text, True)
        return "status of a target never built"

    command = lambda: Command([Effai.program, "status"], root, {"EFFAI_CACHE_DIR": root / ".cache"})
    recipe = f'command "x" {{ run "true"; input "{pattern}"; output "o" }}\n'

    def prepare():
        (root / "effai.kdl").write_text('project "bench"\n' + recipe)
        ctx.run(command())

    return Case("effai", command, prepare, after=after)


def b3sum(ctx, root, script):
    program = ctx.b3sum()
    if isinstance(program, str):
        return absent("b3sum", program)
    return Case("b3sum", lambda: Command(["sh", "-c", script.format(program)], root))


def hash_large(ctx):
    root = ctx.fresh("hash-large")
    large_file(root / "large", ctx.scaled(8192) * MIB)
    return [effai_hash(ctx, root, "large"), b3sum(ctx, root, "{} large")]


def hash_small(ctx):
    root = ctx.fresh("hash-small")
    small_files(root / "files", ctx.scaled(100_000), 4096)
    list_all = "find files -type f -print0 | xargs -0 -n 20000 {}"
    return [effai_hash(ctx, root, "files"), b3sum(ctx, root, list_all)]


ROWS = [
    Row(
        "restore-small", "Restore 10,000 small files", restore_small, 5, "ahead of DVC, Bazel, Turborepo; aim 1.3 x links",
        [("DVC, by hardlink", 1), ("DVC, by copy", 1), ("Turborepo", 1), ("Bazel (warm server)", 1)],
    ),
    Row("restore-large", "Restore one file of 4 GiB", restore_large, 5, "a link or a clone, no copy", [("cp", 0.1)]),
    Row("hash-large", "Hash 8 GiB in one file", hash_large, 3, "0.9 x b3sum's speed, aim b3sum", [("b3sum", 1 / 0.9)]),
    Row("hash-small", "Hash 100,000 files of 4 KiB", hash_small, 5, "0.9 x b3sum's speed, aim b3sum", [("b3sum", 1 / 0.9)]),
]
