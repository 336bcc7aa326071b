"""Words run together, or with blanks at wrong places."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from guardreasoner.guards.english_words import apart, known, likelihood, listed, plausible

UNLIKELY = -2.3
"""Log-likelihood of single words per letter: running English has more, a long technical term has less."""
NO_WORD = 24
"""Letters: words run together are taken apart from there on though some of them are unknown."""
_LONG = re.compile(r"[A-Za-z']{14,}")
_PARTS = re.compile(r"(?<![A-Za-z0-9'])[A-Za-z0-9']+([_+.\\/|,;:~=-]+)[A-Za-z0-9']+(?:[,;:.!?]?\1[A-Za-z0-9']+){2,}")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Za-z])(?=[A-Z][a-z])")


def joined(text: str) -> str:
    """Words run together, with other signs than blanks between them, or told apart by capitals."""
    text = _PARTS.sub(lambda m: m.group() if _in_address(m) else _words_of(m.group()) or m.group(), text)
    return _LONG.sub(lambda m: taken_apart(m.group()), text)


def respaced(text: str) -> str:
    """Blanks put into words at wrong places: all letters run together and taken apart anew, or halves of words."""
    again = _sure(text, lambda run: " ".join(apart(run.replace(" ", ""))), 3)
    return _healed(again, 1 if again != text else 2)


def _healed(text: str, needed: int) -> str:
    """Neighbouring pieces of words, some of them no words, as the words that they make; itself where they are few."""
    tokens, made, found, i = text.split(" "), [], 0, 0
    odd = [(bare := t.rstrip(".,;:!?")).isalpha() and not known(bare) for t in tokens]
    if sum(odd) < needed:
        return text
    while i < len(tokens):
        size = next((k for k in (4, 3, 2) if any(odd[i : i + k]) and _halves(tokens[i : i + k], k)), 1)
        made.append("".join(tokens[i : i + size]))
        found += size > 1
        i += size
    return " ".join(made) if found >= needed else text


def _halves(pieces: Sequence[str], count: int) -> bool:
    found = [*pieces[:-1], pieces[-1].rstrip(".,;:!?")]
    word = "".join(found)
    if len(found) < count or len(word) < 5 or not all(map(str.isalpha, found)) or not word[1:].islower():
        return False
    return plausible(word) and not all(map(known, found))


def _in_address(match: re.Match[str]) -> bool:
    """Whether a run stands inside a URL or a path, whose words a reader sees as they are."""
    token = match.string[max(0, match.start() - 200) : match.end()].rsplit(None, 1)[-1]
    return "://" in token or token.startswith(("www.", "/", "~", "."))


def _words_of(run: str) -> str | None:
    parts = re.split(r"[^A-Za-z0-9']+", run)
    letters = sum(map(len, parts))
    return " ".join(parts) if letters > 11 and 3 * sum(len(p) for p in parts if known(p)) >= 2 * letters else None


def taken_apart(token: str) -> str:
    if listed(token):
        return token
    humps = " ".join(h for h in _HUMP.split(token) if h)
    if humps.count(" ") > 1 and _words_of(humps):
        return humps
    words = apart(token)
    found = sum(len(w) for w in words if len(w) > 2 and known(w))
    likely = likelihood(words) > UNLIKELY * len(token) or (len(token) >= NO_WORD and 3 * found >= 2 * len(token))
    return " ".join(words) if len(words) > 2 and likely else token


def _sure(text: str, read: Callable[[str], str], needed: int) -> str:
    """Stretches of words that are mostly unknown, read anew where that makes nearly all of them known."""

    def anew(match: re.Match[str]) -> str:
        run = match.group()
        words = run.split(" ")
        if sum(not known(w) for w in words) < needed or 3 * sum(not known(w) for w in words) < len(words):
            return run
        again = read(run)
        found = again.split(" ")
        return again if sum(len(w) for w in found if known(w)) >= 0.95 * sum(map(len, found)) else run

    return re.sub(r"(?<![A-Za-z])[A-Za-z]+(?: [A-Za-z]+)+", anew, text)


EXACT = (("joined words", joined),)
GUESSES = (("respaced", respaced),)
