"""Does a verdict stay when nothing that matters changes? The same exchanges, judged again; changed labels are counted.

    sampled    the reasoning is drawn again, at a temperature (guards that write)
    layout     the same words in another layout: wrapped, quoted, fenced, indented, as a list, with blank lines
    batch      the same exchanges in another order, with other neighbours, in batches of another size

    RUN/repeats/<kind>/<Benchmark>.jsonl    one line per exchange and repeat: its labels, scores and status

A run of stored predictions cannot be repeated, but exchanges that occur twice in it were judged twice (`twice`).
"""

from __future__ import annotations

import random
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from guardreasoner.errors import ConfigError, DataError
from guardreasoner.evaluate.finished_runs import Run
from guardreasoner.evaluate.predictions import Prediction
from guardreasoner.evaluate.run_benchmarks import PASSING, answered
from guardreasoner.evaluate.statistics import Floats, Interval, bounded, resample, share_of
from guardreasoner.guards.base import Guard, judge_all
from guardreasoner.records import Appender, read_jsonl
from guardreasoner.types import SETTLED, TASKS, Example, Exchange, Message, Task, Verdict

Kind = Literal["sampled", "layout", "batch"]
KINDS: tuple[Kind, ...] = get_args(Kind)
TEMPERATURE = 0.7
"""Of the sampled repeats: what `sample` draws at, as the released code does."""
SIZES = (7, 1, 64, 32)
"""Batch sizes of the repeats, in turn."""
FOLDER = "repeats"

Progress = Callable[[str, int, int], None]


def _lines(text: str, change: Callable[[str], str]) -> str:
    return "\n".join(change(line) for line in text.split("\n"))


LAYOUTS: Mapping[str, Callable[[str], str]] = {
    "wrapped": lambda text: _lines(
        text, lambda line: "\n".join(textwrap.wrap(line, 60, break_long_words=False) or [""])
    ),
    "quoted": lambda text: _lines(text, lambda line: f"> {line}"),
    "blank lines": lambda text: "\n\n" + text.replace("\n", "\n\n") + "  \n\n",
    "list": lambda text: _lines(text, lambda line: f"- {line}" if line.strip() else line),
    "fenced": lambda text: f"```\n{text}\n```",
    "indented": lambda text: _lines(text, lambda line: f"    {line}"),
}
"""Name to what it does to a text; each keeps its words and their order."""


@dataclass(frozen=True, slots=True)
class Stability:
    """One kind of repeat on one task."""

    kind: str
    task: Task
    rows: int
    """Exchanges that were judged again."""
    repeats: float
    """Times, on average."""
    ever: Interval
    """Percent of exchanges whose label changed in at least one repeat."""
    each: Interval
    """Percent of repeated labels that differ from the first."""


def repeat(
    guard: Guard,
    benchmarks: Mapping[str, Sequence[Example]],
    folder: str | Path,
    *,
    times: int,
    kinds: Sequence[Kind] | None = None,
    temperature: float = TEMPERATURE,
    progress: Progress | None = None,
) -> None:
    """Judge exchanges `times` more in each way that the guard can be asked, and keep the answers.

    Args:
        benchmarks: title -> the examples that the run judged.
        folder: the run folder; what it already holds is not asked again, unless it failed for a passing reason.
        times: per kind, above 0.
        kinds: None = all that the guard can do.
        temperature: of the sampled repeats, above 0.
        progress: called with kind and benchmark, answers so far and in all.
    """
    if times < 1 or temperature <= 0:
        raise ConfigError("--repeat wants a number of times above 0, and a temperature above 0")
    if "sampled" in (kinds or ()) and not _samples(guard):
        raise ConfigError(f"{guard.name} writes nothing that could be sampled again; leave `sampled` out")
    for kind in kinds or [k for k in KINDS if k != "sampled" or _samples(guard)]:
        for title, examples in benchmarks.items():
            path = Path(folder) / FOLDER / kind / f"{title}.jsonl"
            how = {"temperature": temperature} if kind == "sampled" else {}
            with Appender(path, keep=answered) as file:
                done = _done(file, how)
                for number in range(1, times + 1):
                    todo = [e.exchange for e in examples if (e.exchange.id, number) not in done]
                    with _warm(guard, temperature, number) if kind == "sampled" else nullcontext():
                        for verdict in _judge(guard, kind, todo, number):
                            file.append(_line(verdict, number) | how)
                    if progress:
                        progress(f"{kind} {title}", number * len(examples), times * len(examples))


def _done(file: Appender, how: Mapping[str, Any]) -> set[tuple[str, int]]:
    """Exchange and repeat of what the file answers; repeats of another temperature would mix."""
    for line, row in enumerate(file.existing, 1):
        if row.get("temperature", how.get("temperature")) != how.get("temperature"):
            said = f"sampled at temperature {row['temperature']:g}; give the same --temperature, or another --out"
            raise DataError(said, file=str(file.path), line=line, field="temperature")
    return {(row["exchange_id"], row["repeat"]) for row in file.existing}


