"""Rows whose labels deserve a second look, and what that look changes for every guard.

Reviewing only the rows on which one guard disagrees with gold can raise only that guard (in the paper, +8.83 for its
own against +0.90 for LLaMA Guard 3). So a review has three strata per cell:

    confident   the rows that guards contradict most surely, all of them reviewed
    doubtful    a random sample of the other rows that some guard contradicts
    agreeing    a random sample of the rows that no guard contradicts

Corrected F1 is estimated with the strata's weights, for every guard. The reviewers' file holds no gold, no verdict and
no stratum; those are in a second, sealed file.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from guardreasoner.errors import DataError, printable
from guardreasoner.evaluate.contestants import Contestant
from guardreasoner.evaluate.predictions import Prediction
from guardreasoner.records import read_jsonl, write_jsonl
from guardreasoner.report.worth_reading import LONGEST
from guardreasoner.types import TASKS, Task, Verdict

StratumName = Literal["confident", "doubtful", "agreeing"]
STRATA: tuple[StratumName, ...] = ("confident", "doubtful", "agreeing")
ITEMS, SEALED = "items.jsonl", "sealed.jsonl"


@dataclass(frozen=True, slots=True)
class Contested:
    """One row of one cell and who contradicts its gold."""

    benchmark: str
    task: Task
    case: Prediction
    against: tuple[str, ...]
    """Guards whose answer is not gold."""
    confidence: float
    """Mean probability that they give to their answer; a guard without scores counts as one half."""
    verdicts: tuple[tuple[str, Verdict], ...]

    @property
    def weight(self) -> tuple[int, float]:
        """What it is ranked by: how many guards contradict gold, then how sure they are."""
        return len(self.against), self.confidence


def contested(entrants: Sequence[Contestant]) -> list[Contested]:
    """Every row that every run of its cell judged, the most contested first."""
    rows: dict[tuple[str, Task, str], list[tuple[str, Prediction]]] = {}
    for entrant in entrants:
        for case in entrant.run.rows:
            for task in TASKS:
                if case.gold[task] is not None and (task, case.benchmark) in entrant.cells:
                    rows.setdefault((case.benchmark, task, case.id), []).append((entrant.label, case))
    widest = {(b, t): 0 for b, t, _ in rows}
    for (b, t, _), found in rows.items():
        widest[b, t] = max(widest[b, t], len(found))
    whole = [_contested(b, t, pairs) for (b, t, _), pairs in rows.items() if len(pairs) == widest[b, t]]
    return sorted(whole, key=lambda c: (-c.weight[0], -c.weight[1]))


def _contested(benchmark: str, task: Task, pairs: Sequence[tuple[str, Prediction]]) -> Contested:
    gold = pairs[0][1].gold[task]
    against = [(label, case) for label, case in pairs if (said := case.label(task)) is not None and said != gold]
    sure = [_confidence(case.verdict, task) for _, case in against]
    return Contested(
        benchmark,
        task,
        pairs[0][1],
        tuple(label for label, _ in against),
        sum(sure) / len(sure) if sure else 0.0,
        tuple((label, case.verdict) for label, case in pairs),
    )


def _confidence(verdict: Verdict, task: Task) -> float:
    score = verdict.scores.get(task.value)
    if score is None:
        return 0.5
    return score if verdict.labels[task] == TASKS[task].positive else 1 - score


@dataclass(frozen=True, slots=True)
class RowToReview:
    """One row to review, with its stratum."""

    row: Contested
    stratum: StratumName
    population: int
    """Rows of the cell in this stratum."""
    sample: int
    """Of those, drawn."""


def draw(
    rows: Sequence[Contested], *, confident: int = 10, doubtful: int = 10, agreeing: int = 20, seed: int = 0
) -> list[RowToReview]:
    """The review sample, per cell: the most contested rows, and random ones of the rest."""
    drawn = []
    for cell in dict.fromkeys((r.benchmark, r.task) for r in rows):
        own = [r for r in rows if (r.benchmark, r.task) == cell]
        against, quiet = [r for r in own if r.against], [r for r in own if not r.against]
        groups: dict[StratumName, tuple[list[Contested], int]] = {
            "confident": (against[:confident], confident),
            "doubtful": (against[confident:], doubtful),
            "agreeing": (quiet, agreeing),
        }
        rng = random.Random(f"{seed}:{cell}")
        for name, (group, wanted) in groups.items():
            picked = group if len(group) <= wanted else rng.sample(group, wanted)
            drawn += [RowToReview(r, name, len(group), len(picked)) for r in picked]
    return drawn


def write_review(drawn: Sequence[RowToReview], out: str | Path, *, seed: int = 0) -> int:
    """Write `items.jsonl` (what reviewers see, in random order) and `sealed.jsonl` (what they must not see first)."""
    items: dict[str, dict[str, Any]] = {}
    for one in drawn:
        exchange = one.row.case.exchange
        if exchange is None:
            raise DataError(f"the text of {one.row.case.id} is not at hand; give --data DIR with benchmarks/")
        item = items.setdefault(
            exchange.id,
            {"id": exchange.id, "tasks": [], "prompt": exchange.prompt, "response": exchange.response},
        )
        if (item["prompt"], item["response"]) != (exchange.prompt, exchange.response):
            raise DataError(
                f"two benchmarks have a row {printable(exchange.id)}, and reviews name rows by id; "
                "give the rows of your own files ids that say the file"
            )
        if one.row.task.value not in item["tasks"]:
            item["tasks"].append(one.row.task.value)
    write_folder(out, list(items.values()), [_sealed(one) for one in drawn], seed=seed)
    return len(items)


def write_folder(out: str | Path, items: list[dict[str, Any]], sealed: Sequence[Sealed], *, seed: int) -> None:
    """Write the two files of a review; reviewers get the rows in random order."""
    random.Random(seed).shuffle(items)
    write_jsonl(Path(out) / ITEMS, items)
    write_jsonl(Path(out) / SEALED, sealed)


def _sealed(one: RowToReview) -> Sealed:
    row = one.row
    verdicts = tuple(_brief(label, verdict, row.task) for label, verdict in row.verdicts)
    return Sealed(
        row.case.id, row.benchmark, row.task, row.case.gold[row.task], one.stratum, one.population, one.sample,
        row.against, row.confidence, verdicts,
    )  # fmt: skip


def _brief(label: str, verdict: Verdict, task: Task) -> dict[str, Any]:
    return {
        "guard": label,
        "label": verdict.labels[task],
        "score": verdict.scores.get(task.value),
        "reasoning": "\n".join(s.text for s in verdict.steps if s.task in (task, None))[:LONGEST],
    }


@dataclass(frozen=True, slots=True)
class Sealed:
    """One line of `sealed.jsonl`: a row's stratum and its labels."""

    id: str
    benchmark: str
    task: Task
    gold: str | None
    stratum: StratumName
    population: int
    """Rows of the cell in this stratum."""
    sample: int
    """Of those, drawn."""
    against: Sequence[str]
    """Guards whose answer is not gold."""
    confidence: float
    verdicts: Sequence[Mapping[str, Any]]
    """`guard`, `label`, `score` and `reasoning` of each."""

    @property
    def answers(self) -> dict[str, str | None]:
        """Guard to answer."""
        return {v["guard"]: v["label"] for v in self.verdicts}


def read_sealed(folder: str | Path) -> list[Sealed]:
    """The sealed file of a review folder."""
    path = Path(folder) / SEALED
    found = []
    for line, row in read_jsonl(path):
        try:
            found.append(Sealed(**{**row, "task": Task(row["task"])}))
            found[-1].answers  # noqa: B018 - a verdict without guard or label is found here
        except (KeyError, TypeError, ValueError):
            raise DataError("not a line of a sealed review file", file=str(path), line=line) from None
    return found
