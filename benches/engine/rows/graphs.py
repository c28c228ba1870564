"""Rows over the generated graph: nothing to do, one edit, one touch, cold."""

import dataclasses
import json
import os
import signal
import subprocess
import time

from common.measure import Wrong, environment

from ..graph import edited, layered, source_text
from ..peers.effai import counted
from .base import Case, Row, absent, clean, expect, grain


def cases(ctx, count, make):
    """A case for each peer that can bear the graph; the others say why not."""
    found = []
    for peer in ctx.peers():
        if peer.name in ctx.absent:
            found.append(absent(peer.name, ctx.absent[peer.name]))
        elif count > peer.most and peer.most >= 1000:
            found.append(absent(peer.name, f"not asked: past {peer.most} targets it takes too long"))
        elif count <= peer.most:
            found.append(make(ctx, peer, count))
    return found


def stamped(ctx, peer, targets, root):
    return peer.stamps(targets, root) if len(targets) <= 10_000 else {}


def nothing(ctx, peer, count):
    targets = layered(count)
    root = ctx.root(peer, count)

    def after(_, cost):
        expect("outputs there", all(peer.output(root, t).exists() for t in targets[:: max(1, count // 100)]), True)
        expect("commands run", peer.ran(cost.text, {}, {}), 0)
        return ""

    return Case(peer.name, lambda: peer.build(root), lambda: ctx.built(peer, count), after=after)


def one_edit(ctx, peer, count):
    targets = layered(count)
    root = ctx.root(peer, count)
    target = edited(targets)
    state = {}

    def before(number):
        peer.source(root, target).write_text(source_text(target, ctx.version()))
        state["before"] = stamped(ctx, peer, targets, root)
        grain()

    def after(_, cost):
        ran = peer.ran(cost.text, state["before"], stamped(ctx, peer, targets, root))
        expect("commands run", ran, 3)
        source = peer.source(root, target).read_bytes()[:32]
        expect("output is of the edit", peer.output(root, target).read_bytes()[:32], source)
        return "3 commands"

    return Case(peer.name, lambda: peer.build(root), lambda: ctx.built(peer, count), before, after)


def one_touch(ctx, peer, count):
    targets = layered(count)
    root = ctx.root(peer, count)
    target = edited(targets)
    state = {}

    def before(_):
        os.utime(peer.source(root, target))
        state["before"] = stamped(ctx, peer, targets, root)
        grain()

    def after(_, cost):
        ran = peer.ran(cost.text, state["before"], stamped(ctx, peer, targets, root))
        if peer.name == "effai":
            expect("commands run", ran, 0)
        return f"{ran} commands"

    return Case(peer.name, lambda: peer.build(root), lambda: ctx.built(peer, count), before, after)


def cold(ctx, peer, count):
    targets = layered(count)
    root = ctx.work / "cold" / peer.name.split()[0]

    def before(_):
        finish()
        root.mkdir(parents=True)
        peer.lay(targets, root)
        grain()

    def after(_, cost):
        missing = sum(1 for t in targets if not peer.output(root, t).exists())
        expect("outputs missing", missing, 0)
        if peer.name == "effai":
            expect("commands run", peer.ran(cost.text, {}, {}), count)
        return f"{count} commands"

    def finish():
        peer.settle(root)
        for path in (root, *root.parent.glob(root.name + ".*")):
            clean(path)

    most = 1 if peer.most <= 100 else 10**9
    return Case(peer.name, lambda: peer.build(root), before=before, after=after, finish=finish, rounds_max=most)


def watched(ctx, count):
    """effai alone: the same question beside its own watch, whose time counts too."""
    peer = ctx.peer("effai")
    targets = layered(count)
    root = ctx.root(peer, count)
    state = {}

    def prepare():
        ctx.built(peer, count)
        output = ctx.work / "watch.jsonl"
        with output.open("w") as out:
            watch = subprocess.Popen(
                [peer.program, "watch", "--json", "-j", "2"], cwd=root, env=environment(peer.env(root)), stdout=out, stderr=out
            )
        state.update(watch=watch, output=output)
        deadline = time.monotonic() + 120
        # It answers once it has looked at everything and watches `out/`, which it does from the first question on.
        while not answers(output):
            if time.monotonic() > deadline or watch.poll() is not None:
                raise Wrong("the watch did not answer within two minutes")
            time.sleep(1)
            ctx.run(peer.build(root))

    def before(_):
        state["answered"] = answers(state["output"])

    def after(_, cost):
        expect("commands run", peer.ran(cost.text, {}, {}), 0)
        expect("answers of the watch", answers(state["output"]) - state["answered"], 1)
        return f"of {counted(cost.text, 'fresh'):,} targets"

    def finish():
        state["watch"].send_signal(signal.SIGINT)
        state["watch"].wait()

    def command():
        return dataclasses.replace(peer.build(root), daemons=[state["watch"].pid])

    return Case(peer.name, command, prepare, before, after, finish)


def answers(output):
    """How many builds a watch has told that there is nothing to do."""
    events = [json.loads(line) for line in output.read_text().splitlines() if line.startswith("{")]
    return sum(1 for e in events if e.get("event") == "asked" and e.get("fresh"))


def row(name, title, count, make, rounds, goal="", goals=(), wall_s_max=0):
    def found(ctx):
        return cases(ctx, ctx.scaled(count), make)

    return Row(name, title, found, rounds, goal, list(goals), wall_s_max)


ROWS = [
    row("nothing-20", "Nothing to do, 20 targets (a git hook)", 20, nothing, 31, "15 ms, aim 5 ms", wall_s_max=0.015),
    row("nothing-100", "Nothing to do, 100 targets, every peer", 100, nothing, 3),
    row("nothing-10000", "Nothing to do, 10,000 targets", 10_000, nothing, 15, "no slower than ninja, aim half", [("ninja", 1)]),
    row(
        "nothing-100000", "Nothing to do, 100,000 targets", 100_000, nothing, 7,
        "no slower than ninja and no more memory, aim a third", [("ninja", 1), ("ninja", "memory")],
    ),
    Row(
        "watched-100000", "Nothing to do, 100,000 targets, `effai watch` running", lambda ctx: [watched(ctx, ctx.scaled(100_000))], 31,
        "20 ms", wall_s_max=0.02,
    ),
    row("edit-100", "One of 100 inputs edited, every peer", 100, one_edit, 3),
    row("edit-10000", "One of 10,000 inputs edited", 10_000, one_edit, 11, "no slower than ninja", [("ninja", 1)]),
    row("touch-10000", "One of 10,000 inputs touched, same bytes", 10_000, one_touch, 11, "nothing runs"),
    row("cold-100", "Cold, 100 commands, every peer", 100, cold, 3),
    row("cold-10000", "Cold, 10,000 commands", 10_000, cold, 3, "twice ninja, aim ninja", [("ninja", 2)]),
]
