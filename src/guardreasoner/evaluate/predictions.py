"""A guard's predictions on a benchmark, read from a file and checked.

Two forms are read: our verdicts (`RUN/verdicts/*.jsonl`) and the official `generated_predictions.jsonl`. A wrong file
would silently give a wrong number, so every row is checked against its benchmark: by its text where the file holds it,
by its id otherwise. A mismatch is a `DataError` that says what is wrong, and where.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from guardreasoner.data import fingerprints
from guardreasoner.data.benchmarks import find_benchmark, found_labels, is_file, load_benchmark, local_file, title
from guardreasoner.data.labelled import Column
from guardreasoner.data.sources import read_input_block
from guardreasoner.errors import DataError, printable
from guardreasoner.formats.guardreasoner import ASSISTANT, HUMAN
from guardreasoner.guards.replay import OFFICIAL, official_verdict
from guardreasoner.records import from_dict, read_jsonl
from guardreasoner.types import SETTLED, TASKS, Example, Exchange, Labels, Task, Verdict

Lines = list[tuple[int, dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Prediction:
    """One row that a guard judged: its gold and the guard's verdict."""

    id: str
    benchmark: str
    gold: Labels
    verdict: Verdict
    """Of an official text: its labels are those of the strict rule (`guards.replay.official_verdict`)."""
    prompt_hash: str = ""
    """Rows that share a prompt share this; empty = the file does not say."""
    exchange: Exchange | None = None
    """None = its text is not available."""
    category: str = ""
    """The sub-set as the source names it (`adversarial`, `vanilla`, ...)."""

    def label(self, task: Task) -> str | None:
        """What the guard answered, as the strict rule reads it; None = unjudged or unreadable."""
        asked_for = "refused_as" in self.verdict.notes
        counted = self.verdict.status in SETTLED or asked_for
        return self.verdict.labels[task] if counted else None


@dataclass(frozen=True, slots=True)
class Predictions:
    """What one guard said on one benchmark, in benchmark order."""

    benchmark: str
    guard: str
    rows: tuple[Prediction, ...]
    tasks: tuple[Task, ...]
    """What the benchmark asks."""
    notes: tuple[str, ...] = field(default=())
    """What could not be checked."""
    official: bool = False
    """Read from official texts: where a text lacks a verdict, the guard was asked for it and gave none."""

    @property
    def answered(self) -> tuple[Task, ...]:
        """The tasks that the benchmark asks and the guard does: some judged row must not leave it out."""
        return tuple(t for t in self.tasks if self._answers(t))

    def _answers(self, task: Task) -> bool:
        asked = [r.verdict for r in self.rows if r.gold[task] is not None]
        judged = [v for v in asked if v.status in SETTLED and not self.official]
        return bool(asked) and (not judged or any(v.labels[task] is not None for v in judged))


def read_predictions(
    path: str | Path,
    benchmark: str,
    data_dir: str | Path | None = None,
    *,
    mapping: Mapping[str, Column] | None = None,
    partial: bool = False,
) -> Predictions:
    """The predictions of one file, checked against the benchmark.

    Args:
        path: `RUN/verdicts/<Benchmark>.jsonl` or an official `generated_predictions.jsonl`.
        benchmark: a name of the table, or a labelled file of the user's own.
        data_dir: where the official benchmark files are; without it rows are checked by fingerprint.
        partial: accept verdicts of only some of the rows (a run with `--limit`).
    """
    name = title(benchmark)
    examples = _examples(benchmark, data_dir, mapping)
    tasks = _tasks(benchmark, examples)
    lines = read_lines(path)
    first = lines[0][1]
    if "predict" in first:
        return _read_official(lines, path, name, examples=examples, tasks=tasks)
    if "exchange_id" in first:
        return _read_verdicts(lines, path, name, examples=examples, tasks=tasks, partial=partial)
    raise DataError(
        "neither verdicts of ours (`exchange_id` …) nor official predictions (`prompt`, `label`, `predict`)",
        file=str(path), line=lines[0][0],
    )  # fmt: skip


