"""Limits on what callers spend, and a cache of what was already judged."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from guardreasoner.serve.policy import ReasoningBudget

V = TypeVar("V")
Clock = Callable[[], float]


class Allowance:
    """An allowance that refills evenly and holds at most one span's worth."""

    def __init__(self, amount: int | None, seconds: float, clock: Clock = time.monotonic) -> None:
        self.amount, self.seconds, self.clock = amount, seconds, clock
        self._left = float(amount or 0)
        self._at = clock()

    def left(self) -> float:
        """What may be spent now."""
        if self.amount is None:
            return float("inf")
        now = self.clock()
        self._left = min(self.amount, self._left + (now - self._at) * self.amount / self.seconds)
        self._at = now
        return self._left

    def spend(self, count: int = 1) -> None:
        """Take some."""
        self._left -= count


class Escalations:
    """Reasoning passes that callers may cause, per key and in total."""

    def __init__(self, budget: ReasoningBudget, clock: Clock = time.monotonic) -> None:
        self.budget, self.clock = budget, clock
        self._total = Allowance(budget.total, budget.seconds, clock)
        self._keys: dict[str, Allowance] = {}

    def take(self, key: str, count: int = 1) -> bool:
        """Spend some of this key's and of everyone's, or nothing."""
        own = self._keys.setdefault(key, Allowance(self.budget.per_key, self.budget.seconds, self.clock))
        if own.left() < count or self._total.left() < count:
            return False
        own.spend(count)
        self._total.spend(count)
        return True


class RecentEntries(Generic[V]):
    """The newest entries, each for a limited time. `entries` 0 = nothing is kept."""

    def __init__(self, entries: int, ttl_s: float, clock: Clock = time.monotonic) -> None:
        self.entries, self.ttl_s, self.clock = entries, ttl_s, clock
        self._kept: OrderedDict[Hashable, tuple[float, V]] = OrderedDict()

    def get(self, key: Hashable) -> V | None:
        """What was put under a key, while it lasts."""
        found = self._kept.get(key)
        if found is None or found[0] < self.clock():
            return None
        self._kept.move_to_end(key)
        return found[1]

    def put(self, key: Hashable, value: V) -> None:
        """Keep a value, in place of the oldest one when there is no room."""
        if self.entries:
            self._kept[key] = (self.clock() + self.ttl_s, value)
            self._kept.move_to_end(key)
            while len(self._kept) > self.entries:
                self._kept.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)
