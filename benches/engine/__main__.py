"""Measures effai's engine beside its peers: `benches/run engine`.

Each row is measured in interleaved rounds (A B C A B C), so that a busy moment falls on all alike. The figures are
medians. CPU is user and system time of the whole process tree and of daemons. A row's result is written as soon as it
is there; a run that was stopped goes on with the rows that lack one.
"""

import argparse
import datetime
import json
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from common import install, machine, table
from common.measure import Starter, Wrong

from . import peers, rows
from .graph import layered
from .rows.base import clean, grain

# The part of docs/speed.md that no command writes: where the slowest rows spend their time.
BY_HAND = "## Where the time goes"

HERE = Path(__file__).resolve().parent.parent


class Context:
    """What rows share: the peers that are here, a place to work, graphs that were built once."""

    def __init__(self, options, work):
        self.options = options
        self.work = work
        self.starter = Starter(work)
        self.asked = []
        self.absent = {}
        self.versions = {}
        self.edits = int(datetime.datetime.now().timestamp()) % 10_000_000

    def find_peers(self):
        """Installs what can be had and notes what cannot."""
        for peer in peers.ALL:
            if self.options.peers and peer.name.split()[0].lower() not in ["effai", *self.options.peers]:
                continue
            self.asked.append(peer)
            try:
                peer.install()
                self.versions[peer.name] = peer.version()
            except (install.NotHere, OSError, subprocess.SubprocessError) as error:
                self.absent[peer.name] = f"not here: {error}"
                print(f"{peer.name}: {self.absent[peer.name]}", file=sys.stderr)

    def peers(self):
        """Those that were asked for, here or not."""
        return self.asked

    def lacks(self, name):
        """Why a peer takes no part, if it does not."""
        if all(peer.name != name for peer in self.asked):
            return "not asked for"
        return self.absent.get(name)

    def peer(self, name):
        return next(p for p in peers.ALL if p.name == name)

    def b3sum(self):
        """Its program, or why there is none."""
        try:
            program = install.cargo("b3sum")
            self.versions["b3sum"] = install.version(program, "--version")
            return program
        except install.NotHere as error:
            return f"not here: {error}"

    def scaled(self, count):
        """A row's size; the smallest graphs stay what they are."""
        return count if count <= 100 else max(100, round(count * self.options.scale))

    def version(self):
        """A number no source was written with before."""
        self.edits += 1
        return self.edits

    def run(self, command):
        return self.starter.run(command)

    def fresh(self, name):
        """An empty directory."""
        path = self.work / name
        clean(path)
        path.mkdir(parents=True)
        return path

    def root(self, peer, count):
        return self.work / f"graph-{count}" / peer.name.split()[0]

    def built(self, peer, count):
        """A peer's project of the graph, built; made once, and again only if the graph or the tool changed."""
        root = self.root(peer, count)
        mark = root.parent / f"{root.name}.built"
        stamp = f"{self.versions[peer.name]} {int(Path(str(peer.program)).stat().st_mtime)}"
        if not (mark.exists() and mark.read_text() == stamp):
            mark.unlink(missing_ok=True)
            peer.settle(root)
            clean(root)
            root.mkdir(parents=True)
            peer.lay(layered(count), root)
            grain()
            self.run(peer.build(root))
        # Two more: what was too young to be believed is old now.
        for _ in range(2):
            grain()
            self.run(peer.build(root))
        mark.write_text(stamp)

    def close(self):
        for peer in (p for p in self.asked if p.name not in self.absent):
            for root in self.work.glob(f"graph-*/{peer.name.split()[0]}"):
                peer.settle(root)
        self.starter.close()


def measure(ctx, row):
    """One row's result."""
    cases = row.cases(ctx)
    tools = {}
    live = []

    def fails(case, error):
        why = str(error).strip() or type(error).__name__
        tools[case.name] = {"why": why[:300], "samples": []}
        print(f"  {case.name}: {why[:300]}", file=sys.stderr)

    for case in cases:
        if case.command is not None:
            print(f"  preparing {case.name}", file=sys.stderr)
        tools[case.name] = {"samples": []}
        try:
            case.prepare()
            live.append(case)
        except (Wrong, OSError, subprocess.SubprocessError) as error:
            fails(case, error)
    rounds = ctx.options.rounds or row.rounds
    for number in range(rounds):
        # Each begins a round in turn: nobody always runs after the same neighbour.
        turn = number % max(1, len(live))
        for case in live[turn:] + live[:turn]:
            if number >= case.rounds_max:
                continue
            try:
                case.before(number)
                cost = ctx.run(case.command())
                remark = case.after(number, cost)
            except (Wrong, OSError, subprocess.SubprocessError) as error:
                fails(case, error)
                live = [c for c in live if c is not case]
                continue
            sample = {"wall_s": cost.wall_s, "cpu_s": cost.cpu_s, "peak_kib": cost.peak_kib}
            tools[case.name]["samples"].append(sample)
            tools[case.name]["remark"] = remark
    for case in cases:
        try:
            case.finish()
        except OSError as error:
            print(f"  {case.name}: cannot clean up: {error}", file=sys.stderr)
    tools |= {name: {"why": why, "samples": []} for name, why in peers.NOT_HERE.items() if "every peer" in row.title}
    result = {
        "name": row.name, "title": row.title, "goal": row.goal, "tools": tools, "rounds": rounds,
        "scale": ctx.options.scale, "load": machine.load(), "date": f"{datetime.datetime.now():%Y-%m-%d %H:%M}",
    }
    result["verdict"] = verdict(row, tools)
    return result


