"""One `judge` behind every wire format: admission, batching, deadline, cascade, budget, cache, policy, metrics.

Every admitted exchange gets a verdict no later than its deadline: judged, or one whose `status` says why not and whose
`fail_mode` says what was done about it.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from guardreasoner.formats.guardreasoner import VERSION
from guardreasoner.serve.access.limits import Overloaded, Refused
from guardreasoner.serve.access.log import log_judged
from guardreasoner.serve.access.prometheus import Metrics
from guardreasoner.serve.access.spans import configured, span
from guardreasoner.serve.core.budget import Escalations, RecentEntries
from guardreasoner.serve.core.frames import JudgeJob
from guardreasoner.serve.core.queue import BASE_CHARACTERS, ExchangeQueue, QueuedExchange
from guardreasoner.serve.core.worker import GuardBroken, StepSink, Worker, ended
from guardreasoner.serve.decide import decide
from guardreasoner.serve.policy import REASONING, ROUTES, Policy, Route, Rules
from guardreasoner.types import MODES, SETTLED, Exchange, Mode, Status, Step, Task, Usage, Verdict

HELD_SHARE = 0.75
"""No batch holds the guard longer than this share of a deadline, so that what comes behind it still has time."""
UNTRACED = nullcontext()
NOT_KEPT = frozenset(("escalation_denied", "escalation_failed"))
"""Notes on a verdict that another try might better: it is not put into the cache."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, on which wire, and how."""

    route: Route
    key: str
    """Name of the key's holder."""
    mode: Mode | None = None
    """None = the route's own."""
    deadline_s: float | None = None
    """Seconds from its arrival; never more than the route's own."""
    arrived: float | None = None
    """`time.monotonic()` seconds; None = now."""
    tasks: tuple[Task, ...] | None = None
    """Ask only these, where the guard can leave the others out; None = all that make sense."""
    actions: set[str] = field(default_factory=set)
    """What was decided for it so far, for the log."""


