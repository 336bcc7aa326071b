"""Fit how two guards decide together, on labelled rows that neither was trained on.

    python -m guardreasoner.evaluate.fit_stack FIRST SECOND --budget 0.2 --out bundled.json

FIRST and SECOND are verdicts on the same rows, each line with its `gold` (as `evaluate` writes them). A stack is, per
task, a logistic regression of gold on both log-odds, fitted on all rows and tested with whole sources left out. Where
it ranks no better than the first guard alone, the task gets no stack and the first guard decides; where it spoils as
many of the answers that `auto` would send on as it mends, the task gets no band.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guardreasoner.errors import DataError, GuardReasonerError, need
from guardreasoner.evaluate.calibrate import MIN_PER_CLASS, Floats, Target, band, choose_threshold
from guardreasoner.guards.cascade import EDGE, Stack
from guardreasoner.metrics import logit
from guardreasoner.records import read_jsonl, write_atomic
from guardreasoner.types import TASKS, Task


@dataclass(frozen=True, slots=True)
class StackFit:
    """A fitted stack and what it is worth."""

    task: Task
    stack: Stack
    rows: int
    positives: int
    first: float
    """AUROC of the first guard."""
    second: float
    both: float
    """AUROC of the stack, each source judged by a stack fitted on the others."""
    band: tuple[float, float] | None
    """P of the first guard within which `auto` asks the second."""
    sent: int
    """Rows inside the band."""
    fixed: int
    """Of those, the first guard's mistakes that the stack, its source left out, mends."""
    broken: int
    """And its right answers that the stack spoils."""

    @property
    def pays(self) -> bool:
        """Whether the stack ranks better than the first guard alone."""
        return self.both > self.first

    @property
    def pays_in_auto(self) -> bool:
        """Whether the stack also mends more of what `auto` sends on than it spoils."""
        return self.pays and self.fixed > self.broken


def fit_stack(
    x: Floats, y: NDArray[np.bool_], sources: Sequence[str], *, task: Task, budget: float, threshold: float
) -> StackFit:
    """Fit one task.

    Args:
        x: log-odds of both guards, (n, 2).
        y: gold, True = positive, (n,).
        sources: of each row; those are left out one by one.
        budget: share of the rows that `auto` sends on.
        threshold: of the first guard; the band is placed around it.
    """
    quality = need("sklearn.metrics", "eval")
    left_out, said = np.full(len(y), np.nan), np.zeros(len(y), bool)
    names = np.array(sources)
    for source in sorted(set(sources)):
        here = names == source
        if len(set(y[~here].tolist())) == 2:
            weights, cut = _logistic(x[~here], y[~here])
            left_out[here] = x[here] @ weights[:2] + weights[2]
            said[here] = _sigmoid(left_out[here]) >= cut
    known = ~np.isnan(left_out)
    if len(set(y[known].tolist())) < 2:
        raise DataError(f"a stack of {task.value} needs two left-out sources with both labels; leave more sources out")
    (one, two, bias), cut = _logistic(x, y)
    first = _sigmoid(x[:, 0])
    within = band(first, threshold, budget)
    sent = known & (first > within[0]) & (first < within[1]) if within else np.zeros(len(y), bool)
    was_right, is_right = (first >= threshold) == y, said == y
    return StackFit(
        task,
        Stack(one, two, bias, cut),
        len(y),
        int(y.sum()),
        float(quality.roc_auc_score(y[known], x[known, 0])),
        float(quality.roc_auc_score(y[known], x[known, 1])),
        float(quality.roc_auc_score(y[known], left_out[known])),
        within,
        int(sent.sum()),
        int((sent & is_right & ~was_right).sum()),
        int((sent & ~is_right & was_right).sum()),
    )


def _logistic(x: Floats, y: NDArray[np.bool_]) -> tuple[tuple[float, float, float], float]:
    """Weights of both log-odds and their bias, and the threshold on P."""
    model = need("sklearn.linear_model", "eval").LogisticRegression(C=1.0, class_weight=None).fit(x, y)
    one, two, bias = float(model.coef_[0, 0]), float(model.coef_[0, 1]), float(model.intercept_[0])
    p = _sigmoid(x @ np.array([one, two]) + bias)
    return (one, two, bias), choose_threshold(p, y, Target("expected-f1"))


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-x)))


