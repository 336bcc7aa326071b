"""Simple ciphers, and words misspelt throughout: stretches of unknown words, read so that they become English.

Each function returns the text with what it found undone, or unchanged where it found nothing.
"""

from __future__ import annotations

import itertools
import re
import string
from collections.abc import Callable, Iterator

from guardreasoner.guards.disguises.leet import as_letters
from guardreasoner.guards.english_words import (
    backwards,
    inner_sorted,
    known,
    less_a_letter,
    likeliest,
    nearest,
    without_vowels,
)
from guardreasoner.guards.language import OTHER

CERTAIN = 12
"""Thirds of words that a cipher must gain for the text as written to hold nothing more."""
FEWEST_SIGNS = 4
"""Words that a cipher of signs must gain."""
_LETTERS = re.compile(r"[A-Za-z]+")
_WORDS = re.compile(r"[A-Za-z']+")
_POINTS = ".,;:!?\"'()"
_SYLLABLE = re.compile("(?:ub|ob|op|ag|idg|ithag)(?=[aeiouAEIOU])")
"""Put before vowels: Ubbi Dubbi and other languages of children."""
_KEYS = r"""`1234567890-= qwertyuiop[]\ asdfghjkl;' zxcvbnm,./ ~!@#$%^&*()_+ QWERTYUIOP{}| ASDFGHJKL:" ZXCVBNM<>?"""
_PAIRS = [(ord(left), ord(right)) for row in _KEYS.split() for left, right in itertools.pairwise(row)]
_SIGNS = {
    "rot47": {code: 33 + (code + 14) % 94 for code in range(33, 127)},
    "shifted keys": {right: left for left, right in _PAIRS},  # the hands stood one key too far to the right
    "keys shifted to the left": dict(_PAIRS),
}
CIPHERS = frozenset(
    {*_SIGNS, "rot13", "shifted letters", "mirrored alphabet", "reversed", "reversed words", "pig Latin"}
)


def ciphers(text: str) -> Iterator[tuple[str, str, bool]]:
    """Name and text of the simple ciphers that turn a stretch of unknown words into English best, and whether that is
    certain. Digits may stand for letters."""
    found = list(_by_signs(text))
    letters = as_letters(text)
    unknown = [w for w in _LETTERS.findall(letters) if len(w) > 1 and not known(w)]
    found += _by_letters(letters) if len(unknown) > 2 else ()
    most = max((gain for _, _, gain in found), default=0)
    for name, new, gain in found:
        if gain == most > 0:
            yield name, new, gain >= CERTAIN
            yield name, _changed(text, new), False  # without what asks for it to be undone
    if most <= 0 and len(unknown) > 2:
        yield from _here_and_there(letters)


def _by_letters(text: str) -> Iterator[tuple[str, str, int]]:
    """Name, text and gain of each cipher of letters and words."""
    for shift in (13, *(k for k in range(1, 26) if k != 13)):
        yield "rot13" if shift == 13 else "shifted letters", *_by_words(text, _shift(shift))
    yield "mirrored alphabet", *_by_words(text, str.maketrans(*_mirror()))
    reversed_words = _by_words(text, lambda w: w[::-1])
    order = backwards(_WORDS.findall(_changed(text, reversed_words[0]))) if reversed_words[1] else 0
    if order >= 0:
        yield "reversed", *_by_words(text, lambda w: w[::-1], whole=True)
    if order <= 0:
        yield "reversed words", *reversed_words
    yield "pig Latin", *_by_words(text, _pig)
    yield "pig Latin", *_by_words(text, lambda w: _SYLLABLE.sub("", w))
    if order >= 0:
        rot13 = _shift(13)
        yield "reversed", *_by_words(text, lambda w: w[::-1].translate(rot13), whole=True)


def _here_and_there(text: str) -> Iterator[tuple[str, str, bool]]:
    """Name and text of a cipher by which several long unknown words become English."""
    rot13 = _shift(13)
    unknown = {w for w in _LETTERS.findall(text) if len(w) > 3 and not known(w)}
    for name, read in (
        ("rot13", {w: w.translate(rot13) for w in unknown}),
        ("reversed words", {w: w[::-1] for w in unknown}),
    ):
        words = {w: new for w, new in read.items() if known(new)}
        if len(words) > 1:
            yield name, _LETTERS.sub(lambda m, words=words: words.get(m[0], m[0]), text), False  # type: ignore[misc]


def turned(text: str) -> str:
    """Words in reverse order, where at least two signs tell so."""
    words = text.split()
    found = _WORDS.findall(text)
    if len(found) < 5:
        return text
    stop = [i for i, word in enumerate(words) if word[-1] in ".?!"] == [0]
    capital = words[-1].istitle() and words[0].islower()
    return " ".join(words[::-1]) if backwards(found) + stop + capital > 1 else text


def by_signs(text: str) -> str:
    """The text, or its end, in what each of its signs stands for, where that makes English of it best."""
    return max(_by_signs(text), key=lambda found: found[2], default=("", text, 0))[1]


