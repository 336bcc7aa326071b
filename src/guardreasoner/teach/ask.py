"""Ask a teacher about many examples at once: a bounded number in flight, paced, paid for, and resumable.

Every answer is written to `answers.jsonl` as soon as it arrives. A run that was killed reads that file first and
repeats only the calls that were in flight.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from guardreasoner.engines.http import CallFailed, retried
from guardreasoner.errors import EngineError, EngineOverloaded, GuardReasonerError
from guardreasoner.records import Appender
from guardreasoner.teach.config import SynthesizeConfig
from guardreasoner.teach.cost import ANSWER_TOKENS, STEP_TOKENS, CostBudget, worst_case
from guardreasoner.teach.pace import Pace
from guardreasoner.teach.question import Messages, Reject, TeacherAnswer, next_move
from guardreasoner.teach.teachers import Teacher, TeacherReply
from guardreasoner.types import Example, Trace

RETRIES = 7
"""Retries of a call that failed for a passing reason: about a minute in all."""
LIMITED_RETRIES = 59
"""Retries of a call over the rate limit; each waits as long as the server asks."""
BACKOFF_S = 0.5
"""First wait between tries; it doubles, with jitter."""
SUSPECT = 10
"""When the server rejects this many first requests, the recipe is wrong, not the examples."""


@dataclass
class Outputs:
    """The files of a run and what is already in them."""

    traces: Appender
    rejects: Appender
    done: set[str]
    """Ids with a trace or a reject."""

    def settle(self, result: Trace | Reject) -> None:
        """Write an example's trace or reject."""
        if isinstance(result, Trace):
            self.done.add(result.example.exchange.id)
            self.traces.append(result)
        else:
            self.done.add(result.id)
            self.rejects.append(result)


@dataclass
class TeacherRun:
    """The state of a run: answers so far, money spent, calls in flight."""

    config: SynthesizeConfig
    teacher: Teacher
    outputs: Outputs
    answers: Appender
    kept: dict[str, list[TeacherAnswer]]
    budget: CostBudget
    pace: Pace
    freed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever a call has ended."""
    in_flight: int = 0
    stopped: bool = False
    """The cap has no room for another call."""
    usable: int = 0
    """Traces of this run."""
    proven: bool = False
    """An earlier run had usable answers."""
    invalid: int = 0
    """Requests that the server rejected."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    calls: int = 0

    def keep(self, answer: TeacherAnswer) -> None:
        """Store an answer on disk, then count it."""
        self.answers.append(answer)
        self.count(answer)
        self.kept.setdefault(answer.id, []).append(answer)

    def count(self, answer: TeacherAnswer) -> None:
        """Add an answer to the totals."""
        self.calls += 1
        self.prompt_tokens += answer.prompt_tokens
        self.completion_tokens += answer.completion_tokens

    async def example(self, example: Example) -> None:
        """Ask about one example until it has a trace or a reject, or the cost cap is reached."""
        id_ = example.exchange.id
        while not self.stopped:
            move = next_move(
                example,
                self.kept.get(id_, ()),
                teacher=self.teacher.name,
                attempts=self.config.attempts,
                unlabelled=self.config.unlabelled,
            )
            if not isinstance(move, list):
                self.usable += not isinstance(move, Reject)
                self.outputs.settle(move)
                self.kept.pop(id_, None)
                return
            reply = await self._paid(move)
            if reply is None:
                return
            attempt = len(self.kept.get(id_, ())) + 1
            tokens = (reply.prompt_tokens, reply.completion_tokens)
            self.keep(TeacherAnswer(id_, attempt, reply.text, reply.finish, *tokens))
            self._suspect(reply)

    def _suspect(self, reply: TeacherReply) -> None:
        self.invalid += reply.finish == "invalid"
        if self.invalid >= SUSPECT and not self.usable and not self.proven:
            raise EngineError(
                f"the server took none of {self.invalid} requests (HTTP 400): check synthesize.model and "
                "synthesize.options against what it accepts"
            )

    async def _paid(self, messages: Messages) -> TeacherReply | None:
        """The reply to a question; its worst-case cost is reserved meanwhile. None = the cap has no room for it."""
        amount = worst_case(messages, self.config, self.budget)
        while not self.budget.reserve(amount):
            if not self.in_flight:
                self.stopped = True
            if self.stopped:
                return None
            self.freed.clear()
            await self.freed.wait()
        self.in_flight += 1
        spent = amount  # a call that dies on the way may have been billed
        try:
            reply = await self._tried(messages)
            spent = self.budget.cost(reply.prompt_tokens, reply.completion_tokens)
            return reply
        finally:
            self.in_flight -= 1
            self.budget.settle(amount, spent)
            self.freed.set()

    async def _tried(self, messages: Messages) -> TeacherReply:
        """Ask until there is an answer, a bounded number of times."""
        tokens = sum(len(m["content"]) for m in messages) / 4 + ANSWER_TOKENS + 6 * STEP_TOKENS
        config = self.config

        async def call() -> TeacherReply:
            await self.pace.turn(tokens)
            try:
                reply = await self.teacher.ask(
                    messages,
                    max_tokens=config.max_tokens,
                    temperature=config.temperature,
                    timeout_s=config.timeout_s,
                )
            except CallFailed as failed:
                self.pace.hold(min(failed.wait_s, 120.0))
                raise
            self.pace.learn(reply.headers)
            return reply

        try:
            return await retried(call, retries=RETRIES, backoff_s=BACKOFF_S, limited_retries=LIMITED_RETRIES)
        except EngineError as error:
            if error.retryable:
                raise EngineOverloaded(f"{error}, still after retries; the same command goes on from here") from None
            raise


async def ask_all(state: TeacherRun, todo: Sequence[Example]) -> None:
    """Ask about every example, `config.concurrency` at a time, until all are settled or the cost cap is reached."""
    queue: Iterator[Example] = iter(todo)

    async def work() -> None:
        for example in queue:
            await state.example(example)
            if state.stopped:
                return

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(state.config.concurrency, len(todo))):
                group.create_task(work())
    except* GuardReasonerError as group_of:
        raise _first(group_of) from None


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