@dataclass(frozen=True, slots=True)
class TwoAnswers:
    """What two guards said of one row."""

    source: str
    gold: Mapping[str, str | None]
    first: Mapping[str, float | None]
    """P of each task."""
    second: Mapping[str, float | None]


def fit_rows(rows: Sequence[TwoAnswers], *, budget: float, thresholds: Mapping[Task, float]) -> list[StackFit]:
    """Fit every task that has enough rows of either label.

    Args:
        budget: share of the rows that `auto` sends on.
    """
    fits = []
    for task in TASKS:
        known = [r for r in rows if r.gold.get(task) and None not in (r.first[task], r.second[task])]
        y = np.array([r.gold[task] == TASKS[task].positive for r in known], dtype=bool)
        if min(int(y.sum()), int((~y).sum())) < MIN_PER_CLASS:
            continue
        x = np.array([[logit(p or 0.0, EDGE) for p in (r.first[task], r.second[task])] for r in known])
        sources = [r.source for r in known]
        fits.append(fit_stack(x, y, sources, task=task, budget=budget, threshold=thresholds.get(task, 0.5)))
    return fits


def fit_files(first: str | Path, second: str | Path, *, budget: float, thresholds: dict[Task, float]) -> list[StackFit]:
    """Fit all tasks of two files or folders of verdicts."""
    one, two = _verdicts(Path(first)), _verdicts(Path(second))
    rows = [
        TwoAnswers(str(one[i].get("source") or i.rsplit("-", 1)[0]), one[i]["gold"], one[i]["scores"], two[i]["scores"])
        for i in one
        if i in two
    ]
    fits = fit_rows(rows, budget=budget, thresholds=thresholds)
    if not fits:
        raise DataError(f"no task has {MIN_PER_CLASS} rows of each label that both guards scored", file=str(second))
    return fits


def _verdicts(path: Path) -> dict[str, dict[str, Any]]:
    files = sorted((path / "verdicts").glob("*.jsonl")) if path.is_dir() else [path]
    return {str(row["exchange_id"]): dict(row) for file in files for _, row in read_jsonl(file) if row.get("gold")}


def as_file(fits: Sequence[StackFit]) -> dict[str, Any]:
    """What the cascade reads, and what was measured."""
    kept = [fit for fit in fits if fit.pays]
    return {
        "stacks": {fit.task.value: asdict(fit.stack) for fit in kept},
        "bands": {fit.task.value: list(fit.band) for fit in kept if fit.band and fit.pays_in_auto},
        "fits": [{**asdict(fit), "pays": fit.pays, "pays_in_auto": fit.pays_in_auto} for fit in fits],
    }


def as_text(fits: Sequence[StackFit]) -> str:
    """A line for each task: what both are worth, who decides, and what `auto` would send on."""
    return "\n".join(
        f"{fit.task.value:<14} n {fit.rows:>5}  first {fit.first:.3f}  second {fit.second:.3f}  both {fit.both:.3f}"
        f"  {'both decide' if fit.pays else 'the first decides'}; auto sends {fit.sent}, mends {fit.fixed}, "
        f"spoils {fit.broken}"
        for fit in fits
    )


def main(words: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m guardreasoner.evaluate.fit_stack", description=__doc__)
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("--calibration", help="the first guard's calibration.json, for its thresholds")
    parser.add_argument("--budget", type=float, default=0.2, help="share of rows that auto sends on")
    parser.add_argument("--out", required=True)
    args = parser.parse_args(words)
    try:
        thresholds: dict[Task, float] = {}
        if args.calibration:
            from guardreasoner.guards.calibration import read_calibration

            found = read_calibration(args.calibration)
            thresholds = {task: found.curve(task, "instant").threshold for task in TASKS}
        fits = fit_files(args.first, args.second, budget=args.budget, thresholds=thresholds)
        write_atomic(Path(args.out), json.dumps(as_file(fits), indent=2) + "\n")
    except GuardReasonerError as error:
        print(f"stack: {error}", file=sys.stderr)
        return 1
    print(as_text(fits))
    return 0


if __name__ == "__main__":
    sys.exit(main())
