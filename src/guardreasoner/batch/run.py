"""Judge a table of any size: one verdict per row, in order, in bounded memory, resumable.

The input is read in portions (a few thousand lines, or one row group), which are judged one after the other here, or
in parallel over Ray Data (`batch.spread`). The same command continues after the last complete line of output; a row
that was written is never judged again.

`data.rows` says what a row is. A row that cannot be read becomes `{line, error}` in its place.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from guardreasoner.batch.files import CHUNK, SPLITTABLE, Portion, portions, rows_of, size_of, write_table
from guardreasoner.data.column_guesses import columns_found, fitting_columns
from guardreasoner.data.rows import READ, line_of, read_row
from guardreasoner.data.tables import WRITABLE, checked_suffix, columns_of, suffix_of
from guardreasoner.errors import ConfigError, DataError, need, printable
from guardreasoner.guards.base import Guard, judge_all
from guardreasoner.records import dumps, parse_line, to_dict
from guardreasoner.run_folder import RunFolder, refuse_overwriting

Opener = Callable[[], Guard]
Progress = Callable[[float, int], None]
"""Called with the share of the input that is done, and the rows so far."""


@dataclass
class BatchCounts:
    """What was written."""

    rows: int = 0
    bad: int = 0
    unjudged: Counter[str] = field(default_factory=Counter)
    """By status, of all fail modes."""
    closed: int = 0
    """Unjudged under fail mode `closed`."""
    flagged: int = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one line of output."""
        self.rows += 1
        status = row.get("status")
        if status is None:
            self.bad += 1
        elif status != "ok":
            self.unjudged[status] += 1
            self.closed += row.get("fail_mode") == "closed"
        self.flagged += bool(row.get("flagged"))

    def as_dict(self) -> dict[str, Any]:
        """The manifest's `verdicts`."""
        return {"flagged": self.flagged, "unjudged": dict(self.unjudged), "unjudged_closed": self.closed}


Runner = Callable[[Iterator[Portion], Opener], Iterator[tuple[Portion, list[str]]]]
"""Judges portions; gives each with its lines of output, in order."""