def _line(verdict: Verdict, number: int) -> dict[str, Any]:
    return {
        "exchange_id": verdict.exchange_id,
        "repeat": number,
        "labels": verdict.labels.as_dict(),
        "scores": dict(verdict.scores),
        "status": verdict.status,
    }


def _judge(guard: Guard, kind: Kind, exchanges: Sequence[Exchange], number: int) -> Iterator[Verdict]:
    todo, size = list(exchanges), SIZES[-1]
    if kind == "layout":
        change = list(LAYOUTS.values())[(number - 1) % len(LAYOUTS)]
        todo = [replace(e, prompt=change(e.prompt), response=e.response and change(e.response)) for e in todo]
    if kind == "batch":
        random.Random(number).shuffle(todo)
        size = SIZES[(number - 1) % len(SIZES)]
    for start in range(0, len(todo), size):
        yield from judge_all(guard, todo[start : start + size])


def _samples(guard: Guard) -> bool:
    engine = getattr(guard, "engine", None)
    can = getattr(engine, "capabilities", None)
    return can is not None and bool(can.samples) and getattr(guard, "mode", "") != "instant"


class _SampledEngine:
    """An engine whose every run draws at a temperature."""

    def __init__(self, engine: Any, temperature: float) -> None:
        self._engine, self._temperature = engine, temperature

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run(self, *args: Any, **more: Any) -> Any:
        return self._engine.run(*args, **{**more, "temperature": more.get("temperature") or self._temperature})


@contextmanager
def _warm(guard: Any, temperature: float, number: int) -> Iterator[None]:
    """While the engine draws at a temperature, with another seed for each repeat: an engine that has one (`seed`) would
    draw the same again."""
    engine, seed = guard.engine, getattr(guard.engine, "seed", None)
    guard.engine = _SampledEngine(engine, temperature)
    if seed is not None:
        engine.seed = seed + number
    try:
        yield
    finally:
        guard.engine = engine
        if seed is not None:
            engine.seed = seed


def read_stability(run: Run) -> list[Stability]:
    """What the repeats of a run say, kind by kind and task by task; empty = nothing was repeated."""
    found = []
    for kind in KINDS:
        again: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
        for path in sorted((run.folder / FOLDER / kind).glob("*.jsonl")):
            for _, row in read_jsonl(path):
                if row["status"] not in PASSING:  # nothing was said that could differ
                    again[path.stem][row["exchange_id"]].append(row)
        rows = [(row, again[row.benchmark][row.id]) for row in run.rows if again.get(row.benchmark, {}).get(row.id)]
        for task in TASKS:
            if pairs := [_pair(row, repeats, task) for row, repeats in rows if row.verdict.labels[task] is not None]:
                found.append(_stability(kind, task, pairs))
    return found + twice(run)


def twice(run: Run) -> list[Stability]:
    """Exchanges that occur in several benchmarks of a run, or twice in one: the guard judged them more than once."""
    texts: dict[tuple[str, str | None, tuple[Message, ...]], list[Prediction]] = defaultdict(list)
    for row in run.rows:
        if row.exchange is not None:
            texts[row.exchange.prompt, row.exchange.response, row.exchange.context].append(row)
    found = []
    for task in TASKS:
        pairs = [
            (key[0], [later.label(task) != first.label(task) for later in rest])
            for key, (first, *rest) in texts.items()
            if rest and first.verdict.labels[task] is not None
        ]
        if pairs:
            found.append(_stability("judged twice", task, pairs))
    return found


def _pair(row: Prediction, repeats: Sequence[Mapping[str, Any]], task: Task) -> tuple[str, list[bool]]:
    said = [again["labels"].get(task.value) if again["status"] in SETTLED else None for again in repeats]
    return row.prompt_hash or row.id, [label != row.label(task) for label in said]


def _stability(kind: str, task: Task, pairs: Sequence[tuple[str, Sequence[bool]]]) -> Stability:
    prompts = np.unique([p for p, _ in pairs], return_inverse=True)[1]
    ever = np.array([any(changed) for _, changed in pairs], float)
    each = np.array([sum(changed) for _, changed in pairs], float)
    times = np.array([len(changed) for _, changed in pairs], float)
    return Stability(
        kind,
        task,
        len(pairs),
        float(times.mean()),
        _share(ever, np.ones(len(pairs)), prompts),
        _share(each, times, prompts),
    )


def _share(hits: Floats, of: Floats, prompts: Any) -> Interval:
    """100 * hits / of with an interval clustered by prompt; Wilson's over prompts where nothing varies."""
    sample = np.stack([np.bincount(prompts, hits), np.bincount(prompts, of)]).astype(np.float64)
    value, low, high, _ = resample([sample], lambda s: 100 * s[0][:1] / s[0][1:])
    return bounded(value[0], low[0], high[0]) or share_of(*sample)
