"""Files of rows, by suffix: JSON lines, a JSON list, CSV, TSV and Parquet; all but Parquet also under `.gz`.

`read_table` yields each row with its line number, or, for a row that cannot be read, the error that says so. It skips a
byte order mark, accepts upper-case suffixes, and reads an empty CSV cell as no value (None). Files from
spreadsheets are read too: semicolons in place of commas, a first line `sep=;`, UTF-16.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import IO, Any, cast

from guardreasoner.errors import ConfigError, DataError, need, printable
from guardreasoner.records import kind_of, parse_json, parse_line

Row = dict[str, Any]
Line = tuple[int, Row | DataError]
"""The line a row ends on (Parquet, JSON list: its number), from 1, and the row or what is wrong with it."""

TEXT = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")
SUFFIXES = (*TEXT, ".parquet", *(f"{suffix}.gz" for suffix in TEXT))
WRITABLE = (".jsonl", ".csv", ".tsv", ".parquet", ".jsonl.gz", ".csv.gz", ".tsv.gz")
LONGEST_LINE = 64_000_000
"""Bytes; a longer line is an error in its place."""
_CHUNK = 64
DELIMITERS = {".csv": ",", ".tsv": "\t"}
OTHER_DELIMITERS = ";\t,"
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def suffix_of(path: str | Path) -> str:
    """`.csv`, `.jsonl.gz` ...: what says how a file is read; empty where it says nothing."""
    name = Path(path).name.lower()
    return max((s for s in SUFFIXES if name.endswith(s) and name != s), key=len, default="")


def stem_of(path: str | Path) -> str:
    """The name of a file without what `suffix_of` finds."""
    name = Path(path).name
    suffix = suffix_of(path)
    return name[: -len(suffix)] if suffix else Path(path).stem


def checked_suffix(path: str | Path, known: Iterable[str] = SUFFIXES) -> str:
    """As `suffix_of`."""
    suffix, names = suffix_of(path), list(known)
    if suffix not in names:
        raise ConfigError(f"{printable(str(path), 200)}: the name says no kind of table; known: {', '.join(names)}")
    return suffix


def read_table(path: str | Path) -> Iterator[Line]:
    """The rows of a file, in order."""
    file = Path(path)
    suffix = checked_suffix(file)
    if file.is_dir():
        raise DataError("is a folder; give one file", file=str(file))
    if suffix == ".parquet":
        table = open_parquet(file)
        yield from enumerate(parquet_rows(table, range(table.metadata.num_row_groups), file), 1)
        return
    try:
        with open_bytes(file) as stream:
            yield from _READERS[suffix.removesuffix(".gz")](stream, file)
    except OSError as error:
        why = error.strerror or f"no whole {suffix} file"
        raise DataError(f"cannot be read ({why})", file=str(file)) from None
    except (EOFError, zlib.error):
        raise DataError("cannot be read (no whole gzip file)", file=str(file)) from None


def strict(lines: Iterable[Line]) -> Iterator[tuple[int, Row]]:
    """The rows of `read_table`, where one that cannot be read ends the reading."""
    for line, row in lines:
        if isinstance(row, DataError):
            raise row
        yield line, row


def columns_of(path: str | Path) -> list[str] | None:
    """The names of a file's columns; None where each row names its own fields, or the header cannot be read."""
    file = Path(path)
    if suffix_of(file) == ".parquet":
        return list(open_parquet(file).schema_arrow.names)
    if suffix_of(file).removesuffix(".gz") not in DELIMITERS:
        return None
    try:
        with open_bytes(file) as stream:
            reader, _ = _csv_reader(stream, file)
            return [cell.strip() for cell in next(reader)]
    except (StopIteration, csv.Error, OSError, EOFError, zlib.error):
        return None


def open_bytes(file: Path) -> IO[bytes]:
    """A file's content, unpacked where it is `.gz`."""
    packed = suffix_of(file).endswith(".gz")
    return cast("IO[bytes]", gzip.open(file, "rb")) if packed else open(file, "rb")


