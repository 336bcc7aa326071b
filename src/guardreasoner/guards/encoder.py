"""nano's guard: an encoder scores each piece of an exchange, the worst piece decides.

It writes no reasoning: `steps` is empty, and whatever mode is asked for, `instant` is the mode that decided.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from guardreasoner.engines.encoder import EncoderEngine, Pair, Scores
from guardreasoner.errors import EngineError, EngineTimeout, InputTooLong, UnknownName
from guardreasoner.guards.base import Judging, unjudged, validate
from guardreasoner.guards.calibration import Calibration
from guardreasoner.guards.language import unsupported
from guardreasoner.guards.normalise import differs, normalise
from guardreasoner.guards.reasoning import flagged
from guardreasoner.guards.steps import StepSink
from guardreasoner.guards.windows import windows
from guardreasoner.types import MODES, TASKS, Exchange, FailMode, Labels, Mode, Status, Task, Usage, Verdict

MARKS = 3
"""[CLS] and two [SEP]."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What the engine says about one piece."""

    exchange: Exchange
    probabilities: dict[Task, float]
    """P(positive) of each task that the piece can answer."""
    attack: float | None
    kinds: dict[str, float]
    language: str | None


class EncoderGuard(Judging):
    """A guard whose engine scores text."""

    tasks: tuple[Task, ...] = tuple(TASKS)

    def __init__(
        self,
        name: str,
        engine: EncoderEngine,
        *,
        mode: Mode = "instant",
        fail_mode: FailMode = "closed",
        calibration: Calibration | None = None,
        max_windows: int = 16,
    ) -> None:
        """Args:
            name: what verdicts are signed with.
            engine: closed by `close`.
            mode: any; `instant` is what happens.
            fail_mode: whether what could not be judged is flagged (`closed`) or let through (`open`).
            calibration: None = scores are the network's own probabilities.
            max_windows: more windows than this are `input_too_long`.

        Raises:
            UnknownName: there is no such mode.
        """
        self.name, self.engine, self.fail_mode = name, engine, fail_mode
        self.mode: Mode = _checked(mode)
        self.calibration = calibration or Calibration()
        self.max_windows = max_windows
        self.kinds = tuple(o for o in engine.outputs if o not in (*(t.value for t in TASKS), "attack"))

    def judge(
        self,
        exchanges: Sequence[Exchange],
        *,
        mode: Mode | None = None,
        deadline: float | None = None,
        tasks: Collection[Task] | None = None,
        max_escalations: int | None = None,
        on_step: StepSink | None = None,
    ) -> list[Verdict]:
        """One verdict per exchange, in input order.

        Args:
            exchanges: any number.
            mode: any; `instant` is what happens.
            deadline: `time.monotonic()` seconds after which the rest is `timeout`.
            tasks: the only tasks that are asked; None = all that make sense.
            max_escalations: taken for the sake of other guards; nothing is escalated here.
            on_step: taken for the sake of other guards; there are no steps.

        Raises:
            DataError: an exchange has neither a request nor a reply.
        """
        _checked(mode or self.mode)
        for exchange in exchanges:
            validate(exchange)
        return [self._judge(exchange, self.tasks if tasks is None else tasks, deadline) for exchange in exchanges]

    def close(self) -> None:
        self.engine.close()

    def _judge(self, exchange: Exchange, tasks: Collection[Task], deadline: float | None) -> Verdict:
        started = time.monotonic()
        asked = tuple(t for t in exchange.tasks if t in tasks)
        blank = Verdict(exchange.id, self.name, "instant", "ok")
        pieces = self._pieces(exchange)
        try:
            if pieces is None:
                raise InputTooLong(f"the text needs more than {self.max_windows} windows; shorten it or split it")
            scores = self.engine.score([pair_of(piece) for piece in pieces], deadline=deadline)
        except EngineError as error:
            took = Usage(latency_ms=(time.monotonic() - started) * 1000)
            return unjudged(replace(blank, usage=took), _status(error), str(error), self.fail_mode)
        scored = [self._scored(piece, scores, row, asked) for row, piece in enumerate(pieces)]
        usage = Usage(int(scores.tokens.sum()), 0, (time.monotonic() - started) * 1000, len(pieces))
        return self._verdict(replace(blank, usage=usage), exchange, scored, asked)

    def _pieces(self, exchange: Exchange) -> list[Exchange] | None:
        """What is judged in place of an exchange: each of its forms in as many windows as it needs; None = too many."""
        capacity = self.engine.context_tokens - MARKS
        made = windows(exchange, capacity, self.max_windows, self.engine.offsets)
        clean = _normalised(exchange)
        if made is not None and clean is not exchange:
            made = made + (windows(clean, capacity, self.max_windows, self.engine.offsets) or [])
        return made

    def _scored(self, piece: Exchange, scores: Scores, row: int, asked: Sequence[Task]) -> Scored:
        logit = dict(zip(self.engine.outputs, scores.logits[row].tolist(), strict=True))
        found = {t: self.calibration.curve(t, "instant").probability(logit[t.value]) for t in asked if t in piece.tasks}
        harm = max((p for t, p in found.items() if t is not Task.refusal), default=0.0)
        kinds = _softmax(np.array([logit[k] for k in self.kinds]))
        return Scored(
            piece,
            found,
            1 / (1 + float(np.exp(-logit["attack"]))) if "attack" in logit else None,
            {k: round(float(p) * harm, 4) for k, p in zip(self.kinds, kinds, strict=True)},
            unsupported(
                "\n".join(filter(None, pair_of(piece))), unknown=scores.unknown[row], broken=scores.broken[row]
            ),
        )

    def _verdict(self, blank: Verdict, exchange: Exchange, scored: Sequence[Scored], asked: Sequence[Task]) -> Verdict:
        worst = {t: worst_of(t, [s for s in scored if t in s.probabilities]) for t in asked}
        curves = {t: self.calibration.curve(t, "instant") for t in asked}
        p = {t: s.probabilities[t] for t, s in worst.items()}
        labels = Labels.of({t: TASKS[t].positive if p[t] >= curves[t].threshold else TASKS[t].negative for t in asked})
        notes: dict[str, object] = {}
        if len({s.exchange.prompt for s in scored}) > 1 and _normalised(exchange) is not exchange:
            notes["normalised"] = True
        languages = [s.language for s in scored if s.language]
        if languages:
            notes["language"] = languages[0]
        harms = [s for s in scored if s.kinds]
        main = max(harms, key=lambda s: sum(s.kinds.values()), default=None)
        return replace(
            blank,
            labels=labels,
            scores={t.value: p.get(t) for t in TASKS},
            calibrated=all(self.calibration.covers(t, "instant") for t in asked),
            kinds=main.kinds if main else {},
            attack=max((s.attack for s in scored if s.attack is not None), default=None),
            flagged=flagged(labels),
            notes=notes,
        )


