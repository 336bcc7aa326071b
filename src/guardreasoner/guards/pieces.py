"""What of an exchange is judged: the whole in each of its forms, every message by itself, and pieces of long texts.

Harm among harmless sentences hardly moves the score of the whole, so its surroundings are taken away:

- the whole, in windows, once as it reads with exact disguises undone and once for each guess (`guards.disguises`);
- the last turn of a conversation, each earlier message or tool result, and the user's short turns put together; the
  conversation around them, and these together, must then pass the bar of a piece;
- a reply by itself, as well as with its request;
- pieces of at most `WORDS` words: sentences, two sentences in a row, clauses of long sentences, the contents of
  quotation marks and fences. Such contents that are most of a text (a request to be translated, a comment in a block
  of code, the words in tags or between the markers of turns, `guards.enclosed`) count as a message.

A piece is out of its context and one of many, so it must pass a bar of its own (`Curve.piece`), the same whatever the
length. A sentence above it is judged again with its neighbours, and decides only where that passes another.

Cost: a text is read at most four times whole (as a whole, as a message, in sentences, in pairs of them), and a fifth
time if it is short (in clauses), in each of at most `MOST_FORMS` forms, and an exchange has at most
`PASSAGES_A_WINDOW` passages for each window it may have; what needs more is `input_too_long`. At most `SECOND_LOOKS`
pieces a task are judged again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, pairwise
from typing import Literal

from guardreasoner.guards.disguises.scattered import assembled, parts
from guardreasoner.guards.disguises.undoing import MOST_FORMS, Form, forms
from guardreasoner.guards.enclosed import WORDLESS, length, mostly, quoted
from guardreasoner.guards.language import ENGLISH
from guardreasoner.guards.windows import Offsets, windows
from guardreasoner.types import Exchange, Task

WORDS = 40
"""Of a piece: a sentence, or a part of a longer one."""
LONGEST_WHOLE = 12
"""A text of no more words, and of one or two sentences, is not cut up."""
FEWEST = 4
"""Words: a shorter sentence goes with the one after it."""
MOST_PAIRED = 100
"""Sentences of a text up to which two in a row are a piece too: longer texts would need twice the passes."""
MOST_CLAUSED = 240
"""Words of a text up to which the clauses of its long sentences are pieces too, likewise."""
REQUEST_WORDS = 60
"""A longer request is not read again with each piece of its reply."""
SECOND_LOOKS = 4
"""Pieces of a task that are judged again with their neighbours; were there more above the bar, the others decide."""
NAMING = 5
"""Words that give a part of a text its name."""
PASSAGES_A_WINDOW = 48
MOST_QUOTES = 32
_STARTS = "|".join(sorted(word.capitalize() for word in ENGLISH if word.isalpha() and word != "i"))
_SENTENCE_END = re.compile(
    rf"(?<=[.!?;:])[\"')\],]*\s+|(?<=[。！？；])|(?<!\s)\s*\n\s*|(?<=[a-z0-9])\s+(?=(?:{_STARTS})\s+[a-z])"
)
"""The last: where a sentence without a full stop is followed by `The`, `What`, ..."""
_CLAUSE_END = re.compile(
    r"[\"')\]]*[,;:][\"')\]]*\s+|[()\[\]]|\s+[–—-]+\s+|\s+(?:and|but|or|so|while|because|although|then)\s+", re.I
)
_BULLET = re.compile(r"\A(?:\(?\d{1,3}[.):]|[-*•#>|]+)(?:\s+|$)")
_FENCE = re.compile(r"^[ \t]{0,8}```(?:\w{1,12})?[ \t]*$", re.M)
_REFUSES = re.compile(r"\b(?:sorry|apologi[sz]e|can(?:no|['’])t|unable to|won['’]t|will not|not able to)\b", re.I)
_NO_END = re.compile(r"\b(?:Dr|Mrs?|Ms|Prof|St|No|vs|e\.g|i\.e)\.$|^[ \t]*\d{1,2}[.)]$", re.M)
"""A title, or the number of an item."""
_HALF = re.compile(rf"(?:\S+\s*){{1,{WORDS // 2}}}")


Bar = Literal["alone", "again", "pair", "around", "talk"]
"""Of a piece judged alone, of one judged again with its neighbours, of two sentences in a row or a clause; of a whole
that only stands around, or disguises, what is judged as a whole itself; and of a conversation whose messages are: it
must pass the bar of a piece, and what stands around more."""


@dataclass(frozen=True, slots=True)
class Passage:
    """What one pass of the model reads."""

    exchange: Exchange
    tasks: tuple[Task, ...]
    """What the pass is asked."""
    owner: int = 0
    """The place of the exchange it comes from, among those asked about."""
    bar: Bar | None = None
    """A piece is out of its context and must pass this bar; None = it is no piece."""
    around: Exchange | None = None
    """A piece with its neighbours, for the second look."""
    undone: tuple[str, ...] = ()
    """The disguises that were undone to get it."""


@dataclass(frozen=True, slots=True)
class Passages:
    """All passages of one exchange."""

    made: tuple[Passage, ...]
    complete: bool
    """False = some of it does not fit in the windows allowed, and was not made."""
    undone: tuple[str, ...]
    """All disguises that were found."""
    read: Exchange
    """The exchange with exact disguises undone."""
    windows: int = 0
    """That the whole needs."""


def passages(
    exchange: Exchange,
    tasks: Sequence[Task],
    *,
    capacity: int,
    limit: int,
    offsets: Offsets,
    cut: bool,
    apart: bool = True,
    owner: int = 0,
) -> Passages:
    """What is to be judged of an exchange; its whole as it reads comes first.

    Args:
        exchange: any.
        tasks: those that are asked.
        capacity: tokens of judged text that one pass can hold.
        limit: the most windows of the whole.
        offsets: character spans of the tokens of a text.
        cut: whether there are pieces.
        apart: whether each earlier message and the reply are judged by themselves too; the last turn always is.
        owner: kept in each passage.
    """
    needed = windows(exchange, capacity, limit, offsets)
    if needed is None:  # before anything is undone: this is cheap for any size
        return Passages((), False, (), exchange)
    variants = _variants(exchange)
    found: dict[tuple[str, str | None, tuple[object, ...]], Passage] = {}
    most, complete = limit * PASSAGES_A_WINDOW, True
    for variant, undone in variants:
        alone = [variant.prompt, *(m.content for m in variant.context if apart)] if variant.context else []
        joint = _together(variant) if apart else ""
        wholes = [variant, *(Exchange(exchange.id, text) for text in (*alone, joint) if text.strip())]
        for whole in wholes:
            bar: Bar | None = "around" if _around(whole, variants) else None
            if apart and whole.response is None and (whole.context or whole.prompt == joint):
                bar = "talk"
            for one in _wholes(whole, capacity, limit, offsets):
                complete = complete and one is not None
                if one is not None:
                    _add(found, replace(one, owner=owner, bar=bar), tasks, undone)
        loose = _parts(variants) if variant is variants[0][0] else []
        pieces = chain(
            _reply_alone(variant, capacity, limit, offsets),
            (p for p in _pieces(variant, capacity) if not any(_of_a_part(_said(p.exchange), part) for part in loose)),
        )
        for piece in islice(pieces, most) if cut else ():
            for one in _in_capacity(piece, capacity, limit, offsets):
                _add(found, replace(one, owner=owner), tasks, undone)
    kept = tuple(found.values())
    names = dict.fromkeys(name for _, undone in variants for name in undone)
    return Passages(kept[:most], complete and len(kept) <= most, tuple(names), variants[0][0], len(needed))


def _together(exchange: Exchange) -> str:
    """The user's turns one after another where they are short: a request may be spread over them."""
    turns = [m.content for m in exchange.context if m.role == "user"]
    said = " ".join([*turns, exchange.prompt])
    return assembled(said) if turns and len(said.split()) <= REQUEST_WORDS else ""


