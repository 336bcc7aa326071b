"""The kinds of harm that nano tells apart, and a crosswalk from other people's names for harm to them.

`harm_kinds.yaml` says what each kind is about, which words in a name mean it, and which categories of OpenAI's
moderation endpoint it counts towards.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from guardreasoner.yaml_files import packaged


@dataclass(frozen=True, slots=True)
class Kind:
    """One row of the table."""

    about: str
    openai: tuple[str, ...]
    """Categories of OpenAI's moderation endpoint."""
    words: re.Pattern[str]
    """Finds a word of this kind in a lower-case name."""


def _pattern(word: object) -> str:
    """A word's beginning, or where a space ends it the whole word."""
    text = str(word)
    return re.escape(text.rstrip()) + (r"(?![a-z])" if text.endswith(" ") else "")


@cache
def kinds() -> Mapping[str, Kind]:
    """The kinds by name, in the order in which names are read."""
    return {
        name: Kind(
            row["about"],
            tuple(row["openai"]),
            re.compile(r"(?<![a-z])(?<!non-)(?:" + "|".join(map(_pattern, row["words"])) + ")"),
        )
        for name, row in packaged("data/harm_kinds.yaml").items()
    }


def kind_of(name: str | None) -> str | None:
    """The kind that a free-text name of a harm belongs to, or None.

    >>> kind_of("credit card fraud"), kind_of("Suicide methods"), kind_of("blue")
    ('fraud', 'self-harm', None)
    """
    text = (name or "").lower().replace("_", " ")
    return next((kind for kind, row in kinds().items() if row.words.search(text)), None)
