"""The contract of every guard: exchange in, verdict out."""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol, Self, SupportsFloat, runtime_checkable

from guardreasoner.data.messages import as_exchange
from guardreasoner.data.rows import plain
from guardreasoner.errors import DataError, GuardReasonerError, UnknownName
from guardreasoner.guards.language import UNREAD, unread
from guardreasoner.records import dumps, kind_of
from guardreasoner.types import (
    MODES,
    STATUSES,
    TASKS,
    Exchange,
    FailMode,
    Labels,
    Message,
    Mode,
    Status,
    Step,
    Task,
    Usage,
    Verdict,
)  # fmt: skip

ROUNDING = 1e-6
"""By how much a probability may miss 0 or 1."""


@runtime_checkable
class Guard(Protocol):
    """Judges exchanges. `Judging` brings everything but `judge`; use it as a context manager, or call `close`."""

    name: str
    """What verdicts are signed with."""
    tasks: tuple[Task, ...]
    """The tasks this guard answers."""

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """One verdict per exchange, in input order; a failure is a verdict whose `status` says so."""
        ...

    async def ajudge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """The same for callers with an event loop."""
        ...

    def check(self, prompt: str, response: str | None = None) -> Verdict:
        """One verdict on one request and, if given, its reply."""
        ...

    async def acheck(self, prompt: str, response: str | None = None) -> Verdict:
        """The same for callers with an event loop."""
        ...

    def check_messages(self, messages: Sequence[Mapping[str, Any]]) -> Verdict:
        """One verdict on the last request of a chat, and the reply if one follows it."""
        ...

    async def acheck_messages(self, messages: Sequence[Mapping[str, Any]]) -> Verdict:
        """The same for callers with an event loop."""
        ...

    def stream(self, prompt: str, response: str | None = None) -> Iterator[Step | Verdict]:
        """The reasoning step by step, while it is written, and then the verdict."""
        ...

    def close(self) -> None:
        """Give back memory and connections; safe to call twice."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class Judging:
    """Everything that a guard does, in terms of `judge`: derive a guard of your own from it."""

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """One verdict per exchange, in input order; a failure is a verdict whose `status` says so."""
        raise NotImplementedError

    async def ajudge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """As `judge`, in a thread, for callers with an event loop."""
        import asyncio

        return await asyncio.to_thread(self.judge, exchanges)

    def check(self, prompt: str, response: str | None = None) -> Verdict:
        """One verdict on one request and, if given, its reply.

        Raises:
            DataError: both are empty, or one is no text.
        """
        return self.judge([_exchange(prompt, response)])[0]

    async def acheck(self, prompt: str, response: str | None = None) -> Verdict:
        """As `check`, for callers with an event loop."""
        return (await self.ajudge([_exchange(prompt, response)]))[0]

    def check_messages(self, messages: Sequence[Mapping[str, Any]]) -> Verdict:
        """One verdict on the last request of a chat, and the reply if one follows it.

        Args:
            messages: OpenAI messages. Earlier turns, instructions, tool calls and tool results are judged with the
                last request, as its context.

        Raises:
            DataError: it is no list of messages, there is no text in it, or it holds what cannot be judged (an image).
        """
        return self.judge([as_exchange(messages, "check")])[0]

    async def acheck_messages(self, messages: Sequence[Mapping[str, Any]]) -> Verdict:
        """As `check_messages`, for callers with an event loop."""
        return (await self.ajudge([as_exchange(messages, "check")]))[0]

    def stream(self, prompt: str, response: str | None = None) -> Iterator[Step | Verdict]:
        """The reasoning step by step, while it is written, and then the verdict.

        A guard that cannot say its steps early gives them all at the end. To stop early, close the iterator.

        Raises:
            DataError: as `check`.
        """
        exchange = _exchange(prompt, response)
        if "on_step" in inspect.signature(self.judge).parameters:
            return _streamed(self, exchange)
        verdict = self.judge([exchange])[0]
        return iter([*verdict.steps, verdict])

    def close(self) -> None:
        """Give back memory and connections; safe to call twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


MEANT = {"fast": "instant", "quick": "instant", "slow": "full", "deep": "full", "reason": "full", "reasoning": "full"}
"""What people call a mode -> its name."""


def known_mode(mode: Mode) -> Mode:
    """The mode, if there is one of that name."""
    if mode not in MODES:
        raise UnknownName("mode", str(mode), MODES, MEANT)
    return mode


