"""Five folds of whole sources: what a guard scores on sources it never saw, and which rule for a cut carries over.

    python bench/folds.py RUN --data DATA [--rows 8000] [--cap 100] [--folds 5]

Every source of the data folder is left out once. For each fold nano's base learns labels alone (`configs/labels.yaml`,
one epoch) from the first `--rows` rows of the recipe's mix without the fold's sources, then judges at most `--cap` rows
of each of them. No benchmark row is read. Printed: AUROC, best F1 and its cut, fold by fold; what each rule for a cut
is worth on a fold when line and cut come from the other folds; the best F1 over all folds by the share of positives;
the sources that are judged worst. Finished folds are kept; the same command goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from guardreasoner.data.mix import USES, DataConfig, load_mix
from guardreasoner.evaluate.calibrate import Target, as_asked, at_threshold, choose_threshold, fit, margins
from guardreasoner.export import onnx
from guardreasoner.guards.calibration import Calibration, Curve
from guardreasoner.guards.load import load_guard
from guardreasoner.records import read_jsonl, read_nouns, write_jsonl
from guardreasoner.teach.synthesize import synthesize
from guardreasoner.train.recipe import Recipe, load_recipe
from guardreasoner.train.sft import run_sft
from guardreasoner.types import TASKS, Example, Task

RULES = ("p=0.5", "f1", "expected-f1")
LEAST = 10
"""Rows of either label that a fold needs to count for a task."""


@dataclass(frozen=True, slots=True)
class Scores:
    """One task of one fold: log-probability margins, gold (True = positive) and sources, each of shape (n,)."""

    margin: NDArray[np.float64]
    gold: NDArray[np.bool_]
    source: NDArray[np.str_]

    @property
    def usable(self) -> bool:
        """Whether both labels occur often enough."""
        return bool(min(self.gold.sum(), (~self.gold).sum()) >= LEAST)


def assign(examples: Sequence[Example], folds: int, cap: int) -> dict[str, int]:
    """A fold for every source: largest first, each to the fold that has least of what the source has."""
    sizes: dict[str, Counter[tuple[Task, str]]] = {}
    for example in examples:
        size = sizes.setdefault(example.exchange.source, Counter())
        size.update((task, gold) for task in TASKS if (gold := example.gold[task]))
    sizes = {source: Counter({key: min(n, cap) for key, n in size.items()}) for source, size in sizes.items()}
    all_of = sum(sizes.values(), Counter[tuple[Task, str]]())
    held = [Counter[tuple[Task, str]]() for _ in range(folds)]
    found = {}
    for source, size in sorted(sizes.items(), key=lambda item: (-rarity(item[1], all_of), item[0])):
        fold = min(range(folds), key=lambda n: (sum(held[n][key] * w / all_of[key] for key, w in size.items()), n))
        held[fold].update(size)
        found[source] = fold
    return found


def rarity(size: Mapping[tuple[Task, str], int], all_of: Mapping[tuple[Task, str], int]) -> float:
    """The largest share that a source has of the rows with any one label."""
    return max(n / all_of[key] for key, n in size.items())


def train_fold(recipe: Recipe, sources: Sequence[str], folder: Path, args: argparse.Namespace) -> None:
    """Train without these sources, judge their rows and keep the scores in `FOLDER/scores.jsonl`."""
    if (folder / "scores.jsonl").exists():
        return
    caps = {source: args.cap if source in sources else cap for source, cap in recipe.data.caps.items()}
    data = replace(recipe.data, leave_out=tuple(sources), leave_out_cap=args.cap, caps=caps, limit=args.rows)
    synthesize(data, recipe.synthesize, out=folder, data_dir=args.data)
    run_sft(recipe.sft, recipe.model, out=folder)
    onnx.run(folder / "sft" / "checkpoint", folder, recipe.export)
    examples = list(as_asked(read_nouns(Example, folder / "synthesize" / "validation.jsonl")))
    guard = load_guard(str(folder / "export" / "model"), mode="instant", calibration=Calibration(), explaining=None)
    verdicts = guard.judge([e.exchange for e in examples])
    guard.close()
    write_jsonl(folder / "scores.jsonl", (
        {"id": e.exchange.id, "source": e.exchange.source, "task": task.value, "margin": float(x),
         "positive": e.gold[task] == TASKS[task].positive}
        for task in TASKS for e, x in zip(examples, margins(verdicts, task), strict=True)
        if e.gold[task] is not None and not np.isnan(x)
    ))  # fmt: skip


def read_scores(folder: Path) -> dict[Task, Scores]:
    """Scores of a fold by task."""
    rows = [row for _, row in read_jsonl(folder / "scores.jsonl")]
    return {task: as_scores([row for row in rows if row["task"] == task.value]) for task in TASKS}


def as_scores(rows: Sequence[Mapping[str, Any]]) -> Scores:
    """Rows of one task as columns."""
    return Scores(
        np.array([row["margin"] for row in rows], dtype=float),
        np.array([row["positive"] for row in rows], dtype=bool),
        np.array([row["source"] for row in rows], dtype=str),
    )


def joined(parts: Sequence[Scores]) -> Scores:
    """Several folds as one."""
    return Scores(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("margin", "gold", "source")))


def probabilities(curve: Curve, scores: Scores) -> NDArray[np.float64]:
    """P of the positive label."""
    return np.array([curve.probability(x) for x in scores.margin], dtype=float)


def fold_lines(folds: Sequence[dict[Task, Scores]]) -> Iterator[str]:
    """How well each fold is ranked, and how far apart the best cuts lie."""
    yield "| task | fold | rows, positive | AUROC | best F1 | its cut, on the margin | always positive |"
    yield "|---" * 7 + "|"
    for task in TASKS:
        for number, scores in enumerate(fold[task] for fold in folds):
            if not scores.usable:
                yield f"| {task} | {number + 1} | {len(scores.gold)}, {scores.gold.sum()} | too few | | | |"
                continue
            p = probabilities(Curve(), scores)
            cut = choose_threshold(p, scores.gold, Target("f1"))
            best = at_threshold(p, scores.gold, cut)["f1"]
            floor = at_threshold(p, scores.gold, 0.0)["f1"]
            yield (f"| {task} | {number + 1} | {len(p)}, {scores.gold.sum()} | {roc_auc_score(scores.gold, p):.3f} | "
                   f"{best:.3f} | {np.log(cut / (1 - cut)):+.2f} | {floor:.3f} |")  # fmt: skip


def rule_lines(folds: Sequence[dict[Task, Scores]]) -> Iterator[str]:
    """F1 on each fold when line and cut come from the other folds; the best cut of the fold itself beside it."""
    yield "| task | cut | " + " | ".join(f"fold {n + 1}" for n in range(len(folds))) + " | mean | cut from all |"
    yield "|---" * (len(folds) + 4) + "|"
    for task in TASKS:
        usable = {n: fold[task] for n, fold in enumerate(folds) if fold[task].usable}
        for rule in RULES:
            others = {n: joined([part for k, part in usable.items() if k != n]) for n in usable}
            found = {n: f1_at(usable[n], fit_of(others[n], task, rule)) for n in usable}
            cut = fit_of(joined(list(usable.values())), task, rule).threshold
            yield rule_line(task, rule, found, len(folds)) + f" {cut:.3f} |"
        best = {n: f1_at(scores, fit_of(scores, task, "f1")) for n, scores in usable.items()}
        yield rule_line(task, "the fold's own best", best, len(folds)) + " |"


def rule_line(task: Task, name: str, found: Mapping[int, float], folds: int) -> str:
    """One line of the table of rules, but for its last cell."""
    cells = [f"{100 * found[n]:.1f}" if n in found else "" for n in range(folds)]
    return f"| {task} | {name} | {' | '.join(cells)} | {100 * np.mean(list(found.values())):.1f} |"


def fit_of(scores: Scores, task: Task, rule: str) -> Curve:
    """Platt line and cut."""
    return fit(scores.margin, scores.gold, task=task, mode="instant", target=Target.parse(rule)).curve


def f1_at(scores: Scores, curve: Curve) -> float:
    """F1 in [0, 1] at the curve's cut."""
    return at_threshold(probabilities(curve, scores), scores.gold, curve.threshold)["f1"]


