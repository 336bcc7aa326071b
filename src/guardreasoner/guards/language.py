"""Whether a text can be read by a guard that was validated on English alone.

Three signs, none of which needs a model: letters of other scripts, symbols in place of letters, and words in Latin
letters that are not English: hardly any of the small words that English cannot do without, and many that no list of
English words holds. A long text is looked at in stretches, so that English around it hides nothing. Names that stand in
a list (people, brands, drugs) are of no language.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import groupby

from guardreasoner.guards.disguises.characters import normalise
from guardreasoner.guards.english_words import listed
from guardreasoner.types import Exchange

SHARE = 0.2
"""Of all letters, above which letters or symbols that cannot be read are too many."""
MOST = 30
"""Such letters that are too many in a text of any length: five or six words, or ten Chinese characters."""
FEWEST = 4
"""Fewer letters are a formula, not a word."""
CHINESE = 3
"""Letters that one Chinese, Japanese or Korean character stands for."""
DECORATION = 8
"""Different symbols up to which they are taken for decoration, such as emoji."""
SMALL_WORDS = 0.08
"""Share of small words below which words are not English; English prose has about 0.4."""
STRETCH = 24
"""Words that are looked at together."""
PHRASE, MANY = 3, 6
"""Words: fewer than a phrase are taken for English, and of fewer than many more must be unlisted."""
UNLISTED_PHRASE, UNLISTED = 0.75, 0.5
"""Share of unlisted words from which a phrase, or many words, are not English; half of it where a small word of another
language stands among them. Names and packages are unlisted too."""
LISTED, LONGEST_ITEM, MOST_OTHER = 3, 100, 1 / 6
"""Items from which names are a list, characters of the longest item, and the share of small words of another language
at which they are no names."""
_OTHER = """
que como una con qué cómo por para está yo wie das ist ich und ein eine nicht für les une je vous pour dans avec quel
quelle comment che della sono uma não meu minha het een niet voor jak gdzie ile czy nie bir nasıl apa yang saya hur
och jag hvordan hvad hva hvor jeg ikke noget hjemme unde fără pentru sunt și să miten missä kuinka minun sinun voin
että hogyan hogy egy és mikor kako gdje nije što jsem není proč prečo bagaimana dengan untuk tidak adalah paano bakit
mga là tôi làm của pourquoi où quoi suis elle warum wann kein keine ohne auf zum zur auch oder sind wird dónde cuando
porque perché quando senza sulla nella onde sem meus muito waarom waar wanneer zonder mijn zijn naar maar dlaczego
kiedy moje się neden nerede niçin benim çok varför när utan inte mina på
"""
OTHER = frozenset(_OTHER.split())
"""Small words of other languages: one of them, and a word that English does not hold, tell in a phrase of three to
five words."""
_SMALL = """
the a an and or but of to for from with without by at on into about as is are was were be been being am do does
did don't have has had i you he she it we they my your his her its our their me him them us this that these
those what which who whom whose how why when where there here not no nor if then than so because while can could
will would shall should may might must let lets i'm it's that's what's how's i've i'll u ur im dont whats some
any all more most such only just very too up out off over
"""
ENGLISH = frozenset(_SMALL.split())
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_AROUND = "()[]{}<>\"'`*_.,;:!?¿¡…“”«»„|#-"
_CODE = re.compile(r"[\d_(){}\[\]<>=;\\/@#$%&*+|~^]|[a-z][A-Z]")
_ITEM = re.compile(r"[^,;|\n•]+")
_MARKER = re.compile(r"\A\W*(?:\d{1,4}[.):]\s*)?|[\W\d]+\Z")
_PROPER = re.compile(r"[^\W\d_a-z][^\W\d_]*\.?(?:['’-][^\W\d_]+)*")
_DRUG = re.compile(
    r"[a-z]+(?:statin|pril|sartan|olol|azole|cillin|mycin|oxacin|dipine|formin|gliptin|gliflozin|glutide|mab|nib|vir|"
    r"pam|lam|oxetine|pramine|triptyline|opram|traline|triptan|caine|cycline|thyroxine|profen|setron|tidine|dronate|"
    r"parin|xaban|grel|azepine|barbital|codone|phylline|terol|sone|solone|lukast|afil|semide|thiazide|lactone|apine|"
    r"idone|peridol|piprazole|zosin|zine|gabalin|pentin|amide|idine|arin|acin|etamol|minophen|aline|opram|axine|propion|apine|"
    r"purinol|chicine|steride|done|fenac|oxin|phrine|oin|emide)"
)
"""Stems of the international names of drugs (WHO): they are written without capitals."""
UNREAD = {
    "script": "the text holds more than a word in letters that are not Latin; the guard was tested on English only",
    "symbols": "the text holds symbols in place of letters, which the guard cannot read",
    "words": "the text holds another language than English, the only one that the guard was tested on",
}
"""Reason -> what is said to people."""
_DRAWN = re.compile("[\u2500-\u25ff]")


def unsupported(text: str, written: str | None = None) -> str | None:
    """Why a text is not taken for English (`script`, `symbols`, `words`), or None. Linear in its length.

    Args:
        text: with exact disguises undone.
        written: as it was given, where that differs: undoing takes symbols for decoration.
    """
    written = text if written is None else written
    letters = sum(map(str.isalpha, text))
    foreign = [] if text.isascii() else [c for c in text if c.isalpha() and _foreign(c)]
    if _many(foreign, letters):
        return "script"
    symbols = [] if written.isascii() else [c for c in _DRAWN.sub("", written) if _symbol(c)]
    if len(set(symbols)) > DECORATION and _many(symbols, letters + len(symbols)):
        return "symbols"
    return "words" if any(map(_other_words, _stretches(_words(text)))) else None


def unread(written: Exchange, read: Exchange) -> str | None:
    """Why some text of an exchange is not taken for English (`unsupported`), or None.

    Args:
        written: as it was given.
        read: the same with exact disguises undone.
    """
    both = zip(read.texts, written.texts, strict=True)
    return next((reason for text, given in both if (reason := unsupported(text, given))), None)


def _many(found: Sequence[str], letters: int) -> bool:
    weight = sum(map(_weight, found))
    return weight > MOST or (weight >= FEWEST and weight > SHARE * (letters - len(found) + weight))


def _words(text: str) -> list[str]:
    """The words of its prose: what holds signs, digits or capitals inside is code, a number or a name."""
    text = _without_names(text)
    prose = (token for token in text.replace("’", "'").split() if not _CODE.search(token.strip(_AROUND)))
    return [word for token in prose for word in _WORD.findall(token.lower())]


def _without_names(text: str) -> str:
    """The text without the names in its lists: items of up to three words, all with capitals, or drugs."""
    kept: list[str] = []
    for names, group in groupby(_ITEM.finditer(text), lambda m: _nameable(m.group())):
        items = [m.group() for m in group]
        kept += items if not names or _sentence_of_another(items) else ()
    return "\n".join(kept)


def _nameable(item: str) -> bool:
    if len(item) > LONGEST_ITEM:
        return False
    words = _MARKER.sub("", item).replace(" and ", " ").replace(" & ", " ").split()
    return 0 < len(words) <= 3 and all(_PROPER.fullmatch(w) or _DRUG.fullmatch(w) for w in words)


def _sentence_of_another(items: Sequence[str]) -> bool:
    """Whether what looks like a list of names is none."""
    words = [w for item in items for w in _WORD.findall(item.lower())]
    return len(items) < LISTED or sum(w in OTHER for w in words) >= MOST_OTHER * len(words)


def _stretches(words: Sequence[str]) -> Iterator[Sequence[str]]:
    """All words and, of many, each stretch."""
    if len(words) >= PHRASE:
        yield words
    for start in range(0, len(words) - STRETCH, STRETCH // 2):
        yield words[start : start + STRETCH]


def _other_words(words: Sequence[str]) -> bool:
    if sum(w in ENGLISH for w in words) >= SMALL_WORDS * len(words):
        return False
    other = not OTHER.isdisjoint(words)
    unlisted = [w for w in words if len(w) > 1 and (w in OTHER or not listed(w))]  # a letter is a variable
    if len(words) < MANY and other:
        return not all(map(listed, words))
    least = UNLISTED_PHRASE if len(words) < MANY else UNLISTED
    share = least / 2 if other else least
    return len(set(unlisted)) > 2 and len(unlisted) >= share * len(words)  # one word again and again is no language


def _foreign(letter: str) -> bool:
    return ord(letter) > 0x24F and not unicodedata.name(letter, "").startswith(("LATIN", "FULLWIDTH", "MATHEMATICAL"))


def _symbol(character: str) -> bool:
    named = character.isascii() or normalise(character) != character
    return not named and unicodedata.category(character) in ("So", "Co", "Cn")


def _weight(character: str) -> int:
    return CHINESE if character.isalpha() and "\u3040" <= character <= "\ud7a3" else 1
