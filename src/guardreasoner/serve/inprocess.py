"""A guard in the caller's own process, under the server's policy: deadline, fail mode, decision."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from guardreasoner.errors import GuardReasonerError
from guardreasoner.guards.base import Guard, sound
from guardreasoner.guards.load import load_guard
from guardreasoner.serve.decide import decide
from guardreasoner.serve.policy import Rules
from guardreasoner.types import Exchange, Verdict

T = TypeVar("T")
log = logging.getLogger("guardreasoner.integrations")


class InProcess:
    """Judges for an integration. A failure of the guard is a verdict, never an exception."""

    def __init__(self, guard: Guard | str, rules: Rules) -> None:
        """Args:
        guard: a guard, or a name for `load_guard`.
        rules: what is done with its verdicts.
        """
        self.rules = rules
        self.guard = load_guard(guard, mode=rules.mode, fail_mode=rules.fail_mode) if isinstance(guard, str) else guard
        known = inspect.signature(self.guard.judge).parameters
        self.options = frozenset(known) & {"mode", "deadline"}
        self.lone = not getattr(self.guard, "judges_parts", False)
        """Whether the guard must be asked about parts by themselves."""

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """Decided verdicts, in order."""
        verdicts = self._judge(exchanges, time.monotonic() + self.rules.deadline())
        return [decide(v, self.rules, e.characters) for v, e in zip(verdicts, exchanges, strict=True)]

    def _judge(self, exchanges: Sequence[Exchange], deadline: float) -> list[Verdict]:
        """Verdicts; where the guard fails on several exchanges at once, each is tried by itself."""
        given = {"mode": self.rules.mode, "deadline": deadline}
        try:
            verdicts = self.guard.judge(exchanges, **{k: v for k, v in given.items() if k in self.options})
        except Exception as error:
            if len(exchanges) > 1:
                return [v for e in exchanges for v in self._judge([e], deadline)]
            why = str(error) if isinstance(error, GuardReasonerError) else f"the guard failed ({type(error).__name__})"
            return [self._failed(exchanges[0], why)]
        if [v.exchange_id for v in verdicts] != [e.id for e in exchanges]:
            return [self._failed(e, "the guard's answers do not match what it was asked") for e in exchanges]
        return [sound(verdict, self.guard) for verdict in verdicts]

    async def ajudge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """The same, in a thread."""
        return await asyncio.to_thread(self.judge, exchanges)

    async def judge_at_once(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """The same for `at_once`: a coroutine that never waits."""
        return self.judge(exchanges)

    def count_unread(self, number: int) -> None:
        """Say that something passed unread under fail mode `open`."""
        log.warning("%d part(s) of a message passed without being judged (fail mode open)", number)

    def _failed(self, exchange: Exchange, why: str) -> Verdict:
        return Verdict(exchange.id, self.guard.name, self.rules.mode, "unavailable", error=why)


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits, without an event loop.

    Raises:
        RuntimeError: it does wait.
    """
    try:
        work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    work.close()
    raise RuntimeError("this coroutine waits for something; run it in an event loop")
