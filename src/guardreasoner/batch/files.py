"""The files of a batch run: input in portions that fit in memory; output as JSON lines, CSV or Parquet."""

from __future__ import annotations

import gzip
import io
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

from guardreasoner.data.tables import (
    DELIMITERS,
    Line,
    Row,
    bounded_lines,
    checked_suffix,
    open_parquet,
    parquet_rows,
    read_line,
    read_table,
    suffix_of,
    write_delimited,
)
from guardreasoner.errors import need
from guardreasoner.records import dumps, read_jsonl

CHUNK = 64
"""Rows judged together."""
PORTION_LINES, PORTION_BYTES = 2_000, 4_000_000
"""A portion of JSON lines ends at whichever comes first."""
SPLITTABLE = (".jsonl", ".ndjson", ".parquet")
"""Inputs that are read from the middle; the others are one portion."""


@dataclass(frozen=True, slots=True)
class Portion:
    """A part of the input that one guard judges. It can be pickled, so that it is judged elsewhere."""

    source: str
    start: int
    """JSON lines: first byte. Parquet: row group. Else 0."""
    end: int
    """One past the last, in the same unit; else the number of rows."""
    line: int
    """Number of its first line or row, from 1."""
    rows: int
    skip: int = 0
    """Rows that were judged before."""
    texts: bool = False
    """Whether its lines of output repeat what was judged."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Field -> the column it is called in the input."""


def portions(source: Path) -> Iterator[Portion]:
    """The input in parts that fit in memory."""
    suffix, name = checked_suffix(source), str(source)
    if suffix == ".parquet":
        metadata = open_parquet(source).metadata
        line = 1
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            yield Portion(name, group, group + 1, line, rows)
            line += rows
    elif suffix in SPLITTABLE:
        yield from _portions_of_lines(source)
    else:
        rows = sum(1 for _ in read_table(source))
        yield Portion(name, 0, rows, 1, rows)


def _portions_of_lines(source: Path) -> Iterator[Portion]:
    with open(source, "rb") as stream:
        start, first, number, rows = 0, 1, 0, 0
        for content in bounded_lines(stream):
            number += 1
            rows += bool(content.strip())
            if number - first + 1 >= PORTION_LINES or stream.tell() - start >= PORTION_BYTES:
                yield Portion(str(source), start, stream.tell(), first, rows)
                start, first, rows = stream.tell(), number + 1, 0
        if number >= first:
            yield Portion(str(source), start, stream.tell(), first, rows)


def rows_of(portion: Portion) -> Iterator[Line]:
    """Line (from 1) and content of each row of a portion; empty lines are no rows."""
    source = Path(portion.source)
    suffix = suffix_of(source)
    if suffix == ".parquet":
        rows = parquet_rows(open_parquet(source), range(portion.start, portion.end), source)
        yield from enumerate(rows, portion.line)
    elif suffix in SPLITTABLE:
        yield from _rows_of_lines(portion)
    else:
        yield from read_table(source)


def _rows_of_lines(portion: Portion) -> Iterator[Line]:
    with open(portion.source, "rb") as stream:
        stream.seek(portion.start)
        for line, content in enumerate(bounded_lines(stream), portion.line):
            if content.strip():
                yield line, read_line(content, portion.source, line)
            if stream.tell() >= portion.end:
                return


def size_of(source: Path) -> int:
    """What `Portion.end` counts up to, where the input is splittable."""
    parquet = suffix_of(source) == ".parquet"
    return max(1, open_parquet(source).metadata.num_row_groups if parquet else source.stat().st_size)


def write_table(lines: Path, out: Path) -> None:
    """Turn lines of output into the table that a suffix asks for, whole or not at all."""
    part = out.with_name(f".{out.name}.part")
    suffix = suffix_of(out)
    packed = suffix.endswith(".gz")
    try:
        if suffix == ".parquet":
            _write_parquet(lines, part)
        else:
            with gzip.open(part, "wb", compresslevel=6) if packed else open(part, "wb") as stream:
                _write_text(lines, stream, suffix.removesuffix(".gz"))  # type: ignore[arg-type]
        os.replace(part, out)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()


def _write_text(lines: Path, stream: IO[bytes], suffix: str) -> None:
    if suffix not in DELIMITERS:
        with open(lines, "rb") as source:
            shutil.copyfileobj(source, stream)
        return
    names: dict[str, None] = {}
    for row in _flat_rows(lines):
        names.update(dict.fromkeys(row))
    with io.TextIOWrapper(stream, encoding="utf-8", errors="backslashreplace", newline="") as text:
        write_delimited(_flat_rows(lines), list(names), text, DELIMITERS[suffix])


def _flat_rows(lines: Path) -> Iterator[Row]:
    for _, row in read_jsonl(lines):
        yield _flat(row)


def _flat(row: Row) -> Row:
    """`labels`, `scores` and `usage` as a column per key: `labels.prompt_harm`."""
    flat: Row = {}
    for name, value in row.items():
        if isinstance(value, dict) and name in ("labels", "scores", "usage"):
            flat |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            flat[name] = value
    return flat


def _write_parquet(lines: Path, part: Path) -> None:
    arrow, parquet = need("pyarrow", "data"), need("pyarrow.parquet", "data")
    schema = _schema(arrow)
    with parquet.ParquetWriter(part, schema) as writer:
        rows = (_columns(row, schema.names) for _, row in read_jsonl(lines))
        while chunk := list(islice(rows, 2_000)):
            writer.write_table(arrow.Table.from_pylist(chunk, schema))


def _columns(row: Row, names: Iterable[str]) -> Row:
    """What has no fixed shape is JSON text, and so are the user's own fields, together in `extra`."""
    own = set(names) - {"extra"}
    extra = {name: value for name, value in row.items() if name not in own}
    kept = {name: _utf8(value) for name, value in row.items() if name in own}
    loose: Row = {name: dumps(row[name]) for name in ("kinds", "notes") if name in row}
    return {**kept, **loose, "extra": dumps(extra) if extra else None}


def _utf8(value: Any) -> Any:
    """Lone surrogates, which no UTF-8 can hold, spelled out."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {key: _utf8(inner) for key, inner in value.items()}
    return [_utf8(inner) for inner in value] if isinstance(value, list) else value


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