def verdict(row, tools):
    """Whether the goal's first figure holds; each comparison on its own."""
    own = tools.get("effai", {}).get("samples")
    if not own or not row.goal:
        return ""
    said = []
    if row.wall_s_max:
        wall = table.median(own, "wall_s")
        said.append(f"{'holds' if wall <= row.wall_s_max else 'missed'}: {table.seconds(wall)}")
    for name, most in row.goals:
        other = tools.get(name, {}).get("samples")
        if not other:
            continue
        if most == "memory":
            ratio = table.median(own, "peak_kib") / table.median(other, "peak_kib")
            said.append(f"{'holds' if ratio <= 1 else 'missed'}: {ratio:.2f} x {name}'s memory")
            continue
        cpu, wall = (table.median(own, f) / table.median(other, f) for f in ("cpu_s", "wall_s"))
        said.append(f"{'holds' if max(cpu, wall) <= most else 'missed'}: {cpu:.2f} x {name}'s CPU, {wall:.2f} x its wall time")
    return "; ".join(said)


def page(results):
    """docs/speed.md."""
    about = results["about"]
    head = [
        "# Speed", "",
        "effai's engine beside its peers, measured in one run by this command, which also made this page:", "",
        f"    {about['command']}", "",
        f"On {about['machine']}; {about['date']}.", "",
        "Medians of interleaved rounds. CPU is user and system time of the whole process tree and of daemons; `to effai's` says",
        "how many times effai's figure it is; the peak is that of the largest process. A graph of N targets has ten layers; a",
        "target takes 32 bytes each of a small file of its",
        "own and of the outputs of two targets before it; all outputs are asked for. On a busy machine go by CPU.", "",
        "Versions: " + "; ".join(f"{v}" for v in about["versions"].values()) + ".", "",
    ]
    return "\n".join(head) + "\n" + table.markdown(results, "effai")


def said():
    """The words of the command line, without the paths that are one machine's."""
    words = iter(sys.argv[1:])
    return [w for w in words if not (w in ("--work", "--effai") and next(words, ""))]


def write_page(path, results):
    """Writes the page; what somebody wrote at its end stays."""
    before = path.read_text() if path.exists() else ""
    by_hand = before[before.find(BY_HAND):] if BY_HAND in before else ""
    path.write_text(page(results) + ("\n" + by_hand if by_hand else ""))


def read_options():
    parser = argparse.ArgumentParser(prog="benches/run engine", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [row.name for row in rows.ALL]
    parser.add_argument("--rows", nargs="+", metavar="ROW", choices=names, help=f"only these: {', '.join(names)}")
    parser.add_argument("--peers", nargs="+", metavar="PEER", help="only these beside effai, in small letters: ninja make dvc...")
    parser.add_argument("--rounds", type=int, help="so many rounds for every row")
    parser.add_argument("--scale", type=float, default=1, help="so large a part of each row: 0.1 takes minutes")
    parser.add_argument("--work", type=Path, help="where to work, 30 GiB at scale 1; kept, so that graphs are built once; by default benches/.work, taken away at the end")
    parser.add_argument("--effai", type=Path, help="another effai than target/release/effai")
    parser.add_argument("--again", action="store_true", help="measure rows anew that have a result")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="also write the page there: docs/speed.md")
    return parser.parse_args()


def main():
    options = read_options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if options.effai:
        peers.ALL[0].__class__.program = options.effai.resolve()
    wanted = [r for r in rows.ALL if not options.rows or r.name in options.rows]
    path = HERE / "results" / "engine.json"
    results = json.loads(path.read_text()) if path.exists() else {"rows": []}
    work = (options.work or HERE / ".work").resolve()
    work.mkdir(parents=True, exist_ok=True)
    ctx = Context(options, work)
    failed = False
    try:
        ctx.find_peers()
        for row in wanted:
            known = next((r for r in results["rows"] if r["name"] == row.name and r["scale"] == options.scale), None)
            if known and not options.again:
                print(table.terminal(known, "effai") + "\n(measured before; --again measures anew)", flush=True)
                continue
            print(f"{row.name}: {row.title}", file=sys.stderr, flush=True)
            try:
                result = measure(ctx, row)
            except (Wrong, OSError, subprocess.SubprocessError) as error:
                print(f"  the row failed: {error}", file=sys.stderr, flush=True)
                failed = True
                continue
            others = [r for r in results["rows"] if r["name"] != row.name]
            order = [r.name for r in rows.ALL]
            results["rows"] = sorted([*others, result], key=lambda r: order.index(r["name"]))
            results["about"] = {
                "machine": machine.describe(work), "date": f"{datetime.date.today()}",
                "versions": results.get("about", {}).get("versions", {}) | ctx.versions,
                "command": shlex.join(["benches/run", "engine", *said()]),
            }
            table.save(path, results)
            path.with_suffix(".md").write_text(page(results))
            print(table.terminal(result, "effai"), flush=True)
        if options.write and results.get("about"):
            write_page(options.write, results)
    except KeyboardInterrupt:
        print("stopped; what was measured is kept, the same command goes on", file=sys.stderr)
        sys.exit(130)
    finally:
        ctx.close()
    if not options.work:
        clean(work)
    sys.exit(int(failed))


main()
