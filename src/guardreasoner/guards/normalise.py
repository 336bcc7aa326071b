"""Text as a reader sees it: what an attacker hides in Unicode is taken out before judging.

Compatibility forms are folded (NFKC), invisible and bidirectional control characters are stripped, and letters that
only look Latin are folded in words that mix scripts (a word wholly in Cyrillic or Greek is left alone).
"""

from __future__ import annotations

import re
import unicodedata

# Letters of Cyrillic, Greek and Armenian whose shape is that of a Latin letter (after Unicode TR39, confusables).
_LOOKALIKES = str.maketrans(
    "аеорсухіјѕһԁԛԝӏѵАВЕКМНОРСТУХІЈЅԌԚԜαεικνορτυχϲϳΑΒΕΖΗΙΚΜΝΟΡΤΥΧօսոհցѡ",
    "aeopcyxijshdqwlvABEKMHOPCTYXIJSGQWaeiknoptuxcjABEZHIKMNOPTYXounhgw",
)
_TYPOGRAPHY = str.maketrans({"\u00a0": " ", "\u202f": " ", "\u2009": " ", "…": "...", "\r": None})
_WORD = re.compile(r"\w+")
# Default-ignorable code points that are not in category Cf (Unicode DerivedCoreProperties).
_IGNORABLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")


def normalise(text: str) -> str:
    """The text without hidden characters and look-alike letters; equal to the input where there are none."""
    if text.isascii():
        return text
    visible = "".join(c for c in text if unicodedata.category(c) != "Cf")
    folded = unicodedata.normalize("NFKC", _IGNORABLE.sub("", visible))
    return _WORD.sub(_fold_word, folded)


def differs(text: str) -> bool:
    """Whether normalising changes more than typography (narrow spaces, ellipses), so that both forms are judged."""
    return not text.isascii() and normalise(text) != text.translate(_TYPOGRAPHY)


def _fold_word(match: re.Match[str]) -> str:
    word = match.group()
    if word.isascii() or not any(c.isascii() and c.isalpha() for c in word):
        return word
    return word.translate(_LOOKALIKES)
