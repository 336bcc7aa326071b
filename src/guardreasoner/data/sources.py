"""Where rows come from: the hub, a GitHub file, the official benchmark files, or a file of the user's own.

A `Source` is one line of a table; `load_rows` gives its upstream rows as they are. What a row means (filter, label
rule) is said by the tables in `seeds` and `benchmarks`.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from guardreasoner.errors import ConfigError, DataError, UnknownName, need
from guardreasoner.formats.guardreasoner import ASSISTANT, HUMAN
from guardreasoner.records import read_jsonl
from guardreasoner.types import TASKS, Example, Exchange, Labels, Message, Task

T = TypeVar("T")

FIELDS = ("id", "prompt", "response", *(t.value for t in TASKS), "category", "source")
"""Columns of a labelled file; `--map` may give each another name."""

_SEPARATOR = f"\n\n{ASSISTANT}\n"
_FETCH_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Source:
    """One upstream data set."""

    repo: str
    """Hub id, or `owner/name` on GitHub where `url` is given."""
    split: str = ""
    config: str | None = None
    revision: str | None = None
    """Pinned commit or tag; None = not known to us, the content is checked by fingerprint instead."""
    url: str | None = None
    """A file on GitHub (`.csv`, `.json`, `.jsonl.gz`) instead of a hub data set."""
    gated: bool = False
    """The hub asks for its terms to be accepted."""
    licence: str = ""
    note: str = ""

    @property
    def page(self) -> str:
        """The page a person visits."""
        return f"https://github.com/{self.repo}" if self.url else f"https://huggingface.co/datasets/{self.repo}"


class Skip(NamedTuple):
    """A row that the table's rule leaves out, and why."""

    reason: str


