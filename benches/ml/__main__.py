"""Measures effai's computing beside its peers: `benches/run ml`.

Each side of a row is a process that has prepared itself and does the work once each time it is asked, so that starting
and loading are not in the figures. They are asked in turn (A B C, B C A, ...), so that a busy moment falls on all alike.
CPU is user and system time of the process, the peak its largest resident memory, loading included. Figures are medians.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from common import install, machine, table

HERE = Path(__file__).resolve().parent.parent
ROOT = HERE.parent
PACKAGES = [
    "torch==2.15.0", "transformers==5.23.0", "peft==0.21.2", "onnx", "onnxruntime", "safetensors", "numpy", "mlx[cpu]==0.32.2",
    "sentencepiece", "protobuf", "pyyaml", "jinja2", "gguf",
]
# One thread for each of two cores; nobody's threads wait by spinning.
ENVIRONMENT = {
    "RAYON_NUM_THREADS": "2", "CANDLE_NUM_THREADS": "1", "MIMALLOC_PURGE_DELAY": "-1",
    "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1",
}


@dataclass
class Row:
    """One work: who does it, beside whom effai's figure is held, and how many times theirs it may be."""

    name: str
    title: str
    model: str
    sides: dict
    rounds: int
    goal: str
    goals: list = field(default_factory=list)
    # Sides whose answers are to agree with effai's, and how far.
    agree: dict = field(default_factory=dict)
    # Seconds of CPU that effai's side may take.
    most_s: float | None = None


EFFAI, PEFT, MLX = "effai", "PyTorch + PEFT", "mlx-lm"
ROWS = [
    Row(
        "lora-step", "LoRA training step: Llama of width 256, 6 layers, 8/4 heads, 704 inside, vocabulary 4,096; 8 x 128 tokens, rank 8",
        "lora", {EFFAI: "lora", PEFT: "pytorch lora", MLX: "mlx lora"}, 15,
        "1.3 x PyTorch + PEFT; aim .9 x", [(PEFT, 1.3)], {PEFT: 1e-3, MLX: 1e-3},
    ),
    Row(
        "qlora-step", "QLoRA training step: the same over matrices of 4 bits in groups of 64", "lora",
        {EFFAI: "qlora", "effai LoRA": "lora", MLX: "mlx qlora"}, 10,
        "a quarter of mlx-lm's; aim 1.2 x the LoRA step", [(MLX, 0.25), ("effai LoRA", 1.2)],
    ),
    Row(
        "mlp-step", "MLP training step: 256 rows, 512 -> 1,024 -> 10, AdamW",
        "mlp", {EFFAI: "mlp", "PyTorch": "pytorch mlp", "MLX": "mlx mlp"}, 60,
        "1.3 x PyTorch, MLX with OpenBLAS; aim 1.0 x", [("PyTorch", 1.3), ("MLX", 1.0)], {"PyTorch": 1e-4, "MLX": 1e-4},
    ),
    Row(
        "clip-step", "CLIP training step, all weights: ViT 224/32 of width 192, 12 layers; text of width 192, 6 layers; 64 pairs, AdamW",
        "clip", {EFFAI: "clip", "PyTorch": "pytorch clip", "MLX": "mlx clip"}, 5,
        "1.3 x PyTorch, MLX with OpenBLAS; aim 1.0 x", [("PyTorch", 1.3), ("MLX", 1.0)], {"PyTorch": 1e-3, "MLX": 1e-3},
    ),
    Row(
        "minilm", "Encoder of MiniLM-L6's shape: 64 sentences of 64 tokens",
        "minilm",
        {EFFAI: "minilm", "onnxruntime": "onnx minilm", "onnxruntime int8": "onnx minilm-int8", "PyTorch": "pytorch minilm"}, 15,
        "1.3 x onnxruntime in f32; aim 1.0 x", [("onnxruntime", 1.3)], {"onnxruntime": 1e-4, "PyTorch": 1e-4},
    ),
    Row(
        "minilm-int8", "The same encoder, weights and inputs in bytes", "minilm",
        {EFFAI: "minilm-int8", "onnxruntime int8": "onnx minilm-int8", "effai in f32": "minilm"}, 15,
        "1.3 x onnxruntime's dynamic int8; aim 1.0 x", [("onnxruntime int8", 1.3)],
    ),
    Row(
        "round-affine4", "4096 x 4096 weights to 4 bits in groups of 64 (MLX's layout)", "square",
        {EFFAI: "round-affine4", "MLX": "mlx affine4"}, 15, ".04 s of CPU", [("MLX", 1.0)], most_s=0.04,
    ),
    *(
        Row(
            f"round-{form}", f"4096 x 4096 weights to {form}", "square",
            {EFFAI: f"round-{form}", "llama.cpp": f"llama_cpp {form}", **({"gguf": f"gguf_py {form}"} if plain else {})}, 15,
            f"{most} s of CPU{aim}", [("llama.cpp", 1.0)], most_s=most,
        )
        for form, most, plain, aim in (
            ("Q4_0", 0.04, True, ""), ("Q8_0", 0.11, True, ""), ("Q6_K", 0.7, False, "; aim a third of llama.cpp's"),
            ("Q4_K", 1.7, False, "; aim a third of llama.cpp's"),
        )
    ),
    *(
        Row(
            f"matvec-{bits}", f"A vector by a matrix of 4096 x 4096 in {bits} bits", "square",
            {EFFAI: f"matvec-{bits}", "llama.cpp": f"llama_cpp matvec-{bits}", "MLX": f"mlx matvec-{bits}"}, 15,
            "1.3 x llama.cpp; aim 1.0 x", [("llama.cpp", 1.3)],
        )
        for bits in (4, 8)
    ),
    Row(
        "chat", "SmolLM2-135M, Q4_1: a prompt of 256 tokens, then 64", "smollm2", {EFFAI: "chat", "llama.cpp": "llama_cpp chat"}, 5,
        "1.5 x llama.cpp; aim 1.1 x", [("llama.cpp", 1.5)],
    ),
]