def balance_lines(
    folds: Sequence[dict[Task, Scores]], shares: Sequence[float] = (1 / 8, 1 / 4, 3 / 8, 1 / 2)
) -> Iterator[str]:
    """Best F1 over all folds, were this the share of positives: half of it is the `expected-f1` cut there."""
    yield "| task | " + " | ".join(f"{share:.1%} positive" for share in shares) + " |"
    yield "|---" * (len(shares) + 1) + "|"
    for task in TASKS:
        scores = joined([fold[task] for fold in folds if fold[task].usable])
        gold = scores.gold[np.argsort(-scores.margin)]
        recall, fpr = np.cumsum(gold) / gold.sum(), np.cumsum(~gold) / (~gold).sum()
        best = [float((2 * s * recall / (s * recall + (1 - s) * fpr + s)).max()) for s in shares]
        yield f"| {task} | " + " | ".join(f"{x:.3f}" for x in best) + " |"


def worst_lines(folds: Sequence[dict[Task, Scores]], shown: int = 6) -> Iterator[str]:
    """The sources with the largest share of rows on the wrong side of the pooled `expected-f1` cut."""
    yield "| task | source | fold | rows, positive | wrong |\n|---|---|---|---|---|"
    for task in TASKS:
        pooled = joined([fold[task] for fold in folds])
        curve = fit_of(pooled, task, "expected-f1")
        found = []
        for number, scores in enumerate(fold[task] for fold in folds):
            wrong = (probabilities(curve, scores) >= curve.threshold) != scores.gold
            for source in sorted(set(scores.source.tolist())):
                here = scores.source == source
                if here.sum() >= LEAST:
                    found.append((wrong[here].mean(), source, number, here.sum(), scores.gold[here].sum()))
        for share, source, number, rows, positive in sorted(found, reverse=True)[:shown]:
            yield f"| {task} | {source} | {number + 1} | {rows}, {positive} | {share:.0%} |"


def main() -> None:
    """Train what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=8_000)
    parser.add_argument("--cap", type=int, default=100)
    parser.add_argument("--folds", type=int, default=5)
    args = parser.parse_args()
    recipe = load_recipe(Path(__file__).parent / "configs" / "labels.yaml")
    everything, _, _ = load_mix(DataConfig(folder=recipe.data.folder, use=USES), args.data)
    fold_of = assign(everything, args.folds, args.cap)
    for number in range(args.folds):
        sources = sorted(source for source, fold in fold_of.items() if fold == number)
        print(f"fold {number + 1}: {', '.join(sources)}", file=sys.stderr)
        train_fold(recipe, sources, args.out / f"fold-{number + 1}", args)
    folds = [read_scores(args.out / f"fold-{number + 1}") for number in range(args.folds)]
    for lines in (fold_lines, rule_lines, balance_lines, worst_lines):
        print("\n".join(lines(folds)), end="\n\n")


if __name__ == "__main__":
    main()
