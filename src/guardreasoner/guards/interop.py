"""Other frameworks' guards as ours, and ours as theirs: GuardBench and any-guardrail.

GuardBench (1.0): `moderate(conversations) -> list[float]`, one probability of harm per conversation (a list of
`{"role", "content"}`), of which the last turn is judged.
any-guardrail (0.7): `validate(input_text, output_text=None) -> GuardrailOutput`; valid = not harmful, score = risk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any

from guardreasoner.data.messages import as_exchange
from guardreasoner.errors import ConfigError
from guardreasoner.formats.base import label
from guardreasoner.guards.base import Guard, Judging, unjudged, validated
from guardreasoner.types import TASKS, Exchange, FailMode, Labels, Task, Usage, Verdict

Conversation = Sequence[Mapping[str, str]]
Moderate = Callable[..., list[float]]
HARM = (Task.prompt_harm, Task.response_harm)


def as_moderate(guard: Guard) -> Moderate:
    """A guard as GuardBench's moderation function.

    The number is P(harmful) of the last turn: the request if the user spoke last, the reply otherwise. Where the guard
    gives no score it is 1.0 or 0.0 by its label; what it could not judge is 1.0 under fail mode closed, 0.0 under open.
    """

    def moderate(conversations: Sequence[Conversation], **_: Any) -> list[float]:
        exchanges = [as_exchange(c, f"conversation:{i}") for i, c in enumerate(conversations)]
        return [harm_of(v, e) for v, e in zip(guard.judge(exchanges), exchanges, strict=True)]

    return moderate


def harm_of(verdict: Verdict, exchange: Exchange) -> float:
    """One number for the last turn of an exchange (see `as_moderate`)."""
    task = Task.prompt_harm if exchange.response is None else Task.response_harm
    if verdict.status != "ok" or verdict.labels[task] is None:
        return float(verdict.flagged)
    score = verdict.scores[task.value]
    return score if score is not None else float(verdict.labels[task] == "harmful")


class ModerateGuard(Judging):
    """A GuardBench moderation function as a guard: one conversation for the request, one with the reply."""

    def __init__(self, moderate: Moderate, *, name: str = "moderate", fail_mode: FailMode = "closed") -> None:
        self.moderate, self.name, self.tasks = moderate, name, HARM
        self.fail_mode: FailMode = fail_mode

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        exchanges = validated(exchanges)
        asked = [(i, task) for i, e in enumerate(exchanges) for task in HARM if task in e.tasks]
        blank = [Verdict(e.id, self.name, "instant", "ok", usage=Usage(passes=1)) for e in exchanges]
        try:
            numbers = self.moderate(conversations=[_conversation(exchanges[i], task) for i, task in asked])
            found = dict(zip(asked, map(float, numbers), strict=True))
        except Exception as error:
            why = f"the moderation function failed ({type(error).__name__})"
            return [unjudged(v, "unavailable", why, self.fail_mode) for v in blank]
        return [
            scored(v, {t: found[i, t] for t in HARM if (i, t) in found}, self.fail_mode) for i, v in enumerate(blank)
        ]


def _conversation(exchange: Exchange, task: Task) -> list[dict[str, str]]:
    turns = [{"role": m.role, "content": m.content} for m in exchange.context]
    turns.append({"role": "user", "content": exchange.prompt})
    if task is Task.response_harm:
        turns.append({"role": "assistant", "content": exchange.response or ""})
    return turns


def scored(verdict: Verdict, numbers: Mapping[Task, float], fail_mode: FailMode) -> Verdict:
    """A verdict from P(positive) per task; GuardBench counts what is above 0.5."""
    if any(not 0.0 <= p <= 1.0 for p in numbers.values()):
        problem = "the moderation function gave a number that is no probability"
        return unjudged(verdict, "unparsed", problem, fail_mode)
    labels = Labels.of({t: label(t, p > 0.5) for t, p in numbers.items()})
    scores = {t.value: numbers.get(t) for t in TASKS}
    return replace(verdict, labels=labels, scores=scores, flagged=labels.harmful)


class AnyGuardrailGuard(Judging):
    """An any-guardrail guardrail as a guard: the request by itself, then the request with its reply as `output_text`.

    Guardrails that name their findings (`harmful_request`, `response_refusal`, `harmful_response`: WildGuard,
    PolyGuard) answer by name; the others answer by `valid`, so that one which folds both texts into one verdict also
    finds the reply to a harmful request harmful.
    """

    NAMED: Mapping[Task, str] = {
        Task.prompt_harm: "harmful_request",
        Task.refusal: "response_refusal",
        Task.response_harm: "harmful_response",
    }

    def __init__(self, guardrail: Any, *, name: str | None = None, fail_mode: FailMode = "closed") -> None:
        self.guardrail, self.name = guardrail, name or type(guardrail).__name__
        self.tasks = tuple(TASKS)
        self.fail_mode: FailMode = fail_mode

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        return [self._judge(exchange) for exchange in validated(exchanges)]

    def _judge(self, exchange: Exchange) -> Verdict:
        verdict = Verdict(exchange.id, self.name, "instant", "ok")
        try:
            outputs = {Task.prompt_harm: self.guardrail.validate(exchange.prompt)}
            if exchange.response is not None:
                outputs[Task.response_harm] = self.guardrail.validate(exchange.prompt, output_text=exchange.response)
        except Exception as error:
            return unjudged(verdict, "unavailable", f"the guardrail failed ({type(error).__name__})", self.fail_mode)
        if any((o.extra or {}).get("parse_failure") for o in outputs.values()):
            return unjudged(verdict, "unparsed", "the guardrail could not read its model's answer", self.fail_mode)
        return self._read(verdict, outputs)

    def _read(self, verdict: Verdict, outputs: Mapping[Task, Any]) -> Verdict:
        found: dict[Task, bool] = {}
        scores: dict[str, float | None] = dict.fromkeys(t.value for t in TASKS)
        for task, output in outputs.items():
            named = {c.name: c.triggered for c in output.categories if c.triggered is not None}
            known = {t: named[n] for t, n in self.NAMED.items() if n in named}
            if known:
                found |= {t: on for t, on in known.items() if t is task or (t is Task.refusal and len(outputs) > 1)}
            else:
                found[task], scores[task.value] = not output.valid, output.score
        labels = Labels.of({t: label(t, on) for t, on in found.items()})
        last = list(outputs.values())[-1]
        harms = [c.name for c in last.categories if c.triggered and c.name not in self.NAMED.values()]
        usage = Usage(
            sum(o.usage.prompt_tokens or 0 for o in outputs.values() if o.usage),
            sum(o.usage.completion_tokens or 0 for o in outputs.values() if o.usage),
            sum(o.usage.latency_ms or 0.0 for o in outputs.values() if o.usage),
            len(outputs),
        )
        return replace(
            verdict,
            labels=labels,
            scores=scores,
            harm=", ".join(harms)[:160] or None if labels.harmful else None,
            flagged=labels.harmful,
            text=str(last.explanation or ""),
            usage=usage,
        )


def as_any_guardrail(guard: Guard) -> Any:
    """A guard as an any-guardrail guardrail, for code that calls `validate`.

    Raises:
        ConfigError: any-guardrail is not installed.
    """
    try:
        base, types = import_module("any_guardrail.base"), import_module("any_guardrail.types")
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is not installed; run: pip install any-guardrail") from None

    class GuardReasonerGuardrail(base.Guardrail):  # type: ignore[misc, name-defined]
        """Ours behind any-guardrail's interface."""

        model_id = guard.name

        def validate(self, input_text: str, output_text: str | None = None, **_: Any) -> Any:
            verdict = guard.check(input_text, output_text)
            scores = [s for t in HARM if (s := verdict.scores[t.value]) is not None]
            categories = [
                types.CategoryResult(
                    name=name, triggered=verdict.labels[t] == TASKS[t].positive, score=verdict.scores[t.value]
                )
                for t, name in AnyGuardrailGuard.NAMED.items()
                if verdict.labels[t] is not None
            ]
            return types.GuardrailOutput(
                valid=not verdict.flagged,
                explanation=verdict.text or None,
                score=max(scores, default=None),
                categories=categories,
                usage=types.GuardrailUsage(
                    model_id=guard.name,
                    latency_ms=verdict.usage.latency_ms,
                    prompt_tokens=verdict.usage.prompt_tokens,
                    completion_tokens=verdict.usage.completion_tokens,
                ),
                extra={"status": verdict.status, "mode": verdict.mode, "harm": verdict.harm, "error": verdict.error},
            )

    return GuardReasonerGuardrail()