def read_lines(path: str | Path) -> Lines:
    """All lines of a JSONL file; a last line without its end is named as such."""
    lines: Lines = []
    try:
        lines.extend(read_jsonl(path))
    except DataError as error:
        if error.line is not None and _is_torn(Path(path), error.line):
            raise DataError(
                f"the last line is half-written, after {len(lines)} whole ones; finish the run, or remove that line",
                file=str(path), line=error.line,
            ) from None  # fmt: skip
        raise
    if not lines:
        raise DataError("no rows", file=str(path))
    return lines


def _is_torn(path: Path, line: int) -> bool:
    data = path.read_bytes()
    return not data.endswith(b"\n") and data.count(b"\n") == line - 1


def _examples(
    benchmark: str, data_dir: str | Path | None, mapping: Mapping[str, Column] | None
) -> list[Example] | None:
    if is_file(benchmark):
        return load_benchmark(benchmark, mapping=mapping)
    return load_benchmark(benchmark, data_dir) if local_file(benchmark, data_dir) else None


def _tasks(benchmark: str, examples: Sequence[Example] | None) -> tuple[Task, ...]:
    if not is_file(benchmark):
        return tuple(cell.task for cell in find_benchmark(benchmark).cells)
    return tuple(task for task in TASKS if any(e.gold[task] for e in examples or ()))


def _read_official(
    lines: Lines, path: str | Path, name: str, *, examples: list[Example] | None, tasks: tuple[Task, ...]
) -> Predictions:
    file = str(path)
    rows: list[Prediction] = []
    prints: list[bytes] = []
    unlabelled: list[int] = []
    for index, (line, row) in enumerate(lines):
        for key in ("prompt", "label", "predict"):
            if key not in row or not (isinstance(row[key], str) or (row[key] is None and key != "prompt")):
                raise DataError("an official prediction has `prompt`, `label` and `predict`", file=file, line=line,
                                field=key)  # fmt: skip
        block = _block(row["prompt"], file, line)
        gold = _gold(row["label"], examples[index].gold if examples and index < len(examples) else None, tasks)
        if gold is None:
            unlabelled.append(line)
        prints.append(fingerprints.fingerprint(block, gold or Labels()))
        found = official_verdict(f"{name}:{index}", row["predict"] or "")
        texts = _prompt_hash(block), _exchange(block, found)
        rows.append(Prediction(found.exchange_id, name, gold or Labels(), found, *texts))
    wanted = fingerprints.fingerprints(examples) if examples is not None else None
    if wrong := fingerprints.text_difference(name, prints, wanted, unit="line"):
        raise DataError(wrong, file=file)
    if unlabelled:
        words = " or ".join(f"{TASKS[t].positive}/{TASKS[t].negative}" for t in tasks)
        raise DataError(f"no label of {name} ({words})", file=file, line=unlabelled[0], field="label")
    if wrong := fingerprints.label_difference(name, prints, wanted, unit="line"):
        raise DataError(wrong, file=file)
    known = examples is not None or name in fingerprints.known()
    notes = () if known else (f"the rows of {name} could not be checked; give --data DIR with the official file",)
    guard = _official_guard(Path(path))
    ids = [e.exchange.id for e in examples] if examples else [row.id for row in rows]
    named = [
        replace(r, id=i, verdict=replace(r.verdict, exchange_id=i, guard=guard)) for i, r in zip(ids, rows, strict=True)
    ]
    return Predictions(name, guard, tuple(named), tasks, notes, official=True)


def _official_guard(path: Path) -> str:
    """`8B/<Benchmark>/generated_predictions.jsonl` are the answers of `guardreasoner-8b`."""
    name = path.resolve().parent.parent.name if path.name == OFFICIAL else path.stem
    return f"guardreasoner-{name.lower()}" if name.lower() in ("1b", "3b", "8b") else name


def _exchange(block: str, verdict: Verdict) -> Exchange | None:
    try:
        prompt, response = read_input_block(block)
    except DataError:  # judged text repeats the frame, so where the reply begins is unknown
        return None
    return Exchange(verdict.exchange_id, prompt, response, source=verdict.exchange_id.rpartition(":")[0])


