"""Words spelt so that a model does not recognise them: taken apart, run together, put in code.

Each function returns the text with what it found undone, or unchanged where it found nothing. Only what gives English
words is undone, so product names, lists of letters, code and other languages stay as they are.
"""

from __future__ import annotations

import itertools
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

from guardreasoner.guards.english_words import apart, known, likeliest, likelihood, listed

UNLIKELY = -2.3
"""Log-likelihood of single words per letter: running English has more, a long technical term has less."""
NO_WORD = 24
"""Letters: words run together are taken apart from there on though some of them are unknown."""
BY_CHANCE = -3.0
"""The same of the first letters of lines: of 1,200 random rows of 12 to 24 letters none has more than -3.7."""
MANY_TIMES = 24
"""In a row, from which a word or a sentence is only there to move the score; a song has fewer."""
_SAME_SIGNS = re.compile(r"([^\w\s])\1{15,}")
_NEXT = [rf"{letter}[\W_]{{0,3}}" for letter in string.ascii_lowercase]
_ALPHABET = re.compile("".join(_NEXT[:8]) + "".join(f"(?:{letter}" for letter in _NEXT[8:]) + ")?" * 18, re.I)
_SENTENCES = re.compile(r"[^.!?\n]+[.!?\n]*\s*|[.!?\n]+\s*")
_TOKENS = re.compile(r"\s*\S+\s*|\s+")
_HALVES = re.compile(r"(?<!\w)(\w{1,24})\x00(\w{1,24})(?!\w)")
_LETTERS = re.compile(r"[A-Za-z]+")
_BROKEN = re.compile(r"[A-Za-z]{1,20}(?:[^\sA-Za-z'\x00-\x1f@_=<>/\\&]{1,2}[A-Za-z]{1,20}){1,24}\d?")
_MASK = re.compile(r"[*#•]")
_MASKED = re.compile(
    r"(?<![\w*#])(?=[A-Za-z*#•]{4,20}(?![\w*#]))[A-Za-z]{1,12}(?:[*#•]{1,2}[A-Za-z]{0,12}){1,4}(?![\w*#])"
)
_TAG = re.compile(r"</?[A-Za-z][A-Za-z0-9]{0,15}\s{0,2}/?>")
_INLINE = re.compile(r"</?(?:a|b|big|code|em|font|i|mark|s|small|span|strong|sub|sup|tt|u|wbr)\b", re.I)
_BBCODE = re.compile(r"\[/?(?:b|i|u|s|url|color|size|font|quote|code|sup|sub)(?:=[^\[\]\n]{0,60})?\]", re.I)
_LATEX = re.compile(r"\\(?:text\w{0,10}|emph|underline|mbox|mathrm|mathbf|bf|it|tt)\s?\{([^{}\n]{0,200})\}")
_TERMINAL = re.compile(r"\x1b\[[0-?]{0,20}[ -/]{0,4}[@-~]")
_ANY_TAG = re.compile(r"(?:<[A-Za-z/!][^<>]{0,200}>)+")
_MARK = re.compile(r"(?<=[^\W_])(?:\*+|_{2,}|~~|`+)+(?=[^\W_])")
_EDGE = re.compile(r"\*{2,}|_{2,}|~~|`|(?<!\w)_(?=[^\W_])|(?<=[^\W_])_(?!\w)")
_ONES = re.compile(r"(?<![^\W_])[^\W_](?:\x00[^\W_]){2,}(?![^\W_])")
_QUOTED_LETTERS = re.compile(r"""(?:(["'])[^"'\\\n]\1[\s,+.]{0,4}){6,}""")
_THRICE = re.compile(r"([A-Za-z])\1{2,}")
_DOUBLED = re.compile(r"([A-Za-z])\1")
_GLYPHS = {"/\\/\\": "m", "|\\/|": "m", "\\/\\/": "w", "|/\\|": "w", "|\\|": "n", "|-|": "h", "|_|": "u", "\\/": "v",
           "|<": "k", "|)": "d", "|3": "b", "|>": "p", "()": "o", "(_": "u", "[]": "o", "|=": "f", "|2": "r", "><": "x",
           "/-\\": "a", "]-[": "h", "}{": "h", "|_": "l"}  # fmt: skip
