"""Judging a reply while it is being written: overlapping windows over the text so far; unjudged text is held back.

Text is released once a window that ends after it has passed. `ahead` = n lets up to n characters out before they are
judged: the most that can escape before a cut. The default is 0.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from guardreasoner.serve.policy import Proxy
from guardreasoner.types import Verdict

Look = Callable[[str], Awaitable[Verdict]]
"""Judges one window of a reply."""


@dataclass(slots=True)
class Held:
    """One reply (choice) of a stream."""

    settings: Proxy
    text: str = ""
    judged: int = 0
    """Characters up to which windows have passed."""
    waiting: list[tuple[int, bool, Any]] = field(default_factory=list)
    """Pieces not yet released: length of the text at their end, whether they end the reply, the piece."""
    verdict: Verdict | None = None
    """The last window's."""
    cut: bool = False
    finished: bool = False
    """The upstream said that the reply is complete."""

    def add(self, text: str, piece: Any, ends: bool = False) -> None:
        """Take in a piece and the text it carries; `ends` = the upstream says that the reply is complete."""
        self.text += text
        self.finished = self.finished or ends
        self.waiting.append((len(self.text), ends, piece))

    def due(self, finished: bool) -> bool:
        """Whether a window should be judged now."""
        behind = len(self.text) - self.judged
        return not self.cut and behind > 0 and (finished or behind >= self.settings.stride)

    async def advance(self, look: Look, stops: Callable[[Verdict], bool]) -> None:
        """Judge the next window; `cut` is set when it must be stopped."""
        end = min(len(self.text), max(self.judged + self.settings.stride, self._reach()))
        self.verdict = await look(self.text[max(0, end - self.settings.span) : end])
        if stops(self.verdict):
            self.cut = True
        else:
            self.judged = end

    def release(self) -> list[Any]:
        """The pieces that may go out now; the end of a reply never goes ahead of its verdict."""
        ahead = 0 if self.cut else self.settings.ahead
        free = 0
        while free < len(self.waiting):
            length, ends, _ = self.waiting[free]
            if length > self.judged + (0 if ends else ahead):
                break
            free += 1
        pieces = [piece for _, _, piece in self.waiting[:free]]
        del self.waiting[:free]
        return pieces

    def _reach(self) -> int:
        """As far as one window can go and still overlap what is judged by half of itself."""
        half = self.settings.span // 2
        return self.settings.span if self.judged == 0 else self.judged + half
