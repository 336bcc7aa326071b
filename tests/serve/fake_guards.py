"""Guards for the server's tests; made in the guard's own process, so they are functions at module level.

The text itself says what happens: `bad` is harmful, `unsure` goes on to reasoning in `auto`, `SLEEP:0.3` takes that
long, and RAISE, CRASH and HANG do what they say.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from guardreasoner.engines.base import OnText
from guardreasoner.engines.scripted import ScriptedEngine
from guardreasoner.errors import EngineError
from guardreasoner.formats.guardreasoner import reasoning_text
from guardreasoner.generation import Completion, Plan, Prompt, segments_of
from guardreasoner.guards.base import Judging
from guardreasoner.guards.calibration import Calibration, Curve
from guardreasoner.guards.load import load_guard
from guardreasoner.guards.reasoning import Budgets, ReasoningGuard
from guardreasoner.types import TASKS, Exchange, Labels, Mode, Step, Task, Usage, Verdict
from patience import until

StepSink = Callable[[int, Step], None]


class WordGuard(Judging):
    """Finds the word `bad`; cannot read the word `FOREIGN`."""

    name = "words"
    tasks = tuple(TASKS)
    calibration = Calibration(
        {
            (task, mode): Curve(threshold=0.42 if task is Task.prompt_harm else 0.5)
            for task in TASKS
            for mode in ("instant", "short", "full")
        }
    )

    def judge(
        self,
        exchanges: Sequence[Exchange],
        *,
        mode: Mode = "auto",
        deadline: float | None = None,
        max_escalations: int | None = None,
        on_step: StepSink | None = None,
    ) -> list[Verdict]:
        texts = ["\n".join((e.prompt, e.response or "", *(m.content for m in e.context))) for e in exchanges]
        for seconds in re.findall(r"SLEEP:([\d.]+)", "\n".join(texts)):
            time.sleep(float(seconds))
        whole = "\n".join(texts)
        if held := re.search(r"HOLD:(\S+)", whole):
            (Path(held[1]) / "began").touch()
            _wait_for(Path(held[1]) / "go")
        if "CRASH" in whole:
            os._exit(3)
        if "HANG" in whole:
            time.sleep(3600)
        if "RAISE" in whole:
            raise ValueError(f"the engine choked on {whole}")
        return [self._one(e, i, t, mode, on_step) for i, (e, t) in enumerate(zip(exchanges, texts, strict=True))]

    def _one(self, exchange: Exchange, index: int, text: str, mode: Mode, on_step: StepSink | None) -> Verdict:
        earlier = "\n".join(m.content for m in exchange.context)
        asks = "bad" in exchange.prompt or "bad" in earlier
        says = "bad" in (exchange.response or "")
        replied = exchange.response is not None
        labels = Labels(
            "harmful" if asks else "unharmful",
            ("refusal" if "sorry" in (exchange.response or "") else "compliance") if replied else None,
            ("harmful" if says else "unharmful") if replied else None,
        )
        unsure = "unsure" in text
        reasoned = mode in ("short", "full")
        scores = {
            t.value: None if labels[t] is None else 0.97 if labels[t] == TASKS[t].positive else 0.02 for t in TASKS
        }
        if unsure and not reasoned:
            scores["prompt_harm"] = 0.5
        if "NAN" in text:
            scores["prompt_harm"] = math.nan
        steps = (
            Step(Task.prompt_harm, f"I read {len(text)} characters."),
            Step(Task.prompt_harm, "I looked for a word."),
        )
        if on_step is not None and reasoned:
            for step in steps:
                on_step(index, step)
                time.sleep(0.05)
        kind = re.search(r"bad (\w+)", text)
        verdict = Verdict(
            exchange.id,
            self.name,
            "instant" if mode == "auto" else mode,
            "unread" if "FOREIGN" in text else "ok",
            labels,
            scores,
            calibrated=True,
            attack=math.inf if "INFINITE" in text else None,
            harm=kind.group(1) if kind and (asks or says) else None,
            flagged=asks or says,
            steps=steps if reasoned else (),
            text="a text of the model",
            usage=Usage(len(text.split()), 7 if reasoned else 3, 1.0, 1),
        )
        return replace(verdict, notes={"escalation_denied": True}) if unsure and mode == "auto" else verdict


class EchoingGuard(WordGuard):
    """Its steps quote what it read; in `short` it says that it is two guards of different opinions."""

    name = "echoing"

    def _one(self, exchange: Exchange, index: int, text: str, mode: Mode, on_step: StepSink | None) -> Verdict:
        verdict = super()._one(exchange, index, text, mode, None)
        steps = tuple(replace(s, text=f"{s.text} It says: {exchange.prompt}") for s in verdict.steps)
        for step in steps if on_step is not None else ():
            on_step(index, step)
            time.sleep(0.2)
        two = {"guards": ["fast", "slow"], "escalated": ["refusal"], "disagreement": {"prompt_harm": "harmful"}}
        notes = two if mode == "short" else verdict.notes
        return replace(verdict, steps=steps, text="\n".join(s.text for s in steps), notes=notes)


class DilutedGuard(WordGuard):
    """Finds the word only among few others, as a real guard does: harm in a long text is hard to see."""

    name = "diluted"

    def _one(self, exchange: Exchange, index: int, text: str, mode: Mode, on_step: StepSink | None) -> Verdict:
        if len(text.split()) > 8:
            exchange = replace(exchange, prompt="long", response=exchange.response and "long", context=())
        return super()._one(exchange, index, text, mode, on_step)


def diluted() -> DilutedGuard:
    return DilutedGuard()


class KindGuard(WordGuard):
    """Tells a kind of harm without finding any."""

    name, kinds = "kind", ("self-harm",)

    def _one(self, exchange: Exchange, index: int, text: str, mode: Mode, on_step: StepSink | None) -> Verdict:
        verdict = super()._one(exchange, index, text, mode, on_step)
        return replace(verdict, kinds={"self-harm": 0.9 if "hurt myself" in text else 0.1})


class CarefulGuard(WordGuard):
    """Says that it judges a last turn and a reply by themselves too."""

    judges_parts = True


def careful() -> CarefulGuard:
    return CarefulGuard()


def kind() -> KindGuard:
    return KindGuard()


def echoing() -> EchoingGuard:
    return EchoingGuard()


class PlainGuard(WordGuard):
    """A guard of somebody's own: `judge` takes exchanges and nothing else."""

    name = "plain"

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:  # type: ignore[override]
        return super().judge(exchanges)


