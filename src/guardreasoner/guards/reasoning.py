"""The guard that reasons: it prompts, plans, parses and calibrates, on any engine.

The passages of an exchange (`guards.pieces`) are judged, each in as many windows as it needs, and the worst decides.
`auto` judges everything in `instant`, and escalates to `full` only where a calibrated score is in its band.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import get_args

from guardreasoner.engines.base import Engine, completions
from guardreasoner.errors import ConfigError
from guardreasoner.formats import guardreasoner as wire_format
from guardreasoner.formats.guardreasoner import Wire
from guardreasoner.generation import Completion, Free, Plan, Prompt
from guardreasoner.guards.base import (
    Judging,
    checked_language,
    known_harm,
    known_mode,
    known_tasks,
    unjudged,
    validated,
)
from guardreasoner.guards.calibration import Calibration
from guardreasoner.guards.english_words import frequencies
from guardreasoner.guards.key_sentence import FirstVerdict
from guardreasoner.guards.passage_results import PassageResult, harmfulness, notes_on, status_of, why, worst_of
from guardreasoner.guards.pieces import SECOND_LOOKS, Bar, Passage, Passages, near, passages
from guardreasoner.guards.step_stream import StepSink, StepStreams, placed, step_streams, text_sink
from guardreasoner.guards.windows import MOST_WINDOWS, TOO_MANY
from guardreasoner.types import (
    SETTLED,
    TASKS,
    Exchange,
    FailMode,
    Labels,
    Mode,
    Status,
    Step,
    Task,
    Usage,
    Verdict,
)

SCAFFOLD_TOKENS = 200
"""Room kept for instruction, markers and a first look (the official instruction: about 110 tokens)."""
BLOCK_TOKENS = 24


@dataclass(frozen=True, slots=True)
class Budgets:
    """Tokens of reasoning per mode."""

    short: int = 64
    full: int = 512


class ReasoningGuard(Judging):
    """A guard that reasons before it judges."""

    tasks: tuple[Task, ...] = tuple(TASKS)
    judges_parts = True
    """Each message of a conversation is judged by itself too: callers need not cut it up."""

    def __init__(
        self,
        name: str,
        engine: Engine,
        *,
        wire: Wire = "raw",
        mode: Mode = "auto",
        fail_mode: FailMode = "closed",
        calibration: Calibration | None = None,
        budgets: Budgets | None = None,
        concludes: bool = False,
        first_look: bool = False,
        english: bool = False,
        notes: Mapping[str, object] | None = None,
    ) -> None:
        """Args:
        engine: closed by `close`.
        wire: the prompt form the model was trained on.
        calibration: None = scores are the words' own probabilities.
        budgets: tokens of reasoning.
        concludes: the model was trained to end each task with a fixed conclusion, and P is read there.
        first_look: the model was trained to read the verdict of a guard that judged first (`judge(first=...)`).
        english: it was validated on English alone: where it finds no harm in another language, that is `unread`.
        notes: said with every verdict (`wire`: a form that was assumed).
        """
        if wire not in get_args(Wire):
            raise ConfigError(f"there is no wire {wire!r}; known: {', '.join(get_args(Wire))}")
        self.name, self.engine, self.wire = name, engine, wire
        self.mode = self._checked(mode)
        self.fail_mode: FailMode = fail_mode
        self.calibration = calibration or Calibration()
        self.budgets = budgets or Budgets()
        self.concludes, self.first_look, self.english = concludes, first_look, english
        self.notes = dict(notes or {})
        frequencies()  # the word list is read now, not while the first request waits

    def judge(
        self,
        exchanges: Sequence[Exchange],
        *,
        mode: Mode | None = None,
        deadline: float | None = None,
        tasks: Collection[Task] | None = None,
        max_escalations: int | None = None,
        on_step: StepSink | None = None,
        first: Sequence[FirstVerdict] = (),
    ) -> list[Verdict]:
        """One verdict per exchange, in input order.

        Args:
            deadline: `time.monotonic()` seconds after which the rest is `timeout`.
            tasks: the only tasks that are asked; None = all that make sense.
            max_escalations: in `auto`, the most exchanges that may escalate to reasoning; the others keep their
                `instant` verdict with the note `escalation_denied`.
            on_step: hears each reasoning step as soon as it is whole, where the engine `streams`; the verdict's
                `steps` begin with what was said, unless the reasoning failed (`timeout`, `escalation_failed`, ...). An
                exchange that is judged in several pieces has its steps in the verdict only. What it raises is raised.
            first: what another guard tells about each exchange. A model that was trained for it reads what that guard
                decided, others do not see it; one that `concludes` quotes from the parts that it names, and concludes
                with the labels that stand, while this verdict's own labels and scores are the model's.
        """
        exchanges = validated(exchanges)
        mode = self._checked(mode or self.mode)
        only = known_tasks(tasks)
        first = first or [FirstVerdict()] * len(exchanges)
        if mode != "auto" or not self.engine.capabilities.force:
            return self._judge(exchanges, "full" if mode == "auto" else mode, deadline, on_step, only, first)
        verdicts = self._judge(exchanges, "instant", deadline, tasks=only)
        unsure = [i for i, v in enumerate(verdicts) if self._uncertain(v)]
        allowed = unsure if max_escalations is None else unsure[: max(0, max_escalations)]
        for i in unsure[len(allowed) :]:
            verdicts[i] = replace(verdicts[i], notes={**verdicts[i].notes, "escalation_denied": True})
        asked = [exchanges[i] for i in allowed]
        seen = [first[i] for i in allowed]
        second = self._judge(asked, "full", deadline, placed(on_step, allowed), only, seen) if asked else []
        for i, verdict in zip(allowed, second, strict=True):
            verdicts[i] = _escalated(verdicts[i], verdict)
        return verdicts

    def close(self) -> None:
        self.engine.close()

    def _checked(self, mode: Mode) -> Mode:
        if known_mode(mode) in ("instant", "short") and not self.engine.capabilities.force:
            raise ConfigError(f"engine {self.engine.name} cannot force text, so it has no mode {mode}; use full")
        return mode

    def _uncertain(self, verdict: Verdict) -> bool:
        return verdict.status in SETTLED and any(
            p is not None and self.calibration.curve(Task(t), "instant").uncertain(p) for t, p in verdict.scores.items()
        )

    def _judge(
        self,
        exchanges: Sequence[Exchange],
        mode: Mode,
        deadline: float | None,
        on_step: StepSink | None = None,
        tasks: Collection[Task] = tuple(TASKS),
        first: Sequence[FirstVerdict] = (),
    ) -> list[Verdict]:
        started = time.monotonic()
        first = first if mode != "instant" else ()  # a row on labels alone was trained without a look
        made = [self._passages(i, exchange, mode, tasks) for i, exchange in enumerate(exchanges)]
        pieces = [passage for one in made for passage in one.made]
        results: dict[int, list[PassageResult]] = {i: [] for i in range(len(exchanges))}
        can, owners = self.engine.capabilities, [p.owner for p in pieces]

        def settle(_: int, text: str) -> tuple[Step, ...]:
            return wire_format.settled(text, forced=can.force)

        with step_streams(on_step, owners, engine=can, settle=settle) as streams:
            for piece, runs in self._each(pieces, partial(self._plan, mode), deadline, streams, first):
                results[piece.owner].append(self._read(piece, runs[0], mode))
        self._look_again(results, mode, deadline)
        each = (time.monotonic() - started) * 1000 / max(1, len(exchanges))
        return [self._verdict(exchange, mode, results[i], each, made=made[i]) for i, exchange in enumerate(exchanges)]

    def _look_again(self, results: dict[int, list[PassageResult]], mode: Mode, deadline: float | None) -> None:
        """Judge pieces above the bar with their neighbours; the milder of the two results stays."""
        above: list[tuple[int, int]] = []
        for owner, found in results.items():
            for task in TASKS:
                cut = [k for k, r in enumerate(found) if r.passage.around and r.parsed.labels[task] == "harmful"]
                cut.sort(key=lambda k: -found[k].probabilities.get(task, 0.0))
                above += [(owner, k) for k in cut[:SECOND_LOOKS]]
        asked = list(dict.fromkeys(above))
        again = [near(results[owner][k].passage) for owner, k in asked]
        plan = partial(self._plan, mode)
        looks = {id(p): self._read(p, runs[0], mode) for p, runs in self._each(again, plan, deadline, {})}
        for (owner, k), passage in zip(asked, again, strict=True):
            if status_of(looks[id(passage)]) == "ok":  # a look that failed leaves the piece above the bar
                milder = min(results[owner][k], looks[id(passage)], key=harmfulness)
                results[owner][k] = replace(milder, passes=2)

    def _passages(self, owner: int, exchange: Exchange, mode: Mode, tasks: Collection[Task]) -> Passages:
        asked = tuple(t for t in exchange.tasks if t in tasks)
        return passages(
            exchange,
            asked,
            capacity=self._capacity(mode),
            limit=MOST_WINDOWS,
            offsets=self.engine.offsets,
            cut=any(self.calibration.curve(t, mode).piece for t in asked),
            apart=mode == "instant",  # where every passage would be reasoned about, the whole and the last turn are
            owner=owner,
        )

    def _capacity(self, mode: Mode) -> int:
        context = self.engine.capabilities.context_tokens or 8192
        return max(16, context - SCAFFOLD_TOKENS - BLOCK_TOKENS - self._budget(mode))

    def _budget(self, mode: Mode) -> int:
        wanted = {"short": self.budgets.short, "full": self.budgets.full}.get(mode, 0)
        context = self.engine.capabilities.context_tokens
        return wanted if context is None else min(wanted, context // 3)  # the rest is for what is judged

    def _plan(
        self, mode: Mode, tasks: tuple[Task, ...], bar: Bar | None = None, standing: Labels | None = None
    ) -> Plan:
        if not self.engine.capabilities.force:
            return (Free(self._budget(mode) + BLOCK_TOKENS),)
        margins = self._margins(mode, tasks, bar)
        if standing and self.concludes and mode != "instant":
            margins |= {t: -inf if standing[t] == TASKS[t].positive else inf for t in standing.tasks}
        budget = self._budget(mode)
        return wire_format.plan(mode, tasks, budget=budget, margins=margins, concludes=self.concludes)

    def _margins(self, mode: Mode, tasks: Sequence[Task], bar: Bar | None) -> dict[Task, float]:
        return {t: self.calibration.curve(t, mode).margin(bar) for t in tasks}

    def _each(
        self,
        pieces: Sequence[Passage],
        plan_of: Callable[[tuple[Task, ...], Bar | None, Labels], Plan],
        deadline: float | None,
        streams: StepStreams,
        first: Sequence[FirstVerdict] = (),
    ) -> Iterator[tuple[Passage, list[Completion]]]:
        """What the engine writes for each passage; those that share a plan share a call."""
        plans = [(p.tasks, p.bar, first[p.owner].standing if first else Labels()) for p in pieces]
        for asked in dict.fromkeys(plans):
            group = [p for p, plan in zip(pieces, plans, strict=True) if plan == asked]
            runs = self._runs(group, plan_of(*asked), deadline, streams, first)
            yield from zip(group, runs, strict=True)

    def _runs(
        self,
        pieces: Sequence[Passage],
        plan: Plan,
        deadline: float | None,
        streams: StepStreams,
        first: Sequence[FirstVerdict],
    ) -> list[list[Completion]]:
        prompts = [self._prompt(p, first[p.owner] if first else FirstVerdict()) for p in pieces]
        hear = text_sink(streams, [p.owner for p in pieces]) if streams else None

        def raises(error: Exception) -> bool:
            return any(stream.error is error for stream in streams.values())

        return completions(self.engine, prompts, plan, deadline, raises=raises, on_text=hear)

    def _prompt(self, passage: Passage, first: FirstVerdict) -> Prompt:
        look = wire_format.first_look(first.verdict) if self.first_look and first.verdict is not None else ""
        return wire_format.render(passage.exchange, self.wire, look, first.parts)

    def _read(self, passage: Passage, completion: Completion, mode: Mode) -> PassageResult:
        if self.concludes and mode != "instant":
            margins = self._margins(mode, passage.tasks, passage.bar)
            completion = wire_format.concluded(completion, passage.tasks, margins)
        parsed = wire_format.parse(completion.text)
        scored = {}
        if completion.complete and len(completion.choices) == len(passage.tasks):
            for task, choice in zip(passage.tasks, completion.choices, strict=True):
                positive, negative = choice[f" {TASKS[task].positive}"], choice[f" {TASKS[task].negative}"]
                curve = self.calibration.curve(task, mode)
                scored[task] = curve.moved(curve.probability(positive - negative), passage.bar)
        return PassageResult(passage, completion, parsed, scored)

    def _verdict(
        self, exchange: Exchange, mode: Mode, results: Sequence[PassageResult], latency_ms: float, *, made: Passages
    ) -> Verdict:
        usage = Usage(
            sum(r.completion.prompt_tokens for r in results),
            sum(r.completion.completion_tokens for r in results),
            latency_ms,
            sum(r.passes for r in results),
        )
        blank = Verdict(exchange.id, self.name, mode, "ok", usage=usage)
        read = [r for r in results if status_of(r) == "ok"]
        broken = next((r for r in results if status_of(r) != "ok"), None)
        if broken is None and made.complete:
            verdict = self._decided(blank, exchange, read)
            return checked_language(verdict, exchange, made.read, self.fail_mode) if self.english else verdict
        status: Status = "input_too_long" if broken is None else status_of(broken)
        harmful = [r for r in read if r.parsed.labels.harmful]
        if harmful:  # known harm decides, even if the rest could not be judged
            return known_harm(self._decided(blank, exchange, harmful), status)
        notes = self.notes | notes_on(exchange, results)
        if broken is None:
            return unjudged(replace(blank, notes=notes), status, TOO_MANY, self.fail_mode)
        shown = replace(blank, text=broken.completion.text, steps=broken.parsed.steps, notes=notes)
        return unjudged(shown, status, broken.completion.error or why(broken), self.fail_mode)

    def _decided(self, blank: Verdict, exchange: Exchange, results: Sequence[PassageResult]) -> Verdict:
        asked = tuple(t for t in exchange.tasks if any(t in r.passage.tasks for r in results))
        worst = {t: worst_of(t, [r for r in results if t in r.passage.tasks]) for t in asked}
        labels = Labels.of({t: r.parsed.labels[t] for t, r in worst.items()})
        scores = {t.value: worst[t].probabilities.get(t) if t in worst else None for t in TASKS}
        first = Task.response_harm if labels.response_harm == "harmful" else Task.prompt_harm
        main = worst.get(first) or next(iter(worst.values()))
        steps, text = main.parsed.steps, main.completion.text
        if silent := [
            s for t, r in worst.items() if t not in main.passage.tasks for s in r.parsed.steps if s.task == t
        ]:
            steps = (*steps, *silent)  # of an earlier message or a part only its own tasks are asked
            text = wire_format.answer(wire_format.reasoning_text(steps), labels)
        return replace(
            blank,
            labels=labels,
            scores=scores,
            calibrated=all(self.calibration.covers(t, blank.mode) for t in asked),
            harm=next((r.parsed.harm for r in worst.values() if r.parsed.harm), None) if labels.harmful else None,
            flagged=labels.harmful,
            steps=steps,
            text=text,
            notes=self.notes | notes_on(exchange, results, labels=labels, shown=main),
        )


def _escalated(first: Verdict, second: Verdict) -> Verdict:
    usage = first.usage + second.usage
    if second.status not in SETTLED:  # the reasoning failed, the instant verdict did not: keep what was judged
        note = {"escalation_failed": second.status}
        return replace(first, usage=usage, notes={**first.notes, **note})
    return replace(second, usage=usage)
