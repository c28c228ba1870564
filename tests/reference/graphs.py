"""Files of generated graphs, under the programs that run such files.

    python tests/reference/graphs.py GRAPHS DIR COUNT SEED
"""

import collections
import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys
import traceback

import numpy
import onnx
import onnxruntime
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from coreml import Package
from safetensors.numpy import load_file

# Graphs that lie on the disk at a time.
BATCH = 250
# Below so much a largest value is none.
TOP_MIN = 1e-2
# What refuses a graph names the operation: of the format, or of the graph itself.
NAMES_OPERATOR = re.compile(r"no operator for `([a-z-]+)`|`(?:[^`]*/)?([a-z-]+)[^`/]*` (?:has the number|holds)|the model reads what `([a-z-]+)`")


class Onnx:
    def __init__(self, path, is_plain=False):
        onnx.checker.check_model(path, full_check=True)
        options = onnxruntime.SessionOptions()
        if is_plain:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.kinds = {i.name: numpy.int64 if i.type == "tensor(int64)" else numpy.float32 for i in self.session.get_inputs()}
        self.outputs = [o.name for o in self.session.get_outputs()]

    def __call__(self, given):
        given = {name: given[name].astype(kind) for name, kind in self.kinds.items()}
        return dict(zip(self.outputs, self.session.run(None, given)))


class CoreMl:
    def __init__(self, path, is_plain=False):
        self.package = Package(path)

    def __call__(self, given):
        # Its names are letters, digits and `_`.
        return Plain(self.package.run({plain(name): values for name, values in given.items()}))


class TfLite:
    def __init__(self, path, is_plain=False):
        kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if is_plain else OpResolverType.AUTO
        self.interpreter = Interpreter(model_path=path, num_threads=1, experimental_op_resolver_type=kernels)
        self.inputs = {detail["name"]: detail for detail in self.interpreter.get_input_details()}
        self.outputs = [detail["name"] for detail in self.interpreter.get_output_details()]
        signature = self.interpreter.get_signature_list()["serving_default"]
        assert sorted(signature["inputs"]) == sorted(self.inputs), signature
        assert sorted(signature["outputs"]) == sorted(self.outputs), signature

    def __call__(self, given):
        for name, detail in self.inputs.items():
            self.interpreter.resize_tensor_input(detail["index"], given[name].shape, strict=True)
        self.interpreter.allocate_tensors()
        for name, detail in self.inputs.items():
            self.interpreter.set_tensor(detail["index"], given[name].astype(detail["dtype"]))
        self.interpreter.invoke()
        return {detail["name"]: self.tensor(detail) for detail in self.interpreter.get_output_details()}

    def tensor(self, detail):
        # Of an empty tensor Python is given nothing but its shape.
        return self.interpreter.get_tensor(detail["index"]) if all(detail["shape"]) else numpy.zeros(detail["shape"])


class Plain(dict):
    def __getitem__(self, name):
        return super().__getitem__(plain(name))


def plain(name):
    return re.sub(r"[^A-Za-z0-9]", "_", name)


PROGRAMS = {"onnx": Onnx, "coreml": CoreMl, "tflite": TfLite}


def hold(line, is_plain=False):
    """What is wrong with a file; none where nothing is. How far it is off. Plain: without what the program makes of a graph
    before it runs it."""
    program, most = PROGRAMS[line["format"]](line["file"], is_plain), 0.0
    for path in line["runs"]:
        held = load_file(path)
        # Contiguous, and with axes where there are none.
        found = program({name[3:]: values for name, values in held.items() if name.startswith("in.")})
        for name, theirs in held.items():
            if not name.startswith("out."):
                continue
            ours = numpy.asarray(found[name[4:]])
            if ours.shape != theirs.shape:
                return f"{name[4:]} comes as {ours.shape}, and is {theirs.shape}", most
            if ours.size:
                far = numpy.abs(ours.astype(numpy.float64) - theirs).max() / max(numpy.abs(theirs).max(), TOP_MIN)
                most = max(most, far if numpy.isfinite(far) else numpy.inf)
    return (f"off by {most:.1e} of the largest value, and {line['allowed']:.1e} is allowed" if most > line["allowed"] else None), most


def held(line, is_plain=False):
    """As `hold`, of whatever comes of it."""
    try:
        return hold(line, is_plain)
    except TypeError as e:
        # coremltools folds sums of constants by numpy, whose newer versions take no numpy.bool for `keepdims`.
        return (None if "numpy.bool" in str(e) and line["format"] == "coreml" else str(e)), 0.0
    except Exception as e:
        if "--traceback" in sys.argv:
            traceback.print_exc()
        return f"{type(e).__name__}: {e}".replace("\n", " ")[:300], 0.0


