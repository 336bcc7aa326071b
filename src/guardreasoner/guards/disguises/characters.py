"""Characters as a reader sees them: what an attacker hides in Unicode is revealed before judging.

Tag characters and variation selectors that spell a text are read; invisible and bidirectional controls and stacks of
combining marks are removed; compatibility forms are folded (NFKC); letters that only look Latin become Latin, by
Unicode's own names (small capitals, squared and regional letters, IPA) and its table of confusables. A word wholly in
another script stays as it is, unless it looks like an English word and so do most such words of the text.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from itertools import islice, product

from guardreasoner.guards.english_words import known

_TYPOGRAPHY = str.maketrans({"\u00a0": " ", "\u202f": " ", "\u2009": " ", "…": "...", "\r": None, "\ufe0f": None})
_WORD = re.compile(r"[^\W\d_]+")
_TAGS = re.compile("(\U0001f3f4)?([\U000e0020-\U000e007e]+)\U000e007f?")
_SELECTOR = re.compile("[\ufe00-\ufe0d\U000e0100-\U000e01ef]")
# Default-ignorable code points that are not in category Cf (Unicode DerivedCoreProperties).
_IGNORABLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
_STACKED = re.compile("[^\\W\\d_](?:[^\\W\\d_]|[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff])*")
_MARKS = re.compile("[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]")
_LOOSE_MARKS = re.compile("(?<![^\\W_])[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]+")
"""Marks on blanks and signs."""
_NAMED = re.compile(
    r"(?:(?:NEGATIVE )?(?:SQUARED|CIRCLED) |REGIONAL INDICATOR SYMBOL LETTER |MODIFIER LETTER )?"
    r"(?:LATIN )?(?:(?:SMALL|CAPITAL) )?(?:LETTER )?(?:SMALL CAPITAL |SMALL |CAPITAL )?"
    r"(?:(?:TURNED|REVERSED|INVERTED|SIDEWAYS|SCRIPT|OPEN|DOTLESS|BARRED|LONG|INSULAR|BLACKLETTER|STRETCHED) )*"
    r"([A-Z])(?: WITH .*)?"
)
_SHAPES = {
    letter: shape
    for shapes, letters in (
        ("a b c d e f g h i j k l m n o p q r s t u v w x y z", "ค ๒ ς ๔ є Ŧ ﻮ ђ เ ן к ɭ ๓ ภ ๏ ק ợ г ร Շ ย ש ฬ א ץ չ"),
        (
            "a b d e n o o o p s s s t t t u u w y v i k x m h b b n",
            "α β δ ε η ο σ θ ρ ς Տ տ τ է շ μ υ ω γ ν ι κ χ м н в ь п",
        ),
        ("d e f g h h i j k l m n n o p q r s t u v w y y z", "ժ ҽ բ ց հ Հ ì յ ҟ Ӏ ʍ ո ղ օ ք զ ɾ ʂ է ս մ ա վ Վ Հ"),
        (
            "a b c d e f g h i j k l m n o p q r s t u v w x y z",
            "卂 乃 匚 ᗪ 乇 千 ꮆ 卄 丨 フ ҝ ㄥ 爪 几 ㄖ 卩 ɋ 尺 丂 ㄒ ㄩ ᐯ 山 乂 ㄚ 乙",
        ),
        ("a c n q s w z i k m o y i b k", "ᗩ ᑕ ᑎ ᑫ ᔕ ᗯ ᘔ ꮖ ꮶ ꮇ ꮎ ꭹ ꓲ ƅ ĸ"),
        ("a b e h i k m n o p c t y x", "ⲁ ⲃ ⲉ ⲏ ⲓ ⲕ ⲙ ⲛ ⲟ ⲣ ⲥ ⲧ ⲩ ⲭ"),
    )
    for shape, letter in zip(shapes.split(), letters.split(), strict=True)
}
"""Letters that styled text takes for their shape, where Unicode's table has none or another."""
_TURNED = dict(zip("ɐqɔpǝɟƃɓɥᴉıɾʞlןɯuodbɹsʇnʌʍxʎz¿¡˙'", "abcdefgghiijkllmnopqrstuvwxyz?!.,", strict=True))
_PALOCHKA = "\u04cf"
"""Unicode has it look like an i; forgers use it for an l."""
_FIRST_NAMED = 0x180
"""Below it lie the letters of European languages: they disguise nothing."""


def normalise(text: str) -> str:
    """The text without hidden characters and look-alike letters; equal to the input where there are none."""
    if text.isascii():
        return text
    visible = "".join(c for c in _IGNORABLE.sub("", _spelt(text)) if unicodedata.category(c) != "Cf")
    folded = _STACKED.sub(_unstacked, unicodedata.normalize("NFKC", visible))
    return _look_alikes("".join(c if c.isascii() else _named(c) for c in _LOOSE_MARKS.sub("", folded)))


def upright(text: str) -> str:
    """Letters that stand upside down, turned: in the order as written and from the end, for it may be either."""
    found = 0 if text.isascii() else sum(c in _TURNED and c > "\x7f" for c in text)
    if found < 4 or 4 * found < sum(map(str.isalpha, text)):
        return text
    turned = "".join(_TURNED.get(c, c) for c in text)
    stretch = re.sub(r"[^ -~]+", "", turned)
    return f"{stretch[::-1]}\n{stretch}"


def looks(word: str) -> tuple[str, ...]:
    """What a word of letters that are not Latin, or stand upside down, may look like."""
    if not any(_foreign(c) or (c in _TURNED and not c.isascii()) for c in word):
        return ()
    turned = "".join(_TURNED.get(c, c) for c in word)
    return turned[::-1], turned, _look_of(word)


