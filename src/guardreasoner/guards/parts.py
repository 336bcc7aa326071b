"""A text given in parts that belong together: strings of variables, entries of a series, numbered pieces.

The function returns the parts put together, and the text itself where it found none. It does not raise and is linear
in the length but for one sort.
"""

from __future__ import annotations

import re

LONGEST_PART = 400
"""Characters."""
_WORDS = rf"""(?:"([^"\n]{{1,{LONGEST_PART}}})"|'([^'\n]{{1,{LONGEST_PART}}})'|“([^”\n]{{1,{LONGEST_PART}}})”)"""
_SET = re.compile(rf"\b(\w{{1,20}})\s{{0,2}}(?:=|:=|:|<-|=>|is|be)\s{{0,2}}{_WORDS}")
_ENTRY = re.compile(rf"""["'](\w{{1,20}})["']\]?\s{{0,2}}(?::|=>|=|,)\s{{0,2}}{_WORDS}""")
_DEFINED = re.compile(rf"(?i:define)\s+(\w{{1,20}})\s+{_WORDS}")
_TAGGED = re.compile(rf"<(\w{{1,20}})>([^<>\n]{{1,{LONGEST_PART}}})</\1>")
_NAME = r"(?:[A-Za-z]{1,12}[ _-]?)?(?:\d{1,3}|[a-zA-Z])"
_LINE = re.compile(rf"^[\W_]{{0,4}}({_NAME})[\]):.=|-]{{1,3}}\s{{0,4}}(.{{1,{LONGEST_PART}}})$", re.M)
_ADDED = re.compile(rf"(?<![\w\"']){_WORDS}(?=\s{{0,2}}(?:[+.&]|\|\|))")
_LISTED = re.compile(rf"(?<![\w\"']){_WORDS}(?=\s{{0,2}}[,)\]])")
_JOINS = re.compile(r"join|concat", re.I)
_SERIES = re.compile(r"(.*?)(\d{1,3}|[A-Za-z])")


def assembled(text: str) -> str:
    """The parts put together, in the order of their names, then in that of the text."""
    found = _found(text)
    if not found:
        return text
    by_name = " ".join(s for _, s in sorted(found, key=lambda f: (len(f[0]), f[0])))
    as_written = " ".join(s for _, s in found)
    return by_name if by_name == as_written else f"{by_name}\n{as_written}"


def parts(text: str) -> list[str]:
    """The parts, in the order of the text."""
    return [said for _, said in _found(text)]


def _found(text: str) -> list[tuple[str, str]]:
    """Name and words of each part."""
    found = [(m[1], _said(m)) for m in _SET.finditer(text)]
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
    return [] if listed else found  # a numbered list needs no joining
