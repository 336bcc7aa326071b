"""The files of a batch run: JSONL and Parquet read in pieces that fit in memory, verdicts written as Parquet."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from guardreasoner.errors import DataError, need
from guardreasoner.records import dumps, parse_line

CHUNK = 64
"""Rows judged together."""
PIECE_LINES, PIECE_BYTES = 2_000, 4_000_000
"""A piece of a JSONL file ends at whichever comes first."""
LONGEST_LINE = 64_000_000
"""Bytes; a longer line is an error in its place."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the input that is judged as a whole."""

    start: int
    """JSONL: first byte. Parquet: row group."""
    end: int
    """JSONL: byte behind the last one. Parquet: the row group behind it."""
    line: int
    """Number of its first line or row, from 1."""
    rows: int


def pieces(source: Path) -> Iterator[Piece]:
    """The input in parts that fit in memory.

    Raises:
        DataError: the file cannot be read.
    """
    if source.suffix == ".parquet":
        metadata = _parquet(source).metadata
        line = 1
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            yield Piece(group, group + 1, line, rows)
            line += rows
        return
    with open(source, "rb") as stream:
        start, first, number, rows = 0, 1, 0, 0
        for content in _lines(stream):
            number += 1
            rows += bool(content.strip())
            if number - first + 1 >= PIECE_LINES or stream.tell() - start >= PIECE_BYTES:
                yield Piece(start, stream.tell(), first, rows)
                start, first, rows = stream.tell(), number + 1, 0
        if number >= first:
            yield Piece(start, stream.tell(), first, rows)


def rows_of(source: str, piece: Piece) -> Iterator[tuple[int, dict[str, Any] | DataError]]:
    """Line (from 1) and content of each row of a piece; empty lines are no rows."""
    if source.endswith(".parquet"):
        batches = _parquet(Path(source)).iter_batches(CHUNK, row_groups=list(range(piece.start, piece.end)))
        rows = (row for batch in batches for row in batch.to_pylist())
        yield from enumerate(rows, piece.line)
        return
    with open(source, "rb") as stream:
        stream.seek(piece.start)
        line = piece.line - 1
        for content in _lines(stream):
            line += 1
            if content.strip():
                yield line, _parsed(content, source, line)
            if stream.tell() >= piece.end:
                return


def _parsed(content: bytes, file: str, line: int) -> dict[str, Any] | DataError:
    if len(content) >= LONGEST_LINE:
        return DataError(f"a line of more than {LONGEST_LINE} bytes", file=file, line=line)
    try:
        return parse_line(content, file=file, line=line)
    except DataError as error:
        return error


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Lines of bounded length; of a longer one only its beginning."""
    while content := stream.readline(LONGEST_LINE):
        rest = content
        while not rest.endswith(b"\n") and (rest := stream.readline(LONGEST_LINE)):
            pass
        yield content


def _parquet(source: Path) -> Any:
    parquet = need("pyarrow.parquet", "data")
    try:
        return parquet.ParquetFile(source)
    except (OSError, ValueError) as error:
        raise DataError(f"is no Parquet file ({type(error).__name__})", file=str(source)) from None


def size_of(source: Path) -> int:
    """What `Piece.end` counts up to."""
    return max(1, _parquet(source).metadata.num_row_groups if source.suffix == ".parquet" else source.stat().st_size)


def write_parquet(lines: Path, out: Path) -> None:
    """Turn lines of output into a Parquet file, whole or not at all. What has no fixed shape is JSON text there."""
    arrow, parquet = need("pyarrow", "data"), need("pyarrow.parquet", "data")
    schema = _schema(arrow)
    part = out.with_name(f".{out.name}.part")
    with open(lines, "rb") as stream, parquet.ParquetWriter(part, schema) as writer:
        rows = (_columns(parse_line(content, file=str(lines), line=0), schema.names) for content in stream)
        while chunk := list(islice(rows, 2_000)):
            writer.write_table(arrow.Table.from_pylist(chunk, schema))
    os.replace(part, out)


def _columns(row: dict[str, Any], names: list[str]) -> dict[str, Any]:
    extra = {k: v for k, v in row.items() if k not in names}
    loose: dict[str, Any] = {name: dumps(row[name]) for name in ("kinds", "notes") if name in row}
    return {**row, **loose, "extra": dumps(extra) if extra else None}


def _schema(arrow: Any) -> Any:
    text, number, whole = arrow.string(), arrow.float64(), arrow.int64()
    tasks = ("prompt_harm", "refusal", "response_harm")
    return arrow.schema({
        "exchange_id": text, "guard": text, "mode": text, "status": text,
        "labels": arrow.struct(dict.fromkeys(tasks, text)), "scores": arrow.struct(dict.fromkeys(tasks, number)),
        "calibrated": arrow.bool_(), "harm": text, "kinds": text, "attack": number,
        "flagged": arrow.bool_(), "fail_mode": text,
        "steps": arrow.list_(arrow.struct({"task": text, "text": text})), "text": text, "notes": text,
        "usage": arrow.struct({
            "prompt_tokens": whole, "completion_tokens": whole, "latency_ms": number, "passes": whole
        }),
        "error": text, "line": whole, "extra": text,
    })  # fmt: skip
