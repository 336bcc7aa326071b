"""A text given in parts that belong together: strings of variables, entries of a series, numbered pieces.

The function returns the parts put together, and the text itself where it found none. It does not raise and is linear
in the length but for one sort.
"""

from __future__ import annotations

import re
from itertools import islice

from guardreasoner.guards.english_words import LONGEST, known

LONGEST_PART = 400
"""Characters."""
MOST_NAMES = 8
CHAINED = 3
"""How often names are replaced: what one stands for may hold another."""
LARGEST = 4
"""How many times as long a text may become by that; names that stand for many of one another would fill the memory."""
_WORDS = rf"""(?:"([^"\n]{{1,{LONGEST_PART}}})"|'([^'\n]{{1,{LONGEST_PART}}})'|“([^”\n]{{1,{LONGEST_PART}}})”)"""
_ORDER = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
_ORDINAL = "|".join(_ORDER)
_SET = re.compile(rf"\b((?:(?:{_ORDINAL})\s)?\w{{1,20}})\s{{0,2}}(?:=|:=|:|<-|=>|is|be)\s{{0,2}}{_WORDS}", re.I)
_NAMED = re.compile(
    rf"([\[{{<$%]\w{{1,20}}[\]}}>%]?|\b[A-Z][A-Z0-9_]{{0,12}}\b)\s{{0,2}}(?:=|:|means|stands for|is spelled|is)"
    rf"\s{{0,2}}(?:{_WORDS}|([A-Za-z]{{3,24}})\b)"
)
"""What stands for words elsewhere in the text: `[MASK] stands for "..."`, `X is spelled ...`."""
_ENTRY = re.compile(rf"""["'](\w{{1,20}})["']\]?\s{{0,2}}(?::|=>|=|,)\s{{0,2}}{_WORDS}""")
_DEFINED = re.compile(rf"(?i:define)\s+(\w{{1,20}})\s+{_WORDS}")
_TAGGED = re.compile(rf"<(\w{{1,20}})>([^<>\n]{{1,{LONGEST_PART}}})</\1>")
_COUNTED = re.compile(
    rf"<\w{{1,20}} \w{{1,10}}=[\"']?([A-Za-z]{{0,6}}\d{{1,3}})[\"']?>([^<>\n]{{1,{LONGEST_PART}}})</\w{{1,20}}>"
)
_NAME = r"(?:[A-Za-z]{1,12}[ _-]?)?(?:\d{1,3}|[a-zA-Z])"
_LINE = re.compile(rf"^[\W_]{{0,4}}({_NAME})[\]):.=|-]{{1,3}}\s{{0,4}}(.{{1,{LONGEST_PART}}})$", re.M)
_ADDED = re.compile(rf"(?<![\w\"']){_WORDS}(?=\s{{0,2}}(?:[+.&]|\|\|))")
_LISTED = re.compile(rf"(?<![\w\"']){_WORDS}(?=\s{{0,2}}[,)\]])")
_JOINS = re.compile(r"join|concat", re.I)
_SERIES = re.compile(r"(.*?)(\d{1,3}|[A-Za-z])")


def assembled(text: str) -> str:
    """The parts put together, in the order of their names, then in that of the text; or names replaced by what they
    stand for."""
    found = _found(text)
    if not found:
        return _told(text)
    by_name = _joint([s for _, s in sorted(found, key=lambda f: _place(f[0]))])
    as_written = _joint([s for _, s in found])
    return by_name if by_name == as_written else f"{by_name}\n{as_written}"


def _place(name: str) -> tuple[int, int, str]:
    ordinal = name.partition(" ")[0].lower()
    return (_ORDER.index(ordinal) if ordinal in _ORDER else -1, len(name), name)


def _told(text: str) -> str:
    """The text without its definitions, and each name in it replaced by the words that it stands for."""
    found: dict[str, re.Match[str]] = {}  # the first definition of a name: a later one may be there to undo it
    for match in islice(_NAMED.finditer(text), MOST_NAMES):
        if re.search(_word(match[1]), text[: match.start()] + text[match.end() :]):
            found.setdefault(match[1], match)
    made, room = text, (LARGEST - 1) * len(text)
    for match in reversed(found.values()):
        made = made[: match.start()] + made[match.end() :]

    def meant(name: re.Match[str]) -> str:
        nonlocal room
        words = _said(found[name[0]])
        room -= len(words)
        return words if room >= 0 else name[0]

    for _ in range(CHAINED if found else 0):
        made = re.sub("|".join(map(_word, found)), meant, made)
    return made


def _word(name: str) -> str:
    return rf"(?<!\w){re.escape(name)}(?!\w)"


def _joint(found: list[str]) -> str:
    """The parts one after another, with a blank between them unless that breaks a word."""
    made = found[0]
    for part in found[1:]:
        left, right = (re.search(r"[A-Za-z]+\Z", made[-LONGEST:]), re.match("[A-Za-z]+", part))
        broken = left and right and known(left[0] + right[0]) and not (known(left[0]) and known(right[0]))
        made += part if broken else f" {part}"
    return made


def parts(text: str) -> list[str]:
    """The parts, in the order of the text."""
    return [said for _, said in _found(text)]


def _found(text: str) -> list[tuple[str, str]]:
    """Name and words of each part."""
    found = _series([(m[1], _said(m)) for m in _COUNTED.finditer(text)], lines=False)
    found = found or [(m[1], _said(m)) for m in _SET.finditer(text)]
    found = found if len(found) > 1 else []
    for pattern in (_ENTRY, _DEFINED, _TAGGED, _LINE):
        found = found or _series([(m[1], _said(m)) for m in pattern.finditer(text)], lines=pattern is _LINE)
    if not found:
        found = [("", _said(m)) for m in (_LISTED if _JOINS.search(text) else _ADDED).finditer(text)]
        found = found if len(found) > 2 else []
    return found


def _said(match: re.Match[str]) -> str:
    return str([g for g in match.groups() if g][-1]).strip()


def _series(found: list[tuple[str, str]], *, lines: bool) -> list[tuple[str, str]]:
    """Parts whose names count something (`part1`, `part2`), where each is a part of a sentence; else none."""
    names = [_SERIES.fullmatch(name) for name, _ in found]
    stems = {m[1].lower() for m in names if m}
    whole = all(said[-1:] in ".?!;" for _, said in found[:-1])  # a list of sentences
    if len(found) < 2 or None in names or len(stems) != 1 or len({n for n, _ in found}) < len(found) or whole:
        return []
    listed = lines and stems == {""} and found == sorted(found, key=lambda f: (len(f[0]), f[0]))
    whole = any(said[:1].isupper() for _, said in found[1:])
    return [] if listed and whole else found  # a numbered list of sentences needs no joining


GUESSES = (("assembled", assembled),)
AS_WRITTEN = (("assembled", assembled),)
