"""Rate limits: requests and tokens per minute, learned from a server's headers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product

from guardreasoner.engines.http import seconds

FORMS = ("x-ratelimit-{part}-{what}", "anthropic-ratelimit-{what}-{part}")
"""How servers name their headers: what is limited (requests, tokens), and the limit, the remainder or the reset."""


@dataclass
class RateLimit:
    """A rate per minute; unused allowance is kept for up to a minute."""

    per_minute: float | None = None
    """None = no limit is known."""
    level: float = 0.0
    at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.level = self.per_minute or 0.0

    def wait(self, amount: float) -> float:
        """Seconds until this amount is available; an amount above a minute's allowance waits for the full allowance."""
        if self.per_minute is None:
            return 0.0
        now = time.monotonic()
        self.level = min(self.per_minute, self.level + (now - self.at) * self.per_minute / 60)
        self.at = now
        return max(0.0, min(amount, self.per_minute) - self.level) * 60 / self.per_minute

    def learn(self, limit: float, remaining: float, reset_s: float | None, ceiling: float | None) -> None:
        """Adopt the server's numbers; a reset far in the future means that the limit is not per minute."""
        rate = limit
        if reset_s and remaining < limit:
            rate = min(limit, max((limit - remaining) / reset_s * 60, 1.0))
            rate = limit if rate > limit / 2 else rate
        rate = rate if ceiling is None else min(rate, ceiling)
        if self.per_minute is None:
            self.level, self.at = min(remaining, rate), time.monotonic()
        self.per_minute = rate
        self.level = min(self.level, remaining)


class Pace:
    """Lets calls through in order, as fast as the limits allow."""

    def __init__(self, requests_per_minute: float | None = None, tokens_per_minute: float | None = None) -> None:
        self._ceilings = {"requests": requests_per_minute, "tokens": tokens_per_minute}
        self._buckets = {name: RateLimit(limit) for name, limit in self._ceilings.items()}
        self._held_until = 0.0
        self._turn = asyncio.Lock()

    async def turn(self, tokens: float) -> None:
        """Wait until a call of this many tokens may start."""
        async with self._turn:
            amounts = {"requests": 1.0, "tokens": tokens}
            while True:
                held = self._held_until - time.monotonic()
                wait = max([held, *(b.wait(amounts[n]) for n, b in self._buckets.items())])
                if wait <= 0:
                    break
                await asyncio.sleep(min(wait, 5.0))
            for name, bucket in self._buckets.items():
                bucket.level -= min(amounts[name], bucket.per_minute or 0.0)

    def learn(self, headers: Mapping[str, str]) -> None:
        """Read a reply's headers (names in lower case); unknown forms are ignored."""
        for form, (what, bucket) in product(FORMS, self._buckets.items()):
            limit, left, reset = (
                headers.get(form.format(what=what, part=p), "") for p in ("limit", "remaining", "reset")
            )
            try:
                most, rest = float(limit), float(left)
            except ValueError:
                continue
            if most > 0:
                bucket.learn(most, rest, seconds(reset), self._ceilings[what])

    def hold(self, wait_s: float) -> None:
        """Let no call through for this long."""
        self._held_until = max(self._held_until, time.monotonic() + wait_s)
