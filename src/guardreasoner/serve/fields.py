"""What a request body may hold, field by field: tables as data, and one function that checks a body against its table.

Every string is judged, or its field's type says why it need not be: a closed list of words, a number, an identifier
made by a machine. An unlisted field passes if it holds no text, and is refused by name if it does.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from guardreasoner.errors import nearest

KINDS: Mapping[str, tuple[str, str]] = {
    "text": ("text", "judged with the turn or exchange it is part of"),
    "value": ("any JSON", "judged with its turn, as JSON"),
    "json": ("any JSON", "judged by itself, as JSON"),
    "label": ("text", "judged by itself, unless it is a short code or an identifier that a machine made"),
    "sealed": ("base64, no readable text in it", "passed by type"),
    "number": ("number", "passed by type"),
    "flag": ("true or false", "passed by type"),
    "off": ("false or null", "passed by type; anything else is refused"),
    "refused": ("", "refused, whatever it holds"),
    "note": ("any JSON", "neither judged nor sent on to any model"),
}
"""Kind of a field -> what its value may be, and what becomes of it. Besides these: `=a|b|c`, a closed list of words."""

LONGEST, MOST = 400_000, 10_000
"""Characters of a text and items of a list where a row does not say."""
MOST_LEAVES = 64
"""Numbers in a field that is on no list: more of them could be a text in numbers (token ids)."""
SHORT = 16

_NUMBER = re.compile(r"[-+]?\d{1,20}(\.\d{1,20})?")
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")
_WORD = re.compile(r"[^\W\d_]{3}")
_MADE = re.compile(
    r"(?:(?:call|toolu|srvtoolu|tool|chatcmpl|cmpl|fc|ctc|msg|rs|resp|req|run|gen|fp|item)[-_]){0,2}"
    r"([0-9a-f]{8}(?:-?[0-9a-f]{4}){3}-?[0-9a-f]{12}|[0-9a-f]{10,64}|\d{1,64}|(?=(?:[A-Za-z]*\d){2})[A-Za-z0-9]{9,64})"
)
_LIKE_A_WORD = re.compile(r"[a-z]{6}|[A-Z]{6}")
_HIDDEN = re.compile(
    "(\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{1,6}\U000e007f)"  # a flag that is written in tags
    "|[\U000e0000-\U000e0fff]|(?<=[\ufe00-\ufe0f])[\ufe00-\ufe0f]|(?<=[\x00-\x7f])[\ufe00-\ufe0d]"
)
"""Invisible characters that can hide a text: tags, and variation selectors that vary nothing."""


class Field(NamedTuple):
    """One row of a table. A path may have several rows: one per form that its value may have."""

    path: str
    """Names joined by dots; `[]` = each item of a list."""
    kind: str
    longest: int = 0
    """Characters of a text, or 0 = no limit of its own."""


@dataclass(frozen=True, slots=True)
class LooseText:
    """A text outside any turn, and its path."""

    where: str
    text: str


@dataclass(slots=True)
class CheckedBody:
    """What a walk found."""

    kept: Any = None
    """The value to send on: without hidden characters."""
    loose: list[LooseText] = field(default_factory=list)
    """To be judged by themselves."""
    refused: list[str] = field(default_factory=list)
    """Where there is something that cannot be judged, and why; never the thing itself."""


class _Node:
    def __init__(self) -> None:
        self.names: dict[str, _Node] = {}
        self.items: _Node | None = None
        self.rows: list[Field] = []

    def at(self, path: str) -> _Node:
        node = self
        for name in filter(None, path.replace("[]", ".[]").split(".")):
            if name == "[]":
                node.items = node.items or _Node()
                node = node.items
            else:
                node = node.names.setdefault(name, _Node())
        return node


class FieldTable:
    """The fields of one body."""

    def __init__(self, rows: Sequence[Field], *, lists: Mapping[str, int] | None = None) -> None:
        """Args:
        rows: what is known; anything else passes where it holds no text.
        lists: most items of some lists, by path.
        """
        self.rows, self.lists = tuple(rows), dict(lists or {})
        self._root = _Node()
        for row in self.rows:
            self._root.at(row.path).rows.append(row)

    def read(self, value: Any, where: str = "", path: str = "") -> CheckedBody:
        """Check a body, or the part of one at `path`; never raises."""
        found = CheckedBody()
        found.kept = self._walk(value, self._root.at(path), where, path, found)
        return found

    def _walk(self, value: Any, node: _Node, where: str, path: str, found: CheckedBody) -> Any:
        if value is None:
            return None
        for row in node.rows:
            done, kept = _fits(value, row, where, found)
            if done:
                return kept
        if isinstance(value, dict) and node.names:
            return self._object(value, node, where, path, found)
        if isinstance(value, list) and node.items is not None:
            most = self.lists.get(path, MOST)
            if len(value) > most:
                found.refused.append(f"{where or 'the body'} has more than {most} items")
                return value
            items, below = node.items, f"{path}[]"
            return [self._walk(v, items, f"{where}[{i}]", below, found) for i, v in enumerate(value)]
        if harmless(value):
            found.loose += [LooseText(where, name) for name in names_in(value) if not coded(name)]
        else:
            found.refused.append(f"{where or 'the body'} is not what this field may hold")
        return value

    def _object(
        self, value: Mapping[Any, Any], node: _Node, where: str, path: str, found: CheckedBody
    ) -> dict[Any, Any]:
        kept: dict[Any, Any] = {}
        if "type" in node.names and (kind := value.get("type")) is not None:
            known = len(found.refused)
            self._walk(kind, node.names["type"], _joined(where, "type"), f"{path}.type", found)
            if len(found.refused) > known:  # of no kind that can be read: named once, not for all that it holds
                return dict(value)
        for name, inner in value.items():
            place = _joined(where, name)
            if name in node.names:
                below = f"{path}.{name}" if path else name
                kept[name] = self._walk(inner, node.names[name], place, below, found)
                continue
            kept[name] = inner
            if inner is None:
                del kept[name]
            elif harmless(inner):
                found.loose += [LooseText(place, n) for n in names_in({name: inner}) if not coded(n)]
            else:
                near = nearest(name, node.names)
                hint = f" (did you mean {near!r}?)" if near else ""
                found.refused.append(f"{place} is not a field that can be judged{hint}")
        return kept


def _fits(value: Any, row: Field, where: str, found: CheckedBody) -> tuple[bool, Any]:
    """Whether a row takes a value, and what is kept of it; what must be judged or refused goes to `found`."""
    kind = row.kind
    if kind == "refused" or (kind == "off" and value is not False):
        found.refused.append(f"{where} cannot be judged")
    elif kind in ("json", "value"):
        if kind == "json" and not (harmless(value) and all(map(coded, names_in(value)))):
            found.loose.append(LooseText(where, json.dumps(value, ensure_ascii=False)))
        return True, seen(value)
    elif kind == "note":
        return True, value
    elif kind == "number":
        written = isinstance(value, str) and _NUMBER.fullmatch(value) is not None
        return written or (isinstance(value, int | float) and not isinstance(value, bool)), value
    elif kind == "flag":
        return isinstance(value, bool), value
    elif kind == "off":
        return True, value
    elif not isinstance(value, str):
        return False, value
    elif kind.startswith("="):
        return value in kind[1:].split("|"), value
    elif kind == "sealed":
        return sealed(value), value
    elif len(value) > (row.longest or LONGEST):
        found.refused.append(f"{where} is longer than {row.longest or LONGEST} characters")
    elif kind == "label" and value.strip() and not coded(value):
        found.loose.append(LooseText(where, value))
    return True, visible(value) if isinstance(value, str) else value


def visible(text: str) -> str:
    """A text without invisible characters that could hide another text."""
    return text if text.isascii() else _HIDDEN.sub(lambda m: m[1] or "", text)


def seen(value: Any) -> Any:
    """Any JSON value, every text in it made `visible`."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, list):
        return [seen(v) for v in value]
    if isinstance(value, Mapping):
        return {visible(k): seen(v) for k, v in value.items()}
    return value


