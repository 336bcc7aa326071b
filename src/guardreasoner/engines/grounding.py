"""Real quotations: inside “ ” a model may write only words of the prompt's judged text, in their order.

A small model learns the form of a quotation long before it learns to copy. Where a plan asks for grounded text, the
tokens that would leave every occurrence of the quotation so far are taken out before sampling; the model still chooses
what to quote. It needs a tokenizer in which the quotation marks are tokens of their own (WordPiece).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

OPEN, CLOSE = "“", "”"
LONGEST = 8
"""Tokens of a quotation; the longest there may be is closed."""
SHORTEST = 3
"""Letters of the word that a quotation begins with, where the text has such a word."""


def parts(prompt: Sequence[int], markers: Collection[int]) -> list[list[int]]:
    """The runs of a prompt's ids between markers: the request first, the reply last."""
    runs: list[list[int]] = [[]]
    for token in prompt:
        if token in markers:
            runs.append([])
        else:
            runs[-1].append(token)
    return [run for run in runs if run]


class Quotes:
    """The quotations that one text allows."""

    def __init__(
        self, text: Sequence[int], *, mark: tuple[int, int], inside: Collection[int], starts: Collection[int]
    ) -> None:
        """Args:
        text: ids of what may be quoted.
        mark: ids of the opening and of the closing quotation mark; they are never quoted themselves.
        inside: ids that go on with a word (`##ing`).
        starts: ids worth beginning with; any word where the text has none of them.
        """
        self.open, self.close = mark
        self.ids = [-1 if i in mark else i for i in text]
        self.inside = inside
        words = {i for i in self.ids if i >= 0 and i not in inside}
        self.first = sorted(words & set(starts) or words)

    def allowed(self, written: Sequence[int]) -> list[int] | None:
        """The ids that may come next after what has been written; None = any."""
        opened = next((k for k in range(len(written) - 1, -1, -1) if written[k] in (self.open, self.close)), None)
        if opened is None or written[opened] == self.close:
            return None
        quoted = list(written[opened + 1 :])
        if not quoted:
            return self.first or None
        size = len(quoted)
        ends = [k + size for k in range(len(self.ids) - size + 1) if self.ids[k : k + size] == quoted]
        follow = {self.ids[e] if e < len(self.ids) else -1 for e in ends}
        going_on = {i for i in follow if i >= 0 and (size < LONGEST or i in self.inside)}
        whole = any(i not in self.inside for i in follow)
        return sorted(going_on | ({self.close} if whole or not going_on else set()))


def only(logits: NDArray[np.float32], allowed: Sequence[int]) -> NDArray[np.float32]:
    """Logits in which every other id is impossible."""
    masked = np.full_like(logits, -np.inf)
    masked[list(allowed)] = logits[list(allowed)]
    return masked
