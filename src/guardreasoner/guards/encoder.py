"""nano's guard: an encoder scores each passage of an exchange (`guards.pieces`), and the worst decides.

It writes no reasoning: `steps` is empty, and whatever mode is asked for, the verdict says `instant`.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from guardreasoner.engines.encoder import EncoderEngine, Floats, Pair
from guardreasoner.engines.micro import MicroEngine
from guardreasoner.errors import EngineError, InputTooLong
from guardreasoner.guards.base import (
    Judging,
    checked_language,
    known_harm,
    known_mode,
    known_tasks,
    unjudged,
    validated,
)
from guardreasoner.guards.calibration import Calibration, Curve
from guardreasoner.guards.english_words import frequencies
from guardreasoner.guards.key_sentence import FEWEST, content_weight, heaviest
from guardreasoner.guards.pieces import (
    REQUEST_WORDS,
    SECOND_LOOKS,
    Passage,
    Passages,
    edges,
    near,
    passages,
    unrefused,
)
from guardreasoner.guards.windows import MOST_WINDOWS, TOO_MANY, whole_request
from guardreasoner.metrics import logit, sigmoid
from guardreasoner.types import TASKS, Exchange, FailMode, Labels, Mode, Task, Usage, Verdict

WHOLES = (None, "around", "talk")
"""Bars of passages that are no pieces."""
MARKS = 3
"""[CLS] and two [SEP]."""
SHORT, REACH = 64, 2.0
"""Pieces of a text of at most so many tokens are judged only where the whole is at most so many log-odds below its
bar: in short texts harm among harmless sentences still moves the whole (`bench/short_texts.py`)."""
LONE, MANY = 0.7, 12
"""Log-odds above the threshold at which the whole of a text of `MANY` sentences decides alone: one that passes by less
needs a piece that lacks less. Harmless text around a text that is nearly harmful lifts the whole, and no piece. What is
left of a reply without its refusal must pass by as much."""
FEW = 2
"""Parts of a text that the slow network of two reads for each task."""
STEERS, STEERED = 0.5, 1.5
"""P(attack) from which a text steers a model, and the log-odds above the threshold that it then needs as a whole where
its beginning or end steers, and neither that nor the rest does harm: steering alone is no harmful request."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What the engine says about one passage."""

    passage: Passage
    probabilities: dict[Task, float]
    """P(positive) of each task that the passage is asked, a piece's moved so that its bar is at the threshold."""
    attack: float | None
    kinds: dict[str, float]
    tokens: int
    passes: int = 1

    def of(self, task: Task) -> float:
        """P(positive) of a task; 0 where it is not asked."""
        return self.probabilities.get(task, 0.0)

    def lowered(self, task: Task, by: float) -> Scored:
        """The same, with so many log-odds less for a task."""
        return replace(self, probabilities={**self.probabilities, task: sigmoid(logit(self.of(task)) - by)})

    def again(self, look: Scored) -> Scored:
        """A piece after its second look: both must pass their bars."""
        found = {t: min(p, look.of(t)) for t, p in self.probabilities.items()}
        milder = self if sum(self.kinds.values()) <= sum(look.kinds.values()) else look
        return replace(
            self,
            probabilities=found,
            kinds=milder.kinds,
            tokens=self.tokens + look.tokens,
            passes=self.passes + look.passes,
        )


