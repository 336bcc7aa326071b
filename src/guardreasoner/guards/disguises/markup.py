"""Marks of HTML, BBCode, LaTeX, Markdown and terminals inside words."""

from __future__ import annotations

import re

_TAG = re.compile(r"</?[A-Za-z][A-Za-z0-9]{0,15}\s{0,2}/?>")
_INLINE = re.compile(r"</?(?:a|b|big|code|em|font|i|mark|s|small|span|strong|sub|sup|tt|u|wbr)\b", re.I)
_BBCODE = re.compile(r"\[/?(?:b|i|u|s|url|color|size|font|quote|code|sup|sub)(?:=[^\[\]\n]{0,60})?\]", re.I)
_LATEX = re.compile(r"\\(?:text\w{0,10}|emph|underline|mbox|mathrm|mathbf|bf|it|tt)\s?\{([^{}\n]{0,200})\}")
_TERMINAL = re.compile(r"\x1b\[[0-?]{0,20}[ -/]{0,4}[@-~]")
_ANY_TAG = re.compile(r"(?:<[A-Za-z/!][^<>]{0,200}>)+")
_MARK = re.compile(r"(?<=[^\W_])(?:\*+|_{2,}|~~|`+)+(?=[^\W_])")
_EDGE = re.compile(r"\*{2,}|_{2,}|~~|`|(?<!\w)_(?=[^\W_])|(?<=[^\W_])_(?!\w)")


def markup(text: str) -> str:
    """Tags without attributes, BBCode, LaTeX, Markdown marks inside words and colours of a terminal, taken out."""
    text = _TERMINAL.sub("", text) if "\x1b[" in text else text
    if "<" in text and len(_TAG.findall(text)) > 1 and re.search(r"\w</?[A-Za-z][A-Za-z0-9]{0,15}\s?/?>", text):
        text = _TAG.sub(lambda m: "" if _INLINE.match(m.group()) else " ", text)
    if text.count("[/") > 1:
        text = _BBCODE.sub("", text)
    if len(_LATEX.findall(text)) > 2:
        text = _LATEX.sub(r"\1", text)
    if len(_MARK.findall(text)) > 1:
        text = _EDGE.sub("", _MARK.sub("", text))
    return text


def hidden_markup(text: str) -> str:
    """Tags with attributes and comments inside words, taken out with what they say, and all other tags with them."""
    return _ANY_TAG.sub("", text) if len(re.findall(r"\w<[A-Za-z/!][^<>]{0,200}>", text)) > 1 else text


EXACT = (("markup", markup),)
GUESSES = (("hidden markup", hidden_markup),)
