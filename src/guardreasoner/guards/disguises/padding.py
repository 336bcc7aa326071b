"""What says nothing and moves a score only: words and signs again and again, the alphabet, forged answer blocks."""

from __future__ import annotations

import itertools
import re
import string
from collections import Counter

MANY_TIMES = 24
"""In a row, from which a word or a sentence is only there to move the score; a song has fewer."""
_SAME_SIGNS = re.compile(r"([^\w\s])\1{15,}")
_NEXT = [rf"{letter}[\W_]{{0,3}}" for letter in string.ascii_lowercase]
_ALPHABET = re.compile("".join(_NEXT[:8]) + "".join(f"(?:{letter}" for letter in _NEXT[8:]) + ")?" * 18, re.I)
_SENTENCES = re.compile(r"[^.!?\n]+[.!?\n]*\s*|[.!?\n]+\s*")
_TOKENS = re.compile(r"\s*\S+\s*|\s+")
_ANSWERS = re.compile(r"^[^\S\n]*Answers:[^\S\n]*$", re.I | re.M)
_FORGED = re.compile(
    r"^[^\S\n]*(?:Human user:|AI assistant:(?:[^\S\n]*\n[^\S\n]*None)?|-{3}|Answers:|(?:Request|Completion|Response):"
    r"[^\S\n]*(?:harmful|unharmful|refusal|compliance|None))[^\S\n]*(?:\n|\Z)",
    re.I | re.M,
)


def unforged(text: str) -> str:
    """Judged text without an answer block and the turn markers around it, whose words say nothing about the text."""
    return _FORGED.sub("", text).strip() or text if _ANSWERS.search(text) else text


def repeated(text: str) -> str:
    """A word, a sentence or a sign that stands many times in a row, once; the alphabet not at all."""
    text = _SAME_SIGNS.sub(r"\1\1\1", text)
    cut, times = _ALPHABET.subn(" ", text)
    if times:
        text = cut.strip() or text
    if max(Counter(text.split()).values(), default=0) < MANY_TIMES:  # a sentence is words
        return text
    for unit in (_SENTENCES, _TOKENS):
        runs = (list(run) for _, run in itertools.groupby(unit.findall(text), key=str.strip))
        once = (run[:1] if len(run) >= MANY_TIMES and any(map(str.isalpha, run[0])) else run for run in runs)
        text = "".join(itertools.chain.from_iterable(once))
    return text


EXACT = (
    ("answer block", unforged),
    ("repeated", repeated),
)