def _exchange(prompt: Any, response: Any) -> Exchange:
    if isinstance(prompt, list | tuple):
        raise DataError("a list where a request is wanted; for a list of messages call check_messages", field="prompt")
    if prompt is None:
        raise DataError("None where a text is wanted; to judge a reply alone, give an empty request", field="prompt")
    exchange = Exchange("check", prompt, response)
    validate(exchange)
    return exchange


class _Stopped(Exception):
    """The caller has stopped iterating."""


def _streamed(guard: Judging, exchange: Exchange) -> Iterator[Step | Verdict]:
    said: SimpleQueue[Step | Verdict | BaseException] = SimpleQueue()
    stopped = False

    def say(_: int, step: Step) -> None:
        if stopped:
            raise _Stopped
        said.put(step)

    def run() -> None:
        try:
            said.put(guard.judge([exchange], on_step=say)[0])  # type: ignore[call-arg]
        except BaseException as error:
            said.put(error)

    Thread(target=run, daemon=True).start()
    count = 0
    try:
        while not isinstance(item := said.get(), Verdict):
            if isinstance(item, BaseException):
                raise item
            count += 1
            yield item
        yield from item.steps[count:]
        yield item
    finally:
        stopped = True


def validate(exchange: Exchange) -> None:
    """Refuse an exchange in which there is nothing to judge.

    Raises:
        DataError: both texts are empty, one is no text, or it is no exchange at all.
    """
    if not isinstance(exchange, Exchange):
        raise DataError(f"judge takes a list of Exchange objects, not a {kind_of(exchange)}")
    for name, text in (("prompt", exchange.prompt), ("response", exchange.response)):
        if not isinstance(text, str) and not (text is None and name == "response"):
            raise DataError(f"a {kind_of(text)} where a text is wanted", field=name)
    if not exchange.prompt and not exchange.response:
        raise DataError("both prompt and response are empty; give at least one of them", field="prompt")
    for place, message in enumerate(exchange.context):
        if not isinstance(message, Message):
            raise DataError(f"a {kind_of(message)} where a Message is wanted", field=f"context[{place}]")


def validated(exchanges: Iterable[Exchange]) -> list[Exchange]:
    """What `judge` is given, as a list: a generator can be read only once, and would be lost after that."""
    if isinstance(exchanges, Exchange | str) or not isinstance(exchanges, Iterable):
        raise DataError(f"judge takes a list of Exchange objects, not a {kind_of(exchanges)}")
    found = list(exchanges)
    for exchange in found:
        validate(exchange)
    return found


def known_tasks(tasks: Collection[str] | None) -> tuple[Task, ...]:
    """The tasks that `judge` is asked; None = all. A wrong name is refused: it would never be judged."""
    wrong = [t for t in ([tasks] if isinstance(tasks, str) else tasks or ()) if t not in TASKS]
    if wrong:
        raise UnknownName("task", str(wrong[0]), (t.value for t in TASKS))
    return tuple(TASKS) if tasks is None else (Task(tasks),) if isinstance(tasks, str) else tuple(map(Task, tasks))


def judge_all(guard: Guard, exchanges: Sequence[Exchange]) -> list[Verdict]:
    """The verdicts of any guard, checked: one row that breaks a guard takes no other with it, and none is lost.

    Raises:
        GuardReasonerError: the guard as a whole failed, or answered with other verdicts than it was asked for.
    """
    try:
        verdicts = guard.judge(exchanges) if exchanges else []
    except GuardReasonerError:
        raise
    except Exception as error:
        if len(exchanges) > 1:
            return [verdict for exchange in exchanges for verdict in judge_all(guard, [exchange])]
        blank, died = Verdict(exchanges[0].id, guard.name, "", "ok"), f"the guard died ({type(error).__name__})"
        return [unjudged(blank, "unavailable", died, fail_mode_of(guard))]
    if [v.exchange_id for v in verdicts] != [e.id for e in exchanges]:
        raise GuardReasonerError(
            f"guard {guard.name} broke its contract: {len(verdicts)} verdicts for {len(exchanges)} exchanges, "
            "or in another order; judge() must answer each exchange once, by id, in input order"
        )
    return [sound(verdict, guard) for verdict in verdicts]


def fail_mode_of(guard: Guard) -> FailMode:
    """What becomes of what a guard could not judge; `closed` where it does not say."""
    return "open" if getattr(guard, "fail_mode", "closed") == "open" else "closed"


