"""Fit probabilities, thresholds and `auto`'s band on labelled rows that the guard was not trained on.

Platt scaling, per task and mode: logistic regression (scikit-learn) of gold on the log-probability margin. It is
monotone, so it changes what a score means and leaves the ranking alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guardreasoner.errors import ConfigError, DataError, need
from guardreasoner.guards.base import known_tasks
from guardreasoner.guards.calibration import Curve
from guardreasoner.metrics import expected_calibration_error
from guardreasoner.types import TASKS, Example, Labels, Task, Verdict

Floats = NDArray[np.float64]
TARGETS = ("f1", "expected-f1", "fpr", "precision", "recall", "p")
MIN_PER_CLASS = 10


@dataclass(frozen=True, slots=True)
class Target:
    """What a threshold is chosen for."""

    kind: str
    """`f1` = best F1 on the rows; `expected-f1` = best F1 if the probabilities hold;
    `fpr`, `precision`, `recall` = best recall (precision) at that bound; `p` = that P."""
    value: float = 0.5

    @classmethod
    def parse(cls, text: str) -> Target:
        """`f1`, `expected-f1`, `fpr=0.01`, `precision=0.9`, `recall=0.9` or `p=0.5`."""
        kind, equals, number = text.partition("=")
        try:
            value = float(number) if equals else 0.5
        except ValueError:
            value = -1.0
        if kind not in TARGETS or not 0 < value < 1 or (kind not in TARGETS[:2] and not equals):
            raise ConfigError(
                f"--target {text!r} is none of: f1, expected-f1, fpr=X, precision=X, recall=X, p=X with 0 < X < 1"
            )
        return cls(kind, value)


@dataclass(frozen=True, slots=True)
class CalibrateConfig:
    """What the calibrate stage of a recipe does."""

    target: str = "f1"
    """How thresholds are chosen (see `Target`)."""
    targets: Mapping[str, str] = field(default_factory=dict)
    """The same for single tasks."""
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Left-out sources that a task is fitted on; a task that is not named is fitted on all of them."""
    pieces: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    """Of a task whose texts are cut up, what a piece needs above the threshold (`Curve.piece`): a choice, not a fit."""
    modes: tuple[str, ...] = ("instant",)
    """Modes to fit; each judges every validation row once."""
    budget: float = 0.0
    """Share of rows that `auto` may send on to reasoning; 0 = `auto` is `instant`."""
    larger_budget: float = 0.5
    """Share of rows that `auto` may send on to a larger guard first (`export/micro_stage.py`)."""
    limit: int | None = None
    """Validation rows that are judged, drawn in the proportions of their gold; None = all."""

    def __post_init__(self) -> None:
        known_tasks((*self.targets, *self.sources, *self.pieces))


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted curve and how well it does on the rows it was fitted on."""

    task: Task
    mode: str
    curve: Curve
    n: int
    positives: int
    auroc: float
    brier: float
    ece: float
    """Expected calibration error (`metrics.expected_calibration_error`)."""
    ece_before: float
    attained: Mapping[str, float]
    """f1, precision, recall and fpr at the threshold, on these rows."""
    interval: tuple[float, float]
    """95% bootstrap interval of the threshold."""


def margins(verdicts: Sequence[Verdict], task: Task) -> Floats:
    """Log-probability margins behind the scores of an uncalibrated guard; NaN if there is none."""
    raw = [v.scores[task.value] for v in verdicts]
    p = np.array([np.nan if s is None else s for s in raw], dtype=float)
    clipped = np.clip(p, 1e-9, 1 - 1e-9)
    return np.asarray(np.log(clipped) - np.log1p(-clipped), dtype=float)


def fit_verdicts(
    verdicts: Sequence[Verdict],
    examples: Sequence[Example],
    *,
    mode: str,
    target: Target,
    targets: Mapping[Task, Target] | None = None,
    sources: Mapping[str, Sequence[str]] | None = None,
    budget: float = 0.0,
) -> list[Fit]:
    """Fit each task of which both labels occur often enough.

    Args:
        verdicts: of an uncalibrated guard, one an example.
        targets: the same as `target`, for single tasks.
        sources: sources whose rows a task is fitted on; all where it is not named.
        budget: share of rows that `auto` may send on to reasoning; 0 = none.
    """
    fits = []
    for task in TASKS:
        x = margins(verdicts, task)
        wanted = (sources or {}).get(task)
        rows = [
            i
            for i, e in enumerate(examples)
            if e.gold[task] is not None and not math.isnan(x[i]) and (wanted is None or e.exchange.source in wanted)
        ]
        y = np.array([examples[i].gold[task] == TASKS[task].positive for i in rows], dtype=bool)
        if min(y.sum(), (~y).sum(), len(y)) >= MIN_PER_CLASS:
            aim = (targets or {}).get(task, target)
            fits.append(fit(x[rows], y, task=task, mode=mode, target=aim, budget=budget))
    if not fits:
        raise DataError(
            f"no task has {MIN_PER_CLASS} rows of each label with a score; "
            "give more labelled rows, or a guard that has scores"
        )
    return fits


def fit(x: Floats, y: NDArray[np.bool_], *, task: Task, mode: str, target: Target, budget: float = 0.0) -> Fit:
    """Fit one task from margins `x` and gold `y` (True = positive), both of shape (n,)."""
    linear = need("sklearn.linear_model", "eval")
    quality = need("sklearn.metrics", "eval")
    model = linear.LogisticRegression(C=1e6).fit(x[:, None], y)
    slope, shift = float(model.coef_[0, 0]), float(model.intercept_[0])
    if slope <= 0:
        raise DataError(f"on {task} the scores rank negatives above positives, so no threshold can be fitted")
    p = 1 / (1 + np.exp(-(slope * x + shift)))
    threshold = choose_threshold(p, y, target)
    curve = Curve("platt", (slope, shift), threshold, band(p, threshold, budget))
    return Fit(
        task,
        mode,
        curve,
        len(y),
        int(y.sum()),
        float(quality.roc_auc_score(y, x)),
        float(quality.brier_score_loss(y, p)),
        expected_calibration_error(p.tolist(), y.tolist()),
        expected_calibration_error((1 / (1 + np.exp(-x))).tolist(), y.tolist()),
        at_threshold(p, y, threshold),
        _interval(p, y, target),
    )


def choose_threshold(p: Floats, y: NDArray[np.bool_], target: Target) -> float:
    """The probability at or above which a row is called positive; strictly between 0 and 1.

    `expected-f1` is half of the best F1: where probabilities hold, that is the threshold with the best expected F1
    (Lipton, Elkan and Naryanaswamy 2014, arXiv 1402.1892). The best F1 of some hundred rows is a steady number; the
    place where it happens to be reached is not.
    """
    if target.kind == "p":
        return target.value
    if target.kind == "expected-f1":
        best_f1 = at_threshold(p, y, choose_threshold(p, y, Target("f1")))["f1"]
        return float(np.clip(best_f1 / 2, 1e-6, 1 - 1e-6))
    order = np.argsort(-p, kind="stable")
    hits, calls = np.cumsum(y[order]), np.arange(1, len(p) + 1)
    last = np.append(p[order][1:] != p[order][:-1], True)  # ties are called together
    positives, negatives = max(1, int(y.sum())), max(1, int((~y).sum()))
    precision, recall, fpr = hits / calls, hits / positives, (calls - hits) / negatives
    if target.kind == "f1":
        merit = np.where(last, 2 * hits / (calls + positives), -1.0)
    elif target.kind == "fpr":
        merit = np.where(last & (fpr <= target.value), recall, -1.0)
    elif target.kind == "precision":
        merit = np.where(last & (precision >= target.value), recall, -1.0)
    else:
        merit = np.where(last & (recall >= target.value), precision, -1.0)
    best = int(np.argmax(merit))
    if merit[best] < 0:  # no call meets the bound: call nothing
        return float(np.clip((p.max() + 1) / 2, 1e-6, 1 - 1e-6))
    below = p[order][best + 1] if best + 1 < len(p) else 0.0
    return float(np.clip((p[order][best] + below) / 2, 1e-6, 1 - 1e-6))


def at_threshold(p: Floats, y: NDArray[np.bool_], threshold: float) -> dict[str, float]:
    """f1, precision, recall and fpr in [0, 1]."""
    called = p >= threshold
    hit = int((called & y).sum())
    return {
        "f1": 2 * hit / max(1, int(called.sum()) + int(y.sum())),
        "precision": hit / max(1, int(called.sum())),
        "recall": hit / max(1, int(y.sum())),
        "fpr": int((called & ~y).sum()) / max(1, int((~y).sum())),
    }


def band(p: Floats, threshold: float, budget: float) -> tuple[float, float] | None:
    """The interval around the threshold that holds `budget` of the rows, in order of distance on the logit scale."""
    if budget <= 0:
        return None
    p = np.clip(p, 1e-9, 1 - 1e-9)
    logit = np.log(p) - np.log1p(-p)
    centre = math.log(threshold / (1 - threshold))
    width = float(np.quantile(np.abs(logit - centre), min(1.0, budget)))
    return tuple(float(1 / (1 + math.exp(-v))) for v in (centre - width, centre + width))  # type: ignore[return-value]


def _interval(p: Floats, y: NDArray[np.bool_], target: Target, resamples: int = 200) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(resamples):
        rows = rng.integers(0, len(p), len(p))
        found.append(choose_threshold(p[rows], y[rows], target))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def as_row(fit: Fit) -> dict[str, Any]:
    """A fit as one JSON row for logs."""
    return {
        "task": fit.task.value,
        "mode": fit.mode,
        "n": fit.n,
        "positives": fit.positives,
        "auroc": fit.auroc,
        "brier": fit.brier,
        "ece": fit.ece,
        "ece_before": fit.ece_before,
        "threshold": fit.curve.threshold,
        "threshold_interval": list(fit.interval),
        **{f"{k}_at_threshold": v for k, v in fit.attained.items()},
    }


def as_asked(examples: Iterable[Example]) -> Iterator[Example]:
    """Each row as a guard meets it: the request before there is a reply (`ID/request`), and the reply with it."""
    for example in examples:
        exchange, gold = example.exchange, example.gold
        if gold.prompt_harm is not None:
            request = exchange if exchange.response is None else replace(exchange, id=f"{exchange.id}/request")
            yield Example(replace(request, response=None), Labels(gold.prompt_harm), example.category)
        if exchange.response is not None and (gold.refusal or gold.response_harm):
            yield Example(exchange, replace(gold, prompt_harm=None), example.category)
