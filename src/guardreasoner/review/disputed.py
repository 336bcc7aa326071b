"""A review of training rows whose labels are disputed by whoever wrote their reasoning.

The writer of a trace sees gold, and names the tasks in which gold is surely wrong (`disputed`). Those rows are reviewed
first: people see them blind, and the writer's labels are kept apart as reviews signed `model`, a patch that can be
applied, voted on or discarded. It is one opinion, and a machine's: read a sample before you trust either side.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guardreasoner.errors import DataError
from guardreasoner.records import now, read_jsonl, write_jsonl
from guardreasoner.review.disagreements import Sealed, write_folder
from guardreasoner.types import TASKS, Labels, Review, Task

MODEL = "model"
"""The name under which the writer of the traces reviews."""
PATCH = f"reviews-{MODEL}.jsonl"


@dataclass(frozen=True, slots=True)
class Disputed:
    """One training row and what its trace says against its labels."""

    row: Mapping[str, Any]
    """As it is in the training files."""
    trace: Mapping[str, Any]
    tasks: tuple[Task, ...]

    def said(self, task: Task) -> str | None:
        """The writer's label."""
        label: str | None = self.trace["labels"].get(task.value)
        return label

    def steps(self, task: Task) -> list[str]:
        """The writer's reasons."""
        return list(self.trace.get("steps", {}).get(task.value) or ())


def read_disputed(traces: str | Path, rows: str | Path) -> list[Disputed]:
    """The disputed rows of a file of traces, in its order.

    Args:
        traces: a line per row: `id`, `source`, `labels`, `steps`, `disputed` (the tasks).
        rows: folder with `<source>.jsonl`, the training rows that the traces are about.
    """
    wanted: dict[str, dict[str, tuple[int, dict[str, Any]]]] = {}
    order: list[tuple[str, str]] = []
    for line, trace in read_jsonl(traces):
        for key in ("id", "source", "labels"):
            if key not in trace:
                raise DataError("not a line of traces", file=str(traces), line=line, field=key)
        if trace.get("disputed"):
            wanted.setdefault(str(trace["source"]), {})[str(trace["id"])] = (line, trace)
            order.append((str(trace["source"]), str(trace["id"])))
    there = {source: dict(_rows(Path(rows) / f"{source}.jsonl", frozenset(own))) for source, own in wanted.items()}
    found = []
    for source, identity in order:
        line, trace = wanted[source][identity]
        if identity not in there[source]:
            raise DataError(f"its row is not in {source}.jsonl", file=str(traces), line=line, field="id")
        tasks = tuple(t for t in TASKS if t.value in trace["disputed"])
        found.append(Disputed(there[source][identity], trace, tasks))
    return found


def _rows(path: Path, ids: frozenset[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for _, row in read_jsonl(path):
        if str(row.get("id")) in ids:
            yield str(row["id"]), row


def write_disputed(found: list[Disputed], out: str | Path, *, seed: int = 0) -> int:
    """Write a review folder: `items.jsonl`, `sealed.jsonl`, and the writer's flips as `reviews-model.jsonl`.

    Returns the number of flips.
    """
    sealed = [_sealed(one, task, len(found)) for one in found for task in one.tasks]
    write_folder(out, [_item(one) for one in found], sealed, seed=seed)
    flips = [_flip(one) for one in found]
    write_jsonl(Path(out) / PATCH, flips)
    return sum(len(flip.labels.tasks) for flip in flips)


def _item(one: Disputed) -> dict[str, Any]:
    return {
        "id": one.row["id"],
        "tasks": [t.value for t in one.tasks],
        "prompt": one.row["prompt"],
        "response": one.row.get("response"),
    }


def _sealed(one: Disputed, task: Task, population: int) -> Sealed:
    verdict = {"guard": MODEL, "label": one.said(task), "score": None, "reasoning": "\n".join(one.steps(task))}
    return Sealed(
        one.row["id"], one.trace["source"], task, one.row.get(task.value), "confident", population, population,
        (MODEL,), 1.0, (verdict,),
    )  # fmt: skip


def _flip(one: Disputed) -> Review:
    changed = {t: label for t in one.tasks if (label := one.said(t)) is not None and label != one.row.get(t.value)}
    reasons = [steps[-1] for t in changed if (steps := one.steps(t))]
    return Review(str(one.row["id"]), MODEL, Labels.of(changed), " ".join(reasons), now())


def patch_rows(rows: str | Path, said: Mapping[str, Labels], out: str | Path) -> int:
    """A copy of a folder of training rows with the settled labels in place; returns the labels that changed.

    Args:
        rows: folder with `*.jsonl`.
        said: row id to labels, as `corrections.settle` gives them.
        out: another folder; files without a change are copied too.
    """
    if Path(rows).resolve() == Path(out).resolve():
        raise DataError("corrected rows go into a folder of their own: the data are never edited")
    changed = 0
    for path in sorted(Path(rows).glob("*.jsonl")):
        patched = []
        for _, row in read_jsonl(path):
            given = said.get(str(row.get("id")), Labels())
            new = {t.value: given[t] for t in TASKS if given[t] is not None and given[t] != row.get(t.value)}
            changed += len(new)
            patched.append({**row, **new})
        write_jsonl(Path(out) / path.name, patched)
    return changed