def _around(variant: Exchange, variants: Sequence[tuple[Exchange, tuple[str, ...]]]) -> bool:
    """Whether most of a text is judged by itself: what it quotes, what is decoded in it, or the reading of a guess."""
    text = _said(variant)
    others = [
        o.strip()
        for other, undone in variants
        if not variant.context and (o := _said(other)) != text and "odd words" not in undone
    ]
    guessed = variant is variants[0][0]
    return bool(mostly(text, WORDS)) or any(
        2 * len(other) >= len(text) and (guessed or other in text) for other in others
    )


def _parts(variants: Sequence[tuple[Exchange, tuple[str, ...]]]) -> list[str]:
    """Parts that are judged put together in another variant: by themselves they are halves of sentences."""
    if not any("assembled" in undone for _, undone in variants):
        return []
    return [part for text in variants[0][0].texts for part in parts(text)]


def _of_a_part(piece: str, part: str) -> bool:
    """Whether a piece is a part, of a part, or a part and hardly more (`let a = "..."`)."""
    return piece in part or (part in piece and len(piece.split()) - len(part.split()) <= NAMING)


def _said(exchange: Exchange) -> str:
    return exchange.prompt if exchange.response is None else exchange.response


def _in_capacity(passage: Passage, capacity: int, limit: int, offsets: Offsets) -> list[Passage]:
    """A piece whose few words are many tokens, in windows; what no window holds is part of the whole all the same."""
    around = passage.around
    if around is not None and windows(around, capacity, limit, offsets) != [around]:
        passage = replace(passage, around=None)
    made = windows(passage.exchange, capacity, limit, offsets) or []
    return [passage] if len(made) == 1 else [replace(passage, exchange=window, around=None) for window in made]