class Core:
    """The guard, and everything between it and the wires."""

    def __init__(self, worker: Worker, policy: Policy, metrics: Metrics) -> None:
        self.worker, self.policy, self.metrics = worker, policy, metrics
        self.budget = Escalations(policy.budget)
        self.cache: RecentEntries[Verdict] = RecentEntries(policy.cache.entries, policy.cache.ttl_s)
        self.draining = False
        self.traced = False
        self._rules = {route: policy.rules(route) for route in ROUTES}
        every = self._rules.values()
        self._hold = {mode: HELD_SHARE * max(rules.deadline(mode) for rules in every) for mode in MODES}
        self.waiting = ExchangeQueue(policy.limits, min(rules.deadline() for rules in every))
        metrics.queue.set_function(lambda: len(self.waiting.items))
        self._numbers = itertools.count(1)
        self._task: asyncio.Task[None] | None = None
        self._starts = 0

    @property
    def ready(self) -> bool:
        """Whether new work is welcome."""
        return self.worker.ready and not self.draining

    def start(self) -> None:
        """Start the guard and the loop that feeds it."""
        self.traced = configured()
        self.worker.start()
        self._task = asyncio.create_task(self._feed())

    async def close(self) -> None:
        """Stop; what still waits is `unavailable`."""
        await ended(self._task)
        await self.worker.close()

    async def judge(self, exchanges: Sequence[Exchange], ask: Caller, on_step: StepSink | None = None) -> list[Verdict]:
        """One decided verdict per exchange, in order, before the deadline.

        Raises:
            Refused: too many or too long exchanges, a budget is spent, or (429) too much is waiting.
        """
        rules = self._rules[ask.route]
        started = time.monotonic()
        mode = ask.mode or rules.mode
        longest = rules.deadline(mode)
        deadline = (ask.arrived or started) + min(ask.deadline_s or longest, longest)
        characters = self._check(exchanges)
        self.waiting.admit(len(exchanges), characters, mode=mode, deadline=deadline)
        self._pay(len(exchanges), rules, ask)
        with self._span(ask.route, len(exchanges)):
            made = [self._one(e, mode, deadline, ask, _numbered(on_step, i)) for i, e in enumerate(exchanges)]
            verdicts = [await made[0]] if len(made) == 1 else await asyncio.gather(*made)
        seconds = time.monotonic() - started
        decided = [self._decided(v, e, rules, ask) for v, e in zip(verdicts, exchanges, strict=True)]
        for verdict in decided:
            self.metrics.verdict(verdict, ask.route, seconds)
        if self.policy.log_text:
            log_judged(exchanges, decided, ask.route, ask.key)
        return decided

    async def judge_all(self, exchanges: Sequence[Exchange], ask: Caller) -> list[Verdict]:
        """As `judge`, for any number of exchanges: in portions of `limits.items`, each with a deadline of its own.

        Portions come one after the other, so that a long conversation does not push others out of the queue.
        """
        size = self.policy.limits.items
        decided: list[Verdict] = []
        for start in range(0, len(exchanges), size):
            decided += await self.judge(exchanges[start : start + size], ask)
            ask = replace(ask, arrived=None)
        return decided

    def _decided(self, verdict: Verdict, exchange: Exchange, rules: Rules, ask: Caller) -> Verdict:
        """What the rules make of a verdict; a deadline or mode of the caller's own makes no rule weaker."""
        hurried = ask.deadline_s is not None and ask.deadline_s < rules.deadline(ask.mode)
        if hurried or ask.mode not in (None, rules.mode):
            rules = rules.model_copy(update={"fail_mode": "closed", "too_long": "block"})
        decided = decide(verdict, rules, exchange.characters)
        ask.actions.add(decided.notes["action"])
        return decided

    def _span(self, route: Route, exchanges: int) -> AbstractContextManager[Any]:
        if not self.traced:
            return UNTRACED
        return span("judge", {"guardreasoner.route": route, "guardreasoner.exchanges": exchanges})

    async def settle(self, exchanges: Sequence[Exchange], ask: Caller) -> list[Verdict]:
        """As `judge`, in the middle of something: overload is a verdict here, not a refusal."""
        try:
            return await self.judge(exchanges, ask)
        except Refused as error:
            status: Status = "overloaded" if isinstance(error, Overloaded) else "input_too_long"
            rules, why = self._rules[ask.route], error.message
            verdicts = [self._unjudged(e, ask.mode or rules.mode, status, why) for e in exchanges]
            decided = [self._decided(v, e, rules, ask) for v, e in zip(verdicts, exchanges, strict=True)]
            for verdict in decided:
                self.metrics.verdict(verdict, ask.route, 0.0)
            return decided

    def _check(self, exchanges: Sequence[Exchange]) -> int:
        """What the exchanges cost to judge, in characters."""
        limits, total = self.policy.limits, 0
        if len(exchanges) > limits.items:
            raise Refused(413, f"more than {limits.items} exchanges in one request", "too_many_items")
        for exchange in exchanges:
            characters = exchange.characters
            total += BASE_CHARACTERS + characters
            if characters > limits.characters:
                raise Refused(413, f"an exchange holds more than {limits.characters} characters", "text_too_long")
            if not exchange.prompt and not exchange.response:
                raise Refused(400, "both prompt and response are empty; give at least one of them", "empty")
        return total

    def _pay(self, count: int, rules: Rules, ask: Caller) -> None:
        """Reasoning that the caller asks for beyond the route's own mode is paid like an escalation."""
        if ask.mode in REASONING and rules.mode not in REASONING and not self.budget.take(ask.key, count):
            raise Overloaded(self.policy.budget.seconds, "the budget of reasoning passes is spent; use mode auto")

    async def _one(
        self, exchange: Exchange, mode: Mode, deadline: float, ask: Caller, on_step: StepSink | None
    ) -> Verdict:
        if self._starts != self.worker.starts:  # another process may hold other weights
            self.cache.clear()
            self._starts = self.worker.starts
        if not self.cache.entries:
            return await self._cascade(exchange, mode, deadline, ask, on_step)
        place = self._place(exchange, mode, ask)
        if (known := self.cache.get(place)) is not None:
            self.metrics.cache.labels("hit").inc()
            return replace(known, exchange_id=exchange.id, notes={**known.notes, "cached": True}, usage=Usage())
        verdict = await self._cascade(exchange, mode, deadline, ask, on_step)
        self.metrics.cache.labels("miss").inc()
        if verdict.status in SETTLED and not NOT_KEPT & verdict.notes.keys():
            self.cache.put(place, verdict)
        return verdict

    def _place(self, exchange: Exchange, mode: Mode, ask: Caller) -> Hashable:
        content = replace(exchange, id="", source="")
        return (ask.key, ask.tasks, self.worker.name, self.worker.starts, mode, self.policy.digest, VERSION, content)

    async def _cascade(
        self, exchange: Exchange, mode: Mode, deadline: float, ask: Caller, on_step: StepSink | None
    ) -> Verdict:
        """`auto` is the guard's `auto` without escalation, then `full` as a turn of its own: sure ones go first."""
        first = await self._ask(exchange, mode, deadline, ask.tasks, on_step)
        if mode != "auto":
            return first
        unsure = bool(first.notes.get("escalation_denied"))
        self.waiting.escalated(unsure)
        if not unsure:
            return first
        denied = self._denied(exchange, deadline, ask.key)
        self.metrics.escalations.labels(denied or "granted").inc()
        if denied:
            return replace(first, notes={**first.notes, "escalation_denied": denied})
        notes = {k: v for k, v in first.notes.items() if k != "escalation_denied"}
        second = await self._ask(exchange, "full", deadline, ask.tasks, on_step)
        usage = first.usage + second.usage
        if second.status not in SETTLED:  # the reasoning failed, the instant verdict did not: keep what was judged
            return replace(first, usage=usage, notes={**notes, "escalation_failed": second.status})
        return replace(second, usage=usage)

    def _denied(self, exchange: Exchange, deadline: float, key: str) -> str | None:
        if deadline - time.monotonic() < self.waiting.seconds("full", exchange):
            return "deadline"
        return None if self.budget.take(key) else "budget"

    async def _ask(
        self,
        exchange: Exchange,
        mode: Mode,
        deadline: float,
        tasks: tuple[Task, ...] | None,
        on_step: StepSink | None,
    ) -> Verdict:
        loop = asyncio.get_running_loop()
        item = QueuedExchange(exchange, mode, deadline, loop.create_future(), on_step=on_step, tasks=tasks)
        self.waiting.add(item)
        timer = loop.call_later(max(0.0, deadline - time.monotonic()), self._late, item)
        try:
            return await item.future
        except GuardBroken as error:
            return self._unjudged(exchange, mode, "unavailable", str(error))
        except asyncio.CancelledError:
            self.metrics.cancelled.inc()
            raise
        finally:
            timer.cancel()
            item.future.cancel()

    def _late(self, item: QueuedExchange) -> None:
        if item.future.done():
            return
        status: Status = "timeout" if self.worker.loaded.is_set() else "unavailable"
        why = "the guard is still being loaded"
        if status == "timeout":
            again = "" if self.worker.ready else "; it is being loaded again"
            why = f"the deadline passed before the guard answered{again}"
        item.future.set_result(self._unjudged(item.exchange, item.mode, status, why))

    def _unjudged(self, exchange: Exchange, mode: Mode, status: Status, why: str) -> Verdict:
        return Verdict(exchange.id, self.worker.name, mode, status, error=why)

    async def _feed(self) -> None:
        while True:
            await self.worker.free()
            batch = await self.waiting.next()
            if not self.worker.ready:  # it died while nothing was waiting
                self.waiting.items[:0] = batch
                continue
            await self._run(batch)

    async def _run(self, batch: Sequence[QueuedExchange]) -> None:
        began = time.monotonic()
        mode = batch[0].mode
        deadline = min(max(i.deadline for i in batch), began + self._hold[mode])
        exchanges, steps = tuple(i.exchange for i in batch), batch[0].on_step is not None
        job = JudgeJob(next(self._numbers), exchanges, mode, deadline, steps, batch[0].tasks)
        if job.steps:  # it is alone; when it has an answer or its caller has left, no more steps are wanted
            batch[0].future.add_done_callback(lambda _: self.worker.call_off(job))
        try:
            self.worker.hand_over(job, lambda verdicts: self._answer(batch, verdicts), _unsaid(batch[0]))
            self.metrics.handed_over(mode, [began - item.since for item in batch])  # while the guard works
            ended = await self.worker.answered(job)
        except GuardBroken as error:
            self._failed(batch, error)
            return
        self.metrics.of(self.metrics.seconds, mode, "judge").observe(ended - began)
        self.waiting.learn(batch, time.monotonic() - began)

    def _answer(self, batch: Sequence[QueuedExchange], verdicts: Sequence[Verdict]) -> None:
        """Wake who waits for these; but where more is waiting, the guard gets that before any answer is written."""
        self.waiting.judged()  # who is woken may ask for more at once
        if self.waiting.items:
            asyncio.get_running_loop().call_soon(_resolve, batch, verdicts)
        else:
            _resolve(batch, verdicts)

    def _failed(self, batch: Sequence[QueuedExchange], error: GuardBroken) -> None:
        """One exchange must not take its neighbours down: each of a failed batch is tried once more by itself."""
        self.waiting.judged()
        for item in batch:
            if item.future.done():
                continue
            if item.alone:
                item.future.set_exception(error)
            else:
                item.alone = True
                self.waiting.add(item)


def _resolve(batch: Sequence[QueuedExchange], verdicts: Sequence[Verdict]) -> None:
    for item, verdict in zip(batch, verdicts, strict=True):
        if not item.future.done():
            item.future.set_result(verdict)


def _numbered(on_step: StepSink | None, number: int) -> StepSink | None:
    return None if on_step is None else lambda _, step: on_step(number, step)


def _unsaid(item: QueuedExchange) -> StepSink | None:
    """Where the steps of one try go: what an earlier try has said is not said again."""
    on_step, before, heard = item.on_step, item.said, itertools.count()
    if on_step is None:
        return None

    def hear(index: int, step: Step) -> None:
        if next(heard) >= before:
            item.said += 1
            on_step(index, step)

    return hear
