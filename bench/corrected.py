"""What training on corrected labels changes: the same classifier on the same rows, labels as they were or as the writer
of the traces has them, on benchmarks that people labelled and no training source shares a request with.

    python bench/corrected.py --data DATA                      TF-IDF on the rows that the writer read
    python bench/corrected.py --data DATA --rows all           on every training row, at most 2,000 of a source
    python bench/corrected.py --data DATA --features nano      logistic regression on nano's features, network untouched

Four arms: `original`; `corrected` (the writer's labels where it says that gold is wrong); `left out` (neither: these
labels are unknown); `at random` (as many labels of the same source and value flipped, none of them disputed). Each
picks its threshold by cross-validation over sources, on its own labels. Differences are paired and prompts resampled,
2,000 times. The corrections are one model's, so this says what they do, not that they are right.
"""

import argparse
import importlib.util
from collections import Counter
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_recall_curve
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from guardreasoner.data.benchmarks import find_benchmark, load_benchmark
from guardreasoner.engines.encoder import EncoderEngine
from guardreasoner.errors import InputTooLong
from guardreasoner.evaluate.compare import compare, of_p
from guardreasoner.evaluate.statistics import Outcomes, two_sided
from guardreasoner.guards.ours import NANO_FOLDER
from guardreasoner.records import read_jsonl
from guardreasoner.review.disputed import read_disputed
from guardreasoner.types import TASKS, Task

spec = importlib.util.spec_from_file_location("tfidf_guard", Path(__file__).parents[1] / "examples" / "tfidf_guard.py")
tfidf = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tfidf)

BENCHMARKS = {
    Task.prompt_harm: ("ToxicChat", "OpenAIModeration", "AegisSafetyTest"),
    Task.refusal: ("XSTestResponseRefusal",),
    Task.response_harm: ("HarmBenchResponse", "SafeRLHF", "BeaverTails", "XSTestResponseHarmful"),
}
"""Those whose labels people gave and that hold both labels."""
ARMS = ("original", "corrected", "left out", "at random")
RESAMPLES = 2000


class Words:
    """TF-IDF, as the example guard reads a text."""

    def classifier(self):
        return tfidf.classifier()

    def read(self, task, pairs):
        return np.array([tfidf.text_of(task, *pair) for pair in pairs], object)


class Nano:
    """What nano's network says of a text, under a fresh head; a text that needs more than one pass is cut."""

    def __init__(self):
        self.engine, self.known = EncoderEngine(NANO_FOLDER, threads=1), {}

    def classifier(self):
        return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=1000))

    def read(self, task, pairs):
        asked = [(p, r if TASKS[task].needs_response else None) for p, r in pairs]
        for pair in asked:
            if pair not in self.known:
                self.known[pair] = self._features(*pair)
        return np.stack([self.known[pair] for pair in asked])

    def _features(self, prompt, response, most=1600):
        while True:
            try:
                cut = (prompt[:most], None if response is None else response[:most])
                return self.engine.score([cut]).features[0]
            except InputTooLong:
                most //= 2


def training_rows(data, which):
    """Labelled rows with their source, and per row what the writer says of the labels that it disputes."""
    traces = data / "traces" / "traces.jsonl"
    said = {d.row["id"]: {t: d.said(t) for t in d.tasks} for d in read_disputed(traces, data / "train")}
    rows = tfidf.read_rows(data / "train", "all")
    if which == "traced":
        read = {row["id"] for _, row in read_jsonl(traces)}
        rows = [
            (path.stem, row)
            for path in sorted((data / "train").glob("*.jsonl"))
            for _, row in read_jsonl(path)
            if row["id"] in read
        ]
    return rows, said


def labels(rows, task, arm, said):
    """The label of each row that an arm learns, or None."""
    own = [row[task] for _, row in rows]
    disputed = {i: said[row["id"]][task] for i, (_, row) in enumerate(rows) if task in said.get(row["id"], {})}
    if arm == "at random":
        rng, alike = np.random.default_rng(0), {}
        for i, (source, row) in enumerate(rows):
            if i not in disputed:
                alike.setdefault((source, row[task]), []).append(i)
        wanted = Counter((rows[i][0], own[i]) for i in disputed if disputed[i] != own[i])
        disputed = {
            int(i): other(task, own[int(i)])
            for kind, n in wanted.items()
            for i in rng.permutation(alike.get(kind, []))[:n]
        }
    if arm == "original":
        return own
    return [own[i] if i not in disputed else None if arm == "left out" else disputed[i] for i in range(len(rows))]


