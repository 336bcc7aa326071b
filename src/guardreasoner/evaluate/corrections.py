"""Reviewers' answers combined into one set of labels per row, and how far two reviewers agree.

Corrections are files of `Review` records, never edits of the data. A reviewer's latest review of a row counts; then the
majority decides, task by task, and a tie leaves the label as it was.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from guardreasoner.errors import DataError, need
from guardreasoner.evaluate.predictions import Predictions
from guardreasoner.records import read_records
from guardreasoner.types import TASKS, Labels, Review, Task


def latest(files: Sequence[str | Path]) -> list[Review]:
    """Each reviewer's latest review of each row."""
    found: dict[tuple[str, str], Review] = {}
    for file in files:
        for review in read_records(Review, file):
            key = (review.exchange_id, review.reviewer)
            if key not in found or found[key].at <= review.at:
                found[key] = review
    return list(found.values())


def settle(reviews: Iterable[Review]) -> dict[str, Labels]:
    """Row id to the labels that most of its reviewers gave; None where none was given or they are tied."""
    said: dict[str, list[Labels]] = defaultdict(list)
    for review in reviews:
        said[review.exchange_id].append(review.labels)
    return {i: Labels.of({t: _majority([labels[t] for labels in given]) for t in TASKS}) for i, given in said.items()}


def correct(predictions: Sequence[Predictions], files: Sequence[str | Path]) -> tuple[list[Predictions], int]:
    """Gold labels as reviewers corrected them, and how many changed.

    Of each reviewer the latest review of a row counts; the majority decides, and a tie leaves gold as it is.
    """
    said = settle(latest(files))
    places = Counter(row.id for one in predictions for row in one.rows if row.id in said)
    if twice := [i for i, n in places.items() if n > 1]:
        raise DataError(f"the review of {twice[0]!r} fits rows of two benchmarks; give each row an id of its own")
    changed, result = 0, []
    for one in predictions:
        rows = []
        for row in one.rows:
            given = said.get(row.id, Labels())
            gold = {t: given[t] or row.gold[t] for t in TASKS}
            changed += sum(gold[t] != row.gold[t] for t in TASKS)
            rows.append(replace(row, gold=Labels.of(gold)))
        result.append(replace(one, rows=tuple(rows)))
    return result, changed


def _majority(labels: Sequence[str | None]) -> str | None:
    ranked = Counter(label for label in labels if label is not None).most_common(2)
    if not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        return None
    return ranked[0][0]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two reviewers on the rows that both labelled, for one task."""

    a: str
    b: str
    task: Task
    rows: int
    same: int
    kappa: float | None
    """Cohen's; None where both gave one and the same label throughout."""


def agreements(reviews: Sequence[Review]) -> list[Agreement]:
    """Every pair of reviewers with rows in common."""
    by_reviewer: dict[str, dict[str, Labels]] = defaultdict(dict)
    for review in reviews:
        by_reviewer[review.reviewer][review.exchange_id] = review.labels
    found = []
    for a, b in combinations(sorted(by_reviewer), 2):
        both = sorted(by_reviewer[a].keys() & by_reviewer[b].keys())
        for task in TASKS:
            pairs = [(x, y) for i in both if (x := by_reviewer[a][i][task]) and (y := by_reviewer[b][i][task])]
            if pairs:
                found.append(Agreement(a, b, task, len(pairs), sum(x == y for x, y in pairs), _kappa(pairs)))
    return found


def _kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    if len({label for pair in pairs for label in pair}) < 2:
        return None
    first, second = zip(*pairs, strict=True)
    return float(need("sklearn.metrics", "eval").cohen_kappa_score(first, second))
