"""Guesses what the columns of a labelled file mean. A guess is suggested in the error, never assumed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from guardreasoner.data.rows import TEXTS
from guardreasoner.errors import nearest, printable
from guardreasoner.yaml_files import packaged

WORDS = packaged("data/column_guesses.yaml")
MOST_VALUES, LONGEST_VALUE = 8, 24
"""More or longer values than these are texts, not labels, and are not shown."""


def word_of(value: Any) -> str:
    """A label's cell as one lower-case word: True is `true`, 1.0 is `1`, None is empty."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    word = "" if value is None else str(value).strip().lower()
    return word.removesuffix(".0") if word in ("0.0", "1.0") else word


def columns_found(names: Iterable[str]) -> str:
    """The columns of a file, for an error."""
    shown = [printable(str(name), 40) for name in names]
    return f"columns found: {', '.join(shown[:20])}{', …' if len(shown) > 20 else ''}"


def fitting_map(rows: Sequence[Mapping[str, Any]], asked: Mapping[str, str]) -> str:
    """The `--map` that would read rows, less what was asked for, or the part of it that can be guessed; empty = none.

    Args:
        asked: field -> column, as mapped already.
    """
    columns = {str(name): None for row in rows for name in row}
    found, by_lower = fitting_columns(columns, asked), _by_lower(columns)
    parts = [f"{field}={name}" for field, name in found.items() if field != name]
    if not any(field.endswith("_harm") or field == "refusal" for field in found):
        free = {lower: name for lower, name in by_lower.items() if name not in found.values()}
        exact = next((free[n] for n in WORDS["labels"] if n in free), None)
        longer = {  # user_verdict, answer_verdict: of several for a task the first
            "response_harm" if {*WORDS["names"]["response"]} & {*_words(lower)} else "prompt_harm": name
            for lower, name in free.items()
            if _words(lower)[-1] in WORDS["labels"]
        }
        labels = {"response_harm" if "response" in found else "prompt_harm": exact} if exact else longer
        parts += [f"{task}={name}{_meanings(name, [row.get(name) for row in rows])}" for task, name in labels.items()]
    if parts and found.keys().isdisjoint(TEXTS):
        parts.insert(0, "prompt=COLUMN")
    told = {f"{field}={name}" for field, name in asked.items()}
    return _quoted(",".join(part for part in parts if part not in told))


def fitting_columns(columns: Iterable[str], asked: Mapping[str, str]) -> dict[str, str]:
    """Field -> the column that seems to hold it: those asked for, and what can be guessed from the columns' names."""
    found, by_lower = dict(asked), _by_lower(columns)
    for field, names in WORDS["names"].items():
        hit = next((by_lower[n] for n in names if n in by_lower and by_lower[n] not in found.values()), None)
        if hit is not None:
            found.setdefault(field, hit)
    for field, words in WORDS["last_words"].items():
        longer = (name for lower, name in by_lower.items() if _words(lower)[-1] in words)
        hit = next((name for name in longer if name not in found.values()), None)
        if hit is not None and not {field, "messages"} & found.keys():
            found[field] = hit
    for field in ("prompt", "response") if "messages" not in found else ():
        free = [lower for lower, name in by_lower.items() if name not in found.values()]
        if field not in found and (near := nearest(field, free)) is not None:
            found[field] = by_lower[near]
    return found


def _words(name: str) -> list[str]:
    return re.split(r"[\W_]+", name)


def _by_lower(columns: Iterable[str]) -> dict[str, str]:
    """A column by its name in lower case; of several the first."""
    return {name.strip().lower(): name for name in reversed(list(columns))}


def inverted(column: str, cells: Sequence[Any]) -> str:
    """As `_meanings`, of a column such as `is_safe` whose yes means no harm; empty for others."""
    return _inverted(column, sorted({word_of(cell) for cell in cells} - {""}))


def _inverted(column: str, values: Sequence[str]) -> str:
    says_safe = any(word in column.lower().split("_") for word in ("safe", "benign"))
    if not says_safe or not set(values) <= {"0", "1", "true", "false", "yes", "no"}:
        return ""
    good = [v for v in values if v in ("1", "true", "yes")]
    return f":{(good or ['1'])[0]}=unharmful:*=harmful"


def _meanings(column: str, cells: Sequence[Any]) -> str:
    """`:unsafe=harmful:*=unharmful` where the values of a column of labels are not read as they are."""
    values = sorted({word_of(cell) for cell in cells} - {""})
    if not values or len(values) > MOST_VALUES or any(len(v) > LONGEST_VALUE or set(v) & set(",:=") for v in values):
        return ""
    if inverted := _inverted(column, values):
        return inverted
    if set(values) <= set(WORDS["readable"]):
        return ""
    good = [v for v in values if v in WORDS["good"]]
    if good:
        return "".join(f":{v}=unharmful" for v in good) + ":*=harmful"
    return f":{values[-1]}=harmful:*=unharmful"


def _quoted(text: str) -> str:
    return f"'{text}'" if set(text) & set("* ()&;|<>$") else text
