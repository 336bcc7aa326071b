"""Quotations in reasoning: what a model writes between `QUOTES` is a part of the judged text, word for word.

It takes a tokenizer that has both marks as tokens, as those of Llama 3 and SmolLM2 do; with another nothing is held to.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from guardreasoner.engines.encoding import Encoder, clean
from guardreasoner.plans import QUOTES, Judged, Prompt, quotable, segments_of

CANDIDATES = 64
"""Likeliest tokens among which one that goes on with a quotation is looked for first."""


def within_quotation(logits: NDArray[np.float32], quoted: str, source: str, encoder: Encoder) -> NDArray[np.float32]:
    """NDArray[np.float32] of those tokens only that go on with a quotation of whole words, or end it.

    Args:
        logits: of the next token.
        quoted: what the quotation holds so far, a part of the source.
        source: what is quoted.
        encoder: shows tokens.
    """
    places = [m.start() + len(quoted) for m in re.finditer(re.escape(quoted), source)] if quoted else []
    starts = [m.start() for m in re.finditer(r"(?<!\w)\w", source)]
    ends = any(not source[at : at + 1].isalnum() for at in places)
    kept = np.full_like(logits, -np.inf)
    for count in (min(CANDIDATES, len(logits)), len(logits)):
        for token in np.argpartition(-logits, count - 1)[:count]:
            piece = encoder.shown(int(token))
            if piece.startswith(QUOTES[1]):
                allowed = ends
            else:
                allowed = bool(piece) and any(source.startswith(piece, at) for at in (places if quoted else starts))
            if allowed:
                kept[token] = logits[token]
        if np.isfinite(kept.max()):
            return kept
    kept[encoder.continuation(QUOTES[1])[0]] = 0.0
    return kept


def sources_of(prompt: Prompt) -> list[str]:
    """The judged segments of a prompt, as they may be quoted."""
    return [quotable(clean(s.text)) for s in segments_of(prompt) if isinstance(s, Judged)]


def open_quotation(encoder: Encoder, ids: Sequence[int]) -> str | None:
    """What a quotation at the end of a text holds so far; None = none is open there."""
    if any(len(encoder.continuation(mark)) > 1 for mark in QUOTES):
        return None
    text = encoder.decode(ids)
    at = text.rfind(QUOTES[0])
    return text[at + 1 :] if at > text.rfind(QUOTES[1]) else None
