"""Reasoning supplied with labelled rows: `steps` in the row itself, or `traces/traces.jsonl`, matched by row id.

{"id": ..., "labels": {"prompt_harm": "harmful", ...}, "steps": {"prompt_harm": ["...", "..."], ...},
 "harm": "privacy violation" | null, "disputed": ["refusal", ...]}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guardreasoner.errors import DataError
from guardreasoner.records import read_jsonl
from guardreasoner.types import TASKS, Labels, Step, Task

FILE = Path("traces") / "traces.jsonl"
"""The file of traces in a data folder."""


@dataclass(frozen=True, slots=True)
class Written:
    """What somebody wrote about a row."""

    labels: Labels
    """What the steps conclude; where the row's source has no label, this is the writer's."""
    steps: tuple[Step, ...]
    harm: str | None = None
    """Kind of harm in free text."""
    disputed: frozenset[Task] = frozenset()
    """Tasks in which the writer is sure that the row's label is wrong."""


def read_written(data_dir: str | Path) -> dict[str, Written]:
    """The traces of a data folder by row id; empty where it has none."""
    path, found = Path(data_dir) / FILE, dict[str, Written]()
    if not path.exists():
        return found
    for line, values in read_jsonl(path):
        try:
            found[str(values["id"])] = written(values, values["labels"])
        except (KeyError, ValueError, TypeError, AttributeError):
            raise DataError(
                "a trace has `id`, `labels` and `steps`: texts by task", file=str(path), line=line
            ) from None
    return found


def written(values: Mapping[str, Any], labels: Mapping[str, Any]) -> Written:
    """The reasoning of a row or trace that has `steps`.

    Raises:
        ValueError, TypeError: its fields are not what they should be.
    """
    texts = values["steps"]
    if not isinstance(texts, Mapping) or not all(isinstance(some, list | None) for some in texts.values()):
        raise ValueError("`steps` holds a list of texts for each task")
    steps = tuple(Step(task, str(text)) for task in TASKS for text in texts.get(task.value) or ())
    if not steps:
        raise ValueError("no steps")
    disputed = frozenset(Task(name) for name in values.get("disputed") or ())
    harm = values.get("harm") or values.get("category")
    return Written(Labels.of({t: labels.get(t.value) for t in TASKS}), steps, str(harm) if harm else None, disputed)


def check(gold: Labels, made: Written) -> None:
    """Refuse a trace that argues against its row.

    Raises:
        ValueError: an undisputed label differs from the row's.
    """
    for task in TASKS:
        if task not in made.disputed and gold[task] and made.labels[task] not in (None, gold[task]):
            raise ValueError(f"the trace concludes {made.labels[task]} where the row's {task.value} is {gold[task]}")
