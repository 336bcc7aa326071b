"""Records as JSON lines, read and written; files that are never half-written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from math import isfinite
from pathlib import Path
from typing import IO, Any, Self, TypeVar

from guardreasoner.errors import DataError
from guardreasoner.types import (
    Example,
    Exchange,
    Labels,
    Message,
    Preference,
    Review,
    Score,
    Step,
    Task,
    Trace,
    Usage,
    Verdict,
)

T = TypeVar("T")

_NESTED: dict[type[Any], dict[str, Any]] = {
    Exchange: {"context": lambda v: tuple(Message(**m) for m in v)},
    Example: {"exchange": lambda v: from_dict(Exchange, v), "gold": lambda v: Labels(**v)},
    Trace: {"example": lambda v: from_dict(Example, v)},
    Verdict: {
        "labels": lambda v: Labels(**v),
        "steps": lambda v: tuple(Step(Task(s["task"]) if s["task"] else None, s["text"]) for s in v),
        "usage": lambda v: Usage(**v),
    },
    Preference: {"task": Task},
    Score: {"task": Task, "ci": lambda v: tuple(v) if v is not None else None},
    Review: {"labels": lambda v: Labels(**v)},
}


def to_dict(record: Any) -> dict[str, Any]:
    """A record (a dataclass of `types`) as plain JSON values."""
    return asdict(record)


def from_dict(kind: type[T], row: Mapping[str, Any]) -> T:
    """A record from plain JSON values. Unknown fields are ignored, so that files of later versions can be read.

    Raises:
        DataError: a field is missing or cannot have the value it has.
    """
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    nested = _NESTED.get(kind, {})
    try:
        return kind(**{k: nested[k](row[k]) if k in nested else row[k] for k in known if k in row})
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        missing = [n for n in known if n not in row]
        detail = (
            str(error)
            if isinstance(error, ValueError)
            else f"it lacks or garbles a field (absent: {', '.join(missing) or 'none'})"
        )
        raise DataError(f"not a {kind.__name__}: {detail}") from None


def dumps(value: Any) -> str:
    """One line of JSON: records, enums, paths and sets allowed; lone surrogates escaped; NaN refused."""
    return _ENCODER.encode(value).encode("utf-8", "backslashreplace").decode()


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not JSON")


_ENCODER = json.JSONEncoder(default=_plain, ensure_ascii=False, allow_nan=False)


def read_lines(path: str | Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Line number (from 1), byte position and object of each line of a JSONL file; empty lines are skipped.

    Raises:
        DataError: the file cannot be read, a line is not UTF-8, not JSON, or not an object.
    """
    position = 0
    try:
        with open(path, "rb") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, position, parse_line(line, file=str(path), line=number)
                position += len(line)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", file=str(path)) from None


