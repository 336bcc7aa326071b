"""Digits and signs that look like letters, in their place."""

from __future__ import annotations

import itertools
import re

from guardreasoner.guards.disguises.joined_words import taken_apart
from guardreasoner.guards.english_words import known, listed

_LETTERS = re.compile(r"[A-Za-z]+")
_GLYPHS = {"/\\/\\": "m", "|\\/|": "m", "\\/\\/": "w", "|/\\|": "w", "|\\|": "n", "|-|": "h", "|_|": "u", "\\/": "v",
           "|<": "k", "|)": "d", "|3": "b", "|>": "p", "()": "o", "(_": "u", "[]": "o", "|=": "f", "|2": "r", "><": "x",
           "/-\\": "a", "]-[": "h", "}{": "h", "|_": "l"}  # fmt: skip
_GLYPH = re.compile("|".join(map(re.escape, sorted(_GLYPHS, key=len, reverse=True))))
_LEET = {"0": "o", "1": "il", "2": "z", "3": "e", "4": "a", "5": "s", "6": "g", "7": "t", "8": "b", "9": "g",
         "@": "a", "$": "s", "!": "i", "|": "li", "+": "t", "(": "c", "€": "e"}  # fmt: skip
_AS_LEET = str.maketrans({sign: letters[0] for sign, letters in _LEET.items()})
_LONG_LEET = re.compile(r"[A-Za-z0-9@$!|+€']{14,}")
_LEET_WORD = re.compile(r"[A-Za-z0-9@$!|+(€']{1,24}")


def leet(text: str) -> str:
    """Digits and signs that stand for letters, where several words become English by it."""
    drawn = glyphs(text)
    if sum(map(known, _LETTERS.findall(drawn))) > sum(map(known, _LETTERS.findall(text))) + 1:
        text = drawn
    text = _LONG_LEET.sub(_leet_apart, text)
    found = {w for w in _LEET_WORD.findall(text) if _holds_leet(w)}
    read = {w: word for w in found if (word := unleeted(w))}
    mixed = {w for w in found if len(w) > 2 and any(map(str.isalpha, w))}
    if len(mixed & read.keys()) < max(2, len(mixed) / 2):
        return text
    read = {w: w.lower().translate(_AS_LEET) for w in mixed} | read
    return _LEET_WORD.sub(lambda m: read.get(m.group(), m.group()), text)


def glyphs(text: str) -> str:
    """Letters drawn with signs (`|<`) as letters."""
    return _GLYPH.sub(lambda m: _GLYPHS[m.group()], text)


def as_letters(text: str) -> str:
    """Each digit or sign as the letter that it may be, in a text of which many words hold both."""
    tokens = _LEET_WORD.findall(text)
    mixed = {t for t in tokens if any(map(str.isalpha, t)) and _holds_leet(t)}
    if len(mixed) < 3 or 3 * len(mixed) < len(tokens):
        return text
    return _LEET_WORD.sub(lambda m: m.group().rstrip("!").translate(_AS_LEET), text)


def _holds_leet(word: str) -> bool:
    return any(c in _LEET for c in word.rstrip("!|+("))


def _leet_apart(match: re.Match[str]) -> str:
    """Leet words run together."""
    token = match.group()
    signs = sum(not c.isalpha() for c in token)
    if signs < 3 or not len(token) / 12 < signs < 0.8 * len(token):
        return token
    words = taken_apart(token.translate(_AS_LEET))
    return words if " " in words else token


def unleeted(word: str) -> str | None:
    """The English word that a leet spelling stands for."""
    for signs in dict.fromkeys((word.lower(), word.lower().rstrip("!|+("))):
        for letters in itertools.islice(itertools.product(*(_LEET.get(c, c) for c in signs)), 16):
            found = "".join(letters)
            if known(found) or (len(found) > 7 and listed(found)):
                return found
    return None


GUESSES = (("leet", leet),)
