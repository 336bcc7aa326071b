"""Other people's guards: a row of the table, a format, an engine.

One exchange may need several calls (a task at a time, a policy at a time). All calls that follow one plan, of all
exchanges, go to the engine together; then each exchange's answers are combined: it is harmful if any call says so, its
score is the greatest, and it has no label if a call about it could not be read and none was positive. What does not fit
in the model's context is judged in windows, as by our own guard; a refusal must then be one in every window.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from guardreasoner.engines.base import Engine, completions
from guardreasoner.errors import PlanUnsupported
from guardreasoner.formats.base import Call, Parsed, format_of, label
from guardreasoner.generation import NOT_FINITE, Completion, Free, Scaffold, Text, segments_of
from guardreasoner.guards.base import GuardRow, Judging, known_mode, unjudged, validated
from guardreasoner.guards.calibration import Calibration
from guardreasoner.guards.windows import MOST_WINDOWS, TOO_MANY, windows
from guardreasoner.metrics import logit
from guardreasoner.ranges import build
from guardreasoner.types import TASKS, Exchange, FailMode, Labels, Mode, Status, Task, Usage, Verdict

SPARE_TOKENS = 8
"""Room for tokens that split differently at the edges of judged text."""


@dataclass(frozen=True, slots=True)
class _CallResult:
    """One call, its completion and what was read from it."""

    call: Call
    completion: Completion
    parsed: Parsed


class PromptedGuard(Judging):
    """A guard with its own prompt and its own answer format."""

    def __init__(
        self,
        row: GuardRow,
        engine: Engine,
        *,
        mode: Mode = "auto",
        fail_mode: FailMode = "closed",
        calibration: Calibration | None = None,
        notes: Mapping[str, object] | None = None,
    ) -> None:
        """Args:
        row: its `options` are the format's own, with every frame read.
        engine: closed by `close`.
        mode: `full` lets the model write freely where it could be scored; the others score it where the engine can.
        calibration: None = scores are those that the family defines.
        notes: said with every verdict (`frame`: a prompt text that is not the pinned one).
        """
        self.name, self.row, self.engine = row.name, row, engine
        self.format = format_of(row.format)
        self.options = build(self.format.Options, row.options, row.name)
        own_policy = bool(row.options.get("policy"))
        self.tasks = tuple(t for t in row.tasks if not (own_policy and t is Task.refusal))
        """A policy of the user's own says what is harmful, not what is a refusal."""
        self.mode = known_mode(mode)
        self.fail_mode: FailMode = fail_mode
        self._force = engine.capabilities.force
        self._scaffold: dict[bool, int] = {}
        self.calibration = calibration or Calibration()
        self.notes = dict(notes or {})

    def judge(
        self,
        exchanges: Sequence[Exchange],
        *,
        mode: Mode | None = None,
        deadline: float | None = None,
    ) -> list[Verdict]:
        """One verdict per exchange, in input order.

        Args:
            deadline: `time.monotonic()` seconds after which the rest is `timeout`.
        """
        exchanges = validated(exchanges)
        started = time.monotonic()
        force = self._force and (mode or self.mode) != "full"
        try:
            pieces, calls, completions = self._ask(exchanges, force, deadline)
        except PlanUnsupported:
            if not force:
                raise
            self._force = False  # a chat server that can force text only where it knows the model's template
            pieces, calls, completions = self._ask(exchanges, False, deadline)
        answers: list[list[_CallResult]] = [[] for _ in exchanges]
        for (i, call), completion in zip(calls, completions, strict=True):
            answers[i].append(_CallResult(call, completion, self.format.parse(call, completion, self.options)))
        each = (time.monotonic() - started) * 1000 / max(1, len(exchanges))
        return [self._verdict(e, p, a, each) for e, p, a in zip(exchanges, pieces, answers, strict=True)]

    def close(self) -> None:
        self.engine.close()

    def _ask(
        self, exchanges: Sequence[Exchange], force: bool, deadline: float | None
    ) -> tuple[list[list[Exchange] | None], list[tuple[int, Call]], list[Completion]]:
        """The windows of each exchange, all calls with the exchange they are about, and what came back."""
        pieces = [self._pieces(exchange, force) for exchange in exchanges]
        windowed = [(i, piece) for i, made in enumerate(pieces) for piece in made or ()]
        calls = [(i, call) for i, piece in windowed for call in self._calls(piece, force)]
        return pieces, calls, self._run([call for _, call in calls], deadline)

    def _calls(self, exchange: Exchange, force: bool) -> list[Call]:
        tasks = tuple(t for t in exchange.tasks if t in self.tasks)
        return self.format.render(exchange, tasks, self.options, force=force)

    def _pieces(self, exchange: Exchange, force: bool) -> list[Exchange] | None:
        """The exchange, or the windows that fit in the model's context; None = it needs too many."""
        context = self.engine.capabilities.context_tokens
        if context is None:
            return [exchange]
        if force not in self._scaffold:
            self._scaffold[force] = self._scaffold_tokens(force)
        return windows(exchange, max(16, context - self._scaffold[force]), MOST_WINDOWS, self.engine.offsets)

    def _scaffold_tokens(self, force: bool) -> int:
        """Tokens of a prompt and its answer that are not judged text, at most."""
        longest = 0
        for call in self._calls(Exchange("", "a", "a"), force):
            ours = [s.text for s in segments_of(call.prompt) if isinstance(s, Scaffold)]
            count = getattr(getattr(self.engine, "tokenizer", None), "encode", None)
            prompt = len(count(call.prompt).ids) if count else sum(len(self.engine.offsets(t)) for t in ours)
            said = [
                s.text if isinstance(s, Text) else max(s.words, key=len) for s in call.plan if not isinstance(s, Free)
            ]
            answer = sum(len(self.engine.offsets(t)) + 1 for t in said)
            longest = max(longest, prompt + answer + sum(s.max_tokens for s in call.plan if isinstance(s, Free)))
        return longest + SPARE_TOKENS

    def _run(self, calls: Sequence[Call], deadline: float | None) -> list[Completion]:
        groups: dict[tuple[Any, ...], list[int]] = {}
        for i, call in enumerate(calls):
            groups.setdefault(tuple(call.plan), []).append(i)
        done: dict[int, Completion] = {}
        for plan, members in groups.items():
            prompts = [calls[i].prompt for i in members]
            rows = completions(self.engine, prompts, plan, deadline, raises=lambda e: isinstance(e, PlanUnsupported))
            done |= {i: row[0] for i, row in zip(members, rows, strict=True)}
        return [done[i] for i in range(len(calls))]

    def _verdict(
        self, exchange: Exchange, pieces: Sequence[Exchange] | None, answers: Sequence[_CallResult], latency_ms: float
    ) -> Verdict:
        free = any(a.call.plan and isinstance(a.call.plan[0], Free) for a in answers)
        mode = "full" if free else "instant"
        usage = Usage(
            sum(a.completion.prompt_tokens for a in answers),
            sum(a.completion.completion_tokens for a in answers),
            latency_ms,
            len(answers),
        )
        blank = Verdict(
            exchange.id, self.name, mode, "ok", text=_text(answers), notes=self._notes(answers), usage=usage
        )
        if pieces is None:
            return unjudged(blank, "input_too_long", TOO_MANY, self.fail_mode)
        if len(pieces) > 1:
            blank = replace(blank, notes={**blank.notes, "windows": len(pieces)})
        failed = next((a for a in answers if not a.completion.complete), None)
        if failed is not None:
            finish: Status = failed.completion.finish  # type: ignore[assignment]
            return unjudged(blank, finish, failed.completion.error, self.fail_mode)
        asked = tuple(t for t in TASKS if any(t in a.call.tasks for a in answers))
        scores = {t: self._score(t, mode, answers) for t in asked}
        if any(p is not None and not math.isfinite(p) for p in scores.values()):
            return unjudged(blank, "unparsed", NOT_FINITE, self.fail_mode)
        labels = Labels.of({t: self._label(t, mode, answers, scores[t]) for t in asked})
        unread = next((a for a in answers if any(labels[t] is None for t in a.call.tasks)), None)
        if unread is not None:
            status: Status = "truncated" if unread.completion.finish == "length" else "unparsed"
            return unjudged(blank, status, _why(unread), self.fail_mode)
        return replace(
            blank,
            labels=labels,
            scores={t.value: scores.get(t) for t in TASKS},
            calibrated=bool(asked) and all(self.calibration.covers(t, mode) for t in asked),
            harm=_harm(labels, answers),
            attack=max((a.parsed.attack for a in answers if a.parsed.attack is not None), default=None),
            flagged=labels.harmful,
            steps=next((a.parsed.steps for a in answers if a.parsed.steps), ()),
        )

    def _score(self, task: Task, mode: str, answers: Sequence[_CallResult]) -> float | None:
        found = [a.parsed.scores[task] for a in answers if task in a.call.tasks and task in a.parsed.scores]
        if not found:
            return None
        worst = min(found) if task is Task.refusal else max(found)
        if not self.calibration.covers(task, mode):
            return worst
        return self.calibration.curve(task, mode).probability(logit(worst))

    def _label(self, task: Task, mode: str, answers: Sequence[_CallResult], score: float | None) -> str | None:
        said = [a.parsed.labels[task] for a in answers if task in a.call.tasks]
        decides = TASKS[task].decisive
        if decides not in said and None in said:
            return None
        if score is not None and self.calibration.covers(task, mode):
            return label(task, score >= self.calibration.curve(task, mode).threshold)
        return label(task, (decides in said) is (task is not Task.refusal))

    def _notes(self, answers: Sequence[_CallResult]) -> dict[str, object]:
        notes = dict(self.notes)
        policies: dict[str, float] = {}
        for answer in answers:
            notes |= answer.completion.notes
            notes |= answer.parsed.notes
            if answer.call.policy:
                for task, score in answer.parsed.scores.items():
                    policies[f"{task.value}: {answer.call.policy}"] = score
        return notes | ({"policies": policies} if policies else {})


def _text(answers: Sequence[_CallResult]) -> str:
    """The text the model wrote; of several calls, each under its name."""
    if len(answers) == 1:
        return answers[0].completion.text
    return "\n".join(f"[{', '.join((*a.call.tasks, a.call.policy)).strip(', ')}]\n{a.completion.text}" for a in answers)


def _harm(labels: Labels, answers: Sequence[_CallResult]) -> str | None:
    if not labels.harmful:
        return None
    named = dict.fromkeys(a.parsed.harm for a in answers if a.parsed.harm and a.parsed.labels.harmful)
    return ", ".join(h for h in named if h)[:160] or None


def _why(answer: _CallResult) -> str:
    if answer.completion.finish == "length":
        return "the output budget ran out before the verdict; raise max_tokens"
    said = {"no_block": "no answer of its format", "conflict": "two verdicts on one question"}
    return f"the model wrote {said.get(answer.parsed.problem or '', 'no readable verdict')}"
