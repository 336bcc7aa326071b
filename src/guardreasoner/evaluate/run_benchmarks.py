"""A guard over benchmarks: verdicts kept on disk, resumable, scored at the end.

    RUN/verdicts/<Benchmark>.jsonl   a Verdict a line, plus `gold` and the hashes of its texts, added after judging
    RUN/scores.jsonl                 one `Score` a line, rule `strict`
    RUN/manifest.json                what was asked, of what, with which versions, and the means per task

The guard sees exchanges, never gold. The same command continues where it stopped, and repeats rows that failed for a
passing reason (timeout, overload, a server that was away).
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from guardreasoner.data import fingerprints
from guardreasoner.errors import DataError
from guardreasoner.evaluate.corrections import correct
from guardreasoner.evaluate.predictions import Prediction, Predictions, read_line
from guardreasoner.evaluate.score import Average, averages, score_cell
from guardreasoner.guards.base import Guard, judge_all
from guardreasoner.ranges import check_ranges
from guardreasoner.records import Appender, dumps, sha256, to_dict, write_jsonl
from guardreasoner.run_folder import Counts, RunFolder, refuse_overwriting
from guardreasoner.types import TASKS, Example, Exchange, Labels, Score

CHUNK = 32
"""Exchanges per call of the guard; verdicts are on disk after each."""
PASSING = frozenset({"timeout", "overloaded", "unavailable"})
"""Statuses that asking again may cure."""

Progress = Callable[[str, int, int], None]
"""Called with benchmark, rows done, rows in all."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a finished evaluation says."""

    scores: tuple[Score, ...]
    averages: tuple[Average, ...]
    predictions: tuple[Predictions, ...]
    notes: tuple[str, ...]