def _by_signs(text: str) -> Iterator[tuple[str, str, int]]:
    """The same for each table of signs, with its name and the gain in thirds of words, where there is one."""
    words = text.split(" ")
    old = [known(w.strip(_POINTS)) for w in words]
    if old.count(False) < FEWEST_SIGNS:  # no table could gain enough
        return
    for name, signs in _SIGNS.items():
        turned = text.translate(signs).split(" ")
        new = [known(w.strip(_POINTS)) for w in turned]
        gained = list(itertools.accumulate((b - a for a, b in zip(old[::-1], new[::-1], strict=True)), initial=0))
        most = max(gained)
        if most >= FEWEST_SIGNS and 2 * most >= gained.index(most):
            start = len(old) - gained.index(most)
            yield name, " ".join([*words[:start], *turned[start:]]), 3 * most


def lossy(text: str) -> Iterator[tuple[str, str]]:
    """Name and text of what misspelt words may have been: the most frequent words that fit."""
    words = [w for w in _LETTERS.findall(text) if len(w) > 1]
    english = OTHER.isdisjoint(map(str.lower, words))  # many a German word is an English one and a letter
    if sum(not known(w) for w in words) > 1:
        yield "misspelled", _by_words(text, lambda w: nearest(w, inner_sorted), needed=2)[0]
        if english:
            yield "letters put in", _by_words(text, less_a_letter, needed=2)[0]
        yield "vowels dropped", _by_words(text, lambda w: nearest(w, without_vowels))[0]


def _shift(by: int) -> dict[int, int]:
    lower, upper = string.ascii_lowercase, string.ascii_uppercase
    return str.maketrans(lower + upper, lower[by:] + lower[:by] + upper[by:] + upper[:by])


def _mirror() -> tuple[str, str]:
    return string.ascii_letters, string.ascii_lowercase[::-1] + string.ascii_uppercase[::-1]


def _pig(word: str) -> str:
    body = word.lower().removesuffix("ay")
    if body == word.lower() or len(body) < 2:
        return word
    tries = [re.sub(r"[hwy]\Z", "", body), *(body[-k:] + body[:-k] for k in range(1, min(4, len(body))))]
    return likeliest(tries, tries[1])


def _by_words(
    text: str, read: dict[int, int] | Callable[[str], str], *, whole: bool = False, needed: int = 3
) -> tuple[str, int]:
    """The text with its best stretch of words read anew (largest sum of gains) and the gain; itself and 0 without one.

    Args:
        text: any.
        read: a word to the word it stands for.
        whole: the stretch is turned round as a whole, and not word by word.
        needed: words gained.
    """
    spans = [m.span() for m in _LETTERS.finditer(text)]
    new = [text[a:b].translate(read) if isinstance(read, dict) else read(text[a:b]) for a, b in spans]
    gains = [_gain(text[a:b], word) for (a, b), word in zip(spans, new, strict=True)]
    best, total, start, found = 0, 0, 0, (0, 0)
    for i in range(len(gains)):
        if total < 0:
            total, start = 0, i
        total += gains[i]
        if total > best:
            best, found = total, (start, i + 1)
    if best < 3 * needed:
        return text, 0
    first, last = found
    while first and gains[first - 1] > -3:  # up to words that are English as they stand
        first -= 1
    while last < len(gains) and gains[last] > -3:
        last += 1
    left, right = spans[first][0], spans[last - 1][1]
    if whole:
        again = _LETTERS.sub(lambda m: str(read(m[0][::-1])), text[left:right][::-1])  # type: ignore[operator]
        return f"{text[:left]}{again}{text[right:]}", best
    inside = iter(new[first:last])
    return text[:left] + _LETTERS.sub(lambda m: next(inside), text[left:right]) + text[right:], best


def _changed(old: str, new: str) -> str:
    """The stretch of a text in which it differs from another of the same length, less the words that both hold."""
    if len(old) != len(new):
        return new
    places = [i for i, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]
    left = new.rfind(" ", 0, places[0]) + 1
    right = new.find(" ", places[-1])
    return new[left : right if right > 0 else len(new)]


def _gain(old: str, new: str) -> int:
    """Thirds of a word that reading `old` as `new` brings."""
    if len(old) < 2:
        return 0
    if old == new:
        return -1
    return 3 * (known(new) and new.lower() != old.lower()) - 3 * known(old) - (not known(new) and not known(old))


OF_A_WORD: tuple[Callable[[str], str], ...] = (
    lambda word: word[::-1],
    lambda word: word.translate(_shift(13)),
    lambda word: word.translate(str.maketrans(*_mirror())),
    _pig,
    lambda word: _SYLLABLE.sub("", word),
)


def shifts(word: str) -> Iterator[str]:
    """A word with its letters shifted, as Caesar did first."""
    return (word.translate(_shift(k)) for k in (23, 25, 1, 3, *range(2, 25)))


GUESSES = (("words in reverse order", turned),)
AS_WRITTEN = (("shifted signs", by_signs),)
