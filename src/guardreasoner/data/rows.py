"""The one reader of rows: a mapping from a file, a line of JSON or a program becomes an exchange, or a named error.

A row has `prompt` and optionally `response`, `context` and `id`; or `messages`, a chat in OpenAI's form, of which the
last request and reply are judged and the rest is context. Texts may be lists of text parts. Other fields pass through
to the output.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, time, timedelta
from typing import Any

from guardreasoner.data.messages import as_exchange, read_turns, text_of
from guardreasoner.errors import DataError, nearest, printable
from guardreasoner.records import HugeNumber, kind_of, parse_json
from guardreasoner.types import Exchange, Message, Verdict, field_names

READ = ("id", "prompt", "response", "context", "messages")
"""The fields that are read here."""
TEXTS = ("prompt", "response", "messages")
"""A row without any of these holds nothing to judge."""
NOTHING = "the row has no prompt, no response and no messages"
WRITTEN = (*field_names(Verdict), "line")
"""The fields of an output line; a field of the user's own that is called so comes out as `input_<name>`."""
DEEPEST = 100
"""Lists and objects inside one another in a field that passes through."""


@dataclass(frozen=True, slots=True)
class ReadRow:
    """One row that was read."""

    exchange: Exchange
    passing: Mapping[str, Any]
    """The other fields, as JSON can hold them."""


def read_row(
    row: Mapping[str, Any] | DataError,
    *,
    file: str,
    line: int,
    columns: Mapping[str, str] | None = None,
    texts: bool = False,
) -> ReadRow | DataError:
    """What a row holds, or what is wrong with it. Nothing is raised: one row's fault is that row's error.

    Args:
        row: the fields by name; an error is given back.
        file, line: where it comes from, for errors; the line is the id of a row that has none.
        columns: field -> the column it is called in this file.
        texts: what is judged passes through as well.
    """
    if isinstance(row, DataError):
        return row
    names = {name: (columns or {}).get(name, name) for name in READ}
    try:
        own = {name: _known(row[column]) for name, column in names.items() if column in row}
        if own.get("prompt") is not None or own.get("response") is not None:
            own.pop("messages", None)  # passes through
        if own.keys().isdisjoint(TEXTS):
            raise DataError(NOTHING + _misspelt(row), field="prompt")
        exchange = exchange_of(own, str(line))
        read = {names[name] for name in own if name == "id" or not texts}
        return ReadRow(exchange, {k: plain(v, printable(str(k), 40)) for k, v in row.items() if k not in read})
    except DataError as error:
        first, dot, rest = (error.field or "").partition("[")
        field = names.get(first, first) + dot + rest
        return DataError(error.message, file=file, line=line, field=field or None)


def exchange_of(row: Mapping[str, Any], name: str) -> Exchange:
    """The exchange of a row with fields of `READ`; `name` is the id of one that has none."""
    row = {k: _listed(v) if k in ("messages", "context") else v for k, v in row.items()}
    identity = _identity(row.get("id"), name)
    prompt, response = text_of(row.get("prompt"), "prompt"), text_of(row.get("response"), "response")
    if row.get("messages") is None:
        if prompt is None and response is None:
            raise DataError(NOTHING, field="prompt")
        exchange = Exchange(identity, prompt or "", response, _context(row.get("context")))
    else:
        if prompt is not None or response is not None or row.get("context") is not None:
            raise DataError("give messages, or prompt, response and context, not both", field="messages")
        exchange = as_exchange(row["messages"], identity)
    if not exchange.prompt and not exchange.response:
        raise DataError("both prompt and response are empty; give at least one of them", field="prompt")
    return exchange


def _known(value: Any) -> Any:
    """The value; None for NaN, as pandas writes what is missing."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _misspelt(row: Mapping[str, Any]) -> str:
    """Which field of a row may be one of the texts."""
    meant = ((str(key), nearest(str(key), TEXTS)) for key in row)
    return next((f"; is {printable(key, 40)!r} meant to be {field!r}?" for key, field in meant if field), "")


def _identity(value: Any, name: str) -> str:
    if value is None or value == "" or value != value:
        return name
    if isinstance(value, HugeNumber):
        return value.text
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(f"an id is a text or a number, not a {kind_of(value)}", field="id")
    return str(value)


def _listed(value: Any) -> Any:
    """A list that comes as its JSON text, as a cell of a CSV holds it."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        return parse_json(value.encode("utf-8", "replace"), file="")
    except DataError:
        return value


def _context(value: Any) -> tuple[Message, ...]:
    if value is None or value != value:
        return ()
    return tuple(turn for turn in read_turns(value, "context") if turn.content)


def line_of(passing: Mapping[str, Any], verdict: Mapping[str, Any]) -> dict[str, Any]:
    """One line of output: the fields that pass through, then the verdict's. Neither overwrites the other."""
    return {**renamed(passing, WRITTEN), **{name: plain(value, name) for name, value in verdict.items()}}


def renamed(fields: Mapping[str, Any], taken: Collection[str]) -> dict[str, Any]:
    """Fields, where one whose name is taken is called `input_<name>`; `input_text` is then `input_input_text`."""

    def name(key: str) -> str:
        bare = key
        while bare.startswith("input_"):
            bare = bare.removeprefix("input_")
        return f"input_{key}" if bare in taken else key

    return {name(key): value for key, value in fields.items()}


def plain(value: Any, field: str, depth: int = 0) -> Any:
    """A value as JSON can hold it: NaN is null; dates, decimals and numbers too large are text; bytes are base64."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None if math.isnan(value) else str(value)
    if depth == DEEPEST:
        raise DataError(f"lists and objects more than {DEEPEST} deep", field=field)
    if isinstance(value, Mapping):
        return {str(k): plain(v, field, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(v, field, depth + 1) for v in value]
    if isinstance(value, HugeNumber):
        return value.text
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, date | time):
        return value.isoformat()
    return value.total_seconds() if isinstance(value, timedelta) else _other(value, field, depth)


def _other(value: Any, field: str, depth: int) -> Any:
    """A number of numpy's as Python's; anything else as its text (decimals, UUIDs, paths)."""
    return plain(value.item(), field, depth + 1) if hasattr(value, "item") else str(value)
