"""English words by frequency: they tell a disguised text from a plain one, and where joined words part.

The list is the frequency dictionary of `symspellpy` (82,834 words), read once, when first needed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from itertools import islice, pairwise
from string import ascii_lowercase

COMMON = 30_000
"""Words that count as known: rarer ones are found by chance in letters that mean nothing."""
LONGEST = 20
"""Letters of a word, when joined words are taken apart."""
STRAY = -25.0
"""Log-likelihood of a letter that belongs to no word."""
_NOUNS_NEXT = "the a an my your his her its our their"
_BEFORE_NOUNS = """
of to in for with from at on by into about is are was were be and or do does did can could should would will that what
how why which who when where if as than
"""
_LASTS = "and or how what why which of write explain describe i can could do does please"
NOUN_NEXT, BEFORE_NOUN = frozenset(_NOUNS_NEXT.split()), frozenset(_BEFORE_NOUNS.split())
NEVER_LAST = NOUN_NEXT | frozenset(_LASTS.split())
"""Words that show the order of a sentence: a noun follows them, they come before an article, or hardly ever
end a sentence, and begin many."""
_LETTERS = re.compile(r"[A-Za-z]+")
_ON_KEYS = str.maketrans("abcdefghijklmnopqrstuvwxyz", "22233344455566677778889999")
_VOWELS = re.compile("[aeiou]")


@cache
def _counts() -> Mapping[str, int]:
    content = (files("symspellpy") / "frequency_dictionary_en_82_765.txt").read_text(encoding="utf-8-sig")
    parts = content.split()  # word and count in turn: at once, it takes a third of the time of line by line
    return dict(zip(parts[::2], map(int, parts[1::2]), strict=True))


@cache
def frequencies() -> Mapping[str, float]:
    """Word -> natural log of its share of all words, of the `COMMON` most frequent ones, most frequent first."""
    common = [(w, n) for w, n in islice(_counts().items(), COMMON) if len(w) > 1 or w in ("a", "i")]
    total = sum(n for _, n in common)
    return {w: math.log(n / total) for w, n in common}


def listed(word: str) -> bool:
    """Whether it is in the list at all, however rare."""
    return word.lower() in _counts()


def known(word: str) -> bool:
    """Whether it is an English word, whatever its case."""
    return word.lower() in frequencies()


def plausible(word: str) -> bool:
    """Whether it is known, or so long that a rare word is not found by chance."""
    return known(word) or (len(word) > 6 and listed(word))


def readable(text: str) -> bool:
    """Whether it is text: printable, and most of it letters and blanks."""
    if len(text) < 3 or not all(c.isprintable() or c in "\n\t\r" for c in text):
        return False
    return sum(c.isalpha() or c == " " for c in text) >= 0.7 * len(text)


def sensible(text: str) -> bool:
    """Whether it is readable and at least half of its letters are in English words."""
    words = _LETTERS.findall(text)
    inside = sum(len(w) for w in words if known(w))
    return readable(text) and 2 * inside >= sum(map(len, words)) > 0


def apart(letters: str) -> list[str]:
    """The likeliest words whose letters, joined, are these (Viterbi over single words; linear in the length)."""
    table, lower = frequencies(), letters.lower()
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(lower) + 1):
        found = (best[end - 1][0] + STRAY, end - 1)  # a letter that belongs to no word
        for start in range(max(0, end - LONGEST), end):
            share = table.get(lower[start:end])
            if share is not None and best[start][0] + share > found[0]:
                found = (best[start][0] + share, start)
        best.append(found)
    words, end = [], len(lower)
    while end:
        start = best[end][1]
        words.append(letters[start:end])
        end = start
    return words[::-1]


def likelihood(words: Sequence[str]) -> float:
    """Natural log of the likelihood of words in a row, each by itself."""
    return sum(frequencies().get(w.lower(), STRAY) for w in words)


@cache
def _keyed(key: Callable[[str], str]) -> Mapping[str, str]:
    """Key -> its most frequent word of three letters or more, on a telephone of any."""
    found: dict[str, str] = {}
    for word in frequencies():
        if len(word) > 2 or key is on_keys:
            found.setdefault(key(word), word)
    return found


def without_vowels(word: str) -> str:
    """A word with the vowels after its first letter left out."""
    return word[:1] + _VOWELS.sub("", word[1:])


def on_keys(word: str) -> str:
    """A word in keys of a telephone."""
    return word.translate(_ON_KEYS)


def from_keys(digits: str) -> str:
    """The most frequent word of keys of a telephone, or the digits."""
    return _keyed(on_keys).get(digits, digits)


def inner_sorted(word: str) -> str:
    """What a word and its misspellings by swapped inner letters have in common."""
    return word[:1] + "".join(sorted(word[1:-1])) + word[-1:] if len(word) > 3 else word


def nearest(word: str, key: Callable[[str], str]) -> str:
    """The most frequent word of an unknown word's key, or the word itself."""
    lower = word.lower()
    if len(word) < 2 or known(word) or (key is without_vowels and key(lower) != lower):
        return word
    return _keyed(key).get(key(lower), word)


def likeliest(tries: Iterable[str], word: str) -> str:
    """The most frequent English word among some, or the word itself."""
    found = [t for t in tries if t in frequencies()]
    return max(found, key=lambda t: frequencies()[t], default=word)


def less_a_letter(word: str) -> str:
    """The most frequent word that an unknown one becomes without one of the letters after its first, or itself."""
    lower = word.lower()
    if len(word) < 4 or len(word) > LONGEST or known(word):
        return word
    return likeliest((lower[:i] + lower[i + 1 :] for i in range(1, len(word))), word)


def another_letter(word: str) -> str:
    """The most frequent word that an unknown one becomes with another letter after its first, or, where it is long,
    with one more; or itself."""
    lower = word.lower()
    if len(word) < 4 or len(word) > LONGEST or known(word):
        return word
    other = likeliest((lower[:i] + c + lower[i + 1 :] for i in range(1, len(word)) for c in ascii_lowercase), word)
    if other != word or len(word) < 6:
        return other
    return likeliest((lower[:i] + c + lower[i:] for i in range(1, len(word) + 1) for c in ascii_lowercase), word)


def backwards(words: Sequence[str]) -> int:
    """Signs of reversed word order, minus signs against it: `the of`, `How` at the end."""
    lower = [w.lower() for w in words]
    pairs = list(pairwise(lower))
    inside = sum((a in NOUN_NEXT and b in BEFORE_NOUN) - (a in BEFORE_NOUN and b in NOUN_NEXT) for a, b in pairs)
    ends = [w in NEVER_LAST for w in (lower[-1], lower[0])] if lower else [False, False]
    return inside + ends[0] - ends[1]
