"""Judging a reply while it is being written: overlapping windows over the text so far; unjudged text is held back.

Text is released once a window that ends after it has passed. `ahead` = n lets up to n characters out before they are
judged: the most that can escape before a cut. The default is 0.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from guardreasoner.serve.policy import Proxy
from guardreasoner.types import Verdict

MOST_SPANS = 2
"""Of one window, however many places say something in it: its cost has a bound."""
Look = Callable[[str], Awaitable[Verdict]]
"""Judges one window of a reply."""


@dataclass(slots=True)
class HeldReply:
    """One reply (choice) of a stream."""

    settings: Proxy
    texts: dict[str, str] = field(default_factory=dict)
    """Place (a field, a tool call) -> what was said there so far: each is judged as the client will read it, not mixed
    with the others."""
    length: int = 0
    """Characters said in all places."""
    judged: int = 0
    """Characters, in the order of their arrival, up to which windows have passed."""
    waiting: list[tuple[int, bool, Any]] = field(default_factory=list)
    """Pieces not yet released: length of the text at their end, whether they end the reply, the piece."""
    verdict: Verdict | None = None
    """The last window's."""
    cut: bool = False
    sent: bool = False
    """Something that was said has gone out."""
    finished: bool = False
    """The upstream said that the reply is complete."""

    _runs: deque[tuple[int, int, str, int]] = field(default_factory=deque)
    """What is not judged yet: where it begins and ends in the order of arrival, its place, and where it ends there."""

    def add(self, texts: Mapping[str, str], piece: Any, ends: bool = False) -> None:
        """Take in a piece and what it says, by place; `ends` = the upstream says that the reply is complete."""
        for place, text in texts.items():
            self.texts[place] = self.texts.get(place, "") + text
            self._runs.append((self.length, self.length + len(text), place, len(self.texts[place])))
            self.length += len(text)
        self.finished = self.finished or ends
        self.waiting.append((self.length, ends, piece))

    def due(self, finished: bool) -> bool:
        """Whether a window should be judged now."""
        behind = self.length - self.judged
        return not self.cut and behind > 0 and (finished or behind >= self.settings.stride)

    async def advance(self, look: Look, stops: Callable[[Verdict], bool]) -> None:
        """Judge the next window; `cut` is set when it must be stopped."""
        end, text = self._window(min(self.length, max(self.judged + self.settings.stride, self._reach())))
        self.verdict = await look(text)
        if stops(self.verdict):
            self.cut = True
            return
        self.judged = end
        while self._runs and self._runs[0][1] <= end:
            self._runs.popleft()

    def _window(self, end: int) -> tuple[int, str]:
        """What is new up to a position, of each place the newest `span` characters, and that position: an earlier one
        where so many places would make more than `MOST_SPANS` spans."""
        span, ends = self.settings.span, dict[str, int]()
        for begin, stop, place, there in self._runs:
            longer = {**ends, place: there - max(0, stop - end)}
            if begin >= end or sum(min(at, span) for at in longer.values()) > MOST_SPANS * span:
                end = min(begin, end)
                break
            ends = longer
        return end, "\n".join(self.texts[place][max(0, at - span) : at] for place, at in ends.items())

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
        self.sent = self.sent or any(length for length, _, _ in self.waiting[:free])
        del self.waiting[:free]
        return pieces

    def _reach(self) -> int:
        """As far as one window can go and still overlap what is judged by half of itself."""
        half = self.settings.span // 2
        return self.settings.span if self.judged == 0 else self.judged + half
