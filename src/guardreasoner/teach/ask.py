"""Asking a teacher for many examples at once: in flight up to a limit, paced, paid for, and resumable.

Every answer is written to `answers.jsonl` the moment it arrives and read from there after a kill, so a call whose
answer had reached us is never made again; at most the calls in flight are.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from guardreasoner.errors import ConfigError, EngineError, GuardReasonerError
from guardreasoner.records import Appender, from_dict
from guardreasoner.teach.cost import ANSWER_TOKENS, STEP_TOKENS, Budget, budget_of, forecast_line, worst_case
from guardreasoner.teach.pace import Pace
from guardreasoner.teach.question import Answer, Messages, Reject, next_move
from guardreasoner.teach.synthesize import Desk, SynthesizeConfig
from guardreasoner.teach.teachers import PROVIDERS, Busy, EngineTeacher, HttpTeacher, Reply, Teacher
from guardreasoner.types import Example

TRIES = 8
"""Tries of one call whose failure may pass: a minute in all."""
LIMITED_TRIES = 60
"""Tries of a call that the server sends back because of its rate limit, with the wait that it asks for in between."""
BACKOFF_S = 0.5
"""First wait between tries; it doubles, up to a minute, and varies by half."""
SUSPECT = 10
"""So many first answers that are all refused by the server mean that the recipe is wrong, not the examples."""


def load_teacher(config: SynthesizeConfig) -> Teacher:
    """The teacher that a configuration names.

    Raises:
        ConfigError: key or address are missing or wrong.
        MissingDependency: its extra is not installed.
        EngineError: local weights cannot be loaded.
    """
    provider = config.teacher.removesuffix("-batch")
    if provider in PROVIDERS:
        return HttpTeacher(
            PROVIDERS[provider],
            config.model,
            base_url=config.base_url,
            key=config.key,
            options=config.options,
            concurrency=config.concurrency,
        )
    from guardreasoner.engines.load import load_engine

    return EngineTeacher(load_engine(config.teacher, model=config.model, **config.options))


@dataclass
class Asking:
    """One run's state: what was answered, what it cost, what is in flight."""

    config: SynthesizeConfig
    teacher: Teacher
    desk: Desk
    answers: Appender
    kept: dict[str, list[Answer]]
    budget: Budget
    pace: Pace
    freed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever a call has ended."""
    in_flight: int = 0
    stopped: bool = False
    """The cap left no room for another call."""
    usable: int = 0
    """Traces of this run."""
    proven: bool = False
    """An earlier run had usable answers."""
    invalid: int = 0
    """Requests that the server did not take."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    calls: int = 0

    def keep(self, answer: Answer) -> None:
        """An answer has reached us: it is on file before anything else happens."""
        self.answers.append(answer)
        self.count(answer)
        self.kept.setdefault(answer.id, []).append(answer)

    def count(self, answer: Answer) -> None:
        """Add an answer to the totals."""
        self.calls += 1
        self.prompt_tokens += answer.prompt_tokens
        self.completion_tokens += answer.completion_tokens

    async def example(self, example: Example) -> None:
        """One example to its trace or reject; returns without one only where the cap was reached."""
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
                self.desk.settle(move)
                self.kept.pop(id_, None)
                return
            reply = await self._paid(move)
            if reply is None:
                return
            attempt = len(self.kept.get(id_, ())) + 1
            tokens = (reply.prompt_tokens, reply.completion_tokens)
            self.keep(Answer(id_, attempt, reply.text, reply.finish, *tokens))
            self._suspect(reply)

    def _suspect(self, reply: Reply) -> None:
        self.invalid += reply.finish == "invalid"
        if self.invalid >= SUSPECT and not self.usable and not self.proven:
            raise EngineError(
                f"the server took none of {self.invalid} requests (HTTP 400): check synthesize.model and "
                "synthesize.options against what it accepts"
            )

    async def _paid(self, messages: Messages) -> Reply | None:
        """The reply to a question, with its worst case set aside meanwhile; None = the cap leaves no room."""
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

    async def _tried(self, messages: Messages) -> Reply:
        """Ask until there is an answer, a bounded number of times."""
        tokens = sum(len(m["content"]) for m in messages) / 4 + ANSWER_TOKENS + 6 * STEP_TOKENS
        attempt = 0
        while True:
            attempt += 1
            await self.pace.turn(tokens)
            try:
                reply = await self.teacher.ask(
                    messages,
                    max_tokens=self.config.max_tokens,
                    temperature=self.config.temperature,
                    timeout_s=self.config.timeout_s,
                )
            except EngineError as error:
                if not error.retryable:
                    raise
                if attempt >= (LIMITED_TRIES if isinstance(error, Busy) and error.limited else TRIES):
                    raise type(error)(
                        f"{error}, {attempt} times in a row; the same command goes on from here"
                    ) from None
                await self._rest(error, attempt)
            else:
                self.pace.learn(reply.headers)
                return reply

    async def _rest(self, error: EngineError, attempt: int) -> None:
        wait = min(60.0, BACKOFF_S * 2 ** (attempt - 1)) * random.uniform(0.5, 1.5)
        asked = error.wait_s if isinstance(error, Busy) else None
        if asked:
            self.pace.hold(min(asked, 120.0))
        await asyncio.sleep(wait)


