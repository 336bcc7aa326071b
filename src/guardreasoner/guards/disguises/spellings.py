"""Misspelt words: letters drawn out, signs put into words or in place of letters."""

from __future__ import annotations

import itertools
import re
import string
from collections import Counter
from functools import lru_cache

from guardreasoner.guards.english_words import known, likeliest, listed, plausible

_LETTERS = re.compile(r"[A-Za-z]+")
_BROKEN = re.compile(r"[A-Za-z]{1,20}(?:[^\sA-Za-z'\x00-\x1f@_=<>/\\&]{1,2}[A-Za-z]{1,20}){1,24}\d?")
_MASK = re.compile(r"[*#•]")
MOST_MASKED = 4
"""Signs of a word that are read: each has five readings."""
_MASKED = re.compile(
    r"(?<![\w*#])(?=[A-Za-z*#•]{4,20}(?![\w*#]))[A-Za-z]{1,12}(?:[*#•]{1,2}[A-Za-z]{0,12}){1,4}(?![\w*#])"
)
_THRICE = re.compile(r"([A-Za-z])\1{2,}")
_DOUBLED = re.compile(r"([A-Za-z])\1")


def stretched(text: str) -> str:
    """Words with letters twice or more (`hhooww`, `mmake`), or with one drawn out (`hooow`), as what they are."""
    words = set(_LETTERS.findall(text))
    drawn = {w: k for w in words for k in (2, 3, 4) if len(w) >= k and _repeated(w, k)}
    times = Counter(k for w, k in drawn.items() if known(w[::k]))
    read = {w: w[::k] for w, k in drawn.items() if known(w[::k]) or times[k] > 2}
    for word in words - set(read):
        if _THRICE.search(word) and not known(word):
            tries = (_THRICE.sub(r"\1", word), _THRICE.sub(r"\1\1", word))
            read.update((word, t) for t in tries[::-1] if known(t))
        elif len(word) > 4 and not listed(word) and (once := _DOUBLED.sub(r"\1", word)) != word and known(once):
            read[word] = once
    return _LETTERS.sub(lambda m: read.get(m.group(), m.group()), text) if len(read) > 2 else text


def undrawn(word: str) -> str:
    """The word that an unknown one is with each of its letters once, or one drawn out; itself where there is none."""
    tries = [word[::k] for k in (2, 3, 4) if _repeated(word, k)]
    tries += [_THRICE.sub(r"\1\1", word), _THRICE.sub(r"\1", word)]
    tries += [_DOUBLED.sub(r"\1", word)] if len(word) > 4 else []
    return next((t for t in tries if known(t)), word)


def broken(text: str) -> str:
    """Words with signs or digits put into them (`ma-ke`, `m(a)ke`, `m1a1k1e1`) without these."""
    read = {token: word for token in set(_BROKEN.findall(text)) if (word := _mended(token))}
    return _BROKEN.sub(lambda m: read.get(m.group(), m.group()), text) if len(read) > 2 else text


def masked(text: str) -> str:
    """Words with signs in place of letters after the first (`m*ke`, `b*k*`), as the most frequent words that fit."""
    read = {token: word for token in set(_MASKED.findall(text)) if (word := unmasked(token)) != token}
    return _MASKED.sub(lambda m: read.get(m.group(), m.group()), text) if read else text


@lru_cache(4096)
def unmasked(token: str) -> str:
    """With vowels in place of the signs, or, of two signs at most that end no word, with any letters."""
    parts = _MASK.split(token.lower())
    if len(parts) > MOST_MASKED + 1 or known(token.rstrip("*#•")):  # the latter: a footnote
        return token
    few = len(parts) < 4 and parts[-1]
    for letters in ("aeiou", string.ascii_lowercase) if few else ("aeiou",):
        fills = itertools.product(letters, repeat=len(parts) - 1)
        tries = (parts[0] + "".join(itertools.chain(*zip(fill, parts[1:], strict=True))) for fill in fills)
        if (word := likeliest(tries, token)) != token:
            return word
    return token


def _mended(token: str) -> str | None:
    parts = _LETTERS.findall(token)
    word = "".join(parts)
    apart_ = all(len(p) > 2 and known(p) for p in parts)  # well-known, and/or
    return None if len(word) < 4 or apart_ or not plausible(word) else word


def _repeated(word: str, times: int) -> bool:
    return "".join(c * times for c in word[::times]).lower() == word.lower()


EXACT = (
    ("stretched", stretched),
    ("broken words", broken),
)
GUESSES = (("masked letters", masked),)
AS_WRITTEN = (("masked letters", masked),)
