"""Whether a text is in a language that a guard was validated on. Today that is English alone.

Three signs, each cheap: tokens that the vocabulary does not hold, letters that are not Latin, and, in Latin letters,
hardly any of the small words that English cannot do without, together with words that an English vocabulary has to
spell in pieces.
"""

from __future__ import annotations

import re
import unicodedata

UNKNOWN_BOUND = 0.2
"""Share of unknown tokens above which a text was not read."""
SCRIPT_BOUND = 0.3
"""Share of letters outside the Latin script."""
FEWEST_WORDS = 6
"""Shorter texts in Latin letters are taken for English: names, commands and codes hold no small words."""
ENGLISH_BOUND = 0.08
"""Share of small words below which a text is not English; English prose has about 0.4."""
BROKEN_BOUND = 0.2
"""Share of tokens that continue a word below which a text is English all the same (lists, headlines)."""
_SMALL = """
the a an and or but of to for from with without by at on into about as is are was were be been being am do does
did don't have has had i you he she it we they my your his her its our their me him them us this that these
those what which who whom whose how why when where there here not no nor if then than so because while can could
will would shall should may might must let lets i'm it's that's what's how's i've i'll u ur im dont whats some
any all more most such only just very too up out off over
"""
ENGLISH = frozenset(_SMALL.split())
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")


def unsupported(text: str, *, unknown: float = 0.0, broken: float = 1.0) -> str | None:
    """Why a text is not taken for English (`unknown tokens`, `script`, `words`), or None.

    Args:
        text: any length; the first 4,000 characters are looked at.
        unknown: share of its tokens that the vocabulary does not hold.
        broken: share of its tokens that continue a word.
    """
    if unknown > UNKNOWN_BOUND:
        return "unknown tokens"
    text = text[:4000]
    if not text.isascii():
        letters = [c for c in text if c.isalpha()]
        if sum(map(_foreign, letters)) > SCRIPT_BOUND * len(letters):
            return "script"
    words = [w.replace("’", "'") for w in _WORD.findall(text.lower())]
    if len(words) < FEWEST_WORDS or broken < BROKEN_BOUND:
        return None
    return "words" if sum(w in ENGLISH for w in words) < ENGLISH_BOUND * len(words) else None


def _foreign(letter: str) -> bool:
    return ord(letter) > 0x24F and not unicodedata.name(letter, "").startswith(("LATIN", "FULLWIDTH", "MATHEMATICAL"))
