"""Encoded text: entities, percent, escapes, and runs of base64, base32, base45, base58, base62, base85, uuencode,
UTF-7, hex (dumps too) or a code of letters (`letter_codes`), packed by gzip or not, also one inside another.

Each function returns the text with what it found decoded in place, or unchanged where it found nothing. None raises,
and each is linear in the length.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
import zlib
from collections.abc import Callable

from guardreasoner.guards.disguises import letter_codes
from guardreasoner.guards.disguises.escapes import entities, escapes, percent, utf8
from guardreasoner.guards.english_words import known, readable, sensible

HIDDEN = 12
"""Characters of what a run decodes to, from which it is judged without what stands around it too."""
PACKED = (b"\x1f\x8b", b"x\x9c", b"x\xda", b"x\x01")
"""How gzip and zlib begin."""
MOST_UNPACKED, MOST_TIMES = 20_000, 6
"""Bytes that are unpacked of a run, and how often its own length: a bomb stays small."""
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{40,}\r?\n)+[A-Za-z0-9+/]{4,}={0,2}|[A-Za-z0-9+/_-]{4,}={0,2}")
_SPLIT64 = re.compile(r"[A-Za-z0-9+/_-]{1,76}={0,2}(?:[\s,;|]{1,3}[A-Za-z0-9+/_-]{1,76}={0,2})+")
_BASE32 = re.compile(r"\b(?:[A-Z2-7]{16,}|[a-z2-7]{16,})={0,6}")
_BASE85 = re.compile(r"<~[!-u\s]{8,}?~>|(?<!\S)[!-~]{15,}(?!\S)")
_BASE32_HEX = re.compile(r"\b(?:[A-V0-9]{16,}|[a-v0-9]{16,})={0,6}")
_BASE58 = re.compile(r"(?<![A-Za-z0-9])[A-Za-z0-9]{20,800}(?![A-Za-z0-9])")
_DIGITS58 = tuple(
    {c: n for n, c in enumerate(digits)}
    for digits in (
        "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz",
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
        "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
        "0123456789abcdefghijklmnopqrstuvwxyz",
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    )
)
"""Base58, two orders of base62, and base36: a number, written in these digits."""
_BASE45 = re.compile(r"(?<![A-Za-z0-9])[0-9A-Z $%*+./:-]{24,}(?![A-Za-z0-9])")
_DIGITS45 = {c: n for n, c in enumerate("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:")}
_UTF7 = re.compile(r"(?:\+[A-Za-z0-9+/]{3,}-?[ ,]{0,2}){2,}")
_UU = re.compile(r"(?:^[!-M][ -`]{4,60}$\n?)+", re.M)
_HEX_DUMP = re.compile(
    r"(?:^[0-9a-fA-F]{6,8}:?[ ]{1,2}(?:[0-9a-fA-F]{2}[ ]{0,2}){1,16}(?![0-9a-fA-F]).*(?:\n|\Z)){2,}", re.M
)
_HEX = re.compile(r"(?<![A-Za-z0-9])(?:(?:0x|\\x)?[0-9a-fA-F]{2}[ ,:;_-]{0,2}){6,}")


def runs(text: str) -> str:
    """Runs in a code of bytes or letters, where they decode to text."""
    return _undone(text, _text)


def certain_runs(text: str) -> str:
    """The same, where they decode to English: then the run held nothing but that."""
    return _undone(text, sensible)


def hidden(text: str) -> str:
    """Only what runs decode to, without what stands around them; the text itself where there is none."""
    found: list[str] = []
    _undone(text, _text, found)
    said = "\n".join(s for s in found if len(s) >= HIDDEN)
    return said or text


def _undone(text: str, wanted: Callable[[str], bool], found: list[str] | None = None) -> str:
    room = MOST_UNPACKED

    def replaced(run: str, decode: Callable[[str], str | None]) -> str:
        nonlocal room
        said = decode(run)
        if not said or not wanted(said.strip()):
            return run
        grown = max(0, len(said) - len(run) - 2)  # by its blanks, or unpacked
        if grown > room:
            return run
        room -= grown
        if found is not None:
            found.append(said.strip())
        return said

    for pattern, decode in RUNS:
        text = pattern.sub(lambda m, decode=decode: replaced(m.group(), decode), text)  # type: ignore[misc]
    return text


def _meant(decoded: str | None) -> str | None:
    """What a decoded run says: itself where it is text, or what a code in it says. Each code makes text shorter: what
    was packed is looked into no further."""
    if not decoded or sensible(decoded):
        return decoded
    if not (decoded.isascii() and decoded.isprintable()):
        return decoded if readable(decoded) else None
    inner = (said for read in (runs, percent, entities, escapes) if (said := read(decoded)) != decoded)
    found = next((said for said in inner if sensible(said) or not readable(decoded)), None)
    return found or (decoded if _text(decoded) else None)


def _text(decoded: str) -> bool:
    """Whether it is text, or leet: what is decoded by chance is not printable."""
    if readable(decoded):
        return True
    plain = decoded.isascii() and decoded.isprintable() and " " in decoded and len(decoded) >= HIDDEN
    return plain and sum(c.isalnum() or c == " " for c in decoded) >= 0.8 * len(decoded)


def padded(body: str, size: int) -> str:
    """A run of base64 or base32 with as many `=` as its length needs."""
    return body + "=" * (-len(body) % size)


def _base64(run: str) -> str | None:
    body = re.sub(r"\s", "", run).rstrip("=").replace("-", "+").replace("_", "/")
    if len(body) < 16 and known(body):
        return None
    whole = re.sub("[-_]", "", run.rstrip("=")) if run.count("-") + run.count("_") > 2 else body  # signs between groups
    for cut in (body, body[: len(body) // 4 * 4], whole):
        found = _meant(_decoded64(cut))
        if found and _text(found) and (len(found) > 11 or sensible(found)):
            return f" {found} "
    for turned in (codecs.encode(body, "rot13"), body[::-1]) if len(body) > 19 else ():
        found = _meant(_decoded64(turned))
        if found and (sensible(found) or sensible(found[::-1])):
            return f" {found} "
    return None


def _decoded64(body: str) -> str | None:
    return _tried(lambda: base64.b64decode(padded(body, 4), validate=True))


def _split64(run: str) -> str | None:
    """Base64 in lines, groups or words."""
    tokens = re.split(r"[\s,;|]+", run)
    first = next((i for i, t in enumerate(tokens) if not known(t)), len(tokens))
    last = next((i for i, t in enumerate(tokens[::-1]) if not known(t)), len(tokens))
    inside = [t.rstrip("=").replace("-", "+").replace("_", "/") for t in tokens[first : len(tokens) - last]]
    if len(inside) < 2:
        return None
    by_word = [_decoded64(t) for t in inside]
    whole = _meant(_decoded64("".join(inside))) or (_base32("".join(inside)) or "").strip()
    said = whole if whole and sensible(whole) else " ".join(filter(None, by_word)) if None not in by_word else ""
    return " ".join([*tokens[:first], said, *tokens[len(tokens) - last :]]) if sensible(said) else None


def _base32(run: str) -> str | None:
    body = run.rstrip("=").upper()
    found = _meant(_tried(lambda: base64.b32decode(padded(body, 8))))
    return f" {found} " if found and readable(found) else None


def _base85(run: str) -> str | None:
    if run.startswith("<~"):
        found = _tried(lambda: base64.a85decode(run, adobe=True))
    elif run.isalnum() or len(run) > 20_000:
        return None
    else:
        found = _tried(lambda: base64.b85decode(run)) or _tried(lambda: base64.a85decode(run))
    return f" {found} " if found and sensible(found) else None


def _base32_hex(run: str) -> str | None:
    body = run.rstrip("=").upper()
    found = _meant(_tried(lambda: base64.b32hexdecode(padded(body, 8))))
    return f" {found} " if found and sensible(found) else None


def _base58(run: str) -> str | None:
    for places in _DIGITS58:
        if all(c in places for c in run):
            number = 0
            for c in run:
                number = number * len(places) + places[c]
            found = utf8(number.to_bytes((number.bit_length() + 7) // 8, "big"))
            if found and sensible(found):
                return f" {found} "
    return None


def _base45(run: str) -> str | None:
    """Three signs for two bytes, two for a last one (RFC 9285)."""
    found = bytearray()
    for start in range(0, len(run), 3):
        group = run[start : start + 3]
        number = sum(_DIGITS45[c] * 45**i for i, c in enumerate(group))
        if len(group) < 2 or number >= 256 ** (len(group) - 1):
            return None
        found += number.to_bytes(len(group) - 1, "big")
    said = utf8(bytes(found))
    return f" {said} " if said and sensible(said) else None


def _utf7(run: str) -> str | None:
    try:
        found = run.encode("ascii").decode("utf-7")
    except UnicodeDecodeError:
        return None
    return found if sensible(found) else None


def _uu(run: str) -> str | None:
    found = bytearray()
    for line in run.splitlines():
        length = ord(line[0]) - 32
        if length > 45 or not 0 <= len(line) - 1 - (length + 2) // 3 * 4 <= 1:
            return None
        try:
            found += binascii.a2b_uu(line)
        except binascii.Error:
            return None
    said = utf8(bytes(found))
    return f" {said} " if said and sensible(said) else None


def _hex_dump(run: str) -> str | None:
    """Lines of an address and up to 16 bytes, whatever stands behind them."""
    lines = [re.match(r"[0-9a-fA-F]+:?((?: {1,2}(?:[0-9a-fA-F]{2}){1,2}){1,16})", line) for line in run.splitlines()]
    found = _tried(lambda: bytes.fromhex("".join(m[1] for m in lines if m)))
    return f" {found} " if found and sensible(found) else None


def _hex(run: str) -> str | None:
    words = [w for w in re.split("[ ,;]+", run) if w]
    if len(words) > 1 and max(map(len, words)) > 4:
        said = " ".join(_tried(lambda w=w: bytes.fromhex(w)) or "" for w in words)  # type: ignore[misc]
        if sensible(said):
            return f" {said} "
    digits = re.sub(r"0x|\\x|[ ,:;_-]", "", run)
    whole = digits[: len(digits) // 2 * 2]
    found = _meant(_tried(lambda: bytes.fromhex(whole))) or _meant(_tried(lambda: bytes.fromhex(whole[::-1])))
    if found and sensible(found[::-1]) and not sensible(found):
        found = found[::-1]
    return f" {found} " if found and _text(found) and (len(found) > 11 or sensible(found)) else None


def _tried(decode: Callable[[], bytes]) -> str | None:
    try:
        content = decode()
        packed = content[:2] in PACKED
        if packed:
            content = zlib.decompressobj(47).decompress(content, min(MOST_UNPACKED, MOST_TIMES * len(content)))
    except (ValueError, zlib.error):  # binascii's error is a ValueError
        return None
    wide = next(
        (c for i, c in ((1, "utf-16-le"), (0, "utf-16-be")) if len(content) > 3 and not any(content[i::2])), None
    )
    found = content.decode(wide, "replace") if wide else utf8(content)
    return None if packed and found and not readable(found) else found  # a pack in a pack could grow without end


RUNS: tuple[tuple[re.Pattern[str], Callable[[str], str | None]], ...] = (
    *letter_codes.CODES,
    (_HEX_DUMP, _hex_dump),
    (_UU, _uu),
    (_UTF7, _utf7),
    (_HEX, _hex),
    (_BASE32, _base32),
    (_BASE32_HEX, _base32_hex),
    (_BASE45, _base45),
    (_BASE58, _base58),
    (_SPLIT64, _split64),
    (_BASE64, _base64),
    (_BASE85, _base85),
)
EXACT = (("encoded", certain_runs),)
GUESSES = (("encoded", runs),)
AS_WRITTEN = (
    ("encoded", runs),
    ("encoded", hidden),
)
