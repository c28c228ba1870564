"""Every metric of a report of predictions beside the library that people trust for it, on random and on degenerate inputs.

    score.py EFFAI

scikit-learn for classes and probabilities, torchmetrics for the calibration error, trec_eval for rankings, sacrebleu for texts.
"""

import csv
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import warnings

import numpy
import pytrec_eval
import sacrebleu
import torch
from sklearn import metrics
from torchmetrics.functional.classification import multiclass_calibration_error

TOLERANCE = 1e-9
# torchmetrics keeps confidences in 32 bits.
TOLERANCES = {"calibration-error": 1e-6}
effai = str(pathlib.Path(sys.argv[1]).resolve())
rng = numpy.random.default_rng(7)
random.seed(7)


class Cases:
    """A project with a report for each case; what is expected is kept beside it."""

    def __init__(self, root):
        self.root = pathlib.Path(root)
        self.recipe = ['project "score"\n']
        self.expected = {}

    def add(self, name, file, write, line, names, expected):
        path = self.root / f"{name}-{file}"
        write(path)
        names = " ".join(f'"{metric}"' for metric in names)
        self.recipe.append(
            f'command "p/{name}" {{ run "cp" "{path.name}" "{file}"; input "{path.name}"; output "{file}"; }}\n'
            f'report "r/{name}" {{ compare "p/{name}"; predictions "{file}" {line} {{ metrics {names}; }} }}\n'
        )
        self.expected[name] = expected

    def build(self):
        (self.root / "effai.kdl").write_text("".join(self.recipe))
        command = [effai, "build", "-k", *(f"r/{name}" for name in self.expected)]
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, env=environment(self.root))
        if done.returncode != 0:
            sys.exit(f"effai build failed ({done.returncode}):\n{done.stderr}")

    def check(self):
        worst, compared, self.bad = 0.0, 0, []
        for name, expected in self.expected.items():
            report = json.loads((self.root / f"out/r/{name}/report.json").read_text())
            found = {s["metric"]: s["rows"][0]["estimate"] for s in report["predicted"]["metrics"]}
            for metric, value in expected.items():
                estimate = found[metric]
                compared += 1
                if value is None or numpy.isnan(value):
                    if estimate is not None:
                        self.bad.append(f"{name}: {metric} is {estimate} where the library has no value")
                    continue
                if estimate is None:
                    self.bad.append(f"{name}: {metric} has no value, the library says {value}")
                    continue
                apart = abs(estimate["value"] - value)
                if metric not in TOLERANCES:
                    worst = max(worst, apart)
                if apart > TOLERANCES.get(metric, TOLERANCE) * max(1.0, abs(value)):
                    self.bad.append(f"{name}: {metric} is {estimate['value']}, the library says {value}")
                if not estimate["low"] - 1e-12 <= estimate["high"]:
                    self.bad.append(f"{name}: the interval of {metric} is {estimate}")
        if self.bad:
            sys.exit("\n".join(self.bad))
        print(f"{compared} values in {len(self.expected)} cases are their libraries', at most {worst:.1e} apart (the calibration error, of 32 bits, 1e-06)")


def environment(root):
    import os

    return {**os.environ, "EFFAI_CACHE_DIR": str(root / "cache")}


def table(rows):
    def write(path):
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)

    return write


def lines(rows):
    return lambda path: path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def classes(cases, name, truth, predicted):
    """Predicted classes alone."""
    rows = [{"truth": t, "class": p} for t, p in zip(truth, predicted)]
    average = lambda of, how: of(truth, predicted, average=how, zero_division=0)
    expected = {
        "accuracy": metrics.accuracy_score(truth, predicted),
        "balanced-accuracy": metrics.balanced_accuracy_score(truth, predicted),
        "precision": average(metrics.precision_score, "macro"),
        "recall": average(metrics.recall_score, "macro"),
        "f1": average(metrics.f1_score, "macro"),
        "weighted-f1": average(metrics.f1_score, "weighted"),
        "matthews": metrics.matthews_corrcoef(truth, predicted),
    }
    cases.add(name, "p.csv", table(rows), 'truth="truth" predicted="class"', expected, expected)