def near(passage: Passage) -> Passage:
    """The second look at a piece: itself with its neighbours."""
    return replace(passage, exchange=passage.around or passage.exchange, around=None, bar="again")


def _add(
    found: dict[tuple[str, str | None, tuple[object, ...]], Passage],
    passage: Passage,
    tasks: Sequence[Task],
    undone: tuple[str, ...],
) -> None:
    exchange = passage.exchange
    asked = tuple(t for t in passage.tasks if t in tasks)
    key = (exchange.prompt, exchange.response, exchange.context)
    if asked and (key not in found or (found[key].bar and not passage.bar)):  # a whole needs less than a piece
        found[key] = replace(passage, tasks=asked, undone=undone)


def _variants(exchange: Exchange) -> list[tuple[Exchange, tuple[str, ...]]]:
    """The exchange with exact disguises undone, then one exchange for each guess at one of its texts."""
    prompt = forms(exchange.prompt)
    response = [Form("")] if exchange.response is None else forms(exchange.response)
    context = [forms(m.content) for m in exchange.context]
    read = Exchange(
        exchange.id,
        prompt[0].text,
        None if exchange.response is None else response[0].text,
        tuple(replace(m, content=f[0].text) for m, f in zip(exchange.context, context, strict=True)),
        exchange.source,
    )
    undone = dict.fromkeys(name for f in (prompt, response, *context) for name in f[0].undone)
    made = [(read, tuple(undone))]
    made += [(replace(read, prompt=f.text), f.undone) for f in prompt[1:]]
    made += [(replace(read, response=f.text), f.undone) for f in response[1:]]
    for i, found in enumerate(context):
        for f in found[1:]:
            message = replace(read.context[i], content=f.text)
            made.append((replace(read, context=(*read.context[:i], message, *read.context[i + 1 :])), f.undone))
    return made[: 2 * MOST_FORMS] if len(made) <= 2 * MOST_FORMS else [*made[: 2 * MOST_FORMS - 1], _gathered(made)]


def _gathered(made: Sequence[tuple[Exchange, tuple[str, ...]]]) -> tuple[Exchange, tuple[str, ...]]:
    """Guesses beyond the most that are judged apart: all of their texts in one request."""
    rest = made[2 * MOST_FORMS - 1 :]
    read = made[0][0]
    texts = dict.fromkeys(
        text for variant, _ in rest for text, old in zip(variant.texts, read.texts, strict=True) if text != old
    )
    return replace(read, prompt="\n".join(texts), context=()), tuple(
        dict.fromkeys(n for _, names in rest for n in names)
    )


def _wholes(exchange: Exchange, capacity: int, limit: int, offsets: Offsets) -> list[Passage | None]:
    made = windows(exchange, capacity, limit, offsets)
    return [None] if made is None else [Passage(w, w.tasks) for w in made]


def _reply_alone(exchange: Exchange, capacity: int, limit: int, offsets: Offsets) -> Iterator[Passage]:
    """The reply without its request; the second look is at both, of a long request at its end."""
    if exchange.response and exchange.response.strip() and exchange.prompt:
        words = exchange.prompt.split()
        asked = exchange.prompt if len(words) <= REQUEST_WORDS else " ".join(words[-REQUEST_WORDS:])
        around = replace(exchange, prompt=asked, context=())
        for window in windows(Exchange(exchange.id, "", exchange.response), capacity, limit, offsets) or []:
            yield Passage(window, (Task.response_harm,), bar="alone", around=around)