def evaluate(
    guard: Guard,
    benchmarks: Mapping[str, Sequence[Example]],
    out: str | Path,
    *,
    config: Mapping[str, Any] | None = None,
    limit: int | None = None,
    seed: int = 0,
    corrections: Sequence[str | Path] = (),
    inputs: Sequence[str | Path] = (),
    fresh: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Judge benchmarks with a guard, keep the verdicts, score them.

    Args:
        benchmarks: title -> its examples.
        config: what identifies the guard (`guard`, `mode`, `engine`, ...); a run folder belongs to one of these.
        limit: rows per cell (a task of a benchmark), drawn by `seed` and stratified by gold.
        corrections: files of `Review` records; gold is corrected for scoring, never in the verdict files.
    """
    check_ranges(limit=limit, seed=seed)
    bound = {**(config or {}), "guard": guard.name, "limit": limit, "seed": seed, "benchmarks": sorted(benchmarks)}
    notes = [wrong for title, examples in benchmarks.items() if (wrong := _strange(title, examples)) is not None]
    refuse_overwriting(out, [*inputs, *corrections])
    with RunFolder(out, "", config=bound, fresh=fresh, resumable_keys=("benchmarks",), kind="evaluate") as run:
        picked, tell = judged(benchmarks, limit, seed), run.ticking(progress)
        predictions = [
            Predictions(
                title,
                guard.name,
                tuple(judge(guard, title, rows, path=run.path / "verdicts" / f"{title}.jsonl", progress=tell)),
                tuple(t for t in TASKS if any(e.gold[t] is not None for e in benchmarks[title])),
            )
            for title, rows in picked.items()
        ]
        if corrections:
            predictions, changed = correct(predictions, corrections)
            notes.append(f"{changed} gold labels corrected")
        scores = _scores(guard, predictions, benchmarks)
        means = averages(scores)
        write_jsonl(run.path / "scores.jsonl", scores)
        run.finish(
            _counts(benchmarks, predictions),
            stage="evaluate",
            inputs={str(p): sha256(p) for p in (*inputs, *corrections)},
            rows={**_finished(run), **{one.benchmark: len(one.rows) for one in predictions}},
            averages=[asdict(m) for m in means],
            labels="corrected" if corrections else "original",
            notes=notes,
        )
    return Result(tuple(scores), tuple(means), tuple(predictions), tuple(notes))


def _finished(run: RunFolder) -> dict[str, int]:
    """Benchmark -> rows, of those that earlier commands on the folder judged to the end."""
    before = run.manifest
    if before is None or "rows" in before:
        return dict((before or {}).get("rows", {}))
    files = (run.path / "verdicts").glob("*.jsonl")  # of a version that did not say
    return {path.stem: len(path.read_bytes().splitlines()) for path in files}


def _counts(benchmarks: Mapping[str, Sequence[Example]], predictions: Sequence[Predictions]) -> Counts:
    counts = Counts(sum(map(len, benchmarks.values())), sum(len(one.rows) for one in predictions))
    if counts.in_ > counts.out:
        counts.drop("limit", counts.in_ - counts.out)
    return counts


def _strange(title: str, examples: Sequence[Example]) -> str | None:
    if title not in fingerprints.known():
        return None
    found = fingerprints.fingerprints(examples)
    wrong = fingerprints.text_difference(title, found) or fingerprints.label_difference(title, found)
    return f"not the official {title}: {wrong}" if wrong else None


def judged(benchmarks: Mapping[str, Sequence[Example]], limit: int | None, seed: int) -> dict[str, list[Example]]:
    """The examples of each benchmark that a run judges: with a limit, as many of every task that it asks."""
    return {title: _sample(examples, limit, f"{seed}:{title}") for title, examples in benchmarks.items()}


def _sample(examples: Sequence[Example], limit: int | None, seed: str) -> list[Example]:
    if limit is None:
        return list(examples)
    chosen: set[str] = set()
    for task in TASKS:
        cell = [e for e in examples if e.gold[task] is not None]
        others = [e for e in cell if e.exchange.id not in chosen]
        if (more := limit - (len(cell) - len(others))) > 0:
            chosen |= {e.exchange.id for e in draw(others, more, seed)}
    return [e for e in examples if e.exchange.id in chosen]


def draw(examples: Sequence[Example], limit: int, seed: str) -> list[Example]:
    """`limit` examples in their own order, in the proportions of their gold; each kind at least once if it fits."""
    if limit >= len(examples):
        return list(examples)
    kinds: dict[Labels, list[int]] = defaultdict(list)
    for index, example in enumerate(examples):
        kinds[example.gold].append(index)
    exact = {kind: limit * len(rows) / len(examples) for kind, rows in kinds.items()}
    quota = {kind: int(share) for kind, share in exact.items()}
    if limit >= len(kinds):
        quota = {kind: max(1, n) for kind, n in quota.items()}
    while (gap := limit - sum(quota.values())) != 0:
        by_debt = sorted((k for k in kinds if gap > 0 or quota[k] > 1), key=lambda k: exact[k] - quota[k])
        quota[by_debt[-1] if gap > 0 else by_debt[0]] += 1 if gap > 0 else -1
    generator = random.Random(seed)
    picked = [i for kind, rows in kinds.items() for i in generator.sample(rows, quota[kind])]
    return [examples[i] for i in sorted(picked)]


def judge(
    guard: Guard, title: str, examples: Sequence[Example], *, path: Path, progress: Progress | None = None
) -> list[Prediction]:
    """Judge what the file does not hold yet, a chunk at a time; returns all rows in the order of `examples`."""
    wanted = {e.exchange.id: e for e in examples}
    with Appender(path, keep=answered) as file:
        done = _resume(file, title, wanted)
        todo = [e for i, e in wanted.items() if i not in done]
        for start in range(0, len(todo), CHUNK):
            if progress and start:
                progress(title, len(wanted) - len(todo) + start, len(wanted))
            chunk = todo[start : start + CHUNK]
            for example, verdict in zip(chunk, judge_all(guard, [e.exchange for e in chunk]), strict=True):
                row = to_dict(verdict) | {"gold": example.gold.as_dict(), **_hashes(example.exchange)}
                file.append(row)
                done[example.exchange.id] = read_line(row, title)
    if progress:
        progress(title, len(wanted), len(wanted))
    return [done[i] for i in wanted]


def answered(row: Mapping[str, Any]) -> bool:
    """Whether a row of verdicts did not fail for a passing reason; the others are asked for again."""
    return row.get("status") not in PASSING


def _hashes(exchange: Exchange) -> dict[str, str | None]:
    texts = {
        "prompt": exchange.prompt,
        "response": exchange.response,
        "context": dumps(exchange.context) if exchange.context else None,
    }
    return {f"{name}_hash": None if text is None else fingerprints.text_hash(text) for name, text in texts.items()}


def _is_on(row: Mapping[str, Any], exchange: Exchange) -> bool:
    """Whether a stored verdict is one on these texts; older runs hold the hash of the request alone."""
    now = _hashes(exchange)
    return all(row.get(k, None if k == "prompt_hash" else now[k]) == now[k] for k in now)


def _resume(file: Appender, title: str, wanted: Mapping[str, Example]) -> dict[str, Prediction]:
    kept: dict[str, dict[str, Any]] = {}
    for line, row in enumerate(file.existing, 1):
        identity = row.get("exchange_id")
        example = wanted.get(str(identity))
        if identity in kept:
            raise DataError(f"the row {identity} twice; remove one", file=str(file.path), line=line)
        if example is None or not _is_on(row, example.exchange):
            raise DataError(
                f"a verdict on another row than the {title} at hand; give another --out, or --fresh to start over",
                file=str(file.path), line=line,
            )  # fmt: skip
        kept[str(identity)] = row | {"gold": example.gold.as_dict()}
    return {identity: read_line(row, title) for identity, row in kept.items()}


def _scores(
    guard: Guard, predictions: Sequence[Predictions], benchmarks: Mapping[str, Sequence[Example]]
) -> list[Score]:
    found = []
    for one in predictions:
        for task in one.tasks:
            if task in guard.tasks:
                rows = sum(e.gold[task] is not None for e in benchmarks[one.benchmark])
                found.append(score_cell(one, task, weight=rows))
    return [score for score in found if score is not None]