async def teach(
    examples: Sequence[Example],
    config: SynthesizeConfig,
    desk: Desk,
    *,
    folder: Path,
    teacher: Teacher | None,
    quiet: bool,
) -> dict[str, Any]:
    """Ask about every example that has no trace and no reject yet; returns what the manifest says of it.

    Raises:
        ConfigError: the cost cap was reached; what is done is kept.
        EngineError: the server refuses the key or does not answer any more; what is done is kept.
    """
    budget = budget_of(config)
    with Appender(folder / "answers.jsonl") as answers:
        state = _state(config, teacher or load_teacher(config), desk, answers=answers, budget=budget)
        todo = [e for e in examples if e.exchange.id not in desk.done]
        if not quiet and todo:
            print(forecast_line(todo, config), file=sys.stderr)
        try:
            async with _progress(state, len(examples), len(todo), quiet=quiet):
                if config.teacher == "openai-batch" and teacher is None:
                    from guardreasoner.teach.batch import run_batches

                    await run_batches(state, todo, folder)
                else:
                    await _workers(state, todo)
        finally:
            await state.teacher.close()
    left = sum(1 for e in examples if e.exchange.id not in desk.done)
    if left:
        raise ConfigError(
            f"the cost cap of ${config.max_cost:,.2f} is reached with {left:,} of {len(examples):,} examples to go "
            f"(${budget.spent:,.4f} spent); raise synthesize.max_cost and run the same command to go on"
        )
    return {
        "calls": state.calls,
        "prompt_tokens": state.prompt_tokens,
        "completion_tokens": state.completion_tokens,
        "dollars": round(budget.spent, 6),
    }


def _state(config: SynthesizeConfig, teacher: Teacher, desk: Desk, *, answers: Appender, budget: Budget) -> Asking:
    """A run's state, with the answers of earlier runs read back and paid for."""
    pace = Pace(config.requests_per_minute, config.tokens_per_minute)
    state = Asking(config, teacher, desk, answers, {}, budget, pace)
    for row in answers.existing:
        answer = from_dict(Answer, row)
        state.count(answer)
        if answer.id not in desk.done:
            state.kept.setdefault(answer.id, []).append(answer)
    budget.spent = budget.cost(state.prompt_tokens, state.completion_tokens)
    state.proven = any(row.get("reasoning") for row in desk.traces.existing)
    return state


async def _workers(state: Asking, todo: Sequence[Example]) -> None:
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


@asynccontextmanager
async def _progress(state: Asking, total: int, todo: int, *, quiet: bool) -> AsyncIterator[None]:
    """Rate, cost and time left on stderr while the body runs."""
    bar = Progress(
        TextColumn("synthesize"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]} · {task.fields[cost]} · {task.fields[rejects]} rejected"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=quiet,
    )
    done = total - todo
    before = len(state.desk.done)
    with bar:
        task = bar.add_task("synthesize", total=total, completed=done, rate="", cost="", rejects=0)

        def show() -> None:
            made = len(state.desk.done) - before
            elapsed = bar.tasks[0].elapsed or 0.0
            rate = f"{made / elapsed:,.1f}/s" if elapsed else "-"
            rejects = made - state.usable
            bar.update(task, completed=done + made, rate=rate, cost=f"${state.budget.spent:,.2f}", rejects=rejects)

        async def tick() -> None:
            while True:
                show()
                await asyncio.sleep(0.5)

        ticking = asyncio.create_task(tick())
        try:
            yield
        finally:
            ticking.cancel()
            show()
