"""Fit an encoder's heads to a user's own labelled rows: minutes on a laptop, no torch, the network stays as it is.

Each task's head is moved as far from its old weights as the rows pay for: cross entropy on the rows plus
`pull / 2 * |change|^2` in units of each feature's spread. The pull is chosen by cross-validation on the rows, so is the
threshold; a fifth of the rows is kept out, and everyday's test domains say what the change costs elsewhere.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guardreasoner.data.everyday import shipped
from guardreasoner.data.labelled import Column, read_examples
from guardreasoner.engines.encoder import EncoderEngine, Pair, write_heads
from guardreasoner.errors import ConfigError, DataError, InputTooLong, need
from guardreasoner.evaluate.calibrate import MIN_PER_CLASS, Target, as_asked, at_threshold, choose_threshold
from guardreasoner.guards.calibration import Calibration, Curve, read_calibration
from guardreasoner.guards.encoder import pair_of
from guardreasoner.records import whole_folder, write_atomic
from guardreasoner.types import TASKS, Example, Task

Floats = NDArray[np.float64]
Truth = NDArray[np.bool_]
PULLS = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
"""Strong to weak; of pulls that do equally well the strongest is taken."""
FOLDS = 4
HELD_OUT = 0.2


@dataclass(frozen=True, slots=True)
class TunedTask:
    """One task on one set of rows, before and after."""

    task: str
    rows: str
    """`own, held out` or `everyday`."""
    n: int
    before: dict[str, float]
    """f1, recall, fpr and auroc, in [0, 1]."""
    after: dict[str, float]


@dataclass(frozen=True, slots=True)
class _Rows:
    """Features and gold of one task."""

    features: Floats
    truth: Truth
    prompts: list[str]


def tune(
    base: Path,
    labelled: Path,
    out: Path,
    *,
    target: Target,
    mapping: Mapping[str, Column] | None = None,
    seed: int = 0,
) -> list[TunedTask]:
    """Write a guard folder fitted to labelled rows; `out` must not be there.

    Args:
        base: an encoder's folder.
        labelled: a `.jsonl`, `.csv` or `.json` file with prompt, response and labels.
    """
    if out.exists():
        raise ConfigError(f"{out} is there already; give another --out")
    engine = EncoderEngine(base)
    own = _by_task(engine, read_examples(labelled, mapping))
    fitted = {t: rows for t, rows in own.items() if min(rows.truth.sum(), (~rows.truth).sum()) >= MIN_PER_CLASS}
    if not fitted:
        counts = "; ".join(
            f"{t.value}: {r.truth.sum()} {TASKS[t].positive}, {(~r.truth).sum()} not" for t, r in own.items()
        )
        raise DataError(
            f"no task has {MIN_PER_CLASS} rows of each label ({counts or 'no labels at all'}); add rows, harmless ones "
            "beside harmful ones",
            file=str(labelled),
        )
    for task, rows in fitted.items():
        sides = [{p for p, y in zip(rows.prompts, rows.truth, strict=True) if y == side} for side in (True, False)]
        if min(map(len, sides)) < FOLDS + 1:
            few = f"{task.value}: {len(sides[0])} prompts of {TASKS[task].positive} rows and {len(sides[1])} of others"
            raise DataError(
                f"{few}; rows of one prompt are kept together, so give at least {FOLDS + 1} prompts of each",
                file=str(labelled),
            )
    everyday = _by_task(engine, read_examples(shipped("everyday")))
    calibration = read_calibration(base / "calibration.json") if (base / "calibration.json").exists() else Calibration()
    weight, bias, curves = engine.weight.astype(float), engine.bias.astype(float), dict(calibration.curves)
    measures: list[TunedTask] = []
    for task, rows in fitted.items():
        head, old = engine.outputs.index(task.value), calibration.curve(task, "instant")
        kept, held = _split(rows, seed)
        w, b, curve = _fit(kept, weight[head], bias[head], old, target=target, seed=seed)
        for name, some in (("own, held out", held), ("everyday", everyday[task])):
            before = _measure(some, weight[head], bias[head], old)
            measures.append(TunedTask(task.value, name, len(some.truth), before, _measure(some, w, b, curve)))
        weight[head], bias[head], curves[task, "instant"] = w, b, curve
    _write(base, out, engine, weight, bias, Calibration(curves, f"{calibration.fitted_on}; tuned on {labelled.name}"))
    about = {"rows": labelled.name, "target": asdict(target), "measures": [asdict(m) for m in measures]}
    write_atomic(out / "tune.json", json.dumps(about, indent=1) + "\n")
    return measures


def _by_task(engine: EncoderEngine, examples: Sequence[Example]) -> dict[Task, _Rows]:
    """Features and gold per task; texts that need more than one pass are left out."""
    found: dict[Task, tuple[list[Any], list[bool], list[str]]] = {t: ([], [], []) for t in TASKS}
    for example in as_asked(examples):
        features = _features(engine, pair_of(example.exchange))
        for task in example.gold.tasks if features is not None else ():
            found[task][0].append(features)
            found[task][1].append(example.gold[task] == TASKS[task].positive)
            found[task][2].append(example.exchange.prompt)
    return {
        t: _Rows(np.array(f, float).reshape(len(g), -1), np.array(g, bool), p) for t, (f, g, p) in found.items() if g
    }


def _features(engine: EncoderEngine, pair: Pair) -> NDArray[np.float32] | None:
    try:
        return np.asarray(engine.score([pair]).features[0])
    except InputTooLong:
        return None


def _split(rows: _Rows, seed: int) -> tuple[_Rows, _Rows]:
    """Rows to fit, and a fifth of the prompts that is kept out."""
    selection = need("sklearn.model_selection", "eval")
    folds = selection.StratifiedGroupKFold(round(1 / HELD_OUT), shuffle=True, random_state=seed)
    kept, held = next(folds.split(rows.features, rows.truth, rows.prompts))
    return _some(rows, kept), _some(rows, held)


def _some(rows: _Rows, which: NDArray[np.int64]) -> _Rows:
    return _Rows(rows.features[which], rows.truth[which], [rows.prompts[i] for i in which])


def _fit(
    rows: _Rows, weight: Floats, bias: float, old: Curve, *, target: Target, seed: int
) -> tuple[Floats, float, Curve]:
    """New weights, bias and threshold of one head."""
    selection = need("sklearn.model_selection", "eval")
    splitter = selection.StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    folds = list(splitter.split(rows.features, rows.truth, rows.prompts))
    best: tuple[float, float, Floats] | None = None
    for pull in PULLS:
        left = np.zeros(len(rows.truth))
        for train, test in folds:
            w, b = _moved(_some(rows, train), weight, bias, old, pull)
            left[test] = rows.features[test] @ w + b
        p = _probability(left, old)
        cost = float(-np.mean(np.log(np.where(rows.truth, p, 1 - p).clip(1e-9))))
        if best is None or cost < best[0] * 0.99:
            best = cost, pull, p
    assert best is not None
    w, b = _moved(rows, weight, bias, old, best[1])
    return w, b, replace(old, threshold=choose_threshold(best[2], rows.truth, target))


def _moved(rows: _Rows, weight: Floats, bias: float, old: Curve, pull: float) -> tuple[Floats, float]:
    """The head that fits the rows best at this pull towards the old one (convex, L-BFGS)."""
    optimize = need("scipy.optimize", "eval")
    spread = rows.features.std(0) + 1e-3
    x = (rows.features - rows.features.mean(0)) / spread
    slope = old.params[0]
    start = slope * (rows.features @ weight + bias) + old.params[1]
    sign = np.where(rows.truth, 1.0, -1.0)
    share = np.where(rows.truth, 0.5 / rows.truth.mean(), 0.5 / (~rows.truth).mean()) / len(sign)

    def cost(change: Floats) -> tuple[float, Floats]:
        margin = sign * (start + x @ change[:-1] + change[-1])
        slack = -share * sign / (1 + np.exp(margin.clip(-500, 500)))
        loss = float((share * np.logaddexp(0, -margin)).sum() + pull / 2 * (change[:-1] ** 2).sum())
        return loss, np.append(x.T @ slack + pull * change[:-1], slack.sum())

    change = optimize.minimize(cost, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B").x
    moved = change[:-1] / spread / slope
    return weight + moved, bias + float(change[-1]) / slope - float(rows.features.mean(0) @ moved)


def _probability(logits: Floats, curve: Curve) -> Floats:
    return np.asarray(1 / (1 + np.exp(-(curve.params[0] * logits + curve.params[1]).clip(-500, 500))))


def _measure(rows: _Rows, weight: Floats, bias: float, curve: Curve) -> dict[str, float]:
    quality = need("sklearn.metrics", "eval")
    p = _probability(rows.features @ weight + bias, curve)
    both = len(set(rows.truth.tolist())) == 2
    auroc = float(quality.roc_auc_score(rows.truth, p)) if both else float("nan")
    return {**at_threshold(p, rows.truth, curve.threshold), "auroc": auroc}


def _write(
    base: Path, out: Path, engine: EncoderEngine, weight: Floats, bias: Floats, calibration: Calibration
) -> None:
    with whole_folder(out) as folder:
        for name in ("model.onnx", "tokenizer.json", "guard.json", "LICENSE"):
            if (base / name).exists():
                shutil.copy2(base / name, folder / name)
        write_heads(folder, engine.outputs, weight.astype(np.float32), bias.astype(np.float32))
        write_atomic(folder / "calibration.json", json.dumps(calibration.as_dict(), indent=2) + "\n")
