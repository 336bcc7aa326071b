"""Characters written by number: HTML entities, percent, backslash and other escapes, quoted-printable."""

from __future__ import annotations

import html
import re
from urllib.parse import unquote_to_bytes

ESCAPES_NEEDED = 3
"""Fewer escapes than these are an accent, or part of a path."""
_ENTITY = re.compile(r"&(?:#\d{1,7};?|#[xX][0-9a-fA-F]{1,6};?|[A-Za-z]\w{1,31};)")
_PERCENT = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_QUOTED = re.compile(r"=([0-9A-F]{2})")
_ESCAPE = re.compile(
    r"\\u\{([0-9a-fA-F]{1,6})\}|\\u([0-9a-fA-F]{4})|\\U([0-9a-fA-F]{8})|\\x\{?([0-9a-fA-F]{2})\}?"
    r"|%u([0-9a-fA-F]{4})|\bU\+([0-9a-fA-F]{4,6})[ ,;]?|\\0{2,4}([0-9a-fA-F]{2})(?![0-9a-fA-F])[ ]?"
)
_OCTAL = re.compile(r"\\([0-3][0-7]{2})")


def entities(text: str) -> str:
    """HTML entities as characters."""
    return _ENTITY.sub(lambda m: html.unescape(m.group()), text) if "&" in text else text


def percent(text: str, needed: int = ESCAPES_NEEDED) -> str:
    """URL-encoded characters; `+` is a space where the text has none of its own."""
    if text.count("%") < needed:
        return text
    decoded = _PERCENT.sub(lambda m: utf8(unquote_to_bytes(m.group())) or m.group(), text)
    return decoded.replace("+", " ") if decoded != text and not re.search(r"\s", decoded) else decoded


def escapes(text: str, needed: int = ESCAPES_NEEDED) -> str:
    r"""`\uXXXX`, `\u{X}`, `\xXX`, `%uXXXX`, `U+XXXX` and octal escapes, where there are several."""
    if "\\" not in text and "+" not in text and "%u" not in text:
        return text
    if sum(1 for _ in _ESCAPE.finditer(text)) >= needed:
        decoded = _ESCAPE.sub(lambda m: _character(next(g for g in m.groups() if g)), text)
        text = decoded.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if len(_OCTAL.findall(text)) >= needed:
        text = _OCTAL.sub(lambda m: chr(int(m[1], 8)), text)
    return text


def quoted_printable(text: str) -> str:
    """`=XX` as characters, where most of the text is written so."""
    found = len(_QUOTED.findall(text)) if "=" in text else 0
    return _QUOTED.sub(lambda m: chr(int(m[1], 16)), text) if found > 5 and 9 * found > len(text) else text


def _character(digits: str) -> str:
    code = int(digits, 16)
    return chr(code) if code < 0x110000 else "\ufffd"


def utf8(content: bytes) -> str | None:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return None


EXACT = (
    ("entities", entities),
    ("percent", percent),
    ("escapes", escapes),
    ("quoted-printable", quoted_printable),
)