class EncoderGuard(Judging):
    """A guard whose engine scores text."""

    tasks: tuple[Task, ...] = tuple(TASKS)
    judges_parts = True
    """Each message of a conversation is judged by itself too: callers need not cut it up."""

    def __init__(
        self,
        name: str,
        engine: EncoderEngine | MicroEngine,
        *,
        mode: Mode = "instant",
        fail_mode: FailMode = "closed",
        calibration: Calibration | None = None,
    ) -> None:
        """Args:
        engine: closed by `close`.
        mode: any; `instant` is what happens.
        calibration: None = scores are the network's own probabilities.
        """
        self.name, self.engine, self.fail_mode = name, engine, fail_mode
        self.mode = known_mode(mode)
        self.calibration = calibration or Calibration()
        frequencies()  # the word list is read now, not while the first request waits
        self.kinds = tuple(o for o in engine.outputs if o not in (*(t.value for t in TASKS), "attack"))

    def judge(
        self,
        exchanges: Sequence[Exchange],
        *,
        mode: Mode | None = None,
        deadline: float | None = None,
        tasks: Collection[Task] | None = None,
    ) -> list[Verdict]:
        """One verdict per exchange, in input order.

        Args:
            mode: any; `instant` is what happens, and a note says so where reasoning was asked for.
            deadline: `time.monotonic()` seconds after which the rest is `timeout`.
            tasks: the only tasks that are asked; None = all that make sense.
        """
        asked = known_mode(mode or self.mode)
        exchanges, only = validated(exchanges), known_tasks(tasks)
        made = [self._judge(exchange, only, deadline) for exchange in exchanges]
        if asked not in ("short", "full"):
            return made
        note = f"{asked} was asked for, and {self.name} writes no reasoning"
        return [replace(verdict, notes={**verdict.notes, "mode": note}) for verdict in made]

    def evidence(self, exchange: Exchange, labels: Labels, deadline: float | None = None) -> dict[Task, str]:
        """The sentence of the request or reply that speaks most for each label.

        A request's may be in an earlier message, but for the assistant's. What is too long, or too late, has none.
        """
        said = [exchange.prompt, *(m.content for m in exchange.context if m.role != "assistant")]
        found: dict[Task, str] = {}
        seen: dict[Pair, Floats] = {}
        for task in labels.tasks:
            texts = [t for t in (said if task is Task.prompt_harm else [exchange.response or ""]) if t.strip()]
            weigh = partial(self._weights, task, labels[task] == TASKS[task].positive, exchange.prompt, deadline, seen)
            fewest = FEWEST if task is Task.prompt_harm else 0
            try:
                found[task] = max((heaviest(text, weigh, fewest) for text in texts), default=(0.0, ""))[1]
            except EngineError:
                break
        return found

    def _weights(
        self,
        task: Task,
        positive: bool,
        request: str,
        deadline: float | None,
        seen: dict[Pair, Floats],
        parts: Sequence[str],
    ) -> list[float]:
        """How much parts of a text speak for a label. The harm of a reply is looked for in each by itself: beside a
        harmful request all of them look harmful."""
        beside = "" if positive and task is Task.response_harm else " ".join(request.split()[-REQUEST_WORDS:])
        pairs: list[Pair] = [(part, None) if task is Task.prompt_harm else (beside, part) for part in parts]
        new = [pair for pair in pairs if pair not in seen]
        seen |= zip(new, self.engine.score(new, deadline=deadline).logits, strict=True)
        logits = [float(seen[pair][self.engine.outputs.index(task.value)]) for pair in pairs]
        if positive:
            return logits
        return [content_weight(part) - x for part, x in zip(parts, logits, strict=True)]

    def close(self) -> None:
        self.engine.close()

    def _judge(self, exchange: Exchange, tasks: Collection[Task], deadline: float | None) -> Verdict:
        started = time.monotonic()
        asked = tuple(t for t in exchange.tasks if t in tasks)
        curves = {t: self.calibration.curve(t, "instant") for t in asked}
        made = passages(
            exchange,
            asked,
            capacity=self.engine.context_tokens - MARKS,
            limit=MOST_WINDOWS,
            offsets=self.engine.offsets,
            cut=any(curve.piece for curve in curves.values()),
        )
        scored, error = self._scored(made.made, curves, deadline)
        if error is None and not made.complete:
            error = InputTooLong(TOO_MANY)
        tokens, passes = sum(s.tokens for s in scored), sum(s.passes for s in scored)
        usage = Usage(tokens, 0, (time.monotonic() - started) * 1000, passes)
        blank = Verdict(exchange.id, self.name, "instant", "ok", usage=usage)
        verdict = self._verdict(blank, scored, curves, made) if scored else blank
        if error is None:
            return checked_language(verdict, exchange, made.read, self.fail_mode)
        if verdict.flagged:
            return known_harm(verdict, error.finish)
        return unjudged(replace(blank, notes=verdict.notes), error.finish, str(error), self.fail_mode)

    def _scored(
        self, made: Sequence[Passage], curves: Mapping[Task, Curve], deadline: float | None
    ) -> tuple[list[Scored], EngineError | None]:
        """What the engine says about the passages that can matter, as far as it came, and what stopped it."""
        scored: list[Scored] = []
        try:
            for passage in (p for p in made if p.bar in WHOLES):
                whole = self._unsteered(self._score(passage, curves, deadline), curves, deadline)
                scored += [whole, *self._unrefused(passage, curves, deadline)]
            sentences = Counter(t for p in made if p.bar == "alone" for t in p.tasks)
            lone = {t: LONE if sentences[t] >= MANY else 0.0 for t in curves}
            unsettled = {t for t, curve in curves.items() if not _settled(t, scored, curve, lone[t])}
            parts = [p for p in made if p.bar not in WHOLES and unsettled.intersection(p.tasks)]
            for passage in self._likeliest(parts, curves, deadline):
                scored.append(self._score(passage, curves, deadline))
            for task, curve in curves.items():
                scored = _supported(task, scored, curve, lone[task])
                above = [i for i, s in enumerate(scored) if s.passage.around and s.of(task) >= curve.threshold]
                for i in sorted(above, key=lambda i: -scored[i].of(task))[:SECOND_LOOKS]:
                    scored[i] = scored[i].again(self._score(near(scored[i].passage), curves, deadline))
        except EngineError as error:
            return scored, error
        return scored, None

    def _likeliest(
        self, parts: Sequence[Passage], curves: Mapping[Task, Curve], deadline: float | None
    ) -> Sequence[Passage]:
        """All parts; of two networks the slow one reads only those that the quick one finds worst, task by task."""
        if not isinstance(self.engine, MicroEngine) or not parts:
            return parts
        logits = self.engine.encoder.score([pair_of(p.exchange) for p in parts], deadline=deadline).logits
        kept: set[int] = set()
        for task in curves:
            worst = logits[:, self.engine.outputs.index(task.value)] * (-1 if task is Task.refusal else 1)
            asked = [i for i, p in enumerate(parts) if task in p.tasks]
            kept.update(sorted(asked, key=lambda i: -worst[i])[:FEW])
        return [parts[i] for i in sorted(kept)]

    def _score(self, passage: Passage, curves: Mapping[Task, Curve], deadline: float | None) -> Scored:
        scores = self.engine.score([pair_of(passage.exchange)], deadline=deadline)
        logits = dict(zip(self.engine.outputs, scores.logits[0].tolist(), strict=True))
        found = {t: curves[t].moved(curves[t].probability(logits[t.value]), passage.bar) for t in passage.tasks}
        harm = max((p for t, p in found.items() if t is not Task.refusal), default=0.0)
        kinds = _softmax(np.array([logits[k] for k in self.kinds]))
        return Scored(
            passage,
            found,
            sigmoid(logits["attack"]) if "attack" in logits else None,
            {k: round(float(p) * harm, 4) for k, p in zip(self.kinds, kinds, strict=True)},
            int(scores.tokens[0]),
        )

    def _unsteered(self, whole: Scored, curves: Mapping[Task, Curve], deadline: float | None) -> Scored:
        """A whole, moved below the threshold where only an attempt to steer lifts it above."""
        task, exchange = Task.prompt_harm, whole.passage.exchange
        above = _above(task, whole, curves[task]) if task in whole.probabilities else -1.0
        if exchange.response is not None or (whole.attack or 0.0) < STEERS or not 0 <= above < STEERED:
            return whole
        for rest, edge in edges(exchange.prompt) if not exchange.context else ():
            looks = [self._score(Passage(Exchange("", t), (task,)), curves, deadline) for t in (rest, edge)]
            whole = replace(whole, tokens=whole.tokens + sum(s.tokens for s in looks), passes=whole.passes + len(looks))
            harmless = all(s.of(task) < curves[task].threshold for s in looks)
            if harmless and (looks[0].attack or 0.0) < STEERS:
                return whole.lowered(task, STEERED)
        return whole

    def _unrefused(self, whole: Passage, curves: Mapping[Task, Curve], deadline: float | None) -> list[Scored]:
        """What a reply says besides refusing, for `sorry` before what is asked for is no refusal."""
        task, reply = Task.response_harm, whole.exchange.response or ""
        if task not in whole.tasks or (rest := unrefused(reply)) == reply:
            return []
        passage = replace(whole, exchange=replace(whole.exchange, response=rest), tasks=(task,))
        return [self._score(passage, curves, deadline).lowered(task, LONE)]

    def _verdict(
        self, blank: Verdict, scored: Sequence[Scored], curves: Mapping[Task, Curve], made: Passages
    ) -> Verdict:
        worst = {t: worst_of(t, found) for t in curves if (found := [s for s in scored if t in s.probabilities])}
        p = {t: s.probabilities[t] for t, s in worst.items()}
        labels = Labels.of({t: TASKS[t].positive if p[t] >= curves[t].threshold else TASKS[t].negative for t in worst})
        notes: dict[str, object] = {}
        if made.undone:
            notes["disguise"] = list(made.undone)
        if made.windows > 1:
            notes["windows"] = made.windows
        if parts := [t.value for t, s in worst.items() if s.passage.bar not in WHOLES]:
            notes["parts"] = parts
        harms = [s for s in scored if s.kinds]
        main = max(harms, key=lambda s: sum(s.kinds.values()), default=None)
        return replace(
            blank,
            labels=labels,
            scores={t.value: p.get(t) for t in TASKS},
            calibrated=all(self.calibration.covers(t, "instant") for t in curves),
            kinds=main.kinds if main else {},
            attack=max((s.attack for s in scored if s.attack is not None), default=None),
            flagged=labels.harmful,
            notes=notes,
        )


