"""Rows worth reading: confident errors, exchanges on which guards differ, and reasoning length against correctness.

They hold judged text, which is hostile: pages escape it, and `visible` shows what would hide or reorder it.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from guardreasoner.evaluate.contestants import Contestant
from guardreasoner.evaluate.predictions import Prediction
from guardreasoner.evaluate.statistics import wilson
from guardreasoner.types import TASKS, Exchange, Labels, Task, Verdict

LONGEST = 6000
"""Characters of one text that a page shows."""
PARTS = 5
"""Groups of equal size in the figure of lengths."""
LEAST_TRACES = 25


def visible(text: str, limit: int = LONGEST) -> str:
    """Text with control characters, direction marks and other invisible ones shown as codes, and cut when very long."""
    shown = "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") else f"⟦U+{ord(c):04X}⟧"
        for c in text[:limit].replace("\r\n", "\n")
    )
    return shown if len(text) <= limit else f"{shown}\n[… {len(text) - limit:,} characters more]"


@dataclass(frozen=True, slots=True)
class Mistake:
    """One wrong answer of one guard."""

    benchmark: str
    task: Task
    gold: str
    said: str | None
    """None = it could not be read or was not given."""
    score: float | None
    """P(positive)."""
    confidence: float | None
    """How far the score lies on the wrong side: P of the wrong answer."""
    exchange: Exchange | None
    verdict: Verdict
    harmful: bool
    """Whether gold or any guard sees harm in the exchange, whatever the task."""


def harmful_rows(entrants: Sequence[Contestant]) -> frozenset[tuple[str, str]]:
    """Benchmark and id of the exchanges in which gold or a guard sees harm; the constant sees it everywhere."""
    seen = (case for entrant in filter(opinionated, entrants) for case in entrant.run.rows)
    return frozenset((case.benchmark, case.id) for case in seen if harmful(case.gold, case.verdict))


def mistakes(entrant: Contestant, limit: int, veiled: Collection[tuple[str, str]]) -> list[Mistake]:
    """The guard's wrong answers, the most confident first; those without a score last, in the order of the rows.

    At most `limit`, in turn from each task, so that one large benchmark does not fill the page. `veiled` are the
    `harmful_rows`.
    """
    found: dict[Task, list[Mistake]] = {}
    for case in entrant.run.rows:
        for task in TASKS:
            gold = case.gold[task]
            if gold is not None and (task, case.benchmark) in entrant.cells and case.label(task) != gold:
                found.setdefault(task, []).append(_mistake(case, task, gold, (case.benchmark, case.id) in veiled))
    ranked = [sorted(own, key=lambda m: -1.0 if m.confidence is None else -1 - m.confidence) for own in found.values()]
    turns = [m for group in zip_longest(*ranked) for m in group if m is not None]
    return turns[:limit]


def _mistake(case: Prediction, task: Task, gold: str, veiled: bool) -> Mistake:
    score = case.verdict.scores.get(task.value)
    wrong = None if score is None else (1 - score if gold == TASKS[task].positive else score)
    said = case.label(task)
    return Mistake(case.benchmark, task, gold, said, score, wrong, case.exchange, case.verdict, veiled)


@dataclass(frozen=True, slots=True)
class SideBySide:
    """One exchange as several guards judged it (figures 1, 3, 4 and 6 of the paper)."""

    benchmark: str
    exchange: Exchange
    gold: Labels
    verdicts: tuple[tuple[str, Verdict], ...]
    """Label of the guard and its verdict."""


def side_by_side(entrants: Sequence[Contestant], limit: int) -> list[SideBySide]:
    """Exchanges that at least two guards answered and did not answer alike; else any that two answered.

    Those with reasoning come first, then at random, in turn from each benchmark.
    """
    answers: dict[tuple[str, str], list[tuple[Contestant, Prediction]]] = {}
    for entrant in filter(opinionated, entrants):
        for case in entrant.run.rows:
            if case.exchange is not None:
                answers.setdefault((case.benchmark, case.id), []).append((entrant, case))
    both = [found for found in answers.values() if len(found) > 1]
    differing = [found for found in both if _differ([case for _, case in found])] or both
    rng = random.Random(0)
    order = sorted(differing, key=lambda found: (not any(c.verdict.steps for _, c in found), rng.random()))
    groups: dict[str, list[SideBySide]] = {}
    for found in order:
        case = found[0][1]
        assert case.exchange is not None
        shown = SideBySide(case.benchmark, case.exchange, case.gold, tuple((e.label, c.verdict) for e, c in found))
        groups.setdefault(case.benchmark, []).append(shown)
    return [s for turn in zip_longest(*groups.values()) for s in turn if s is not None][:limit]


def opinionated(entrant: Contestant) -> bool:
    """Whether a guard's answers say anything about the exchange; the constant's do not."""
    return entrant.run.guard != "constant"


def _differ(cases: Sequence[Prediction]) -> bool:
    asked = [t for t in TASKS if cases[0].gold[t] is not None]
    return any(len({c.verdict.labels[t] for c in cases} - {None}) > 1 for t in asked)


def harmful(gold: Labels, *verdicts: Verdict) -> bool:
    """Whether gold or any guard sees harm in an exchange: pages veil such texts until they are asked for."""
    return gold.harmful or any(v.labels.harmful for v in verdicts)


def length_points(entrant: Contestant) -> list[tuple[float, float, float, float]]:
    """Words of reasoning against right answers: (median words, percent right, low, high) of each fifth of the traces.

    A row is right when every task that has gold is answered rightly. Empty when there are too few traces.
    """
    rows = []
    for case in entrant.run.rows:
        tasks = [t for t in TASKS if case.gold[t] is not None and (t, case.benchmark) in entrant.cells]
        if tasks and case.verdict.steps:
            words = sum(len(s.text.split()) for s in case.verdict.steps)
            rows.append((words, all(case.label(t) == case.gold[t] for t in tasks)))
    if len(rows) < LEAST_TRACES:
        return []
    parts = np.array_split(np.array(sorted(rows), float), PARTS)
    return [(float(np.median(part[:, 0])), *wilson(int(part[:, 1].sum()), len(part))) for part in parts]
