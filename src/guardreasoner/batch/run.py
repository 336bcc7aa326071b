"""A guard over a file of any size: JSONL or Parquet in, a verdict per row out, in order, in bounded memory, resumable.

The input is cut into pieces (some thousand lines, or a row group). A runner judges them: here, one after the other, or
over Ray Data. What was written is never judged again: the same command goes on behind the last whole line.

A row has `prompt`, and if you like `response`, `context`, `id`; other fields pass through. A row that cannot be read
gives `{line, error}` in its place.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from guardreasoner.batch.files import CHUNK, Piece, pieces, rows_of, size_of, write_parquet
from guardreasoner.errors import ConfigError, DataError
from guardreasoner.guards.base import Guard
from guardreasoner.records import RunFolder, dumps, parse_line, to_dict
from guardreasoner.types import Exchange, Message

OWN_FIELDS = ("id", "prompt", "response", "context")

Opener = Callable[[], Guard]
Progress = Callable[[float, int], None]
"""Told the share of the input that is done, and the rows so far."""


@dataclass(frozen=True, slots=True)
class Job:
    """What to judge: picklable, so that it can be done elsewhere."""

    source: str
    piece: Piece
    skip: int = 0
    """Rows of the piece that were judged before."""


@dataclass
class Tally:
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


Runner = Callable[[Iterator[Job], Opener], Iterator[tuple[Job, list[str]]]]
"""Judges jobs; gives each with its lines of output, in order."""


def run_batch(
    source: str | Path,
    out: str | Path,
    opener: Opener,
    *,
    config: Mapping[str, Any],
    runner: Runner | None = None,
    progress: Progress = lambda share, rows: None,
    fresh: bool = False,
) -> dict[str, Any]:
    """Judge every row of a file.

    Args:
        source: `.jsonl` (or any other text of JSON lines) or `.parquet`.
        out: `.jsonl` or `.parquet`; beside it `<out>.run/` remembers what it was made from.
        opener: makes the guard, where it is needed.
        config: what decides the verdicts (guard, mode, ...); a finished or begun output of another one is refused.
        runner: None = in this process.
        progress: called after every piece.
        fresh: throw away what is there.

    Returns:
        The manifest.

    Raises:
        DataError: the input cannot be read.
        RunFolderError: the output is in use, or belongs to another input or configuration.
        ConfigError: the output exists and was not made by this function.
        GuardReasonerError: the guard as a whole failed; the same command resumes.
    """
    source, out = Path(source), Path(out)
    if not source.is_file():
        raise DataError("there is no such file", file=str(source))
    folder = Path(f"{out}.run")
    if out.exists() and not folder.exists() and not fresh:
        raise ConfigError(f"{out} exists and is no output of a batch run; give another OUT, or --fresh to replace it")
    with RunFolder(folder.parent, folder.name, config=config, inputs=[source], fresh=fresh) as run:
        if run.manifest is not None and out.exists():
            return run.manifest
        lines = run.path / "lines.jsonl" if out.suffix == ".parquet" else out
        if fresh or (out.exists() and lines != out):
            out.unlink(missing_ok=True)
        tally = _judge(source, lines, opener, runner=runner or run_here, progress=progress)
        if lines != out:
            write_parquet(lines, out)
        counts = {
            "in": tally.rows,
            "out": tally.rows - tally.bad,
            "dropped": {"unreadable": tally.bad} if tally.bad else {},
        }
        return run.finish(counts, verdicts=tally.as_dict())


def _judge(source: Path, lines: Path, opener: Opener, *, runner: Runner, progress: Progress) -> Tally:
    tally = _resume(lines)
    size = size_of(source)
    with open(lines, "ab") as stream:
        for job, written in runner(_jobs(source, tally.rows), opener):
            stream.write("".join(f"{line}\n" for line in written).encode())
            stream.flush()
            for line in written:
                tally.add(_loads(line))
            progress(min(1.0, job.piece.end / size), tally.rows)
        os.fsync(stream.fileno())
    return tally


def _jobs(source: Path, done: int) -> Iterator[Job]:
    """What is left of the input, behind so many rows."""
    for piece in pieces(source):
        if done >= piece.rows:
            done -= piece.rows
            continue
        yield Job(str(source), piece, done)
        done = 0


def run_here(jobs: Iterator[Job], opener: Opener) -> Iterator[tuple[Job, list[str]]]:
    """The plain runner: one guard, in this process. Gives a piece's lines chunk by chunk, as they are judged."""
    guard: Guard | None = None
    try:
        for job in jobs:
            guard = guard or opener()
            for written in judge_job(job, guard):
                yield job, written
    finally:
        if guard is not None:
            guard.close()


def judge_job(job: Job, guard: Guard) -> Iterator[list[str]]:
    """The lines of output of one job, in chunks."""
    rows = islice(rows_of(job.source, job.piece), job.skip, None)
    while chunk := list(islice(rows, CHUNK)):
        read = [read_row(row, file=job.source, line=line) for line, row in chunk]
        verdicts = iter(guard.judge([r[0] for r in read if not isinstance(r, DataError)]))
        written = []
        for (line, _), row in zip(chunk, read, strict=True):
            if isinstance(row, DataError):
                written.append(dumps({"line": line, "error": str(row)}))
            else:
                written.append(dumps({**row[1], **to_dict(next(verdicts))}))
        yield written


def read_row(
    row: Mapping[str, Any] | DataError, *, file: str, line: int
) -> tuple[Exchange, dict[str, Any]] | DataError:
    """An exchange and the fields that pass through, or what is wrong with the row."""
    if isinstance(row, DataError):
        return row
    prompt, response, context = row.get("prompt"), row.get("response"), row.get("context")
    for name, value in (("prompt", prompt), ("response", response)):
        if value is not None and not isinstance(value, str):
            return DataError(f"a {type(value).__name__} where a text is wanted", file=file, line=line, field=name)
    if not prompt and not response:
        return DataError("both prompt and response are empty", file=file, line=line, field="prompt")
    try:
        earlier = tuple(Message(str(m["role"]), str(m["content"])) for m in context or ())
    except (TypeError, KeyError):
        return DataError("a list of messages with role and content is wanted", file=file, line=line, field="context")
    identity = str(row["id"]) if row.get("id") is not None else str(line)
    extra = {k: v for k, v in row.items() if k not in OWN_FIELDS}
    return Exchange(identity, prompt or "", response, earlier), extra


def _resume(lines: Path) -> Tally:
    """What an earlier run wrote; a torn last line is cut off."""
    tally, whole = Tally(), 0
    if not lines.exists():
        return tally
    with open(lines, "rb+") as stream:
        for content in stream:
            if not content.endswith(b"\n"):
                break
            whole += len(content)
            tally.add(_loads(content.decode()))
        stream.truncate(whole)
    return tally


def _loads(line: str) -> dict[str, Any]:
    return parse_line(line.encode(), file="output", line=0)
