"""Results as text: for the terminal, as JSON and as Markdown."""

import json
import statistics


def median(samples, field):
    """The median of one number of many costs."""
    return statistics.median(sample[field] for sample in samples)


def seconds(value):
    """Three digits that mean something."""
    if value < 0.1:
        return f"{value * 1000:.1f} ms"
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"


def lines(row, base):
    """A row's tools as cells, each compared with the base's: tool, CPU, wall, ratios, memory, remark."""
    own = row["tools"].get(base, {}).get("samples")
    for name, tool in row["tools"].items():
        if not tool.get("samples"):
            yield [name, "", "", "", "", "", tool.get("why", "no sample")]
            continue
        cpu, wall = median(tool["samples"], "cpu_s"), median(tool["samples"], "wall_s")
        ratios = ["", ""]
        if own and name != base:
            ratios = [f"{cpu / median(own, 'cpu_s'):.2f} x", f"{wall / median(own, 'wall_s'):.2f} x"]
        peak = f"{median(tool['samples'], 'peak_kib') / 1024:.0f} MiB"
        yield [name, seconds(cpu), ratios[0], seconds(wall), ratios[1], peak, tool.get("remark", "")]


HEAD = ["tool", "CPU", "to effai's", "wall", "to effai's", "peak", "remark"]


def markdown(results, base):
    """The whole, as a page's tables."""
    out = []
    for row in results["rows"]:
        out += [f"### {row['title']}", ""]
        if row.get("goal"):
            out += [f"Goal: {row['goal']}. {row.get('verdict', '')}".strip(), ""]
        out += ["| " + " | ".join(HEAD) + " |", "|---|--:|--:|--:|--:|--:|---|"]
        out += ["| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |" for cells in lines(row, base)]
        scale = "" if row["scale"] == 1 else f", at {row['scale']} of its size"
        out += ["", f"{row['rounds']} rounds{scale}, load {row['load']}, {row['date']}.", ""]
    return "\n".join(out)


def terminal(row, base):
    """One row, aligned."""
    cells = [HEAD, *lines(row, base)]
    widths = [max(len(line[i]) for line in cells) for i in range(6)]
    out = [f"\n{row['title']}" + (f"   [{row['goal']}: {row.get('verdict', '')}]" if row.get("goal") else "")]
    for line in cells:
        left = line[0].ljust(widths[0])
        out.append("  ".join([left, *(line[i].rjust(widths[i]) for i in range(1, 6)), line[6][:110]]).rstrip())
    return "\n".join(out)


def save(path, results):
    """As JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(results, indent=1) + "\n")
    beside.replace(path)