_GLYPH = re.compile("|".join(map(re.escape, sorted(_GLYPHS, key=len, reverse=True))))
_SPACED = re.compile(r"(?<![^\W_])[^\W_](?:(?:[^\w]|_){1,4}[^\W_](?![^\W_])){3,}")
_MARKED_LETTERS = re.compile(r"(?<![^\W_])[^\W_][*_~`](?=[^\W_](?![^\W_]))")
_SEPARATOR = re.compile(r"(?:[^\w]|_)+")
_LONG = re.compile(r"[A-Za-z']{14,}")
_PARTS = re.compile(r"(?<![A-Za-z0-9'])[A-Za-z0-9']+([_+.\\/|,;:~=-]+)[A-Za-z0-9']+(?:[,;:.!?]?\1[A-Za-z0-9']+){2,}")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Za-z])(?=[A-Z][a-z])")
_LEET = {"0": "o", "1": "il", "2": "z", "3": "e", "4": "a", "5": "s", "6": "g", "7": "t", "8": "b", "9": "g",
         "@": "a", "$": "s", "!": "i", "|": "li", "+": "t", "(": "c", "€": "e"}  # fmt: skip
_AS_LEET = str.maketrans({sign: letters[0] for sign, letters in _LEET.items()})
_LONG_LEET = re.compile(r"[A-Za-z0-9@$!|+€']{14,}")
_LEET_WORD = re.compile(r"[A-Za-z0-9@$!|+(€']{1,24}")


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


def repeated(text: str) -> str:
    """A word, a sentence or a sign that stands many times in a row, once; the alphabet not at all."""
    text = _SAME_SIGNS.sub(r"\1\1\1", text)
    cut, times = _ALPHABET.subn(" ", text)
    if times:
        text = cut.strip() or text
    if max(Counter(text.split()).values(), default=0) < MANY_TIMES:  # a sentence is words
        return text
    for unit in (_SENTENCES, _TOKENS):
        runs = (list(run) for _, run in itertools.groupby(unit.findall(text), key=str.strip))
        once = (run[:1] if len(run) >= MANY_TIMES and any(map(str.isalpha, run[0])) else run for run in runs)
        text = "".join(itertools.chain.from_iterable(once))
    return text


def hidden_markup(text: str) -> str:
    """Tags with attributes and comments inside words, taken out with what they say, and all other tags with them."""
    return _ANY_TAG.sub("", text) if len(re.findall(r"\w<[A-Za-z/!][^<>]{0,200}>", text)) > 1 else text


def stretched(text: str) -> str:
    """Words with letters twice or more (`hhooww`, `mmake`), or with one drawn out (`hooow`), as what they are."""
    words = set(_LETTERS.findall(text))
    drawn = {w: k for w in words for k in (2, 3, 4) if len(w) >= k and _repeated(w, k)}
    times = Counter(k for w, k in drawn.items() if known(w[::k]))
    read = {w: w[::k] for w, k in drawn.items() if known(w[::k]) or times[k] > 2}
    for word in words - set(read):
        if _THRICE.search(word) and not known(word):
            tries = (_THRICE.sub(r"\1", word), _THRICE.sub(r"\1\1", word))
            read.update((word, t) for t in tries[::-1] if known(t))
        elif len(word) > 4 and not listed(word) and (once := _DOUBLED.sub(r"\1", word)) != word and known(once):
            read[word] = once
    return _LETTERS.sub(lambda m: read.get(m.group(), m.group()), text) if len(read) > 2 else text


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


def joined(text: str) -> str:
    """Words run together, with other signs than blanks between them, or told apart by capitals."""
    text = _PARTS.sub(lambda m: m.group() if _in_address(m) else _words_of(m.group()) or m.group(), text)
    return _LONG.sub(lambda m: _taken_apart(m.group()), text)


def broken(text: str) -> str:
    """Words with signs or digits put into them (`ma-ke`, `m(a)ke`, `m1a1k1e1`) without these."""
    read = {token: word for token in set(_BROKEN.findall(text)) if (word := _mended(token))}
    return _BROKEN.sub(lambda m: read.get(m.group(), m.group()), text) if len(read) > 2 else text


def masked(text: str) -> str:
    """Words with signs in place of letters after the first (`m*ke`, `b*k*`), as the most frequent words that fit."""
    read = {token: word for token in set(_MASKED.findall(text)) if (word := _unmasked(token)) != token}
    return _MASKED.sub(lambda m: read.get(m.group(), m.group()), text) if read else text


def _unmasked(token: str) -> str:
    """With vowels in place of the signs, or, of two signs at most that end no word, with any letters."""
    parts = _MASK.split(token.lower())
    if known(token.rstrip("*#•")):  # a footnote
        return token
    few = len(parts) < 4 and parts[-1]
    for letters in ("aeiou", string.ascii_lowercase) if few else ("aeiou",):
        fills = itertools.product(letters, repeat=len(parts) - 1)
        tries = (parts[0] + "".join(itertools.chain(*zip(fill, parts[1:], strict=True))) for fill in fills)
        if (word := likeliest(tries, token)) != token:
            return word
    return token