def load_rows(source: Source, name: str) -> list[dict[str, Any]]:
    """The upstream rows of a source, in upstream order.

    Raises:
        MissingDependency: `datasets` is not installed.
        DataError: the source cannot be reached, or its terms have not been accepted.
    """
    if source.url:
        return _parse_download(_fetch(source.url, name), source.url)
    datasets = need("datasets", "data")
    token = os.environ.get("HF_TOKEN")
    try:
        rows = datasets.load_dataset(
            source.repo, source.config, split=source.split, revision=source.revision, token=token
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(_why(source, name, error)) from None
    return [dict(row) for row in rows]


def take(rule: Callable[[Mapping[str, Any]], T], rows: Iterable[Mapping[str, Any]], where: str) -> Iterator[T]:
    """Apply a row function to upstream rows.

    Raises:
        DataError: a row lacks a column or holds a value that the rule does not know, as when a set changes upstream.
    """
    for number, row in enumerate(rows):
        try:
            yield rule(row)
        except (KeyError, TypeError, ValueError) as error:
            detail = (
                f"no column {error}" if isinstance(error, KeyError) else f"an unexpected value ({type(error).__name__})"
            )
            raise DataError(f"{where}, row {number}: {detail}; the set may have changed upstream") from None


def _why(source: Source, name: str, error: Exception) -> str:
    denied = type(error).__name__ == "DatasetNotFoundError" or "gated" in str(error).lower()
    if source.gated and denied:
        return (
            f"{name} is gated: accept its terms at {source.page}, then set HF_TOKEN to a token of that account, "
            "or give --data DIR with the official file"
        )
    return (
        f"{name} could not be loaded from {source.page} ({type(error).__name__}); check the network, or give --data DIR"
    )


def _fetch(url: str, name: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=_FETCH_TIMEOUT_S) as reply:
            return bytes(reply.read())
    except (urllib.error.URLError, TimeoutError, OSError) as error:
        raise DataError(
            f"{name} could not be fetched from {url} ({type(error).__name__}); check the network, or give --data DIR"
        ) from None


def _parse_download(content: bytes, url: str) -> list[dict[str, Any]]:
    if url.endswith(".gz"):
        content, url = gzip.decompress(content), url.removesuffix(".gz")
    text = content.decode("utf-8")
    if url.endswith(".csv"):
        return list(csv.DictReader(io.StringIO(text, newline="")))
    if url.endswith(".jsonl"):
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    value = json.loads(text)
    return [row for rows in value.values() for row in rows] if isinstance(value, dict) else list(value)


def input_block(prompt: str, response: str | None) -> str:
    """The official `input` of an exchange; `read_input_block` is its inverse."""
    return f"{HUMAN}\n{prompt}{_SEPARATOR}{'None' if response is None else response}\n\n"


def read_input_block(text: str, *, file: str | None = None, line: int | None = None) -> tuple[str, str | None]:
    """Request and reply (None = no reply) of an official `input`.

    Raises:
        DataError: the text is not framed so, or judged text repeats the frame and the cut is not certain.
    """
    head, tail = f"{HUMAN}\n", f"{_SEPARATOR}None\n\n"
    if not text.startswith(head) or not text.endswith("\n\n") or _SEPARATOR not in text:
        raise DataError(f"not an input block ({HUMAN} … {ASSISTANT} …)", file=file, line=line, field="input")
    if text.endswith(tail):
        return text[len(head) : -len(tail)], None
    if text.count(_SEPARATOR) > 1:
        raise DataError("judged text repeats the frame, so the cut is not certain", file=file, line=line, field="input")
    prompt, response = text[len(head) : -2].split(_SEPARATOR)
    return prompt, response


def read_json_list(path: str | Path) -> list[dict[str, Any]]:
    """The objects of a file that holds one JSON list.

    Raises:
        DataError: the file cannot be read, or holds something else.
    """
    try:
        value = json.loads(Path(path).read_bytes().decode("utf-8"))
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", file=str(path)) from None
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 at byte {error.start}; save the file as UTF-8", file=str(path)) from None
    except (json.JSONDecodeError, RecursionError) as error:
        where = error.lineno if isinstance(error, json.JSONDecodeError) else None
        raise DataError("not JSON, or cut off", file=str(path), line=where) from None
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise DataError("a JSON list of objects is wanted", file=str(path))
    return value


def read_table(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and row of a `.jsonl`, `.csv` or `.json` file of the user's own.

    Raises:
        DataError: the file cannot be read or a line is broken.
        ConfigError: another kind of file.
    """
    file = Path(path)
    if file.suffix == ".jsonl":
        yield from read_jsonl(file)
    elif file.suffix == ".json":
        yield from enumerate(read_json_list(file), 1)
    elif file.suffix == ".csv":
        yield from _read_csv(file)
    else:
        raise ConfigError(f"{file}: a benchmark of your own is a .jsonl, .csv or .json file")


def _read_csv(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(sys.maxsize)
    try:
        with open(file, newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, strict=True)
            for row in reader:
                if None in row or None in row.values():
                    raise DataError("another number of cells than the header has", file=str(file), line=reader.line_num)
                yield reader.line_num, row
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", file=str(file)) from None
    except UnicodeDecodeError:
        raise DataError("not UTF-8; save the file as UTF-8", file=str(file)) from None
    except csv.Error as error:
        raise DataError(f"not CSV ({error})", file=str(file)) from None


def parse_mapping(text: str | None) -> dict[str, str]:
    """`prompt=question,response=answer` as field -> column.

    Raises:
        ConfigError: a pair is not `field=column`.
        UnknownName: there is no such field.
    """
    mapping: dict[str, str] = {}
    for pair in filter(None, (p.strip() for p in (text or "").split(","))):
        name, equals, column = (part.strip() for part in pair.partition("="))
        if not equals or not column:
            raise ConfigError("--map wants FIELD=COLUMN pairs, such as prompt=question,prompt_harm=label")
        if name not in FIELDS:
            raise UnknownName("field", name, FIELDS)
        mapping[name] = column
    return mapping


_YES, _NO, _NONE = {"1", "1.0", "true", "yes"}, {"0", "0.0", "false", "no"}, {"", "none", "null", "nan", "n/a"}
_ALIASES: dict[str, set[str]] = {
    "harmful": {"harmful", "unsafe", *_YES},
    "unharmful": {"unharmful", "harmless", "safe", "benign", *_NO},
    "refusal": {"refusal", "refused", *_YES},
    "compliance": {"compliance", "complied", "compliant", *_NO},
}


def read_label(value: Any, task: Task) -> str | None:
    """The label that a cell of a labelled file means; None = not annotated.

    Raises:
        ValueError: no known way to write a label of this task.
    """
    word = "" if value is None else str(value).strip().lower()
    if word in _NONE:
        return None
    for label in (TASKS[task].positive, TASKS[task].negative):
        if word in _ALIASES[label]:
            return label
    raise ValueError(f"not {TASKS[task].positive}/{TASKS[task].negative} (or 1/0, true/false, yes/no, or empty)")


def examples_of(
    rows: Iterable[tuple[int, Mapping[str, Any]]],
    *,
    file: str,
    name: str,
    mapping: Mapping[str, str] | None = None,
) -> list[Example]:
    """Labelled examples from rows with the columns of `FIELDS`, or the columns that `mapping` names.

    A row without an id gets `{name}:{index from 0}`.

    Raises:
        DataError: a column is missing, a label unknown, an id occurs twice, a row has no text at all.
    """
    columns = {f: f for f in FIELDS} | dict(mapping or {})
    examples, lines = [], dict[str, int]()
    for index, (line, row) in enumerate(rows):
        for wanted in ("prompt", *(mapping or {})):
            if columns[wanted] not in row:
                raise DataError(f"no such column; say which it is with --map {wanted}=COLUMN", file=file, line=line,
                                field=columns[wanted])  # fmt: skip
        example = _example(row, columns, default_id=f"{name}:{index}", where=(file, line))
        first = lines.setdefault(example.exchange.id, line)
        if first != line:
            raise DataError(f"the id of line {first} again", file=file, line=line, field=columns["id"])
        examples.append(example)
    if not examples:
        raise DataError("no rows", file=file)
    return examples


def read_examples(path: str | Path, mapping: Mapping[str, str] | None = None) -> list[Example]:
    """The labelled examples of a `.jsonl`, `.csv` or `.json` file.

    Raises:
        DataError: the file cannot be read, a line is broken, a column is missing, a label unknown.
        ConfigError: another kind of file.
    """
    return examples_of(read_table(path), file=str(path), name=Path(path).stem, mapping=mapping)


def _example(row: Mapping[str, Any], columns: Mapping[str, str], *, default_id: str, where: tuple[str, int]) -> Example:
    file, line = where
    labels: dict[Task, str | None] = {}
    for task in TASKS:
        try:
            labels[task] = read_label(row.get(columns[task.value]), task)
        except ValueError as error:
            raise DataError(str(error), file=file, line=line, field=columns[task.value]) from None
    texts = {f: row.get(columns[f]) for f in ("prompt", "response")}
    for field, text in texts.items():
        if text is not None and not isinstance(text, str):
            raise DataError("a text is wanted", file=file, line=line, field=columns[field])
    prompt, response = texts["prompt"] or "", texts["response"] or None
    if not prompt and not response:
        raise DataError("neither request nor reply", file=file, line=line, field=columns["prompt"])
    exchange = Exchange(
        id=str(row.get(columns["id"]) or default_id),
        prompt=prompt,
        response=response,
        context=_context(row.get("context"), where),
        source=str(row.get(columns["source"]) or Path(file).stem),
    )
    return Example(exchange, Labels.of(labels), str(row.get(columns["category"]) or ""))


def _context(given: Any, where: tuple[str, int]) -> tuple[Message, ...]:
    try:
        return tuple(Message(**m) for m in given or ())
    except TypeError:
        raise DataError("a list of {role, content} is wanted", file=where[0], line=where[1], field="context") from None
