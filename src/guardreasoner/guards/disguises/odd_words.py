"""Words that are none, one or two among plain ones: a `b00k` in a sentence.

Where all of a text is disguised, its words tell together how to read it. One word alone is read where it is surely no
English word, and becomes one in one of a few ways.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Collection, Sequence
from itertools import islice

from guardreasoner.guards.disguises import byte_encodings, characters, ciphers, escapes, leet, letter_codes, spellings
from guardreasoner.guards.english_words import (
    another_letter,
    frequencies,
    inner_sorted,
    known,
    less_a_letter,
    listed,
    nearest,
    without_vowels,
)
from guardreasoner.guards.language import OTHER

LONGEST = 160
"""Characters of a word that is looked at: each letter may be an escape of six."""
LONGEST_MENDED = 600
"""Characters of a text whose misspelt words are mended: a longer one often holds a word that no list has."""
FEWEST, SHORTEST = 4, 3
"""Letters of a word that is read, and of one in leet: fewer become a word by chance."""
FOREIGN, MOST = 1 / 4, 2
"""Share of words that are no English from which a text is of another language, and how many may always be odd."""
USUAL = 4
"""Shifts that are tried on the shortest words: of all 25, one makes a word of many a name."""
_POINTS = ".,;:!?\"'()*"
_TOKEN = re.compile(r"\S+")
_LETTERS = re.compile(r"[A-Za-z]+")
_TAIL = re.compile(r"(?:nt|\(?s|re|ve|ll)$")
"""Of `dont`, `theyre` and plurals."""
_ADDRESS = re.compile(r"://|^www\.|^[/~@#]\w|\w@\w+\.\w")
_NUMBER = re.compile(r"\d+[A-Za-z]{1,2}|[A-Z]+\d+")
"""With its unit, and the name of a model."""
_MASK = re.compile("[-_.?~^+=%]")
_MASKED = re.compile(r"[a-z]{1,12}(?:\*{1,2}[a-z]{1,12}){1,2}", re.I)
_HEX = re.compile(r"(?:0x)?((?:[0-9a-f]{2}){4,20})", re.I)
_SPACED_HEX = re.compile(r"(?<!\w)(?:[0-9a-f]{2}[ :,-]){3,20}[0-9a-f]{2}(?!\w)", re.I)
_BASE32 = re.compile(r"([A-Z2-7]{7,32})={0,6}")
_BASE64 = re.compile(r"([A-Za-z0-9+/]{6,28})={0,2}")
_DRAWN = re.compile(r"(.)\1\1")
_CONSONANTS = re.compile("[b-df-hj-np-tv-xz]{3,}")
_ADDED = re.compile(r"""(["'])[A-Za-z]{1,12}\1(?:\s?[+.&]\s?\1[A-Za-z]{1,12}\1){1,12}""")
_LISTED = re.compile(r"""(["'])[A-Za-z]\1(?:[\s,]{0,2}\1[A-Za-z]\1){2,19}""")
_TAGGED = re.compile(r"(?<![A-Za-z])[A-Za-z]{1,20}(?:<[A-Za-z/!][^<>]{0,80}>){1,20}[A-Za-z]{1,20}")
_TAG = re.compile("<[^<>]*>")
_APART = re.compile(r"(?<![^\W_])[a-z]([^\w]|_)[a-z]\1[a-z](?![^\W_])", re.I)


def odd_words(text: str) -> str:
    """The text with its odd words read; itself where none is, or most are."""
    written = text
    for pattern, read in _RUNS:
        text = pattern.sub(lambda m, read=read: _word((read(m[0]) or "").strip()) or m[0], text)  # type: ignore[misc]
    text = _APART.sub(lambda m: word if known(word := "".join(_LETTERS.findall(m[0]))) else m[0], text)
    words = text.split()
    odd = {w for w in words if len(w) <= LONGEST and not _plain(w)}
    if not odd:
        return text
    if sum(w in odd for w in words) > max(MOST, len(words) / 2):
        return written
    strange = sum(w.strip(_POINTS).isalpha() or w.lower() in OTHER for w in odd)
    english = strange <= max(MOST, FOREIGN * len(words))
    text = _put_together(text, odd) if english else text
    mend = english and len(text) < LONGEST_MENDED
    found = {w: word for w in odd if (word := _read(w, english=english, mend=mend))}
    return _TOKEN.sub(lambda m: found.get(m[0], m[0]), text) if found else text


def _plain(token: str) -> bool:
    bare = token.strip(_POINTS)
    if not bare or listed(bare) or "'" in bare or "’" in bare:
        return True
    return len(stem := _TAIL.sub("", bare.lower())) > 1 and stem != bare.lower() and listed(stem)


def _word(letters: str) -> str | None:
    return letters if len(letters) >= FEWEST and known(letters) else None


def _read(token: str, *, english: bool, mend: bool) -> str | None:
    """The token with the word that is found first in it, or nothing."""
    if _ADDRESS.search(token):
        return None
    for bare in dict.fromkeys((token.rstrip(_POINTS), token.strip(_POINTS))):  # a sign may be its first letter
        left, _, right = token.partition(bare)
        readers = _readers(bare, english=english, mend=mend) if len(bare) >= SHORTEST else ()
        tries = (read(bare) for read in readers)
        if found := next((word for word in tries if word and word.lower() != bare.lower()), None):
            return f"{left}{found}{right}"
    return None


def _readers(bare: str, *, english: bool, mend: bool) -> Collection[Callable[[str], str | None]]:
    if not (bare.isalpha() and bare.isascii()):
        return _SIGNS
    return (*(_LETTERED if english else ()), *((_mended,) if mend and bare.islower() else ()))


def _looks(token: str) -> str | None:
    return next(filter(_word, characters.looks(token)), None)


def _escaped(token: str) -> str | None:
    return _word(escapes.escapes(escapes.percent(token, 1), 1))


def _leet(token: str) -> str | None:
    if (len(token) <= FEWEST and _NUMBER.fullmatch(token)) or not any(map(str.isalpha, token)):
        return None
    turned = token[::-1] if any(map(str.isdigit, token)) else token
    tries = (leet.unleeted(signs) for signs in (token, leet.glyphs(token), turned))
    return next((word for word in tries if word and len(word) >= SHORTEST), None)


def _joined(token: str) -> str | None:
    """Without what stands between its letters."""
    parts = _LETTERS.findall(token)
    whole = len(parts) < 2 or sum(map(str.isalpha, token)) > sum(map(len, parts))  # naïve
    a_code = len(parts) > 3 and len(set(_LETTERS.split(token)[1:-1])) > 1
    word = _word("".join(parts))
    return None if word is None or whole or a_code or _compound(word, parts) else word


def _compound(word: str, parts: Sequence[str]) -> bool:
    """Whether parts of a word are words, and it is rarer than each of them; or one letter and a word (e-mail)."""
    if len(parts) == 2 and len(parts[0]) == 1:
        return known(parts[1])
    shares = [frequencies().get(part.lower()) for part in parts]
    return all(share is not None and share > frequencies()[word.lower()] for share in shares)


def _masked(token: str) -> str | None:
    masked = _MASK.sub("*", token)
    if len(masked) < FEWEST or not _MASKED.fullmatch(masked) or all(len(p) > 2 and known(p) for p in masked.split("*")):
        return None
    return word if (word := spellings.unmasked(masked)) != masked else None


def _bytes(token: str) -> str | None:
    for pattern, decode in _CODED:
        try:
            said = decode(match[1]).decode("ascii") if (match := pattern.fullmatch(token)) else ""
        except ValueError:  # binascii's error is one
            continue
        if said.isprintable() and (word := _word(said) or (leet.unleeted(said) if len(said) >= FEWEST else None)):
            return word
    return None


def _ciphered(token: str) -> str | None:
    return next(filter(_word, (read(token) for read in ciphers.OF_A_WORD)), None)


def _shifted(token: str) -> str | None:
    return next(filter(_word, islice(ciphers.shifts(token), None if len(token) > FEWEST else USUAL)), None)


def _mended(token: str) -> str | None:
    if _DRAWN.search(token):  # sooo
        return None
    tries = (
        nearest(token, inner_sorted) if len(token) >= FEWEST else token,
        nearest(token, without_vowels) if _CONSONANTS.fullmatch(token) else token,
        less_a_letter(token) if len(token) > FEWEST else token,
        another_letter(token),
    )
    return next((word for word in tries if word != token), None)


_CODED: tuple[tuple[re.Pattern[str], Callable[[str], bytes]], ...] = (
    (_HEX, bytes.fromhex),
    (_BASE32, lambda body: base64.b32decode(byte_encodings.padded(body, 8))),
    (_BASE64, lambda body: base64.b64decode(byte_encodings.padded(body, 4))),
)
_SIGNS = (_looks, _escaped, _leet, _joined, _masked, _bytes)
_LETTERED = (lambda token: _word(spellings.undrawn(token)), _ciphered, _bytes, _shifted)
_RUNS: tuple[tuple[re.Pattern[str], Callable[[str], str | None]], ...] = (
    *letter_codes.OF_A_WORD,
    (_SPACED_HEX, lambda run: bytes.fromhex(re.sub("[:,-]", " ", run)).decode("latin-1")),
    (_ADDED, lambda run: "".join(_LETTERS.findall(run))),
    (_LISTED, lambda run: "".join(_LETTERS.findall(run))),
    (_TAGGED, lambda run: _TAG.sub("", run)),
)
"""What a word of several parts looks like, and what it says."""


def _put_together(text: str, odd: Collection[str]) -> str:
    """Two neighbours of which one is no word, as the word that they make."""
    made: list[str] = []
    for token in text.split(" "):
        left = made[-1] if made else ""
        halves = left.isalpha() and not left.isupper() and (token in odd or left in odd)
        if halves and _word(left + token.rstrip(_POINTS)):
            made[-1] += token
        else:
            made.append(token)
    return " ".join(made)


GUESSES = AS_WRITTEN = (("odd words", odd_words),)