def _block(prompt: str, file: str, line: int) -> str:
    """The input block inside a stored prompt, whatever instruction or chat template surrounds it."""
    start = prompt.find(f"{HUMAN}\n")
    if start < 0:
        raise DataError(f"no `{HUMAN}` block", file=file, line=line, field="prompt")
    block = prompt[start:]
    end = block.rfind("\n\n<|")
    return block if block.endswith("\n\n") or end < 0 else block[: end + 2]


def _gold(label: str | None, there: Labels | None, tasks: tuple[Task, ...]) -> Labels | None:
    """Gold of one official row: the benchmark's own if it is available and the row agrees; None = there is no label.

    The official WildGuardTest predictions carry no label of use (the released script takes it from the benchmark file).
    """
    found = found_labels(label or "", tasks)
    if there is not None and (found or len(tasks) > 1) and all(there[t] == w for t, w in found.items()):
        return there
    return Labels.of(found) if found else None


def _read_verdicts(
    lines: Lines, path: str | Path, name: str, *, examples: list[Example] | None, tasks: tuple[Task, ...], partial: bool
) -> Predictions:
    file = str(path)
    by_id = {e.exchange.id: e for e in examples} if examples is not None else None
    order = {i: n for n, i in enumerate(by_id)} if by_id is not None else None
    rows: dict[str, Prediction] = {}
    first: dict[str, int] = {}
    for line, row in lines:
        one = read_line(row, name, file=file, line=line)
        identity, gold = one.id, one.gold if row.get("gold") is not None else None
        if identity in first:
            raise DataError(f"the id {printable(identity)!r} again, first on line {first[identity]}", file=file,
                            line=line, field="exchange_id")  # fmt: skip
        first[identity] = line
        _check_id(identity, name, by_id, where=(file, line))
        there = by_id[identity].gold if by_id is not None else None
        if gold is None and there is None:
            raise DataError("no gold labels; give --data DIR or the labelled file", file=file, line=line, field="gold")
        if gold is not None and there is not None and gold != there:
            raise DataError(
                f"gold of {printable(identity)!r} is not what {name} says", file=file, line=line, field="gold"
            )
        rows[identity] = replace(one, gold=gold or there or Labels())
    wanted = (
        list(order) if order is not None else [f"{name}:{i}" for i in range(len(fingerprints.known().get(name, rows)))]
    )
    missing = [i for i in wanted if i not in rows]
    if missing and not partial:
        raise DataError(
            f"{len(rows)} rows where {name} has {len(wanted)}; {len(missing)} missing, the first is {missing[0]} "
            "(a run with --limit is scored with --partial)", file=file,
        )  # fmt: skip
    kept = [rows[i] for i in wanted if i in rows]
    return Predictions(name, kept[0].verdict.guard if kept else "", tuple(kept), tasks)


def read_line(row: dict[str, Any], benchmark: str, *, file: str | None = None, line: int | None = None) -> Prediction:
    """One line of a verdict file."""
    try:
        verdict = from_dict(Verdict, row)
        gold = from_dict(Labels, row.get("gold") or {})
    except DataError as error:
        raise DataError(error.message, file=file, line=line) from None
    return Prediction(verdict.exchange_id, benchmark, gold, verdict, str(row.get("prompt_hash") or ""))


def _check_id(identity: str, name: str, by_id: dict[str, Example] | None, *, where: tuple[str, int]) -> None:
    file, line = where
    if by_id is not None:
        known = identity in by_id
    else:
        stem, _, number = identity.rpartition(":")
        most = len(fingerprints.known().get(name, ())) or None
        known = stem == name and number.isdecimal() and (most is None or int(number) < most)
    if not known:
        other = identity.rpartition(":")[0]
        belongs = f"; it belongs to {printable(other)}" if other in fingerprints.known() and other != name else ""
        raise DataError(
            f"{printable(identity)!r} is no row of {name}{belongs}", file=file, line=line, field="exchange_id"
        )


def _prompt_hash(block: str) -> str:
    return fingerprints.text_hash(block[len(f"{HUMAN}\n") :].split(f"\n\n{ASSISTANT}\n")[0])