def probabilities(cases, name, truth, p, file="p.csv"):
    """A probability of each class, the names of which are c0, c1, ..."""
    n = p.shape[1]
    rows = [{"truth": f"c{t}", **{f"p_c{c}": float(v) for c, v in enumerate(row)}} for t, row in zip(truth, p)]
    one_hot = numpy.eye(n)[truth]
    has_all = len(set(truth)) == n
    labels = list(range(n))
    expected = {
        "accuracy": metrics.accuracy_score(truth, p.argmax(1)),
        "log-loss": metrics.log_loss(truth, p, labels=labels),
        "brier": float(((p - one_hot) ** 2).sum(1).mean()),
        "calibration-error": float(
            multiclass_calibration_error(torch.tensor(p), torch.tensor(truth), num_classes=n, n_bins=15, norm="l1")
        ),
        "roc-auc": float(numpy.mean([metrics.roc_auc_score(one_hot[:, c], p[:, c]) for c in labels])) if has_all else None,
        "average-precision": metrics.average_precision_score(one_hot, p, average="macro") if has_all else None,
    }
    # scikit-learn's own, where it takes the shape.
    if has_all and n > 2:
        own = metrics.roc_auc_score(truth, p, multi_class="ovr", average="macro")
        assert abs(own - expected["roc-auc"]) < 1e-12, (own, expected["roc-auc"])
    if has_all:
        own = metrics.brier_score_loss(truth, p if n > 2 else p[:, 1], scale_by_half=False, labels=labels)
        assert abs(own - expected["brier"]) < 1e-12, (own, expected["brier"])
    write = table(rows) if file.endswith("csv") else lines(rows)
    cases.add(name, file, write, 'truth="truth" probability="p_{class}"', expected, expected)


def scores(cases, name, truth, score):
    rows = [{"truth": "yes" if t else "no", "s": float(s)} for t, s in zip(truth, score)]
    has_both = len(set(truth)) == 2
    expected = {
        "roc-auc": metrics.roc_auc_score(truth, score) if has_both else None,
        "average-precision": metrics.average_precision_score(truth, score) if any(truth) else None,
    }
    cases.add(name, "p.csv", table(rows), 'truth="truth" score="s" positive="yes"', expected, expected)


CUTS = (1, 5, 10)


def rankings(cases, name, queries):
    """(relevant: name to gain, answers: name to score) of each query."""
    relevant = {str(i): {d: int(g) for d, g in r.items()} for i, (r, _) in enumerate(queries)}
    answers = {str(i): a for i, (_, a) in enumerate(queries)}
    names = [f"{m}_{k}" for m in ("recall", "P", "ndcg_cut") for k in CUTS] + ["recip_rank", "map"]
    found = pytrec_eval.RelevanceEvaluator(relevant, set(names)).evaluate(answers)
    ours = {"recall": "recall@", "P": "precision@", "ndcg_cut": "ndcg@"}
    expected = {}
    for theirs in names:
        of, _, k = theirs.rpartition("_")
        metric = {"recip_rank": "mrr", "map": "map"}.get(theirs) or f"{ours[of]}{k}"
        # A query without an answer or without anything relevant counts 0, and trec_eval leaves it out.
        expected[metric] = sum(found.get(str(i), {}).get(theirs, 0.0) for i in range(len(queries))) / len(queries)
    rows = [{"relevant": r, "answers": a} for r, a in queries]
    cases.add(name, "p.jsonl", lines(rows), 'truth="relevant" ranked="answers"', expected, expected)
    # In order, without the scores: what trec_eval makes of them.
    in_order = lambda a: [d for d, _ in sorted(a.items(), key=lambda one: (one[1], one[0]), reverse=True)]
    rows = [{"relevant": r, "answers": in_order(a)} for r, a in queries]
    cases.add(f"{name}-order", "p.jsonl", lines(rows), 'truth="relevant" ranked="answers"', expected, expected)


def texts(cases, name, pairs):
    wanted, written = [w for w, _ in pairs], [t for _, t in pairs]
    expected = {
        "exact-match": sum(w.strip() == t.strip() for w, t in pairs) / len(pairs),
        "bleu": sacrebleu.corpus_bleu(written, [wanted]).score,
        "chrf": sacrebleu.corpus_chrf(written, [wanted]).score,
    }
    rows = [{"wanted": w, "written": t} for w, t in pairs]
    cases.add(name, "p.jsonl", lines(rows), 'truth="wanted" text="written"', expected, expected)


def softmax(n, k, sharp=1.0):
    x = numpy.exp(sharp * rng.normal(size=(n, k)))
    return x / x.sum(1, keepdims=True)


