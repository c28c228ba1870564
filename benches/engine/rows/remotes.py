"""Artifacts to an S3 server on loopback and back, beside that service's own client."""

import os
import shutil
import socket
import subprocess
import time

from common import install
from common.measure import Command, Wrong

from ..peers.effai import Effai
from .base import Case, Row, absent, clean, expect
from .files import large_file

BYTES = 2**30
KEYS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench-secret", "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1"}


class Server:
    """s3s-fs over a directory."""

    def __init__(self, base):
        self.program = install.cargo("s3s-fs", "--version", "0.14.1", "--features", "binary")
        self.dir = base / "served"
        (self.dir / "bench").mkdir(parents=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        argv = [
            self.program, "--host", "127.0.0.1", "--port", str(self.port), "--access-key", KEYS["AWS_ACCESS_KEY_ID"],
            "--secret-key", KEYS["AWS_SECRET_ACCESS_KEY"], self.dir,
        ]
        self.process = subprocess.Popen(list(map(str, argv)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.address = f"http://127.0.0.1:{self.port}"
        for _ in range(100):
            with socket.socket() as asks:
                if asks.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise Wrong("the S3 server does not answer")

    def empty(self):
        for path in (self.dir / "bench").iterdir():
            clean(path)

    def close(self):
        self.process.terminate()
        self.process.wait()


def environment(server, root):
    # Both clients read the server's address from variables, each from its own.
    return KEYS | {"AWS_ENDPOINT": server.address, "AWS_ALLOW_HTTP": "true", "AWS_ENDPOINT_URL": server.address, "EFFAI_CACHE_DIR": root / ".cache"}


def effai(server, root, source, is_push):
    """From its store to the server, and back to a store that is empty."""
    run = lambda *words: Command([Effai.program, *words], root, environment(server, root))

    def prepare(ctx):
        clean(root)
        root.mkdir(parents=True)
        (root / "effai.kdl").write_text(
            f'remote "s3" {{ url "s3://bench/effai"; access "read-write"; }}\n'
            f'command "data" {{ run "cp" "{source.name}" "data"; input "{source.name}"; output "data"; }}\n'
        )
        os.link(source, root / source.name)
        server.empty()
        ctx.run(run("build"))
        if not is_push:
            ctx.run(run("push"))

    def before(_):
        if is_push:
            server.empty()
        else:
            clean(root / ".cache")
        time.sleep(1)

    def after(*_):
        if is_push:
            size = sum(path.stat().st_size for path in (server.dir / "bench").rglob("*") if path.is_file())
            expect("bytes sent", size >= BYTES, True)
        else:
            size = sum(path.stat().st_size for path in (root / ".cache").rglob("*") if path.is_file())
            expect("bytes brought", size >= BYTES, True)
        return "each byte hashed on its way" if not is_push else "from the store, by content"

    return prepare, Case("effai", lambda: run("push" if is_push else "pull"), before=before, after=after, finish=lambda: clean(root))


def aws(server, root, source, is_push):
    program = install.pip("awscli", "aws")
    there = "s3://bench/aws/data"

    def prepare(ctx):
        clean(root)
        root.mkdir(parents=True)
        ctx.run(Command([program, "s3", "cp", "--quiet", source, there], root, environment(server, root)))

    def before(_):
        if is_push:
            clean(server.dir / "bench/aws")
        clean(root / "data")
        time.sleep(1)

    def after(*_):
        path = server.dir / "bench/aws/data" if is_push else root / "data"
        expect("its size", path.stat().st_size, BYTES)
        return ""

    argv = [program, "s3", "cp", "--quiet", *([source, there] if is_push else [there, root / "data"])]
    return prepare, Case("aws s3 cp", lambda: Command(argv, root, environment(server, root)), before=before, after=after, finish=lambda: clean(root))


def transfer(ctx, is_push):
    base = ctx.fresh("push" if is_push else "pull")
    try:
        server = Server(base)
    except install.NotHere as why:
        return [absent("effai", str(why))]
    source = base / "large"
    large_file(source, BYTES)
    cases = []
    for make, name in ((effai, "effai"), (aws, "aws s3 cp")):
        try:
            prepare, case = make(server, base / name.split()[0], source, is_push)
        except install.NotHere as why:
            cases.append(absent(name, str(why)))
            continue
        case.prepare = lambda prepare=prepare: prepare(ctx)
        cases.append(case)
    last = cases[-1]
    finish = last.finish

    def end():
        finish()
        server.close()
        shutil.rmtree(base, ignore_errors=True)

    last.finish = end
    return cases


GOAL = "at most 1.3 times the client's own copy"
ROWS = [
    Row("push", "Push 1 GiB to an S3 server on loopback", lambda ctx: transfer(ctx, True), 5, GOAL, [("aws s3 cp", 1.3)]),
    Row("pull", "Pull it into an empty store", lambda ctx: transfer(ctx, False), 5, GOAL, [("aws s3 cp", 1.3)]),
]