def _mended(token: str) -> str | None:
    parts = _LETTERS.findall(token)
    word = "".join(parts)
    apart_ = all(len(p) > 2 and known(p) for p in parts)  # well-known, and/or
    return None if len(word) < 4 or apart_ or not _a_word(word) else word


def acrostic(text: str) -> str:
    """What the first letters of its lines spell, where that is English; else the text."""
    letters = "".join(line[0] for raw in text.splitlines() if (line := raw.strip()) and line[0].isalpha())
    if not 12 <= len(letters) <= 2_000:
        return text
    words = apart(letters.lower())
    return " ".join(words) if likelihood(words) > BY_CHANCE * len(letters) else text


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


def _a_word(word: str) -> bool:
    return known(word) or (len(word) > 6 and listed(word))


def _halves(pieces: Sequence[str], count: int) -> bool:
    found = [*pieces[:-1], pieces[-1].rstrip(".,;:!?")]
    word = "".join(found)
    if len(found) < count or len(word) < 5 or not all(map(str.isalpha, found)) or not word[1:].islower():
        return False
    return _a_word(word) and not all(map(known, found))


def leet(text: str) -> str:
    """Digits and signs that stand for letters, where several words become English by it."""
    drawn = _GLYPH.sub(lambda m: _GLYPHS[m.group()], text)
    if sum(map(known, _LETTERS.findall(drawn))) > sum(map(known, _LETTERS.findall(text))) + 1:
        text = drawn
    text = _LONG_LEET.sub(_leet_apart, text)
    found = {w for w in _LEET_WORD.findall(text) if _holds_leet(w)}
    read = {w: word for w in found if (word := _unleeted(w))}
    mixed = {w for w in found if len(w) > 2 and any(map(str.isalpha, w))}
    if len(mixed & read.keys()) < max(2, len(mixed) / 2):
        return text
    read = {w: w.lower().translate(_AS_LEET) for w in mixed} | read
    return _LEET_WORD.sub(lambda m: read.get(m.group(), m.group()), text)


def as_letters(text: str) -> str:
    """Each digit or sign as the letter that it may be, in a text of which many words hold both."""
    tokens = _LEET_WORD.findall(text)
    mixed = {t for t in tokens if any(map(str.isalpha, t)) and _holds_leet(t)}
    if len(mixed) < 3 or 3 * len(mixed) < len(tokens):
        return text
    return _LEET_WORD.sub(lambda m: m.group().rstrip("!").translate(_AS_LEET), text)


def _holds_leet(word: str) -> bool:
    return any(c in _LEET for c in word.rstrip("!|+("))


def _leet_apart(match: re.Match[str]) -> str:
    """Leet words run together."""
    token = match.group()
    signs = sum(not c.isalpha() for c in token)
    if signs < 3 or not len(token) / 12 < signs < 0.8 * len(token):
        return token
    words = _taken_apart(token.translate(_AS_LEET))
    return words if " " in words else token


def _repeated(word: str, times: int) -> bool:
    return "".join(c * times for c in word[::times]).lower() == word.lower()


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
    found = sum(len(w) for w in words if known(w) or (len(w) > 3 and not w.isdecimal() and _unleeted(w)))
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


def _in_address(match: re.Match[str]) -> bool:
    """Whether a run stands inside a URL or a path, whose words a reader sees as they are."""
    token = match.string[max(0, match.start() - 200) : match.end()].rsplit(None, 1)[-1]
    return "://" in token or token.startswith(("www.", "/", "~", "."))


def _words_of(run: str) -> str | None:
    parts = re.split(r"[^A-Za-z0-9']+", run)
    letters = sum(map(len, parts))
    return " ".join(parts) if letters > 11 and 3 * sum(len(p) for p in parts if known(p)) >= 2 * letters else None


def _taken_apart(token: str) -> str:
    if listed(token):
        return token
    humps = " ".join(h for h in _HUMP.split(token) if h)
    if humps.count(" ") > 1 and _words_of(humps):
        return humps
    words = apart(token)
    found = sum(len(w) for w in words if len(w) > 2 and known(w))
    likely = likelihood(words) > UNLIKELY * len(token) or (len(token) >= NO_WORD and 3 * found >= 2 * len(token))
    return " ".join(words) if len(words) > 2 and likely else token


def _unleeted(word: str) -> str | None:
    """The English word that a leet spelling stands for."""
    for signs in dict.fromkeys((word.lower(), word.lower().rstrip("!|+("))):
        for letters in itertools.islice(itertools.product(*(_LEET.get(c, c) for c in signs)), 16):
            found = "".join(letters)
            if known(found) or (len(found) > 7 and listed(found)):
                return found
    return None


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
