"""Quotations in reasoning: what a model writes between `QUOTES` is a part of the judged text, word for word.

It takes a tokenizer that has both marks as tokens, as those of Llama 3 and SmolLM2 do; with another nothing is held to.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from guardreasoner.engines.encoding import Encoder, clean
from guardreasoner.plans import QUOTES, Free, Judged, Prompt, quotable, segments_of, unquoted

LONGEST = 40
"""Tokens of a quotation."""
_REACH = 6 * LONGEST
"""Characters that hold so many tokens."""
PART = "\ufffd"
"""What a token that is a part of a character is shown as."""
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


_MARKS: WeakKeyDictionary[Encoder, QuoteTokens | None] = WeakKeyDictionary()


def marks_of(encoder: Encoder) -> QuoteTokens | None:
    """The tokens with quotation marks, found once; None = the tokenizer has none for a mark alone."""
    if encoder not in _MARKS:
        alone = [encoder.continuation(mark) for mark in QUOTES]
        size = encoder.tokenizer.get_vocab_size() if max(map(len, alone)) == 1 else 0
        texts = {i: encoder.shown(i) for i in range(size)}
        held = {i: text for i, text in texts.items() if not {*QUOTES, PART}.isdisjoint(text)}
        opening = frozenset(i for i, text in held.items() if text.endswith(QUOTES[0]) and QUOTES[1] not in text)
        closing = frozenset(i for i, text in held.items() if text.startswith(QUOTES[1]) and QUOTES[0] not in text)
        found = QuoteTokens(opening, closing, sorted(held.keys() - opening), alone[1][0]) if held else None
        _MARKS[encoder] = found
    return _MARKS[encoder]


def stop_at(text: str, step: Free) -> int | None:
    """Where the first stop string begins, outside of what the step quotes; None = nowhere."""
    ours = text if step.quotes is None else unquoted(text)
    return min((at for stop in step.stop if (at := ours.find(stop)) >= 0), default=None)


@dataclass
class Quoting:
    """The quotations of one text that is being sampled."""

    encoder: Encoder
    marks: QuoteTokens
    runs: Sequence[Sequence[int]]
    """Ids of what is quoted from each of its words on."""
    open: bool = False
    _live: Sequence[Sequence[int]] = ()
    """Those runs that begin as the open quotation does."""
    _written: int = 0

    def allowed(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of the next token: what cannot follow has none."""
        if not self.open:
            kept = logits.copy()
            kept[self.marks.barred] = -np.inf
            return kept
        following = {run[self._written] for run in self._live if len(run) > self._written}
        if self._written and any(self._ends(run) for run in self._live):
            following |= self.marks.closing
        kept = np.full_like(logits, -np.inf)
        chosen = list(following) or [self.marks.close]
        kept[chosen] = logits[chosen]
        return kept

    def wrote(self, token: int) -> None:
        """This token was sampled."""
        if self.open and token in self.marks.closing:
            self.open = False
        elif self.open:
            self._live = [r for r in self._live if len(r) > self._written and r[self._written] == token]
            self._written += 1
        elif token in self.marks.opening:
            self.open, self._live, self._written = True, self.runs, 0

    def _ends(self, run: Sequence[int]) -> bool:
        """Whether a word ends here."""
        if len(run) <= self._written:
            return True
        following = self.encoder.shown(run[self._written])[:1]
        return following != PART and not following.isalnum()


@dataclass
class Sources:
    """The judged segments of one prompt, as they may be quoted."""

    encoder: Encoder
    prompt: Prompt
    _runs: dict[int, list[Sequence[int]]] = field(default_factory=dict)

    def quoting(self, step: Free) -> Quoting | None:
        """What holds a step to its source; None = it quotes none, or the tokenizer cannot."""
        marks = None if step.quotes is None else marks_of(self.encoder)
        if step.quotes is None or marks is None:
            return None
        if step.quotes not in self._runs:
            judged = [s.text for s in segments_of(self.prompt) if isinstance(s, Judged)]
            self._runs[step.quotes] = runs_of(self.encoder, quotable(clean(judged[step.quotes])))
        return Quoting(self.encoder, marks, self._runs[step.quotes])


def runs_of(encoder: Encoder, source: str) -> list[Sequence[int]]:
    """The ids of a text from each of its words on, as far as a quotation may reach."""
    starts = [found.start() for found in _START.finditer(source)]
    cut = ((encoder.judged(source[at : at + _REACH]), at) for at in starts)
    return [ids[:LONGEST] if at + _REACH >= len(source) else ids[:-1][:LONGEST] for ids, at in cut]