def harmless(value: Any) -> bool:
    """Whether a value holds no text: numbers, booleans, null, blank strings, and few of them."""
    left = MOST_LEAVES

    def holds_none(inner: Any) -> bool:
        nonlocal left
        left -= 1
        if left < 0:
            return False
        if isinstance(inner, str):
            return not inner.strip()
        if isinstance(inner, list | Mapping):
            return all(map(holds_none, inner.values() if isinstance(inner, Mapping) else inner))
        return True

    return holds_none(value)


def names_in(value: Any) -> Iterable[str]:
    """The names of all fields in a value."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield name
            yield from names_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from names_in(inner)


def coded(text: str) -> bool:
    """Whether a text is a short code without a word in it, or an identifier that a machine made."""
    if len(text) <= SHORT and text.isascii() and not _WORD.search(text) and not re.search(r"\s", text):
        return True
    made = _MADE.fullmatch(text)
    return made is not None and not _LIKE_A_WORD.search(made[1])


def sealed(text: str) -> bool:
    """Whether a text is base64 with nothing in it that can be read."""
    if len(text) < 32 or re.fullmatch(r"[A-Za-z0-9+/_-]+={0,2}", text) is None:
        return False
    try:
        inside = base64.b64decode(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return False
    runs = max(map(len, re.findall(r"[a-z]+|[A-Z]+", text)), default=0)
    return sum(32 <= b < 127 for b in inside) < 0.7 * len(inside) and runs <= 14 and any(c.isdigit() for c in text)


def _joined(where: str, name: Any) -> str:
    plain = isinstance(name, str) and (_PLAIN_NAME.fullmatch(name) or name == "")
    shown = name if plain else "(a field whose name is not a plain word)"
    return f"{where}.{shown}" if where else shown