def bounded_lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Lines of at most `LONGEST_LINE` bytes; of a longer one only its beginning."""
    while content := stream.readline(LONGEST_LINE):
        rest = content
        while not rest.endswith(b"\n") and (rest := stream.readline(LONGEST_LINE)):
            pass
        yield content


def read_line(content: bytes, file: str, line: int) -> Row | DataError:
    """The object of one line of JSON, or what is wrong with it."""
    if len(content) >= LONGEST_LINE:
        return DataError(f"a line of more than {LONGEST_LINE} bytes", file=file, line=line)
    try:
        return parse_line(content, file=file, line=line)
    except DataError as error:
        return error


def _json_lines(stream: IO[bytes], file: Path) -> Iterator[Line]:
    for number, content in enumerate(bounded_lines(stream), 1):
        if content.strip():
            yield number, read_line(content, str(file), number)


def _json_list(stream: IO[bytes], file: Path) -> Iterator[Line]:
    value = parse_json(stream.read(), file=str(file))
    if not isinstance(value, list):
        raise DataError(f"a {kind_of(value)} where a list of objects is wanted", file=str(file))
    for number, row in enumerate(value, 1):
        if isinstance(row, dict):
            yield number, row
        else:
            what = f"a {kind_of(row)} where an object is wanted"
            yield number, DataError(what, file=str(file), line=number)


def _delimited(stream: IO[bytes], file: Path) -> Iterator[Line]:
    csv.field_size_limit(sys.maxsize)
    reader, before = _csv_reader(stream, file)
    names: list[str] | None = None
    try:
        for cells in reader:
            line = reader.line_num + before
            if not cells:
                continue
            if names is None:
                names = _header(cells, file)
            elif any("\udc80" <= c <= "\udcff" for cell in cells for c in cell):
                yield line, DataError("not UTF-8; save the file as UTF-8", file=str(file), line=line)
            elif len(cells) != len(names):
                yield line, DataError("another number of cells than the header has", file=str(file), line=line)
            else:
                yield line, {name: cell or None for name, cell in zip(names, cells, strict=True)}
    except csv.Error as error:
        line = reader.line_num + before
        yield line, DataError(f"not CSV ({error})", file=str(file), line=line)


def _csv_reader(stream: IO[bytes], file: Path) -> tuple[Any, int]:
    """A reader of the cells of a file, and the number of lines before its header.

    The separator is the one that a first line `sep=;` names; else what the header has most of outside quotes, the usual
    one before the others.
    """
    wide = cast(Any, stream).peek(2)[:2] in UTF_16
    code, errors = ("utf-16", "replace") if wide else ("utf-8-sig", "surrogateescape")
    text = io.TextIOWrapper(stream, code, errors, newline="")
    first = text.readline()
    usual = DELIMITERS[suffix_of(file).removesuffix(".gz")]
    if named := re.fullmatch(r"sep=([,;|\t])\s*", first, re.I):
        return csv.reader(text, strict=True, delimiter=named[1]), 1
    bare = re.sub(r'"[^"]*"', "", first)
    seldom_text = usual == "\t" and usual in bare
    found = usual if seldom_text else max((usual, *OTHER_DELIMITERS), key=bare.count)
    return csv.reader(chain([first], text), strict=True, delimiter=found), 0


def _header(cells: list[str], file: Path) -> list[str]:
    names = [cell.strip() for cell in cells]
    if any("\udc80" <= c <= "\udcff" for name in names for c in name):
        raise DataError("not UTF-8; save the file as UTF-8", file=str(file), line=1)
    _refuse_twins(names, file)
    return names


def _refuse_twins(names: list[str], file: Path) -> None:
    twin = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twin is not None:
        raise DataError(f"two columns are called {printable(twin, 40)!r}; rename one", file=str(file))


_READERS = {".jsonl": _json_lines, ".ndjson": _json_lines, ".json": _json_list, ".csv": _delimited, ".tsv": _delimited}


def open_parquet(file: Path) -> Any:
    """A `pyarrow.parquet.ParquetFile`."""
    parquet = need("pyarrow.parquet", "data")
    try:
        table = parquet.ParquetFile(file)
    except (OSError, ValueError) as error:
        raise DataError(f"is no Parquet file ({type(error).__name__})", file=str(file)) from None
    _refuse_twins(list(table.schema_arrow.names), file)
    return table


def parquet_rows(table: Any, groups: Iterable[int], file: Path) -> Iterator[Row]:
    """The rows of some row groups of a Parquet file."""
    try:
        for batch in table.iter_batches(_CHUNK, row_groups=list(groups)):
            columns = [_values(column) for column in batch.columns]
            for cells in zip(*columns, strict=True):
                yield dict(zip(batch.schema.names, cells, strict=True))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read ({type(error).__name__})", file=str(file)) from None


def _values(column: Any) -> list[Any]:
    """A column as Python values; as text where Python's own types cannot hold them (nanoseconds, the year 10,000)."""
    try:
        return cast("list[Any]", column.to_pylist())
    except (ValueError, OverflowError):
        arrow = need("pyarrow", "data")
        return cast("list[Any]", column.cast(arrow.string()).to_pylist())


def write_delimited(lines: Iterable[Row], names: list[str], stream: IO[str], delimiter: str) -> None:
    """Rows as CSV: nested values as JSON text, None as an empty cell."""
    writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
    writer.writerow(names)
    for row in lines:
        writer.writerow([_cell(row.get(name)) for name in names])


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | bool) else value