class Failed(Exception):
    """A side that cannot take part, and why."""


class Side:
    """A process that does the work each time it is asked."""

    def __init__(self, words, model, log):
        script, *work = words.split()
        if work:
            argv = [PYTHON, "-m", f"peers.{script}", *work, model]
        else:
            argv = [WORKER, script, model]
        env = {k: os.environ[k] for k in ("HOME", "PATH") if k in os.environ} | ENVIRONMENT
        self.log = log
        self.process = subprocess.Popen(
            list(map(str, argv)), cwd=HERE / "ml", env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log.open("w"), text=True
        )
        if self.answer() != "ready":
            raise Failed((log.read_text().strip().splitlines() or ["it ended"])[-1][:200])

    def answer(self):
        return self.process.stdout.readline().strip()

    def cpu(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return sum(int(n) for n in fields[11:13]) / os.sysconf("SC_CLK_TCK")

    def peak_kib(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))

    def ask(self, times=1):
        """Does the work; what one time cost, and its answer."""
        cpu, begin = self.cpu(), time.perf_counter()
        for _ in range(times):
            self.process.stdin.write("\n")
            self.process.stdin.flush()
            answer = self.answer()
            if not answer:
                raise Failed((self.log.read_text().strip().splitlines() or ["it ended"])[-1][:200])
        wall = time.perf_counter() - begin
        sample = {"wall_s": wall / times, "cpu_s": (self.cpu() - cpu) / times, "peak_kib": self.peak_kib()}
        return sample, float(answer)

    def close(self):
        self.process.kill()
        self.process.wait()