def sound(verdict: Verdict, guard: Guard) -> Verdict:
    """A verdict that everything behind a guard can rely on, whoever wrote the guard: every number of a verdict that
    holds labels is a probability, all three tasks have a score or None, and JSON can hold it."""
    scores = {t.value: verdict.scores.get(t.value) for t in TASKS}
    if verdict.status not in STATUSES:
        problem = "the guard gave a status that does not exist"
    elif not all(map(_probability, (*scores.values(), *verdict.kinds.values(), verdict.attack))):
        problem = "the guard gave a score that is no probability"
    else:
        return replace(verdict, scores=scores, notes=_notes(verdict.notes), usage=_usage(verdict.usage))
    blank = replace(verdict, labels=Labels(), scores=dict.fromkeys(scores), kinds={}, attack=None, notes={})
    return unjudged(replace(blank, usage=_usage(verdict.usage)), "unparsed", problem, fail_mode_of(guard))


def _probability(value: Any) -> bool:
    if value is None or isinstance(value, bool) or not isinstance(value, SupportsFloat):
        return value is None
    return -ROUNDING <= float(value) <= 1 + ROUNDING


def _notes(notes: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        dumps(notes)
    except (ValueError, TypeError):
        return {name: plain(value, name) for name, value in notes.items()}
    return notes


def _usage(usage: Usage) -> Usage:
    return usage if math.isfinite(usage.latency_ms) else replace(usage, latency_ms=0.0)


def unjudged(verdict: Verdict, status: Status, error: str | None, fail_mode: FailMode) -> Verdict:
    """The verdict of an exchange that could not be judged: flagged under `closed`, let through, marked, under `open`.

    What is too long is flagged under both: `open` is for outages, and who writes a text chooses its length.

    Args:
        verdict: whatever is known besides (id, guard, mode, text, usage).
        status: why there is no judgement; not `ok`.
    """
    fail_mode = "closed" if status == "input_too_long" else fail_mode
    return replace(verdict, status=status, error=error, fail_mode=fail_mode, flagged=fail_mode == "closed")


def checked_language(verdict: Verdict, written: Exchange, read: Exchange, fail_mode: FailMode) -> Verdict:
    """The verdict of a guard that was validated on English alone: `unread` where the exchange holds something else.

    Args:
        verdict: its labels stay, and harm that was found stays flagged.
        written: the exchange as it was given.
        read: the same with exact disguises undone.
    """
    reason = unread(written, read)
    if reason is None:
        return verdict
    made = unjudged(verdict, "unread", UNREAD[reason], fail_mode)
    return replace(made, flagged=made.flagged or verdict.flagged, notes={**verdict.notes, "language": reason})


def known_harm(verdict: Verdict, status: Status) -> Verdict:
    """What is left of a verdict on a text of which a part was not judged: the harm that was found decides.

    Args:
        verdict: finds harm.
        status: why the rest was not judged; a task in which no harm was found has no label then.
    """
    harmful = {t: label for t in TASKS if (label := verdict.labels[t]) == "harmful"}
    scores = {t.value: verdict.scores[t.value] if t in harmful else None for t in TASKS}
    return replace(
        verdict, labels=Labels.of(harmful), scores=scores, flagged=True, notes={**verdict.notes, "unread": status}
    )


@dataclass(frozen=True, slots=True)
class GuardRow:
    """One line of the guard table: everything that tells one guard from another."""

    name: str
    """Lower case with hyphens."""
    format: str
    """Answer format: a module of `formats`, or `` for guards that are code (`constant`)."""
    engine: str
    """The engine it runs on unless another is asked for: onnx, hf, vllm, openai, ..."""
    model: str
    """Hub id, folder, or the provider's model name."""
    revision: str | None = None
    """Pinned commit of the hub repository."""
    tasks: tuple[Task, ...] = tuple(TASKS)
    options: Mapping[str, Any] = field(default_factory=dict)
    """What the format needs to know (`wire`, `variant`, `max_tokens`, ...)."""
    key: str | None = None
    """Environment variable that holds the API key."""
    gated: bool = False
    """The weights ask for a licence to be accepted on the hub."""
    licence: str = ""
    retired: str | None = None
    """Date on which the provider took it down."""
    unreleased: str = ""
    """Why its weights cannot be had yet; empty = they can."""
    current: str = ""
    """The provider's present model in a retired one's place."""
    confirmed: bool = True
    """Whether the prompt's bytes were compared with its owner's; `guardreasoner guards` says so where not."""
    note: str = ""
    """What a reader of the table must know (`bytes unconfirmed`, contamination, ...)."""