def run_batch(
    source: str | Path,
    out: str | Path,
    opener: Opener,
    *,
    config: Mapping[str, Any],
    runner: Runner | None = None,
    progress: Progress = lambda share, rows: None,
    fresh: bool = False,
    texts: bool = False,
    columns: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Judge every row of a file.

    Args:
        source: a table (`data.tables`).
        out: `.jsonl`, `.csv`, `.tsv` or `.parquet`, all but the last also with `.gz`; beside it `<out>.run/` remembers
            what it was made from.
        opener: makes the guard, where it is needed.
        config: what decides the verdicts (guard, mode, ...); a finished or begun output of another one is refused.
        runner: None = in this process.
        texts: repeat the texts that were judged in the output.
        columns: field -> the column it is called in the input, where the names differ.

    Returns:
        The manifest.
    """
    source, out = Path(source), Path(out)
    folder = Path(f"{out}.run")
    columns = columns or {}
    _check(source, out, columns)
    if out.exists() and not folder.exists() and not fresh:
        raise ConfigError(f"{out} exists and is no output of a batch run; give another OUT, or --fresh to replace it")
    with RunFolder(folder.parent, folder.name, config=config, inputs=[source], fresh=fresh) as run:
        if run.manifest is not None and out.exists():
            return run.manifest
        lines = out if suffix_of(out) == ".jsonl" else run.path / "lines.jsonl"
        if fresh or (out.exists() and lines != out):
            out.unlink(missing_ok=True)
        try:
            left = partial(_left, source, texts=texts, columns=columns)
            counts = _judge(source, lines, opener, runner=runner or run_here, progress=progress, left=left)
        except BaseException:
            if lines.exists() and lines.stat().st_size:
                run.tick()  # what was judged stays, and so does the record of what it is of
            else:
                lines.unlink(missing_ok=True)
            raise
        if lines != out:
            write_table(lines, out)
        rows = {
            "in": counts.rows,
            "out": counts.rows - counts.bad,
            "dropped": {"unreadable": counts.bad} if counts.bad else {},
        }
        return run.finish(rows, verdicts=counts.as_dict())


def _check(source: Path, out: Path, asked: Mapping[str, str]) -> None:
    """Find every error that can be found before a row is judged."""
    checked_suffix(source)
    if not source.exists():
        raise DataError("there is no such file", file=str(source))
    if not source.is_file():
        raise DataError("is no file; give one file", file=str(source))
    if columns := columns_of(source):
        _check_columns(columns, asked, str(source))
    if checked_suffix(out, WRITABLE) == ".parquet":
        need("pyarrow.parquet", "data")
    if out.is_dir():
        raise ConfigError(f"{out} is a folder; give a file as OUT")
    refuse_overwriting(out, [source])


def _check_columns(columns: Sequence[str], asked: Mapping[str, str], file: str) -> None:
    """Find that columns are missing, and say which `--map` would fit."""
    for column in asked.values():
        if column not in columns:
            raise DataError(f"there is no column {printable(column, 40)!r}; {columns_found(columns)}", file=file)
    if {asked.get(name, name) for name in ("prompt", "response", "messages")}.isdisjoint(columns):
        fits = {k: v for k, v in fitting_columns(columns, asked).items() if k in READ}
        pairs = ",".join(f"{k}={printable(v, 40)}" for k, v in fits.items()) or "prompt=COLUMN,response=COLUMN"
        wrong = f"no column is called prompt, response or messages; {columns_found(columns)}"
        raise DataError(f"{wrong}; try --map '{pairs}'", file=file)


def _judge(
    source: Path,
    lines: Path,
    opener: Opener,
    *,
    runner: Runner,
    progress: Progress,
    left: Callable[[int], Iterator[Portion]],
) -> BatchCounts:
    counts = _resume(lines)
    size = size_of(source) if suffix_of(source) in SPLITTABLE else None
    with open(lines, "ab") as stream:
        for portion, written in runner(left(counts.rows), opener):
            stream.write("".join(f"{line}\n" for line in written).encode())
            stream.flush()
            for line in written:
                counts.add(_loads(line))
            share = portion.end / size if size else counts.rows / max(1, portion.rows)
            progress(min(1.0, share), counts.rows)
        os.fsync(stream.fileno())
    return counts


def _left(source: Path, done: int, *, texts: bool, columns: Mapping[str, str]) -> Iterator[Portion]:
    """The rest of the input after this many rows."""
    for portion in portions(source):
        if done >= portion.rows:
            done -= portion.rows
            continue
        yield replace(portion, skip=done, texts=texts, columns=columns)
        done = 0


def run_here(left: Iterator[Portion], opener: Opener) -> Iterator[tuple[Portion, list[str]]]:
    """The plain runner: one guard, in this process. Gives a portion's lines chunk by chunk, as they are judged."""
    guard: Guard | None = None
    try:
        for portion in left:
            guard = guard or opener()
            for written in judge_portion(portion, guard):
                yield portion, written
    finally:
        if guard is not None:
            guard.close()


def judge_portion(portion: Portion, guard: Guard) -> Iterator[list[str]]:
    """The lines of output of one portion, in chunks."""
    rows = islice(rows_of(portion), portion.skip, None)
    while chunk := list(islice(rows, CHUNK)):
        read = [
            (line, read_row(row, file=portion.source, line=line, columns=portion.columns, texts=portion.texts))
            for line, row in chunk
        ]
        verdicts = iter(judge_all(guard, [given.exchange for _, given in read if not isinstance(given, DataError)]))
        yield [
            dumps({"line": line, "error": str(given)})
            if isinstance(given, DataError)
            else dumps(line_of(given.passing, to_dict(next(verdicts))))
            for line, given in read
        ]


def _resume(lines: Path) -> BatchCounts:
    """Read what an earlier run wrote; an incomplete last line is cut off."""
    counts, whole = BatchCounts(), 0
    if not lines.exists():
        return counts
    with open(lines, "rb+") as stream:
        for content in stream:
            if not content.endswith(b"\n"):
                break
            whole += len(content)
            counts.add(_loads(content.decode()))
        stream.truncate(whole)
    return counts


def _loads(line: str) -> dict[str, Any]:
    return parse_line(line.encode(), file="output", line=0)
