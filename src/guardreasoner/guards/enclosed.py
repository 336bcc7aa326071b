"""What stands inside a text: in quotation marks and fences, in comments, tags and brackets, between turns."""

from __future__ import annotations

import re

WORDLESS = 8
"""Characters that count as a word in text without blanks."""
_COMMENT = re.compile(r"^\s*(?:#+|//+|--|\*|>)\s+", re.M)
_QUOTED = re.compile(r"\"([^\"\n]{24,4000})\"|“([^”]{24,4000})”|«([^»]{24,4000})»|```\w*\n(.{24,4000}?)```", re.S)
_MARKED = re.compile(
    r"<!\[CDATA\[([^\[\]]{16,4000})\]\]>|<!--([^<>]{16,4000})-->|/\*+([^*]{16,4000})\*/|>([^<>]{16,4000})</"
    r"|!?\[([^\[\]\n]{16,4000})\]|\}([^{}\\\n]{16,4000})\\end|(?<!\w)'([^'\n]{16,4000})'(?!\w)"
    r"|^[^\n:]{0,14}\d:\d\d\]?[^\n:]{0,30}:[ \t]+([^\n]{16,4000})$|^\w{1,20}:[ \t]+([^\n]{16,4000})$"
    r"|^[ \t]*(?:--|//|#+|%|;|>|[-+*])[ \t]*([A-Za-z][^\n]{15,4000})$",
    re.M,
)
"""Data, comments, elements, captions, the body of LaTeX, a string of a shell, a line of a chat or behind a key, and one
of a comment or a change."""
_TOKEN = re.compile(
    r"<\|[\w ]{1,30}\|>|\[/?[A-Z_]{2,20}\]|</?s>|<</?SYS>>|</?think>|<(?:start|end)_of_turn>"
    r"|^#+ (?:Task|Reasoning Step) \d+\s*$",
    re.I | re.M,
)
"""Between which a model reads turns: each is judged apart, as if it did."""
_ANY_TAG = re.compile(r"<[a-z/!][^<>]{0,200}>", re.I)
_ROLE = re.compile(r"\A(?:user|assistant|system|human|model)\s*\n", re.I)
_PROSE = re.compile(r"(?<!\S)[(\"'“«]?[A-Za-z][A-Za-z'’-]*[.,;:?!)\"'”»]*(?!\S)")


def length(text: str) -> int:
    """Words; in text with hardly any blanks, characters by the eight."""
    return max(len(text.split()), len(text) // (2 * WORDLESS))


def quoted(text: str) -> list[str]:
    """What stands in quotation marks and fences, without the marks of comments."""
    return [_COMMENT.sub("", next(g for g in m.groups() if g)).strip() for m in _QUOTED.finditer(text)]


def mostly(text: str, size: int) -> tuple[str, ...]:
    """What stands inside a text of at most `3 * size` words, where it is at least half of the text or of its prose."""
    if length(text) > 3 * size:
        return ()
    prose = len(_PROSE.findall(text))
    marked = [next(g for g in m.groups() if g) for m in _MARKED.finditer(text)]
    marked += text.splitlines() if _ANY_TAG.search(text) else []
    marked += [_ROLE.sub("", turn) for turn in turns] if len(turns := _TOKEN.split(text)) > 1 else []
    return (
        *(q for q in quoted(text) if 2 * length(q) >= length(text)),
        *(
            m
            for m in dict.fromkeys(map(str.strip, marked))
            if len(m) < len(text) - 2 and 2 * len(_PROSE.findall(m)) >= max(6, prose)
        ),
    )
