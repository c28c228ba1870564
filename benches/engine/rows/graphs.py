"""Rows over the generated graph: nothing to do, one edit, one touch, cold."""

import os

from common.measure import Wrong

from ..graph import edited, layered, source_text
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
    row("edit-100", "One of 100 inputs edited, every peer", 100, one_edit, 3),
    row("edit-10000", "One of 10,000 inputs edited", 10_000, one_edit, 11, "no slower than ninja", [("ninja", 1)]),
    row("touch-10000", "One of 10,000 inputs touched, same bytes", 10_000, one_touch, 11, "nothing runs"),
    row("cold-100", "Cold, 100 commands, every peer", 100, cold, 3),
    row("cold-10000", "Cold, 10,000 commands", 10_000, cold, 3, "twice ninja, aim ninja", [("ninja", 2)]),
]
