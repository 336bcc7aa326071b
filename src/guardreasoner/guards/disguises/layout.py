"""A sentence laid out word by word: on lines, in cells, in calls, between signs. As running text.

Only what makes a sentence, with the small words that one has, is put together: lists, tables and code stay as they are.
Each function returns the text unchanged where it found nothing, and is linear in its length.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise

from guardreasoner.guards.english_words import apart, known, likelihood
from guardreasoner.guards.language import ENGLISH

FEWEST = 4
"""Words."""
MOST = 0.7
"""Share of the lines, or of the places between words, that are alike."""
SENTENCE = 0.15
"""Share of small words from which words are a sentence."""
LONGEST_LINE, MOST_WORDS = 100, 8
"""Characters of a line that is looked at, and words of it."""
BY_CHANCE = -3.0
"""The same of the first letters of lines: of 1,200 random rows of 12 to 24 letters none has more than -3.7."""
_SMALL = ENGLISH - {"a", "i", "u", "and", "or"}
"""Lists have the others too, or code."""
_LETTERS = re.compile(r"[A-Za-z]+")
_HYPHENED = re.compile(r"([A-Za-z]{2,20})-[ \t]*\n[ \t]*([a-z]{1,20})(?![A-Za-z])")
_WORD = re.compile(r"\w+(?:['’-]\w+)*[.,;:!?]*")
_WORDS = re.compile(rf"{_WORD.pattern}(?: {_WORD.pattern}){{1,5}}")
_NUMBER = re.compile(r"\A(?:[a-zA-Z]|[ivxlIVXL]{2,7})(?=[.):])|\d+")
_BARE = re.compile(r"[A-Za-z]+(?:['’][A-Za-z]+)*")
_BETWEEN = re.compile(r"(?:([.,;:!?]+)(?=\s*[^\s.,;:!?]))?(.*)", re.S)
"""The end of a sentence or clause, and what else stands between two words."""


def layout(text: str) -> str:
    """Words broken at the ends of lines, a word a line among signs and numbers, words between the same signs."""
    text = _HYPHENED.sub(lambda m: m[1] + m[2] if known(m[1] + m[2]) else m.group(), text)
    return _told_apart(_unframed(_unwrapped(text), bare=True))


def unframed(text: str) -> str:
    """A word, or some, in the same words on each line: `print("...")`, `echo ...`."""
    return _unframed(text, bare=False)


def acrostic(text: str) -> str:
    """What the first letters of its lines spell, where that is English; else the text."""
    letters = "".join(line[0] for raw in text.splitlines() if (line := raw.strip()) and line[0].isalpha())
    if not 12 <= len(letters) <= 2_000:
        return text
    words = apart(letters.lower())
    return " ".join(words) if likelihood(words) > BY_CHANCE * len(letters) else text


def _unframed(text: str, *, bare: bool) -> str:
    """Lines that differ in one place only, as what stands there.

    Args:
        text: any.
        bare: a word among signs and numbers; else some words among others.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    found = [dict(_frames(line)) for line in lines] if len(lines) >= FEWEST else []
    counts = Counter(frame for frames in found for frame in frames if any(map(str.isalpha, frame)) != bare)
    frame, count = max(counts.items(), key=lambda item: (item[1], len(item[0])), default=("", 0))
    places = [i for i, frames in enumerate(found) if frame in frames]
    if count < FEWEST or count < MOST * (places[-1] - places[0] + 1):
        return text
    first, last = places[0], places[-1] + 1
    said = [found[i].get(frame, lines[i].strip()) for i in range(first, last)]
    return "\n".join([*lines[:first], " ".join(said), *lines[last:]]) if _a_sentence(said) else text


def _frames(line: str) -> Iterator[tuple[str, str]]:
    """What stands around each word of a line, and around words with blanks between them; numbers count as one sign."""
    for pattern in (_WORD, _WORDS) if len(line) <= LONGEST_LINE else ():
        for match in islice(pattern.finditer(line), MOST_WORDS):
            sides = line[: match.start()], line[match.end() :].rstrip(",; ")
            frame = "\0".join(_NUMBER.sub("0", side) for side in sides)
            if pattern is _WORD or any(map(str.isalpha, frame)):
                yield frame, match.group()


def _told_apart(text: str) -> str:
    """Words between most of which the same signs stand (`(1) how (2) do`, `"how", "do"`), without these; but for
    commas and full stops, between which lists stand."""
    words = list(_BARE.finditer(text))
    between = [_BETWEEN.fullmatch(text, a.end(), b.start()) for a, b in pairwise(words)]
    kinds = ["".join(_NUMBER.sub("0", m[2]).split()) if m else "" for m in between]
    kind, count = next(iter(Counter(k for k in kinds if k.strip(",.")).most_common(1)), ("", 0))
    if count < FEWEST:
        return text
    first, last = kinds.index(kind), len(kinds) - kinds[::-1].index(kind)
    said = [words[i].group() for i in range(first, last + 1)]
    if count < MOST * (last - first) or not _a_sentence(said):
        return text
    ends = [*(m[1] or "" if m else "" for m in between[first:last]), ""]
    again = " ".join(word + end for word, end in zip(said, ends, strict=True))
    return f"{text[: words[first].start()]}{again}{text[words[last].end() :]}"


def _a_sentence(said: Sequence[str]) -> bool:
    words = [word.lower() for some in said for word in _BARE.findall(some)]
    small = sum(word in _SMALL for word in words)
    return small > 1 and small >= SENTENCE * len(words)


def _unwrapped(text: str) -> str:
    """Lines cut after the same number of characters, where that broke words."""
    lines, made, first = text.split("\n"), list[str](), 0
    while first < len(lines):
        size, last = len(lines[first]), first
        while 2 < size < 40 and last + 1 < len(lines) and len(lines[last]) == size:
            last += 1
        group = lines[first : last + (last == first or len(lines[last]) <= size)]
        ends = all(line.endswith("-") for line in group[:-1])
        whole = "".join(line.removesuffix("-") if ends else line for line in group)
        made += [whole] if len(group) > 3 and _known_letters(whole) > _known_letters(" ".join(group)) else group
        first += len(group)
    return "\n".join(made)


def _known_letters(text: str) -> int:
    return sum(len(w) for w in _LETTERS.findall(text) if known(w))


EXACT = (("layout", layout),)
GUESSES = (
    ("layout", unframed),
    ("acrostic", acrostic),
)
