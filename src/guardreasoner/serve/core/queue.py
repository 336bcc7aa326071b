"""The exchanges that wait for the guard, and which are judged next.

The next batch is formed around the most urgent exchange and leaves everyone else enough time: a long exchange joins
only when no short one would miss its deadline behind it. Durations are learned from what has been judged.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from guardreasoner.serve.access.limits import Overloaded
from guardreasoner.serve.core.worker import StepSink
from guardreasoner.serve.policy import Limits
from guardreasoner.types import Exchange, Mode, Task, Verdict

BASE_CHARACTERS = 400
"""Characters that cost about what an exchange costs before its first character (instruction, answer block)."""
REMEMBERED = 5
"""Batches of each mode whose time is remembered. The second slowest of them is what is expected of the next one: one
hiccup is not believed, a guard that slows down is noticed at its second slow batch."""
LEADS = 8
"""How many of the most urgent exchanges are tried as the middle of the next batch."""
BATCH_SHARE = 0.5
"""A batch takes in no more than it is expected to judge within this share of the time that its first one has left, and
of the shortest deadline that a request has unasked: several that reason must not hold up those that do not."""
ADMITTED_SHARE = 0.5
"""A request is refused when it would wait longer than this share of its deadline."""


@dataclass(eq=False, slots=True)
class QueuedExchange:
    """One exchange that waits or is being judged."""

    exchange: Exchange
    mode: Mode
    deadline: float
    future: asyncio.Future[Verdict]
    alone: bool = False
    """Its batch failed; it is tried once more by itself."""
    on_step: StepSink | None = None
    tasks: tuple[Task, ...] | None = None
    """Ask only these; None = all that make sense."""
    said: int = 0
    """Steps that `on_step` was called with."""
    since: float = field(default_factory=time.monotonic)
    characters: int = field(init=False)
    """What it costs to judge."""

    def __post_init__(self) -> None:
        self.characters = BASE_CHARACTERS + self.exchange.characters


class ExchangeQueue:
    """The queue."""

    def __init__(self, limits: Limits, shortest_s: float) -> None:
        """Args:
        limits: of the policy.
        shortest_s: the shortest deadline that a request has unasked.
        """
        self.limits, self.shortest_s = limits, shortest_s
        self.items: list[QueuedExchange] = []
        self.changed = asyncio.Event()
        self._rates: dict[Mode, float] = {}
        """Seconds per padded character of a batch that are expected, by mode."""
        self._recent: dict[Mode, deque[float]] = {}
        self._share = 0.0
        """Share of `auto` requests that escalate to reasoning."""
        self._busy_until = 0.0

    def admit(self, exchanges: int, characters: int, *, mode: Mode, deadline: float) -> None:
        """Refuse what cannot be judged in time.

        Raises:
            Overloaded: the queue is full, or the wait is too long.
        """
        now = time.monotonic()
        self._drop()  # what was answered `timeout` while the guard is being replaced waits no more
        wait = max(0.0, self._busy_until - now) + sum(self._cost(i.mode, i.characters) for i in self.items)
        own = self._cost(mode, characters) if self.items else 0.0
        if self.items and len(self.items) + exchanges > self.limits.queue:
            raise Overloaded(wait)
        if wait > 0 and (wait > ADMITTED_SHARE * (deadline - now) or wait + own > deadline - now):
            raise Overloaded(wait)

    def add(self, item: QueuedExchange) -> None:
        """Let an exchange wait."""
        self.items.append(item)
        self.changed.set()

    async def next(self) -> list[QueuedExchange]:
        """Wait for something to judge; returns a batch, which is no longer waiting."""
        while True:
            self._drop()
            if self.items:
                batch = self.items if len(self.items) == 1 else self._pick(time.monotonic())
                chosen = set(map(id, batch))
                self.items = [i for i in self.items if id(i) not in chosen]
                self._busy_until = time.monotonic() + self.estimate(batch)
                return batch
            self.changed.clear()
            await self.changed.wait()

    def learn(self, batch: Sequence[QueuedExchange], seconds: float) -> None:
        """Remember how long a batch took."""
        mode = batch[0].mode
        recent = self._recent.setdefault(mode, deque(maxlen=REMEMBERED))
        recent.append(seconds / _padded(batch))
        self._rates[mode] = sorted(recent)[-2:][0]

    def judged(self) -> None:
        """Nothing is being judged any more."""
        self._busy_until = 0.0

    def escalated(self, yes: bool) -> None:
        """Remember whether an `auto` verdict was uncertain."""
        self._share += 0.02 * (float(yes) - self._share)

    def estimate(self, batch: Sequence[QueuedExchange]) -> float:
        """Seconds that a batch takes; 0 while nothing is known."""
        return self._rates.get(batch[0].mode, 0.0) * _padded(batch)

    def seconds(self, mode: Mode, exchange: Exchange) -> float:
        """Seconds that one exchange takes by itself; 0 while nothing is known."""
        return self._rates.get(mode, 0.0) * (BASE_CHARACTERS + exchange.characters)

    def _cost(self, mode: Mode, characters: int) -> float:
        reasoning = self._share * self._rates.get("full", 0.0) if mode == "auto" else 0.0
        return (self._rates.get(mode, 0.0) + reasoning) * characters

    def _drop(self) -> None:
        now = time.monotonic()
        self.items = [i for i in self.items if not i.future.done() and i.deadline > now]

    def _pick(self, now: float) -> list[QueuedExchange]:
        ordered = sorted(self.items, key=lambda i: i.deadline)
        best: list[QueuedExchange] = []
        for lead in ordered[:LEADS]:
            batch = self._around(lead, ordered, now)
            seconds = self.estimate(batch)
            chosen = set(map(id, batch))
            others = (i for i in ordered if id(i) not in chosen)
            if all(i.deadline - now > seconds + self.seconds(i.mode, i.exchange) for i in others):
                return batch
            if not best or seconds < self.estimate(best):
                best = batch
        return best

    def _around(self, lead: QueuedExchange, ordered: Sequence[QueuedExchange], now: float) -> list[QueuedExchange]:
        """The lead and what can be judged with it: same mode, few enough, not much longer, and done well in time."""
        batch, longest = [lead], lead.characters
        if lead.alone or lead.on_step is not None:
            return batch
        rate = self._rates.get(lead.mode, 0.0)
        most = self.limits.batch_characters
        if rate > 0:
            most = min(most, int(BATCH_SHARE * min(self.shortest_s, max(0.0, lead.deadline - now)) / rate))
        for item in ordered:
            size = max(longest, item.characters)
            fits = size * (len(batch) + 1) <= most
            alike = (item.mode, item.tasks) == (lead.mode, lead.tasks)
            if item is not lead and alike and not item.alone and item.on_step is None and fits:
                batch.append(item)
                longest = size
            if len(batch) >= self.limits.batch:
                break
        return batch


def _padded(batch: Sequence[QueuedExchange]) -> int:
    return len(batch) * max(i.characters for i in batch)