def batches(graphs, directory, count, seed):
    """Each batch's first seed and what wrote it. The next one is written while the caller holds this one."""

    def write(first, dir):
        shutil.rmtree(dir, ignore_errors=True)
        command = [graphs, dir, "--seed", str(first), "--count", str(min(BATCH, seed + count - first))]
        return first, subprocess.run(command, capture_output=True, text=True)

    firsts = range(seed, seed + count, BATCH)
    with concurrent.futures.ThreadPoolExecutor(1) as writer:
        # Files lie in one directory while those of the other are read.
        ahead = lambda i: writer.submit(write, firsts[i], os.path.join(directory, str(i % 2))) if i < len(firsts) else None
        next_one = ahead(0)
        for i in range(len(firsts)):
            made, next_one = next_one.result(), ahead(i + 1)
            yield made


def main(graphs, directory, count, seed):
    written, equal, optimized = collections.Counter(), collections.Counter(), collections.Counter()
    refused = collections.defaultdict(collections.Counter)
    largest = collections.defaultdict(float)
    faults, told, sensitive, none = [], 0, 0, collections.Counter()
    for first, made in batches(graphs, directory, count, seed):
        if made.returncode:
            faults.append(f"seeds from {first}: the generator ends with {made.returncode}: {made.stderr[-300:]}")
        for line in map(json.loads, made.stdout.splitlines()):
            key = (line.get("format", "-"), line.get("precision", "-"))
            what = f"seed {line['seed']}: {line.get('title', 'the graph')}, {key[1]}"
            # Or it is beyond all numbers what rounding may do to it.
            if "sensitive" in line or line.get("allowed", 0) is None:
                sensitive += 1
            elif "failed" in line:
                faults.append(f"{what}: {line['failed']}")
            elif "refused" in line:
                named = NAMES_OPERATOR.search(line["refused"])
                if not named:
                    faults.append(f"{what}: refused without an operator's name: {line['refused']}")
                    continue
                (none if key[0] == "-" else refused[key])[next(filter(None, named.groups()))] += 1
            else:
                written[key] += 1
                if "own_failed" in line:
                    faults.append(f"{what}: in effai: {line['own_failed']}")
                elif line.get("own", 0) is None or line.get("own", 0) > line["allowed"]:
                    faults.append(f"{what}: in effai: off by {line['own']}, and {line['allowed']:.1e} is allowed")
                fault, far = held(line)
                # What the program itself makes of a graph may be wrong: a file that it computes rightly without is no fault of the
                # file. onnxruntime 1.32 folds a quotient that both sides of a product are (`MatMulScaleFusion`), and reads
                # it still; LiteRT 2.3's XNNPACK gives of three in forty interpreters of one file other values of `attention`.
                if fault and key[0] != "coreml" and held(line, is_plain=True)[0] is None:
                    print(f"{what}: not so without its program's own optimizations: {fault}", flush=True)
                    optimized[key] += 1
                    equal[key] += 1
                elif fault:
                    faults.append(f"{what}: {fault}")
                else:
                    equal[key] += 1
                    largest[key] = max(largest[key], far)
        for fault in faults[told:]:
            print(fault, flush=True)
        told = len(faults)
    print(f"{'format':8}{'precision':18}{'written':>8}{'equal':>8}{'off by':>9}  refused")
    for key in sorted(set(written) | set(refused)):
        by = ", ".join(f"{op} {n}" for op, n in refused[key].most_common())
        print(f"{key[0]:8}{key[1]:18}{written[key]:8}{equal[key]:8}{largest[key]:9.1e}  {by or '-'}")
    graphless = ", ".join(f"{op} {n}" for op, n in none.most_common())
    print(f"of {count} graphs {sensitive} move too much by rounding to be held; no graph of any size: {graphless or '-'}")
    if optimized:
        print("wrong by the program's own optimizations, and right without:", ", ".join(f"{' '.join(key)} {n}" for key, n in optimized.items()))
    print(f"{len(faults)} faults")
    return bool(faults)


if __name__ == "__main__":
    _, graphs, directory, count, seed, *_ = sys.argv
    os.makedirs(directory, exist_ok=True)
    sys.exit(main(graphs, directory, int(count), int(seed)))
