"""Reasoning steps said while the model still writes: each once, in order, and none that the verdict will not hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Lock

from guardreasoner.engines.base import Capabilities, OnText
from guardreasoner.types import Step

StepSink = Callable[[int, Step], None]
"""Hears a step: the place of its exchange among those asked about, and the step."""
Settle = Callable[[int, str], Sequence[Step]]
"""The place of an exchange and the text about it so far, to the first steps that its verdict will surely have."""


def placed(on_step: StepSink | None, places: Sequence[int]) -> StepSink | None:
    """The sink for a part of the exchanges, given their places among all."""
    return None if on_step is None else lambda place, step: on_step(places[place], step)


class Voice:
    """Hears one text grow and says its steps."""

    def __init__(self, say: Callable[[Step], None], settle: Callable[[str], Sequence[Step]]) -> None:
        """Args:
        say: what raises in it ends the run of the engine.
        settle: asked again whenever another line is whole.
        """
        self.say, self.settle = say, settle
        self.said: list[Step] = []
        self.error: BaseException | None = None
        """What `say` raised: the caller's own, and no fault of the engine."""
        self._lines = 0
        self._closed = False
        self._lock = Lock()

    def hear(self, text: str) -> None:
        """Say what has become settled. A text that begins anew (another try) is silent until it has caught up."""
        lines = text.count("\n")
        if lines == self._lines:  # a step is settled by the end of a line
            return
        self._lines = lines
        steps = list(self.settle(text))
        with self._lock:
            if self._closed or steps[: len(self.said)] != self.said:
                return
            for step in steps[len(self.said) :]:
                self.said.append(step)
                self._say(step)

    def close(self) -> None:
        """Say nothing more: an engine that was given up on may still be writing."""
        with self._lock:
            self._closed = True

    def _say(self, step: Step) -> None:
        try:
            self.say(step)
        except BaseException as error:
            self.error = error
            raise


Voices = Mapping[int, Voice]
"""By the place of the exchange."""


@contextmanager
def speaking(
    on_step: StepSink | None, owners: Sequence[int], *, engine: Capabilities, settle: Settle
) -> Iterator[Voices]:
    """The voices of one run; they are silent once it is over.

    An exchange that is judged in several pieces has none: which of them the verdict shows is known only at the end.

    Args:
        on_step: None = nobody listens.
        owners: of each piece, the place of its exchange.
        engine: there are no voices where it does not stream.
        settle: what may be said.
    """
    voices: dict[int, Voice] = {}
    if on_step is not None and engine.streams:
        alone = (owner for owner, pieces in Counter(owners).items() if pieces == 1)
        voices = {owner: Voice(partial(on_step, owner), partial(settle, owner)) for owner in alone}
    try:
        yield voices
    finally:
        for voice in voices.values():
            voice.close()


def listening(voices: Voices, owners: Sequence[int]) -> OnText:
    """What an engine tells its texts to.

    Args:
        voices: texts of exchanges that have none are not heard.
        owners: of each row of the engine's run, the place of its exchange.
    """

    def on_text(row: int, text: str) -> None:
        if (voice := voices.get(owners[row])) is not None:
            voice.hear(text)

    return on_text