def read_jsonl(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """`read_lines` without positions."""
    return ((number, row) for number, _, row in read_lines(path))


def parse_line(content: bytes, *, file: str, line: int) -> dict[str, Any]:
    """The object that one line of JSON holds; a byte order mark before it is skipped.

    Raises:
        DataError: the line is not UTF-8, not JSON, or not an object.
    """
    return _object(parse_json(content, file=file, line=line), file, line)


def read_object(path: str | Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        DataError: the file cannot be read, or holds something else.
    """
    try:
        return _object(parse_json(Path(path).read_bytes(), file=str(path)), str(path))
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", file=str(path)) from None


def _object(value: Any, file: str, line: int | None = None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"a {kind_of(value)} where an object is wanted", file=file, line=line)
    return value


def kind_of(value: Any) -> str:
    """What JSON calls a value."""
    if isinstance(value, str):
        return "text"
    if isinstance(value, Mapping):
        return "JSON object"
    if isinstance(value, list | tuple):
        return "list"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true/false"
    return "number" if isinstance(value, int | float) else type(value).__name__.lower()


@dataclass(frozen=True, slots=True)
class HugeNumber:
    """A JSON number that a float or an int of Python cannot hold, as it was written: 1e999, or 5,000 digits."""

    text: str


def parse_json(content: bytes, *, file: str, line: int | None = None) -> Any:
    """The value that UTF-8 bytes of JSON hold; numbers beyond Python's own as `HugeNumber`.

    Raises:
        DataError: the bytes are not UTF-8, or not JSON.
    """
    try:
        return _DECODER.decode(content.removeprefix(BOM_UTF8).decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 at byte {error.start}; save the file as UTF-8", file=file, line=line) from None
    except RecursionError:
        raise DataError("not JSON (nested too deeply)", file=file, line=line) from None
    except KeyTwice:
        raise DataError("a key stands twice in an object; keep one of them", file=file, line=line) from None
    except json.JSONDecodeError as error:
        at = error.lineno if line is None else line
        raise DataError(f"not JSON ({error.msg} at column {error.colno})", file=file, line=at) from None


def _float(text: str) -> float | HugeNumber:
    value = float(text)
    return value if isfinite(value) else HugeNumber(text)


def _int(text: str) -> int | HugeNumber:
    return int(text) if len(text) <= _LONGEST_INT else HugeNumber(text)


_LONGEST_INT = 4000
"""Digits; Python refuses to read more than 4,300, against attacks by arithmetic."""


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of its pairs.

    Raises:
        KeyTwice: a key occurs twice; readers differ in which of the two they take, and only one would be judged.
    """
    made = dict(pairs)
    if len(made) < len(pairs):
        raise KeyTwice
    return made


class KeyTwice(ValueError):
    """A JSON object has a key twice."""


_DECODER = json.JSONDecoder(parse_float=_float, parse_int=_int, object_pairs_hook=unique_keys)


def read_records(kind: type[T], path: str | Path) -> Iterator[T]:
    """The records of a JSONL file, with file and line in every error."""
    for number, row in read_jsonl(path):
        try:
            yield from_dict(kind, row)
        except DataError as error:
            raise DataError(error.message, file=str(path), line=number) from None


def write_atomic(path: str | Path, content: str | bytes) -> None:
    """Write a whole file or nothing: to a temporary file beside it, flushed, then renamed."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(name, 0o644)
        os.replace(name, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """An empty folder to fill; it replaces `path` when the body ends without an error.

    It is filled beside `path`; what a killed run left there is deleted the next time.
    """
    target = Path(path)
    work, old = (target.with_name(f".{target.name}.{what}") for what in ("unfinished", "old"))
    for left in (work, old):
        shutil.rmtree(left, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        yield work
        if target.exists():
            os.replace(target, old)
        os.replace(work, target)
    finally:
        for left in (work, old):
            shutil.rmtree(left, ignore_errors=True)


def write_jsonl(path: str | Path, rows: Iterable[Any]) -> int:
    """Write a whole JSONL file atomically; returns the number of rows."""
    lines = [dumps(row) for row in rows]
    write_atomic(path, "".join(f"{line}\n" for line in lines))
    return len(lines)


def rows_digest(rows: Iterable[Any]) -> str:
    """Hex digest of rows in their order, as a JSONL file would hold them."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(dumps(row).encode() + b"\n")
    return digest.hexdigest()


def sha256(path: str | Path) -> str:
    """Hex digest of a file, or of the names and digests of a folder's files."""
    root = Path(path)
    if root.is_dir():
        files = sorted(p for p in root.rglob("*") if p.is_file())
        listing = "".join(f"{p.relative_to(root)} {sha256(p)}\n" for p in files)
        return hashlib.sha256(listing.encode()).hexdigest()
    with open(root, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Appender:
    """Appends rows to a JSONL file that survives a kill: whole lines only, and a torn last line is cut off on opening.

    Use as a context manager; `existing` holds the rows that were already there.
    """

    def __init__(self, path: str | Path, keep: Callable[[dict[str, Any]], bool] = lambda row: True) -> None:
        """Args:
        path: of the file.
        keep: rows of it that are not kept are taken out of the file.
        """
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab+") as stream:
            stream.seek(0)
            stream.truncate(stream.read().rfind(b"\n") + 1)
        rows = [row for _, row in read_jsonl(self.path)]
        self.existing = [row for row in rows if keep(row)]
        if len(self.existing) < len(rows):
            write_jsonl(self.path, self.existing)
        self._stream: IO[bytes] = open(self.path, "ab")  # noqa: SIM115 - closed by __exit__

    def append(self, row: Any) -> None:
        """Write one row and flush it."""
        self._stream.write(dumps(row).encode() + b"\n")
        self._stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()


def now() -> str:
    """The time as ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
