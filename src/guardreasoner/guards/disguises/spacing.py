"""Letters that stand apart: blanks, emoji or other signs between them."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter

from guardreasoner.guards.disguises.leet import unleeted
from guardreasoner.guards.english_words import apart, known, listed

_HALVES = re.compile(r"(?<!\w)(\w{1,24})\x00(\w{1,24})(?!\w)")
_ONES = re.compile(r"(?<![^\W_])[^\W_](?:\x00[^\W_]){2,}(?![^\W_])")
_QUOTED_LETTERS = re.compile(r"""(?:(["'])[^"'\\\n]\1[\s,+.]{0,4}){6,}""")
_SPACED = re.compile(r"(?<![^\W_])[^\W_](?:(?:[^\w]|_){1,4}[^\W_](?![^\W_])){3,}")
_MARKED_LETTERS = re.compile(r"(?<![^\W_])[^\W_][*_~`](?=[^\W_](?![^\W_]))")
_SEPARATOR = re.compile(r"(?:[^\w]|_)+")


def symbols(text: str) -> str:
    """Emoji, controls and other symbols glued to words or between most words, taken out."""
    if text.isascii() and text.isprintable():
        return text
    marks = [_is_symbol(c) for c in text]
    glued = sum(m and (text[i - 1 : i].isalnum() or text[i + 1 : i + 2].isalnum()) for i, m in enumerate(marks))
    if glued < 3 and (sum(marks) < 4 or 3 * sum(marks) < len(text.split())):
        return text
    out = []
    for symbol, group in itertools.groupby(text, _is_symbol):
        run = "".join(group)
        out.append("\x00" if symbol else run)
    joined = _ONES.sub(lambda m: m.group().replace("\x00", ""), "".join(out))
    for _ in range(2):  # halves of neighbouring words share no match
        joined = _HALVES.sub(lambda m: _joined(m[1], m[2]), joined)
    return re.sub(" {2,}", " ", joined.replace("\x00", " "))


def spaced(text: str) -> str:
    """Words whose letters stand apart: `h o w`, `h.o.w  d.o`, a letter a line."""
    if '"' in text or "'" in text:
        text = _QUOTED_LETTERS.sub(lambda m: "".join(re.findall(r"""["']([^"'])["']""", m.group())) + " ", text)
    return _SPACED.sub(_together, text)


def spaced_by_marks(text: str) -> str:
    """The same, where marks of Markdown stand among the separators: they are taken out as such."""
    return spaced(text) if len(_MARKED_LETTERS.findall(text)) > 2 else text


def _is_symbol(character: str) -> bool:
    if character < "\x7f":
        return character < " " and character not in "\t\n\r"
    return unicodedata.category(character) in ("So", "Sk", "Co", "Cn", "Cc", "Cs")


def _joined(left: str, right: str) -> str:
    """Two halves of a word, or two words."""
    both = left + right
    if not both.isalpha():
        return f"{left} {right}"
    return " ".join(apart(both)) if known(left) or known(right) or known(both) else both


def _together(match: re.Match[str]) -> str:
    run = match.group()
    kinds = Counter(_SEPARATOR.findall(run))
    inner = kinds.most_common(1)[0][0]
    words = [re.sub(r"(?:[^\w']|_)+", "", w) if len(w) > 1 else w for w in _split_at_others(run, inner)]
    words = [
        part for w in words for part in (_stretches(w) if len(words) == 1 or (len(w) > 7 and not listed(w)) else [w])
    ]
    letters = sum(map(len, words))
    found = sum(len(w) for w in words if known(w) or (len(w) > 3 and not w.isdecimal() and unleeted(w)))
    return " ".join(words) if 2 * found >= letters > 3 and any(len(w) > 2 for w in words) else run


def _stretches(word: str) -> list[str]:
    """Words run together, around what is no letter."""
    parts = re.findall(r"[A-Za-z]+|[^A-Za-z]+", word)
    return [w for part in parts for w in (apart(part) if part.isalpha() else [part])]


def _split_at_others(run: str, inner: str) -> list[str]:
    """The words of a run of single letters: they end where another separator stands than between most letters, and
    where most separators hold no blank, where one does."""
    kinds = [kind for kind in _SEPARATOR.findall(run) if not re.search(r"\s", kind)]
    tight = 2 * len(kinds) > len(_SEPARATOR.findall(run)) and all(len(kind) == 1 for kind in kinds)
    words, start = [], 0
    for found in _SEPARATOR.finditer(run):
        between = found.group()
        if re.search(r"\s", between) if tight else between != inner and "'" not in between:
            words.append(run[start : found.start()].replace(inner, ""))
            start = found.end()
    return [*words, run[start:].replace(inner, "")]


EXACT = (
    ("symbols", symbols),
    ("spaced letters", spaced),
)
AS_WRITTEN = (("spaced letters", spaced_by_marks),)
