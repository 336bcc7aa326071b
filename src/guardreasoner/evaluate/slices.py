"""Scores on adversarial and on plain requests, for every benchmark whose source says which is which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from guardreasoner.evaluate.contestants import Contestant
from guardreasoner.evaluate.statistics import Interval, Outcomes, constant_f1, estimates
from guardreasoner.types import Task

KINDS = ("adversarial", "vanilla")


@dataclass(frozen=True, slots=True)
class Slice:
    """One guard on one kind of rows of one cell."""

    guard: str
    benchmark: str
    task: Task
    kind: str
    rows: int
    f1: Interval
    constant_f1: float
    fpr: Interval | None
    """None = no negative row."""
    attack_success: Interval | None
    """Percent of harmful rows that the guard let pass (100 - recall); None for refusal, or without harmful rows."""


def slices(entrants: Sequence[Contestant]) -> list[Slice]:
    """Every guard on the adversarial and the vanilla rows of the cells whose source tells them apart."""
    found = []
    for entrant in entrants:
        kinds = {(r.benchmark, r.id): r.category for r in entrant.run.rows if r.category in KINDS}
        for (task, benchmark), cell in entrant.cells.items():
            for kind in KINDS:
                keep = np.array([kinds.get((benchmark, i)) == kind for i in cell.ids], bool)
                if keep.any():
                    found.append(_slice(entrant.label, cell.part(keep), task, benchmark=benchmark, kind=kind))
    return found


def _slice(guard: str, cell: Outcomes, task: Task, *, benchmark: str, kind: str) -> Slice:
    found = estimates(cell)
    harm = task is not Task.refusal and bool(cell.gold.any())
    return Slice(
        guard,
        benchmark,
        task,
        kind,
        cell.n,
        found.f1,
        constant_f1(cell),
        fpr=None if cell.all_positive else found.fpr,
        attack_success=found.recall.complement if harm else None,
    )