def measure(row, work, rounds):
    """One row's result."""
    tools, live, answers = {}, {}, {}
    for name, words in row.sides.items():
        print(f"  {name}", file=sys.stderr)
        tools[name] = {"samples": []}
        try:
            live[name] = Side(words, work / row.model, work / "side.log")
            answers[name] = live[name].ask()[1]
        except (Failed, OSError) as error:
            tools[name]["why"] = str(error)
            live.pop(name, None)
    # Ticks of CPU time are 10 ms: small work is done several times a sample.
    times = {name: max(1, round(0.3 / max(0.001, side.ask(2)[0]["cpu_s"]))) for name, side in live.items()}
    for number in range(rounds or row.rounds):
        order = list(live.items())
        turn = number % max(1, len(order))
        for name, side in order[turn:] + order[:turn]:
            tools[name]["samples"].append(side.ask(times[name])[0])
    for name, side in live.items():
        side.close()
    for name, most in row.agree.items():
        if name in answers:
            apart = abs(answers[name] - answers[EFFAI])
            tools[name]["remark"] = f"first answer {apart:.1e} from effai's"
            if apart > most:
                raise Failed(f"{row.name}: {name} says {answers[name]}, effai {answers[EFFAI]}")
    result = {
        "name": row.name, "title": row.title, "goal": row.goal, "tools": tools, "rounds": rounds or row.rounds, "scale": 1,
        "load": machine.load(), "date": f"{datetime.datetime.now():%Y-%m-%d %H:%M}",
    }
    return result | {"verdict": verdict(row, tools)}


def verdict(row, tools):
    """Whether the goal's first figure holds."""
    said = []
    own = tools[EFFAI]["samples"]
    if own and row.most_s:
        cpu = table.median(own, "cpu_s")
        said.append(f"{'holds' if cpu <= row.most_s else 'missed'}: {cpu:.3f} s of {row.most_s} s")
    for name, most in row.goals:
        if own and tools[name]["samples"]:
            cpu, wall, peak = (
                table.median(own, f) / table.median(tools[name]["samples"], f) for f in ("cpu_s", "wall_s", "peak_kib")
            )
            said.append(f"{'holds' if cpu <= most else 'missed'}: {cpu:.2f} x {name}'s CPU, {wall:.2f} x its wall time, {peak:.2f} x its memory")
    return "; ".join(said)


def prepare(work):
    """The peers' packages, effai's side, the models."""
    global PYTHON, WORKER
    venv = install.HOME / "ml"
    PYTHON = venv / "bin/python"
    mark = venv / "packages"
    if not mark.exists() or mark.read_text() != " ".join(PACKAGES):
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        pip = [PYTHON, "-m", "pip", "install", "-q"]
        subprocess.run([*pip, *PACKAGES], check=True)
        # mlx-lm asks for Apple's build of MLX by name; the CPU build is there.
        subprocess.run([*pip, "--no-deps", "mlx-lm"], check=True)
        env = os.environ | {"CMAKE_ARGS": f"-DGGML_NATIVE=OFF {llama_cpp_flags()}"}
        if subprocess.run([*pip, "--no-cache-dir", "--no-binary", "llama-cpp-python", "llama-cpp-python"], env=env).returncode != 0:
            print("llama-cpp-python cannot be built here", file=sys.stderr)
        fast_blas(venv)
        mark.write_text(" ".join(PACKAGES))
    subprocess.run(["cargo", "build", "--release", "--locked", "--bin", "effai", "--example", "ml-worker"], cwd=ROOT, check=True)
    WORKER = ROOT / "target/release/examples/ml-worker"
    if not (work / "mlp/mlp.safetensors").exists() or not (work / "square/square.npy").exists():
        subprocess.run([PYTHON, "-m", "ml.prepare", work], cwd=HERE, check=True)
    model = work / "smollm2"
    if not (model / "ids.json").exists():
        project = work / "project"
        project.mkdir(exist_ok=True)
        (project / "effai.kdl").write_text('project "bench"\nrecipes "lora.kdl"\n')
        (project / "lora.kdl").write_text((ROOT / "recipes/lora.kdl").read_text())
        env = os.environ | {"EFFAI_CACHE_DIR": str(work / "cache")}
        subprocess.run([ROOT / "target/release/effai", "-C", project, "build", "models/smollm2"], env=env, check=True)
        if not model.exists():
            (project / "out/models/smollm2").rename(model)
        model.chmod(0o755)
        (model / "ids.json").write_text(json.dumps([[i * 37 % 40_000 + 100 for i in range(256)]]))