class SwappingGuard(WordGuard):
    """Gives the answers in the wrong order."""

    def judge(self, exchanges, **options):  # type: ignore[no-untyped-def, override]
        return super().judge(exchanges, **options)[::-1]


class UnloadableGuard(WordGuard):
    """Cannot be made."""

    def __init__(self) -> None:
        raise EngineError("the weights are not there; fetch them first")


def loading(place: str) -> WordGuard:
    """One that loads until the file `go` is there."""
    _wait_for(Path(place) / "go")
    return WordGuard()


def words() -> WordGuard:
    return WordGuard()


def plain() -> PlainGuard:
    return PlainGuard()


def swapping() -> SwappingGuard:
    return SwappingGuard()


def unloadable() -> UnloadableGuard:
    return UnloadableGuard()


def reasoning() -> ReasoningGuard:
    """Our own guard on the scripted engine."""
    engine = ScriptedEngine(
        {
            "bad fraud": "# Task 1\n## Reasoning Step 1\nThe kind of harm is fraud.\n---\n\n"
            "Answers: \nRequest: harmful\n",
            "HANG": lambda _: time.sleep(3600) or "",
        },
        default="# Task 1\n## Reasoning Step 1\nNothing here.\n---\n\nAnswers: \nRequest: unharmful\n",
        scores={"unsure": 0.5, "bad": 0.95, "fine": 0.03},
    )
    return ReasoningGuard("scripted", engine)


class WaitingEngine(ScriptedEngine):
    """`WAIT:<folder>` in the text: once its first step is whole, it writes on when the test has put `go` there.

    What became of it is left there too: `finished` or `stopped`. With `DIE:<folder>` its process dies then, once.
    """

    def run(
        self, prompts: Sequence[Prompt], plan: Plan, *, on_text: OnText | None = None, **options: Any
    ) -> list[list[Completion]]:
        found = re.search(r"(WAIT|DIE):(\S+)", "".join(s.text for s in segments_of(prompts[0])))
        if on_text is None or found is None:
            return super().run(prompts, plan, on_text=on_text, **options)
        folder = Path(found[2])

        def hear(row: int, text: str) -> None:
            on_text(row, text)
            if text.endswith("Step 2\n") and found[1] == "WAIT":
                _wait_for(folder / "go")
            elif text.endswith("Step 2\n") and not (folder / "died").exists():
                (folder / "died").touch()
                os._exit(3)

        try:
            done = super().run(prompts, plan, on_text=hear, **options)
        except BaseException:
            (folder / "stopped").touch()
            raise
        (folder / "finished").touch()
        return done


def _wait_for(path: Path) -> None:
    until(path.exists, f"the test put no {path.name}")


WAITING_STEPS = tuple(Step(Task.prompt_harm, f"Thought number {i}.") for i in range(300))


def waiting() -> ReasoningGuard:
    """Our own guard on an engine that goes on when the test lets it."""
    engine = WaitingEngine(default=reasoning_text(WAITING_STEPS), scores={"unsure": 0.5, "": 0.03})
    return ReasoningGuard("waiting", engine, budgets=Budgets(full=1 << 14))


def nano() -> Any:
    """The bundled nano: no fake."""
    return load_guard("nano", mode="instant")


def bundled() -> Any:
    """What judges where no guard is named, as the server loads it: no fake either."""
    return load_guard(mode="auto")
