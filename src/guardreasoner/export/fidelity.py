"""How an export compares with its checkpoint in float32: labels and ranking, on labelled rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from guardreasoner.data.mix import draw
from guardreasoner.engines.load import load_engine
from guardreasoner.errors import DataError, EngineError, need
from guardreasoner.formats.guardreasoner import Wire
from guardreasoner.guards.reasoning import ReasoningGuard
from guardreasoner.types import TASKS, Example, Mode, Task, Verdict

MOST_LABELS = 0.03
"""Share of labels that may differ."""
MOST_AUROC = 0.01
"""AUROC that any task may lose."""


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How an export compares with what it was made from."""

    rows: int
    labels: int
    """Labels that both give."""
    differing: int
    auroc_lost: dict[str, float]
    """Float's AUROC less the export's, for each task with both labels."""


def compare(
    checkpoint: str | Path, folder: str | Path, examples: Sequence[Example], *, wire: Wire, rows: int, mode: Mode
) -> Fidelity:
    """Judge rows with a checkpoint and with its export.

    Args:
        checkpoint: runs in float32 on transformers.
        examples: labelled rows; `rows` of them are drawn by their ids.
    """
    if not examples:
        raise DataError("there is no validation row to compare the export on; name sources in data.leave_out")
    chosen = sorted(examples, key=lambda e: draw("fidelity", e.exchange.id))[:rows]
    found: list[list[Verdict]] = []
    for kind, model in (("hf", checkpoint), ("onnx", folder)):
        guard = ReasoningGuard(kind, load_engine(kind, model=str(model)), wire=wire, mode=mode)
        try:
            found.append(guard.judge([e.exchange for e in chosen]))
        finally:
            guard.close()
    made = measure(chosen, *found)
    worst = max(made.auroc_lost.values(), default=0.0)
    if made.differing > MOST_LABELS * made.labels or worst > MOST_AUROC:
        raise EngineError(
            f"the export differs too much from its checkpoint: {made.differing} of {made.labels} labels, AUROC "
            f"{worst:+.3f} lost at most; export with another precision"
        )
    return made


def measure(examples: Sequence[Example], first: Sequence[Verdict], second: Sequence[Verdict]) -> Fidelity:
    """The second's labels and ranking against the first's."""
    quality = need("sklearn.metrics", "eval")
    pairs = [(a.labels[t], b.labels[t]) for a, b in zip(first, second, strict=True) for t in TASKS if a.labels[t]]
    lost: dict[str, float] = {}
    for task in TASKS:
        known = [(e.gold[task] == TASKS[task].positive, a, b) for e, a, b in zip(examples, first, second, strict=True)
                 if e.gold[task] and None not in (a.scores[task], b.scores[task])]  # fmt: skip
        gold = np.array([y for y, _, _ in known])
        if len(set(gold.tolist())) == 2:
            one, two = (np.array([v.scores[task] for v in column]) for column in list(zip(*known, strict=True))[1:])
            lost[Task(task).value] = float(quality.roc_auc_score(gold, one) - quality.roc_auc_score(gold, two))
    return Fidelity(len(examples), len(pairs), sum(a != b for a, b in pairs), lost)