def smuggled(text: str) -> str:
    """Only what tag characters and variation selectors spell; the text itself where they spell nothing."""
    tags = "".join(_shifted(m[2]) for m in _TAGS.finditer(text) if not _flag(m))
    return tags or _selected(text) or text


def revealed(text: str) -> str:
    """The text normalised, unless that changes nothing but typography (narrow spaces, ellipses)."""
    if text.isascii():
        return text
    normal = normalise(text)
    return text if normal == text.translate(_TYPOGRAPHY) else normal


def _spelt(text: str) -> str:
    """Tag characters and variation selectors as the text that they spell."""
    tags = [_shifted(m[2]) for m in _TAGS.finditer(text) if not _flag(m)]
    if len(tags) > 3:  # a letter here and there
        text = f"{_TAGS.sub('', text)} {''.join(tags)} "
    text = _TAGS.sub(lambda m: "" if _flag(m) else f" {_shifted(m[2])} ", text)
    spelt = _selected(text)
    if not spelt:
        return text
    at = _SELECTOR.search(text)
    start = at.start() if at else 0
    return f"{text[:start]} {spelt} {_SELECTOR.sub('', text[start:])}"


def _selected(text: str) -> str:
    """What variation selectors spell, or nothing."""
    found = _SELECTOR.findall(text)
    spelt = bytes(ord(c) - 0xFE00 if c < "\uff00" else ord(c) - 0xE0100 + 16 for c in found).decode("utf-8", "replace")
    readable = sum(c.isprintable() and c != "\ufffd" for c in spelt)
    return spelt if len(found) > 3 and readable >= 0.8 * len(spelt) else ""


def _flag(tags: re.Match[str]) -> bool:
    """Whether tag characters name the region of a flag."""
    return bool(tags[1]) and len(tags[2]) < 7


def _shifted(tags: str) -> str:
    return "".join(chr(ord(c) - 0xE0000) for c in tags)


def _unstacked(match: re.Match[str]) -> str:
    """A word in which marks are left that no letter of its own composes with: without any marks."""
    word = match.group()
    if not _MARKS.search(word) or not any(c.isascii() for c in unicodedata.normalize("NFD", word)):
        return word
    return _MARKS.sub("", unicodedata.normalize("NFD", word))


@cache
def _named(character: str) -> str:
    """The Latin letter that the character's Unicode name says it is, or the character itself."""
    if ord(character) < _FIRST_NAMED or unicodedata.decomposition(character):
        return character
    found = _NAMED.fullmatch(unicodedata.name(character, ""))
    if not found:
        return character
    return found[1] if character.isupper() else found[1].lower()


@cache
def _look(character: str) -> str:
    """The ASCII letter that the character looks like (Unicode TR39, confusables), or the character itself."""
    if character.isascii() or character == _PALOCHKA:
        return "l" if character == _PALOCHKA else character
    like = _like(character)
    like += [found for c in like if len(c) == 1 and not c.isascii() for found in (_named(c), *_like(c))]
    letters = [c for c in like if len(c) == 1 and c.isascii() and c.isalpha()]
    return next((c for c in letters if c.isupper() == character.isupper()), letters[0] if letters else character)


def _like(character: str) -> list[str]:
    from confusable_homoglyphs.confusables import confusables_data

    return [str(row["c"]) for row in confusables_data.get(character, ())]


def _look_alikes(text: str) -> str:
    words = [w for w in set(_WORD.findall(text)) if not w.isascii()]
    if not words:
        return text
    looks = {w: _look_of(w) for w in words}
    alone = [w for w in _WORD.findall(text) if len(w) == 1]
    apart = 2 * len(alone) > len(_WORD.findall(text)) and any(map(str.isascii, alone))
    mixed = {w for w in words if any(map(_foreign, w)) and (any(map(str.isascii, w)) or (apart and len(w) == 1))}
    english = {w for w in words if w not in mixed and looks[w].isascii() and known(looks[w])}
    many = len(mixed) + len(english) > len(words) / 2
    whole = english if many and (len(english) > 2 or mixed or not all(map(_accented, english))) else set()
    fold = mixed | whole
    return _WORD.sub(lambda m: looks[m.group()] if m.group() in fold else m.group(), text) if fold else text


def _look_of(word: str) -> str:
    """What a word looks like: the first English word that its letters' looks spell, or the likeliest letters."""
    first = "".join(map(_look, word))
    if first.isascii() and known(first):
        return first
    choices = [tuple(dict.fromkeys((_SHAPES.get(c, _look(c)), _look(c), _bare(c)))) for c in word.lower()]
    tries = ("".join(letters) for letters in islice(product(*choices), 64))
    likely = "".join(c[0] for c in choices)
    return next((t for t in tries if t.isascii() and known(t)), likely if likely.isascii() else first)


def _accented(word: str) -> bool:
    return all(unicodedata.name(c, "").startswith("LATIN") for c in word)


@cache
def _bare(character: str) -> str:
    """A Latin letter without its accents."""
    found = re.fullmatch(r"LATIN (?:SMALL|CAPITAL) LETTER ([A-Z])(?: BAR| WITH .*)?", unicodedata.name(character, ""))
    return found[1].lower() if found else character


def _foreign(character: str) -> bool:
    """Whether a letter belongs to no Latin alphabet, or looks like an ASCII letter that it is not."""
    return ord(character) >= _FIRST_NAMED and (
        character in _SHAPES
        or not unicodedata.name(character, "LATIN").startswith("LATIN")
        or _look(character) != character
    )


EXACT = (
    ("upside down", upright),
    ("characters", revealed),
)
AS_WRITTEN = (("characters", smuggled),)