def _pieces(exchange: Exchange, capacity: int) -> Iterator[Passage]:
    size = max(WORDS, capacity // 12)
    for text in (exchange.prompt, *(m.content for m in exchange.context)):
        yield from (Passage(Exchange(exchange.id, inside), (Task.prompt_harm,)) for inside in mostly(text, size))
        yield from (_piece(Exchange(exchange.id, ""), Task.prompt_harm, found) for found in cut_up(text, size))
    request = exchange.prompt if len(exchange.prompt.split()) <= REQUEST_WORDS else ""
    asked = Exchange(exchange.id, request, "")
    yield from (Passage(_put(asked, inside), (Task.response_harm,)) for inside in mostly(exchange.response or "", size))
    yield from (_piece(asked, Task.response_harm, found) for found in cut_up(exchange.response or "", size))


def _piece(asked: Exchange, task: Task, found: tuple[str, str | None, Bar]) -> Passage:
    piece, around, bar = found
    return Passage(_put(asked, piece), (task,), bar=bar, around=None if around is None else _put(asked, around))


def _put(asked: Exchange, text: str) -> Exchange:
    return replace(asked, prompt=text) if asked.response is None else replace(asked, response=text)


def cut_up(text: str, size: int = WORDS) -> list[tuple[str, str | None, Bar]]:
    """Pieces of a text, each with its neighbours (two sentences in a row: None) and bar; none where the text is one
    piece.

    Args:
        text: any.
        size: the most words of a sentence; one that is longer is cut at words, with half of it overlapping.
    """
    quotes = sorted({q for q in quoted(text) if len(q.split()) > 3}, key=lambda q: (-len(q), q))[:MOST_QUOTES]
    made: list[tuple[str, str | None, Bar]] = [(q, text if length(text) <= 3 * size else q, "alone") for q in quotes]
    sentences = [
        s for sentence in _SENTENCE_END.split(_FENCE.sub("\n", text)) if (s := _BULLET.sub("", sentence.strip()))
    ]
    if length(text) <= LONGEST_WHOLE and len(sentences) < 3:
        return made
    groups = _grouped([part for s in sentences for part in _halved(s, size)])
    made += _beside(groups, "alone")
    if 2 < len(groups) <= MOST_PAIRED:
        made += [(" ".join(two), None, "pair") for two in pairwise(groups)]
    if length(text) <= MOST_CLAUSED:
        clauses = [one for group in groups if length(group) > size // 2 for one in _beside(_clauses(group), "pair")]
        made += [one for one in clauses if length(one[0]) >= FEWEST]
    return made


def _beside(parts: Sequence[str], bar: Bar) -> list[tuple[str, str | None, Bar]]:
    """Each part with its neighbours; none where there is one."""
    around = (" ".join(parts[max(0, i - 1) : i + 2]) for i in range(len(parts)))
    return [(part, near, bar) for part, near in zip(parts, around, strict=True)] if len(parts) > 1 else []


def _clauses(sentence: str) -> list[str]:
    """What stands between conjunctions, commas, dashes and brackets."""
    return [c for clause in _CLAUSE_END.split(sentence) if (c := clause.strip())]


def sentences(text: str) -> list[str]:
    """A text cut at its sentences, nothing left out: short ones together, and long ones in parts."""
    ends = (m for m in _SENTENCE_END.finditer(text) if not _NO_END.search(text, max(0, m.start() - 6), m.start()))
    starts = [0, *(m.end() for m in ends), len(text)]
    made: list[str] = []
    for sentence in (text[a:b] for a, b in pairwise(starts)):
        if made and len(made[-1].split()) < FEWEST:
            made[-1] += sentence
        else:
            made.append(sentence)
    if len(made) > 1 and len(made[-1].split()) < FEWEST:
        made[-2:] = ["".join(made[-2:])]
    return [part for s in made for part in (_HALF.findall(s) if len(s.split()) > WORDS else [s])]


def edges(text: str) -> list[tuple[str, str]]:
    """A text without its first one or two sentences, or its last ones, and these; as far as there are others."""
    ends = [m.span() for m in _SENTENCE_END.finditer(text)]
    firsts = [(text[b:], text[:a]) for a, b in ends[:2]]
    lasts = [(text[:a], text[b:]) for a, b in ends[:-3:-1]]
    return [(rest, edge) for rest, edge in (*firsts, *lasts) if rest.strip() and edge.strip()]


def unrefused(text: str) -> str:
    """A reply without a refusing sentence at its beginning and at its end; itself where there is none, or no other."""
    said = text.strip()
    first = _SENTENCE_END.search(said)
    if first and _REFUSES.search(said, 0, first.start()):
        said = said[first.end() :]
    ends = list(_SENTENCE_END.finditer(said))
    if ends and _REFUSES.search(said, ends[-1].end()):
        said = said[: ends[-1].start()]
    return said.strip() or text


def _grouped(parts: Sequence[str]) -> list[str]:
    """Sentences, those of fewer than `FEWEST` words together with the next."""
    groups: list[str] = []
    for part in parts:
        if groups and length(groups[-1]) < FEWEST:
            groups[-1] += " " + part
        else:
            groups.append(part)
    return groups


def _halved(sentence: str, size: int) -> list[str]:
    """A sentence of more than `size` words in parts of that many, each beginning in the middle of the one before."""
    if length(sentence) <= size:
        return [sentence]
    words = sentence.split()
    if len(words) * 2 < length(sentence):  # hardly any blanks
        step = size * WORDLESS
        return [sentence[i : i + step] for i in range(0, max(1, len(sentence) - step // 2), step // 2)]
    starts = range(0, max(1, len(words) - size // 2), size // 2)
    return [" ".join(words[i : i + size]) for i in starts]