def other(task, value):
    row = TASKS[task]
    return row.negative if value == row.positive else row.positive


def fitted(base, task, learned, rows, texts):
    """A classifier on all rows, and the threshold of the best F1 on sources that it did not see."""
    known = np.array([bool(x) for x in learned])
    truth = np.array([x == TASKS[task].positive for x in learned])[known]
    sources = np.array([source for source, _ in rows])[known]
    folds = StratifiedGroupKFold(tfidf.FOLDS, shuffle=True, random_state=0)
    unseen = cross_val_predict(
        base.classifier(), texts[known], truth, groups=sources, cv=folds, method="predict_proba"
    )[:, 1]
    precision, recall, at = precision_recall_curve(truth, unseen)
    best = np.argmax((2 * precision * recall / np.maximum(precision + recall, 1e-9))[:-1])
    return base.classifier().fit(texts[known], truth), float(at[best])


def areas(a, b, rng):
    """AUROC of two arms on one cell, and the resampled difference."""
    prompts = np.unique(a.clusters, return_inverse=True)[1]
    n = prompts.max() + 1
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES)[:, prompts]
    once = np.ones((1, a.n))
    return area(a, once)[0], area(b, once)[0], area(a, drawn) - area(b, drawn)


def area(cell, weights):
    """AUROC under several weightings of the rows, (times, rows): pairs in the right order, ties half."""
    order = np.argsort(cell.scores, kind="stable")
    starts = np.flatnonzero(np.diff(cell.scores[order], prepend=-1.0))
    positive, negative = (
        np.add.reduceat(weights[:, order] * kind[order], starts, axis=1) for kind in (cell.gold, ~cell.gold)
    )
    below = np.cumsum(negative, axis=1) - negative / 2
    return (positive * below).sum(1) / (positive.sum(1) * negative.sum(1))


def show(name, rows, after, before, spread):
    low, high = np.quantile(spread, [0.025, 0.975])
    change = f"{before:.3f} > {after:.3f}  {after - before:+.3f} ({low:+.3f} to {high:+.3f})"
    print(f"  {name:<28}{rows:>6}  {change}  p {of_p(two_sided(spread))}", flush=True)


def compared(task, found, one, other):
    print(f"{task.value}: {other} > {one}")
    rng, every = np.random.default_rng(0), []
    for a, b in zip(found[one], found[other], strict=True):
        x, y, spread = areas(a, b, rng)
        every.append((x, y, spread))
        show(f"AUROC {a.benchmark}", a.n, x, y, spread)
    x, y, spread = (np.mean([e[i] for e in every], axis=0) for i in range(3))
    show("AUROC, mean of cells", sum(c.n for c in found[one]), x, y, spread)
    f1 = compare(found[one], found[other])
    print(f"  F1, weighted by rows: {f1.difference:+.2f} ({f1.low:+.2f} to {f1.high:+.2f}), p {of_p(f1.p)}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", choices=("traced", "all"), default="traced")
    parser.add_argument("--features", choices=("words", "nano"), default="words")
    args = parser.parse_args()
    base = Words() if args.features == "words" else Nano()
    rows, said = training_rows(args.data, args.rows)
    for task, names in BENCHMARKS.items():
        asked = [(s, r) for s, r in rows if r.get("response") or not TASKS[task].needs_response]
        asked = [(s, r) for s, r in asked if r.get(task)]
        changed = sum(task in said.get(r["id"], {}) for _, r in asked)
        print(f"\n{task.value}: {len(asked):,} rows, {changed} labels disputed", flush=True)
        texts = base.read(task, [(r["prompt"], r.get("response")) for _, r in asked])
        models = {arm: fitted(base, task, labels(asked, task, arm, said), asked, texts) for arm in ARMS}
        found = {arm: [] for arm in ARMS}
        for name in names:
            examples = [e for e in load_benchmark(name, args.data) if e.gold[task]]
            read = base.read(task, [(e.exchange.prompt, e.exchange.response) for e in examples])
            gold = np.array([e.gold[task] == TASKS[task].positive for e in examples])
            ids, prompts = (tuple(getattr(e.exchange, key) for e in examples) for key in ("id", "prompt"))
            for arm, (model, threshold) in models.items():
                p = model.predict_proba(read)[:, 1]
                found[arm].append(Outcomes(find_benchmark(name).name, task, arm, ids, gold, p >= threshold, prompts, p))
        for arm in ARMS[1:]:
            compared(task, found, arm, "original")


if __name__ == "__main__":
    main()
