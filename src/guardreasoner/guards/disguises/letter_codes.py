"""Codes that put a number, a word or signs in place of a letter: binary, decimal, octal, calls of `chr`, numbered
letters, keys of a telephone, spelling words, Morse and Braille.

`CODES` holds what a run of each looks like, and what reads it: None where it is no such run. None raises, and each is
linear in the length.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

from guardreasoner.guards.english_words import apart, from_keys, known, readable, sensible

FEWEST_BRAILLE = 3
LONGEST_NUMBER = 1_200
"""Digits of a number that is read as bytes."""
_BINARY = re.compile(r"(?:[01]{7,8}[ ,;_-]{0,2}){4,}[01]{0,7}")
_DECIMAL = r"\d{2,3}", r"[ ,;.-]{1,2}"
_CALLS = re.compile(r"(?:\b\w{2,14}\(\s?(?:0x[0-9a-fA-F]{2}|\d{2,3})\s?\)[\s+.,&|]{0,4}){4,}")
_PRESSED = "(?:" + "|".join(f"{key}{{1,4}}" for key in range(2, 10)) + ")", "[-,./|0 ]{1,3}"
_KEYS = re.compile(r"(?<![\d.])(?:[2-9]{1,14}[-,/|0 ]{1,3}){4,}[2-9]{1,14}(?![\d.])")
_NUMBERED = r"\d{1,2}", "[-,./| ]{1,3}"
_KEYPAD = ("", "", "abc", "def", "ghi", "jkl", "mno", "pqrs", "tuv", "wxyz")
_SPELLING = (
    "alpha alfa bravo charlie delta echo foxtrot golf hotel india juliet juliett kilo lima mike november oscar papa "
    "quebec romeo sierra tango uniform victor whiskey whisky x-?ray yankee zulu"
)
_NAMES = _SPELLING.replace(" ", "|")
_NATO = f"(?:{_NAMES})", r"\W{1,3}"
_BRAILLE = re.compile("[\u2800-\u283f]+")
_DOTS = bytes.fromhex("0103091911 0b1b130a1a 05070d1d15 0f1f170e1e 2527 3a 2d3d35".replace(" ", ""))
"""Braille patterns of a to z, less U+2800."""
_DIGITS = re.compile(r"(?<![\d.])\d{15,2400}(?![\d.])")
_SQUARE = re.compile(r"(?<![\d.])(?:[1-5][1-5][-, /|]{1,3}){7,}[1-5][1-5](?![\d.])")
_SQUARES = ("abcdefghiklmnopqrstuvwxyz", "abcdefghijlmnopqrstuvwxyz")
_ALPHABET, _BITS = string.ascii_lowercase, str.maketrans("ABab", "0101")
_TWO_LETTERS = re.compile(r"\b(?:[ab]{5}[ ,/|]{0,3}){4,}", re.I)
_MORSE = r"[.\-–—−•·_]{1,5}", r"[\s/|,;]{1,4}"
_SPOKEN = "(?:dit?|dah?|dot|dash)", r"[-\s,/|;]{1,4}"
_MORSE_LETTERS = """
.- -... -.-. -.. . ..-. --. .... .. .--- -.- .-.. -- -. --- .--. --.- .-. ... - ..- ...- .-- -..- -.-- --..
----- .---- ..--- ...-- ....- ..... -.... --... ---.. ----.
"""
_CODE = dict(zip(_MORSE_LETTERS.split(), "abcdefghijklmnopqrstuvwxyz0123456789", strict=True))
_DASHES = str.maketrans("–—−_•·", "----..")


def braille(text: str) -> str:
    """Braille letters (grade 1) as letters."""
    if sum(map(len, _BRAILLE.findall(text))) < FEWEST_BRAILLE:
        return text
    letters = {0x2800: " ", **{0x2800 + dots: chr(97 + i) for i, dots in enumerate(_DOTS)}}
    return _BRAILLE.sub(lambda m: m.group().translate(letters), text)


def _binary(run: str) -> str | None:
    """Eight bits a sign or seven, with blanks between them or without, all turned or not."""
    groups = re.findall("[01]+", run)
    for size in (8, 7):
        bits = [g for g in groups if len(g) in (7, 8)]
        if len(groups) == 1:
            bits = [run[i : i + size] for i in range(0, len(run) // size * size, size)]
        numbers = [int(b, 2) for b in bits]
        for found in (bytes(numbers), bytes((1 << len(b)) - 1 - n for b, n in zip(bits, numbers, strict=True))):
            said = found.decode("utf-8", "replace")
            if sensible(said) or (size == 8 and found == bytes(numbers) and readable(said)):
                return f" {said} "
    return None


def _decimal(run: str) -> str | None:
    digits = re.findall(r"\d+", run)
    found = _of_codes([int(n) for n in digits])
    if not sensible(found) and not re.search("[89]", run):
        found = _of_codes([int(n, 8) for n in digits])
    return f" {found} " if sensible(found) else None


def _calls(run: str) -> str | None:
    found = _of_codes([int(n, 0) for n in re.findall(r"\(\s?(0x[0-9a-fA-F]+|[1-9]\d+)", run)])
    return f" {found} " if readable(found) else None


def _of_codes(codes: Sequence[int]) -> str:
    return "".join(map(chr, codes)) if all(9 <= c < 127 for c in codes) else ""


def _numbered(run: str) -> str | None:
    """1 = a, 26 = z, or 0 = a; a blank or a slash ends a word."""
    words = [re.findall(r"\d+", word) for word in re.split(r" ?[/|] ?| +", run)]
    first = 1 - any(int(n) == 0 for word in words for n in word)
    if not all(int(n) <= 25 + first for word in words for n in word):
        return None
    letters = ["".join(chr(97 - first + int(n)) for n in word) for word in words]
    found = "".join(letters) if all(len(word) == 1 for word in words) else " ".join(letters)
    found = " ".join(apart(found)) if " " not in found else found
    return f" {found} " if sensible(found) and _says(found) else None


def _says(found: str) -> bool:
    """Whether numbers say more than they do by chance: words of eight letters, or one word and nothing else."""
    return known(found) or sum(map(len, filter(known, found.split()))) > 7


def _pressed(run: str) -> str | None:
    """Keys of a telephone pressed once to four times; a nought, a slash or two blanks end a word."""
    words = [re.findall(r"([2-9])(\1*)", word) for word in re.split(r" ?[0/|] ?| {2,}", run)]
    if any(len(more) >= len(_KEYPAD[int(key)]) for word in words for key, more in word):
        return None
    letters = ["".join(_KEYPAD[int(key)][len(more)] for key, more in word) for word in words]
    found = " ".join(apart(letters[0])) if len(letters) == 1 else " ".join(filter(None, letters))
    return f" {found} " if sensible(found) and _says(found) else None


def _keys(run: str) -> str | None:
    """Words in keys of a telephone, one key a letter: the most frequent ones that fit."""
    words = [w for w in re.split(r"[-,/|0 ]+", run) if w]
    read = [from_keys(word) for word in words]
    long = sum(len(w) > 4 for w in words)
    return f" {' '.join(read)} " if long > 1 and 10 * sum(map(str.isalpha, read)) >= 9 * len(words) else None


def _nato(run: str) -> str | None:
    """The first letters of spelling words; a slash, a comma or a line ends a word."""
    words = ["".join(name[0] for name in re.findall(_NAMES, word.lower())) for word in re.split(r"[/|,.;\n]", run)]
    found = " ".join(apart(words[0])) if len(words) == 1 else " ".join(filter(None, words))
    return f" {found} " if sensible(found) else None


def _signs(run: str, between: str) -> list[list[str]]:
    """The words of a run of signs: they end where another separator stands than between most signs."""
    parts = re.split(f"([{between}]+)", run)
    inner = Counter(parts[1::2]).most_common(1)[0][0]
    words: list[list[str]] = [[]]
    for sign, separator in zip(parts[::2], [*parts[1::2], inner], strict=True):
        words[-1].append(sign)
        if separator != inner:
            words.append([])
    return words


def _digits(run: str) -> str | None:
    """Codes of characters without anything between them, or one number that holds all bytes."""
    found = _of_codes([int(n) for n in re.findall(r"1\d\d|0\d\d|[2-9]\d", run)])
    if not sensible(found) and len(run) < LONGEST_NUMBER:
        number = int(run)
        found = number.to_bytes((number.bit_length() + 7) // 8, "big").decode("utf-8", "replace")
    return f" {found} " if sensible(found) else None


def _square(run: str) -> str | None:
    """Row and column of each letter in a square of five by five, that leaves out j or k (Polybius, knocks)."""
    words = _signs(run, "-, /|")
    for square in _SQUARES:
        letters = ["".join(square[5 * int(n[0]) + int(n[1]) - 6] for n in word) for word in words]
        found = " ".join(apart(letters[0])) if len(letters) == 1 else " ".join(letters)
        if sensible(found):
            return f" {found} "
    return None


def _two_letters(run: str) -> str | None:
    """Five of two letters for each letter (Bacon), of 26 letters or of 24."""
    groups = [int(g.translate(_BITS), 2) for g in re.findall("[ABab]{5}", run)]
    for letters in (_ALPHABET, _ALPHABET.replace("j", "").replace("v", "")):
        found = " ".join(apart("".join(letters[n] if n < len(letters) else "?" for n in groups)))
        if sensible(found) and "?" not in found:
            return f" {found} "
    return None


def _morse(run: str) -> str | None:
    words = ["".join(_CODE.get(sign, "?") for sign in word) for word in _signs(run.translate(_DASHES), r"\s/|,;")]
    found = " ".join(apart(words[0])) if len(words) == 1 else " ".join(words)
    return f" {found} " if sensible(found) else None


def _spoken(run: str) -> str | None:
    """Morse in words (`dah-di-dit`); what stands most often between them parts the signs of a letter."""
    inner = Counter(re.findall(r"[-\s,/|;]+", run)).most_common(1)[0][0]
    signs = re.sub("[a-z]+", lambda m: "_" if m[0].startswith("da") else ".", run.lower())
    apart_ = re.sub(r"[-\s,/|;]+", lambda m: "" if m[0] == inner else m[0].replace("-", " "), signs)
    return _morse(apart_) if re.search(r"[\s,/|;]", apart_) else None


def _run(sign: str, between: str, fewest: int) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w.])(?:{sign}{between}){{{fewest - 1},}}{sign}(?!\w|\.\d)", re.I)


CODES: tuple[tuple[re.Pattern[str], Callable[[str], str | None]], ...] = (
    (_CALLS, _calls),
    (_BINARY, _binary),
    (_DIGITS, _digits),
    (_run(*_PRESSED, 8), _pressed),
    (_KEYS, _keys),
    (_run(*_DECIMAL, 6), _decimal),
    (_SQUARE, _square),
    (_TWO_LETTERS, _two_letters),
    (_run(*_NUMBERED, 8), _numbered),
    (_run(*_NATO, 6), _nato),
    (_run(*_MORSE, 5), _morse),
    (_run(*_SPOKEN, 8), _spoken),
)
OF_A_WORD = tuple(
    (_run(*signs, 4), read)
    for signs, read in (
        (_PRESSED, _pressed),
        (_DECIMAL, _decimal),
        (_NUMBERED, _numbered),
        (_NATO, _nato),
        (_MORSE, _morse),
        (_SPOKEN, _spoken),
    )
)
"""Those of so few signs that they are read only where they give one word and nothing else."""
EXACT = (("Braille", braille),)
