"""Users' labelled files: columns by our names or by `--map`, labels in any of the usual words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from guardreasoner.data.column_guesses import columns_found, fitting_map, inverted, word_of
from guardreasoner.data.rows import READ, TEXTS, read_row
from guardreasoner.data.tables import Row, read_table, stem_of, strict
from guardreasoner.errors import ConfigError, DataError, UnknownName, printable
from guardreasoner.types import TASKS, Example, Labels, Task

FIELDS = (*READ, *(t.value for t in TASKS), "category", "source")
"""Columns of a labelled file; `--map` may give each another name."""
ANY = "*"
"""In a mapping: every value that is not named."""

_YES, _NO, _NONE = {"1", "true", "yes"}, {"0", "false", "no"}, {"", "none", "null", "nan", "n/a"}
ALIASES: Mapping[str, frozenset[str]] = {
    "harmful": frozenset({"harmful", "unsafe", *_YES}),
    "unharmful": frozenset({"unharmful", "harmless", "safe", "benign", *_NO}),
    "refusal": frozenset({"refusal", "refused", *_YES}),
    "compliance": frozenset({"compliance", "complied", "compliant", *_NO}),
}
"""Label -> the words it may be written in."""


@dataclass(frozen=True, slots=True)
class Column:
    """Where a field is, and what its values mean where they are no words of ours."""

    name: str
    values: Mapping[str, str] = field(default_factory=dict)
    """Value, lower case, or `*` -> label."""


def parse_mapping(pairs: str | Sequence[str] | None, fields: Sequence[str] = FIELDS) -> dict[str, Column]:
    """`prompt=question,prompt_harm=label:unsafe=harmful:*=unharmful` as field -> column, for some fields."""
    text = pairs if isinstance(pairs, str) else ",".join(pairs or ())
    mapping: dict[str, Column] = {}
    for pair in filter(None, (p.strip() for p in text.split(","))):
        name, equals, rest = (part.strip() for part in pair.partition("="))
        parts = rest.split(":")
        at = next((i for i in range(1, len(parts)) if all("=" in p for p in parts[i:])), len(parts))
        column = ":".join(parts[:at]).strip()
        if not equals or not column:
            raise ConfigError(
                "--map wants FIELD=COLUMN pairs, such as prompt=question,prompt_harm=label:unsafe=harmful"
            )
        if name not in fields:
            if any(rest in (row.positive, row.negative) for row in TASKS.values()):
                raise ConfigError(
                    "--map wants colons between the values of a label: prompt_harm=label:1=harmful:0=unharmful"
                )
            raise UnknownName("field", name, fields)
        mapping[name] = Column(column, dict(_meaning(name, part) for part in parts[at:]))
    return mapping


def _meaning(name: str, part: str) -> tuple[str, str]:
    value, _, label = (p.strip() for p in part.rpartition("="))
    if name not in set(TASKS):
        raise ConfigError(f"--map {name}=COLUMN takes no values: only labels have them")
    row = TASKS[Task(name)]
    if label not in (row.positive, row.negative) or not value:
        raise ConfigError(f"--map {name}=COLUMN:VALUE=LABEL, where LABEL is {row.positive} or {row.negative}")
    return value.lower(), label


def read_label(value: Any, task: Task, values: Mapping[str, str] | None = None) -> str | None:
    """The label that a cell of a labelled file means; None = not annotated.

    Args:
        values: what the values of this column mean, before the words that are known anyway; `*` is every other value,
            those words too: `no` in a column `is_safe`.
    """
    word, meant = word_of(value), values or {}
    if word in meant:
        return meant[word]
    if word in _NONE:
        return None
    if ANY in meant:
        return meant[ANY]
    for label in (TASKS[task].positive, TASKS[task].negative):
        if word in ALIASES[label]:
            return label
    raise ValueError(f"not {TASKS[task].positive}/{TASKS[task].negative} (or 1/0, true/false, yes/no, or empty)")


def examples_of(
    lines: Iterable[tuple[int, Row]], *, file: str, name: str, mapping: Mapping[str, Column] | None = None
) -> list[Example]:
    """Labelled examples from rows with the columns of `FIELDS`, or the columns that `mapping` names.

    A row without an id gets `{name}:{index from 0}`. A label of the reply with an empty reply is a reply that is empty.
    """
    rows = list(lines)
    columns = {f: Column(f) for f in FIELDS} | dict(mapping or {})
    _check_columns(rows, columns, asked=mapping or {}, file=file)
    examples, seen = [], dict[str, int]()
    for index, (line, row) in enumerate(rows):
        example = _example(row, columns, default_id=f"{name}:{index}", where=(file, line))
        first = seen.setdefault(example.exchange.id, line)
        if first != line:
            raise DataError(f"the id of line {first} again", file=file, line=line, field=columns["id"].name)
        examples.append(example)
    if not any(example.gold.tasks for example in examples):
        raise DataError("none of the rows has a label", file=file)
    return examples


def read_examples(path: str | Path, mapping: Mapping[str, Column] | None = None) -> list[Example]:
    """The labelled examples of a table (`data.tables`)."""
    return examples_of(strict(read_table(path)), file=str(path), name=stem_of(path), mapping=mapping)


def _check_columns(
    lines: Sequence[tuple[int, Row]], columns: Mapping[str, Column], *, asked: Mapping[str, Column], file: str
) -> None:
    if not lines:
        raise DataError("no rows", file=file)
    rows = [row for _, row in lines]
    found = {name: None for row in rows for name in row}
    for name, column in asked.items():
        if column.name not in found:
            there = f"there is no column {printable(column.name, 40)!r}; {columns_found(found)}"
            raise DataError(f"{there}; say which it is with --map {name}=COLUMN", file=file)
        meant = (
            "" if column.values or name == Task.refusal else inverted(column.name, [r.get(column.name) for r in rows])
        )
        if name in TASKS and meant:  # its yes would be read as harm
            what = f"{printable(column.name, 40)!r} says what is safe"
            raise DataError(f"{what}; write --map {name}={printable(column.name, 40)}{meant}", file=file)
    labels = [t for t in TASKS if columns[t.value].name in found]
    texts = [name for name in TEXTS if columns[name].name in found]
    replies = [t for t in labels if TASKS[t].needs_response and _says(rows, columns[t.value].name)]
    lacking = "prompt=COLUMN" if labels else "prompt=COLUMN,prompt_harm=COLUMN"
    if texts == ["prompt"] and replies:
        lacking = "response=COLUMN"
        wrong = f"{replies[0]} is about the reply, and there is no column {columns['response'].name!r}"
    elif not texts:
        wrong = "there is no column 'prompt'"
    elif not labels:
        lacking = "prompt_harm=COLUMN"
        wrong = f"no column holds labels ({', '.join(TASKS)})"
    else:
        return
    if packed := next(
        (n for n in found if any(isinstance(r.get(n), Mapping) and set(TASKS) & {*r[n]} for r in rows)), ""
    ):
        example = '{"prompt": ..., "prompt_harm": "harmful"}'
        raise DataError(f"{packed!r} holds an object; write its labels as columns of the row: {example}", file=file)
    fits = fitting_map(rows, asked={k: c.name for k, c in asked.items()})
    if asked:
        hint = f"add {fits or lacking} to --map"
    else:
        hint = f"try --map {fits}" if fits else f"say which is which: --map {lacking}"
    raise DataError(f"{wrong}; {columns_found(found)}; {hint}", file=file)


def _says(rows: Iterable[Row], column: str) -> bool:
    return any(word_of(row.get(column)) not in _NONE for row in rows)


def _example(row: Row, columns: Mapping[str, Column], *, default_id: str, where: tuple[str, int]) -> Example:
    file, line = where
    labels: dict[Task, str | None] = {}
    for task in TASKS:
        column = columns[task.value]
        try:
            labels[task] = read_label(row.get(column.name), task, column.values)
        except ValueError as error:
            how = f"--map {task}={printable(column.name, 40)}:VALUE={TASKS[task].positive}"
            raise DataError(
                f"{error}; say what the values mean with {how}", file=file, line=line, field=column.name
            ) from None
    reply = columns["response"].name
    empty = row.get(reply) is None and columns["messages"].name not in row
    if empty and any(word is not None and TASKS[t].needs_response for t, word in labels.items()):
        row = {**row, reply: ""}
    given = read_row(row, file=file, line=line, columns={name: columns[name].name for name in READ})
    if isinstance(given, DataError):
        raise given
    own = row.get(columns["id"].name)
    exchange = replace(
        given.exchange,
        id=default_id if own is None or own == "" else given.exchange.id,
        source=str(row.get(columns["source"].name) or stem_of(file)),
    )
    return Example(exchange, Labels.of(labels), str(row.get(columns["category"].name) or ""))
