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
from guardreasoner.plans import QUOTES, Judged, Prompt, quotable, segments_of

LONGEST = 40
"""Tokens of a quotation."""
_REACH = 6 * LONGEST
"""Characters that hold so many tokens."""
PART = "\ufffd"
"""What a token that is a part of a character is shown as."""
_START = re.compile(r"(?<!\w)\w")
_QUOTED = re.compile(f"{QUOTES[0]}[^{QUOTES[1]}]*{QUOTES[1]}?")


@dataclass(frozen=True)
class QuoteTokens:
    """The tokens of one tokenizer that hold a quotation mark, or a part of a character."""

    opening: frozenset[int]
    """They end in an opening mark."""
    closing: frozenset[int]
    """They begin with a closing mark."""
    others: frozenset[int]
    """With a mark in another place, or in parts."""
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
        found = QuoteTokens(opening, closing, frozenset(held) - opening - closing, alone[1][0]) if held else None
        _MARKS[encoder] = found
    return _MARKS[encoder]


def sources_of(prompt: Prompt) -> list[str]:
    """The judged segments of a prompt, as they may be quoted."""
    return [quotable(clean(s.text)) for s in segments_of(prompt) if isinstance(s, Judged)]


def unquoted(text: str) -> str:
    """A text of the same length without what its quotations hold."""
    return _QUOTED.sub(lambda found: "\0" * len(found[0]), text)


@dataclass
class Quoting:
    """The quotations of one text that is being sampled."""

    encoder: Encoder
    marks: QuoteTokens
    source: str
    """What is quoted."""
    runs: list[Sequence[int]] = field(default_factory=list)
    """Ids of the source from each of its words on."""
    open: bool = False
    _live: list[Sequence[int]] = field(default_factory=list)
    """Those runs that begin as the open quotation does."""
    _written: int = 0

    def __post_init__(self) -> None:
        starts = [found.start() for found in _START.finditer(self.source)]
        cut = ((self.encoder.judged(self.source[at : at + _REACH]), at) for at in starts)
        self.runs = [ids[:LONGEST] if at + _REACH >= len(self.source) else ids[:-1][:LONGEST] for ids, at in cut]

    def allowed(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of the next token: what cannot follow has none."""
        if not self.open:
            barred = self.marks.closing | self.marks.others
            kept = logits.copy()
            kept[list(barred)] = -np.inf
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


def quoting_of(encoder: Encoder, source: str) -> Quoting | None:
    """What holds a text to quoting this source; None = the tokenizer cannot."""
    marks = marks_of(encoder)
    return Quoting(encoder, marks, source) if marks else None