def pair_of(exchange: Exchange) -> Pair:
    """The two texts that the engine reads: earlier messages and the request, and the reply."""
    before = "".join(f"[{m.role}] {m.content}\n" for m in exchange.context)
    return before + exchange.prompt, exchange.response


def worst_of(task: Task, scored: Sequence[Scored]) -> Scored:
    """The piece that decides a task: the most harmful one, or, for refusal, the one that complies most."""
    sign = -1 if task is Task.refusal else 1
    return max(scored, key=lambda s: sign * s.probabilities[task])


def _normalised(exchange: Exchange) -> Exchange:
    """The exchange with its texts normalised; itself where that changes nothing."""
    texts = (exchange.prompt, exchange.response or "", *(m.content for m in exchange.context))
    if not any(map(differs, texts)):
        return exchange
    context = tuple(replace(m, content=normalise(m.content)) for m in exchange.context)
    response = None if exchange.response is None else normalise(exchange.response)
    return replace(exchange, prompt=normalise(exchange.prompt), response=response, context=context)


def _softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
    if not len(x):
        return x
    e = np.exp(x - x.max())
    return np.asarray(e / e.sum())


def _status(error: EngineError) -> Status:
    if isinstance(error, InputTooLong):
        return "input_too_long"
    return "timeout" if isinstance(error, EngineTimeout) else "unavailable"


def _checked(mode: Mode) -> Mode:
    if mode not in MODES:
        raise UnknownName("mode", str(mode), MODES)
    return mode