def fill(cases):
    for i, (n, k) in enumerate([(1, 2), (7, 3), (200, 2), (150, 5), (120, 20)]):
        classes(cases, f"classes-{i}", rng.integers(0, k, n).tolist(), rng.integers(0, k, n).tolist())
    classes(cases, "one-class", [3] * 9, [3] * 9)
    classes(cases, "one-true-class", [3] * 9, [3, 3, 1, 3, 2, 3, 3, 3, 3])
    classes(cases, "never-right", [0, 1, 2, 0], [1, 2, 0, 2])
    classes(cases, "names", ["a b", "ä", "a,b", '"q"'], ["ä", "ä", "a,b", '"q"'])

    for i, (n, k) in enumerate([(60, 2), (150, 3), (200, 6)]):
        truth = rng.integers(0, k, n)
        truth[:k] = range(k)
        probabilities(cases, f"probabilities-{i}", truth.tolist(), softmax(n, k))
        probabilities(cases, f"json-{i}", truth.tolist(), softmax(n, k, 3.0), "p.jsonl")
    probabilities(cases, "sure-and-wrong", [0, 1, 0, 1], numpy.array([[0.0, 1.0], [1, 0], [1, 0], [0, 1]]))
    probabilities(cases, "ties", [0, 1, 2, 0, 1, 2], numpy.full((6, 3), 1 / 3))
    probabilities(cases, "one-true-class-of-two", [0] * 5, softmax(5, 2))
    probabilities(cases, "one-item", [1], softmax(1, 3))

    for i, n in enumerate([2, 30, 200]):
        truth = rng.integers(0, 2, n)
        truth[:2] = [0, 1]
        scores(cases, f"scores-{i}", truth.tolist(), rng.normal(size=n))
        scores(cases, f"tied-scores-{i}", truth.tolist(), rng.integers(0, 3, n))
    scores(cases, "all-tied", [0, 1, 1, 0], [0.5] * 4)
    scores(cases, "all-positive", [1, 1, 1], [0.1, 0.2, 0.3])
    scores(cases, "large", [0, 1, 0, 1], [-1e300, 1e300, 1e-300, 0.0])

    names = [f"d{i}" for i in range(40)]
    some = lambda most: random.sample(names, random.randint(1, most))
    rankings(
        cases,
        "rankings",
        [({d: random.randint(1, 3) for d in some(12)}, {d: random.random() for d in some(30)}) for _ in range(30)],
    )
    rankings(
        cases,
        "tied-rankings",
        [({d: random.randint(0, 2) for d in some(12)}, {d: float(random.randint(0, 2)) for d in some(30)}) for _ in range(30)],
    )
    rankings(cases, "not-found", [({"d1": 1}, {"d2": 1.0}), ({"d1": 2}, {"d1": 1.0})])
    rankings(cases, "no-answers", [({"d1": 1}, {}), ({"d1": 2, "d3": 1}, {"d3": 1.0, "d1": 0.5})])

    words = "the a cat dog, sat on 3.5 mats; it's (very) red-hot 1,000 times & done. Über naïve 日本 “quoted” U.S. 5-6 x=1".split()
    text = lambda n: " ".join(random.choice(words) for _ in range(n))
    worse = lambda t: " ".join(w for w in t.split() if random.random() < 0.8) + random.choice(["", ".", " cat"])
    wanted = [text(random.randint(1, 25)) for _ in range(40)]
    texts(cases, "texts", [(w, worse(w)) for w in wanted])
    texts(cases, "unlike", [(text(9), text(12)) for _ in range(20)])
    texts(cases, "same", [(w, w) for w in wanted])
    texts(cases, "short", [("a", "a"), ("a b", "b a"), ("c", "d")])
    texts(cases, "short-wanted", [("a", "abc def ghi jkl"), ("ab cd ef gh ij", "ab cd ef gh ij"), ("xy", "xyz x y")])
    texts(cases, "empty", [("a b c", ""), ("", "a")])
    texts(cases, "all-empty", [("a b c", ""), ("d", "")])
    texts(cases, "entities", [("a &amp; b &lt;c&gt; \"d\"", "a & b <c> &quot;d&quot;"), ("line\nbreak- \nhere", "line break here")])
    texts(cases, "spaces", [(" a b ", "a b"), ("a  b", "a b"), ("a\tb", "a b")])


def refused(root):
    """What a library answers with an exception, or with a number of what is no input, is one error here."""
    cases = {
        "nan": ("truth,p_a,p_b\na,nan,0.5\n", 'truth="truth" probability="p_{class}"', "row 1: `p_a` is no finite number"),
        "sums": ("truth,p_a,p_b\na,0.9,0.5\n", 'truth="truth" probability="p_{class}"', "its probabilities are 1.400 in sum"),
        "empty": ("truth,c\n", 'truth="truth" predicted="c"', "p.csv of p/empty has no rows"),
        "blank": ("truth,s\nyes,\n", 'truth="truth" score="s" positive="yes"', "row 1: `s` is empty, no number"),
    }
    for name, (text, line, says) in cases.items():
        dir = root / f"refused-{name}"
        dir.mkdir()
        (dir / "t.csv").write_text(text)
        (dir / "effai.kdl").write_text(
            f'project "refused"\ncommand "p/{name}" {{ run "cp" "t.csv" "p.csv"; input "t.csv"; output "p.csv"; }}\n'
            f'report "r" {{ compare "p/{name}"; predictions "p.csv" {line}; }}\n'
        )
        done = subprocess.run([effai, "build", "r"], cwd=dir, capture_output=True, text=True, env=environment(root))
        if done.returncode != 1 or says not in done.stderr:
            sys.exit(f"refused-{name}: exit code {done.returncode}, {done.stderr}")
    print(f"{len(cases)} inputs of which there is no number are refused, each with its place")


with tempfile.TemporaryDirectory() as root, warnings.catch_warnings():
    warnings.simplefilter("ignore")
    cases = Cases(root)
    fill(cases)
    cases.build()
    cases.check()
    refused(pathlib.Path(root))
