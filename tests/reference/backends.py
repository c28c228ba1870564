"""Holds what MLX made against what candle made, and MLX's second run against its first. Tolerances: docs/backends.md."""

import array
import json
import pathlib
import sys

candle, one, two, *reports = map(pathlib.Path, sys.argv[1:])

LOSS = 1e-3  # nats, of a training's steps and of a record
VECTOR = 1e-4  # of a component, beside the largest


def read(path):
    return json.loads(path.read_text())


def tensors(path):
    """Name to values, of a safetensors file of 32-bit floats."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        found[name] = array.array("f", data[8 + size + begin : 8 + size + end])
    return found


again = sorted(p for p in two.rglob("*") if p.is_file())
assert any(path.name == "adapter_model.safetensors" for path in again), again
for path in again:
    other = one / path.relative_to(two)
    assert path.read_bytes() == other.read_bytes(), f"{other} differs from {path}"
print(f"MLX repeats itself: {len(again)} files of a second build are the same")

name = "adapters/smollm2-wordnet/training.json"
ours, theirs = read(candle / name), read(one / name)
for curve in ("train", "validation"):
    pairs = list(zip(ours[curve], theirs[curve], strict=True))
    worst = max(abs(a[1] - b[1]) for a, b in pairs)
    print(f"{curve}: {len(pairs)} losses, the worst {worst:.1e} nats apart")
    assert worst <= LOSS

for label in ("perplexity/smollm2", "perplexity/adapter"):
    ours, theirs = read(candle / label / "losses.json"), read(one / label / "losses.json")
    worst = max(abs(a[0] - b[0]) for a, b in zip(ours["losses"], theirs["losses"], strict=True))
    print(f"{label}: {len(ours['losses'])} records, the worst mean loss {worst:.1e} nats apart")
    assert worst <= LOSS
    assert ours["answers"] == theirs["answers"] or label != "perplexity/smollm2", (ours["answers"], theirs["answers"])

for label in ("features/image-tower", "features/text-tower"):
    for path in sorted((candle / label).glob("*.safetensors")):
        for name, values in tensors(path).items():
            others = tensors(one / label / path.name)[name]
            top = max(map(abs, values))
            worst = max(abs(a - b) for a, b in zip(values, others, strict=True)) / top
            print(f"{label}/{path.name}: {len(values)} components, the worst {worst:.1e} of the largest apart")
            assert worst <= VECTOR

# Two trainings drift apart, so their models agree as far as the intervals of what was measured.
for report in reports:
    ours, theirs = (read(out / "reports/clip-bench/report.json") for out in (candle, report))
    for a, b in zip(ours["tests"], theirs["tests"], strict=True):
        for one_row, other_row in zip(a["rows"], b["rows"], strict=True):
            for way in ("t2i", "i2t"):
                x, y = one_row[way]["recall@10"], other_row[way]["recall@10"]
                print(f"{a['name']}, {one_row['subject']}, {way}: recall@10 {x['value']:.3f} and {y['value']:.3f}")
                assert x["low"] <= y["high"] and y["low"] <= x["high"]
