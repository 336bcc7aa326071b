"""Quotations in reasoning: what a model writes between `QUOTES` is a part of the judged text, word for word.

It takes a tokenizer that has both marks as tokens, as those of Llama 3 and SmolLM2 do; with another nothing is held to.
"""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from guardreasoner.engines.prompt_tokens import PromptTokenizer, clean
from guardreasoner.generation import QUOTES, Free, Judged, Prompt, quotable, segments_of, unquoted

LONGEST, LONGEST_PART = 40, 64
"""Tokens of a quotation that the model chooses, and of one that is given."""
_REACH = 6 * LONGEST
"""Characters that hold so many tokens."""
PART = "\ufffd"
"""What a token that is a part of a character is shown as."""
_INSIDE = frozenset((PART, "'", "’"))
"""What a word goes on after, or may."""
_EDGES = re.compile(r"^(?:[\s.,;:!?…–—•*#>|-]|\d{1,2}[.)]\s)+|[\s.,;:–—-]+$")
"""List marks, and what ends a sentence: quoted without them. Brackets and quotation marks are the text's own."""
_ADDED = re.compile(r"[\s>]+")
"""What the prompt may have more than the text: it marks lines that read like ours."""
_START = re.compile(r"(?<!\w)\w")


@dataclass(frozen=True)
class QuoteTokens:
    """The tokens of one tokenizer that hold a quotation mark, or a part of a character."""

    opening: frozenset[int]
    """They end in an opening mark."""
    closing: frozenset[int]
    """They begin with a closing mark."""
    barred: list[int]
    """Those that may not be written where no quotation is open: all but the opening ones."""
    close: int
    """The closing mark alone."""


_MARKS: WeakKeyDictionary[PromptTokenizer, QuoteTokens | None] = WeakKeyDictionary()


def marks_of(tokenizer: PromptTokenizer) -> QuoteTokens | None:
    """The tokens with quotation marks, found once; None = the tokenizer has none for a mark alone."""
    if tokenizer not in _MARKS:
        alone = [tokenizer.continuation(mark) for mark in QUOTES]
        size = tokenizer.base.get_vocab_size() if max(map(len, alone)) == 1 else 0
        texts = {i: tokenizer.shown(i) for i in range(size)}
        held = {i: text for i, text in texts.items() if not {*QUOTES, PART}.isdisjoint(text)}
        opening = frozenset(i for i, text in held.items() if text.endswith(QUOTES[0]) and QUOTES[1] not in text)
        closing = frozenset(i for i, text in held.items() if text.startswith(QUOTES[1]) and QUOTES[0] not in text)
        found = QuoteTokens(opening, closing, sorted(held.keys() - opening), alone[1][0]) if held else None
        _MARKS[tokenizer] = found
    return _MARKS[tokenizer]


def stop_at(text: str, step: Free) -> int | None:
    """Where the first stop string begins, outside of what the step quotes; None = nowhere."""
    ours = text if step.quotes is None else unquoted(text)
    return min((at for stop in step.stop if (at := ours.find(stop)) >= 0), default=None)


@dataclass
class Quoting:
    """The quotations of one text that is being sampled."""

    tokenizer: PromptTokenizer
    marks: QuoteTokens
    runs: Sequence[Sequence[int]]
    """Ids of what is quoted from each of its words on."""
    given: bool = False
    """There is one run, and it is quoted once and to its end."""
    open: bool = False
    _live: Sequence[Sequence[int]] = ()
    """Those runs that begin as the open quotation does."""
    _written: int = 0

    def allowed(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of the next token: what cannot follow has none."""
        if not self.open:
            kept = logits.copy()
            kept[self.marks.barred] = -np.inf
            if self.given and self._written:
                kept[list(self.marks.opening)] = -np.inf
            return kept
        kept = np.full_like(logits, -np.inf)
        chosen = list(self._following())
        kept[chosen] = logits[chosen]
        return kept

    def only(self) -> int | None:
        """The next token, where no other can follow."""
        following = self._following() if self.open else frozenset()
        return next(iter(following)) if len(following) == 1 else None

    def wrote(self, token: int) -> None:
        """This token was sampled."""
        if self.open and token in self.marks.closing:
            self.open = False
        elif self.open:
            self._live = [r for r in self._live if len(r) > self._written and r[self._written] == token]
            self._written += 1
        elif token in self.marks.opening:
            self.open, self._live, self._written = True, self.runs, 0

    def _following(self) -> Set[int]:
        """What can follow in an open quotation."""
        following = {run[self._written] for run in self._live if len(run) > self._written}
        if self._written and any(self._ends(run) for run in self._live):
            following |= self.marks.closing
        return following or {self.marks.close}

    def _ends(self, run: Sequence[int]) -> bool:
        """Whether a word ends here."""
        if len(run) <= self._written:
            return True
        following = self.tokenizer.shown(run[self._written])[:1]
        return not self.given and following not in _INSIDE and not following.isalnum()


@dataclass
class Sources:
    """The judged segments of one prompt, as they may be quoted."""

    tokenizer: PromptTokenizer
    prompt: Prompt
    _runs: dict[tuple[str, bool], list[Sequence[int]]] = field(default_factory=dict)

    def quoting(self, step: Free) -> Quoting | None:
        """What holds a step to its source; None = it quotes none, or the tokenizer cannot."""
        marks = None if step.quotes is None else marks_of(self.tokenizer)
        if step.quotes is None or marks is None:
            return None
        found = (quoted_of(s, step.quotes) for s in segments_of(self.prompt) if isinstance(s, Judged))
        source, given = next(filter(None, found), ("", False))
        if (source, given) not in self._runs:
            self._runs[source, given] = [run_of(self.tokenizer, source)] if given else runs_of(self.tokenizer, source)
        return Quoting(self.tokenizer, marks, self._runs[source, given], given)


def quoted_of(segment: Judged, name: str) -> tuple[str, bool] | None:
    """What of a text is quoted under a name, and whether it is given: it is not where it is not in the text."""
    if name not in segment.parts:
        return None
    part, whole = (quotable(clean(text)) for text in (segment.parts[name], segment.text))
    part = _EDGES.sub("", part)
    given = _START.search(part) and _ADDED.sub("", part) in _ADDED.sub("", whole)
    return (part, True) if given else (whole, False)


def run_of(tokenizer: PromptTokenizer, source: str) -> Sequence[int]:
    """The ids of a text that is quoted from its beginning on, up to a word's end."""
    ids = tokenizer.judged(source)
    end = min(len(ids), LONGEST_PART)
    while 0 < end < len(ids) and tokenizer.shown(ids[end])[:1].isalnum():
        end -= 1
    return ids[:end]


def runs_of(tokenizer: PromptTokenizer, source: str) -> list[Sequence[int]]:
    """The ids of a text from each of its words on, as far as a quotation may reach."""
    starts = [found.start() for found in _START.finditer(source)]
    cut = ((tokenizer.judged(source[at : at + _REACH]), at) for at in starts)
    return [ids[:LONGEST] if at + _REACH >= len(source) else ids[:-1][:LONGEST] for ids, at in cut]