def pair_of(exchange: Exchange) -> Pair:
    """The two texts that the engine reads: earlier messages and the request, and the reply."""
    return whole_request(exchange), exchange.response


def _settled(task: Task, wholes: Sequence[Scored], curve: Curve, lone: float) -> bool:
    """Whether no piece can change the label of a task, or the text is short and its whole far from the bar."""
    above = max((_above(task, s, curve) for s in wholes), default=-math.inf)
    short = sum(s.tokens for s in wholes) <= SHORT
    return above >= lone or (short and above < -REACH)


def _supported(task: Task, scored: Sequence[Scored], curve: Curve, lone: float) -> list[Scored]:
    """The same, but wholes that pass by less than `lone`, where no piece lacks less than that, moved below the bar."""
    pieces = [_above(task, s, curve) for s in scored if s.passage.bar not in WHOLES and task in s.probabilities]
    if not pieces or max(pieces) >= -lone:
        return list(scored)
    return [s.lowered(task, lone) if 0 <= _above(task, s, curve) < lone else s for s in scored]


def _above(task: Task, scored: Scored, curve: Curve) -> float:
    """Log-odds above the threshold."""
    return logit(scored.of(task)) - logit(curve.threshold)


def worst_of(task: Task, scored: Sequence[Scored]) -> Scored:
    """The passage that decides a task: the most harmful one, or, for refusal, the one that complies most."""
    sign = -1 if task is Task.refusal else 1
    return max(scored, key=lambda s: sign * s.probabilities[task])


def _softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
    if not len(x):
        return x
    e = np.exp(x - x.max())
    return np.asarray(e / e.sum())