def llama_cpp_flags():
    """This processor's instructions but AMX, which virtual machines announce and do not have: as its own choice would be."""
    names = {
        "AVX2": "avx2", "FMA": "fma", "F16C": "f16c", "BMI2": "bmi2", "AVX_VNNI": "avx_vnni", "AVX512": "avx512f",
        "AVX512_VNNI": "avx512_vnni",
    }
    about = Path("/proc/cpuinfo")
    has = set(about.read_text().split()) if about.exists() else set()
    return " ".join(f"-DGGML_{name}={'ON' if flag in has else 'OFF'}" for name, flag in names.items())


def fast_blas(venv):
    """MLX's wheel brings the reference BLAS, twenty times slower than the system's OpenBLAS."""
    found = subprocess.run("ldconfig -p | sed -n 's/.*libopenblas\\.so\\.0 .*=> //p'", shell=True, capture_output=True, text=True)
    openblas = (found.stdout.split() or [None])[0]
    for blas in venv.glob("lib/python3*/site-packages/mlx_cpu.libs/libblas-*"):
        if openblas and not blas.is_symlink():
            blas.unlink()
            blas.symlink_to(openblas)


def versions():
    code = "from importlib.metadata import version as v; print('; '.join(f'{n} {v(n)}' for n in %r))"
    names = ["torch", "peft", "transformers", "onnxruntime", "mlx-cpu", "mlx-lm", "llama-cpp-python", "gguf"]
    done = subprocess.run([PYTHON, "-c", code % names], capture_output=True, text=True)
    return done.stdout.strip()


def page(results):
    about = results["about"]
    head = [
        "# Speed of computing", "",
        "effai on candle with its own kernels beside its peers, by this command, which also made this page:", "",
        f"    {about['command']}", "", f"On {about['machine']}; {about['date']}. Two threads each.", "",
        *(line for line in __doc__.splitlines()[2:] if line), "", f"Versions: {about['versions']}.", "",
    ]
    return "\n".join(head) + "\n" + table.markdown(results, EFFAI)


def main():
    parser = argparse.ArgumentParser(prog="benches/run ml", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [row.name for row in ROWS]
    parser.add_argument("--rows", nargs="+", metavar="ROW", choices=names, help=f"only these: {', '.join(names)}")
    parser.add_argument("--rounds", type=int, help="so many rounds for every row")
    parser.add_argument("--work", type=Path, default=HERE / ".work/ml", help="where the models lie; kept")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="also write the page there: docs/speed-ml.md")
    options = parser.parse_args()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    prepare(work)
    path = HERE / "results" / "ml.json"
    results = json.loads(path.read_text()) if path.exists() else {"rows": []}
    for row in (r for r in ROWS if not options.rows or r.name in options.rows):
        print(f"{row.name}: {row.title}", file=sys.stderr)
        result = measure(row, work, options.rounds)
        results["rows"] = sorted([*(r for r in results["rows"] if r["name"] != row.name), result], key=lambda r: names.index(r["name"]))
        words = ["benches/run", "ml", *(w for w in sys.argv[1:] if w != "--work" and w != str(options.work))]
        results["about"] = {
            "machine": machine.describe(work), "date": f"{datetime.date.today()}", "versions": versions(), "command": " ".join(words),
        }
        table.save(path, results)
        print(table.terminal(result, EFFAI), flush=True)
    if options.write:
        options.write.write_text(page(results))


PYTHON = WORKER = None
main()
