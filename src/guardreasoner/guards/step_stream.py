"""Reports reasoning steps while the model writes: each once, in order, and only steps that the verdict will have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Lock

from guardreasoner.engines.base import Capabilities, OnText
from guardreasoner.types import Step

StepSink = Callable[[int, Step], None]
"""Called with a step and the index of its exchange."""
Settle = Callable[[int, str], Sequence[Step]]
"""From the index of an exchange and its text so far to the first steps that its verdict is certain to have."""


def placed(on_step: StepSink | None, places: Sequence[int]) -> StepSink | None:
    """The sink for some of the exchanges, given their indices among all."""
    return None if on_step is None else lambda place, step: on_step(places[place], step)


class StepStream:
    """Reports the steps of one growing text."""

    def __init__(self, say: Callable[[Step], None], settle: Callable[[str], Sequence[Step]]) -> None:
        """Args:
        say: called with each step; an exception in it ends the engine's run.
        settle: called again whenever another line is complete.
        """
        self.say, self.settle = say, settle
        self.said: list[Step] = []
        self.error: BaseException | None = None
        """The exception that `say` raised: the caller's own, not the engine's."""
        self._lines = 0
        self._closed = False
        self._lock = Lock()

    def feed(self, text: str) -> None:
        """Report the steps that are now settled. A text that starts over reports nothing until it catches up."""
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
        """Report nothing more: an abandoned engine may still be writing."""
        with self._lock:
            self._closed = True

    def _say(self, step: Step) -> None:
        try:
            self.say(step)
        except BaseException as error:
            self.error = error
            raise


StepStreams = Mapping[int, StepStream]
"""By the index of the exchange."""


@contextmanager
def step_streams(
    on_step: StepSink | None, owners: Sequence[int], *, engine: Capabilities, settle: Settle
) -> Iterator[StepStreams]:
    """The streams of one run; they are closed at its end.

    An exchange that is judged in several pieces has none: which piece the verdict shows is known only at the end.

    Args:
        on_step: None = no streams.
        owners: for each piece, the index of its exchange.
        engine: one that does not stream has no streams.
        settle: see `Settle`.
    """
    streams: dict[int, StepStream] = {}
    if on_step is not None and engine.streams:
        alone = (owner for owner, pieces in Counter(owners).items() if pieces == 1)
        streams = {owner: StepStream(partial(on_step, owner), partial(settle, owner)) for owner in alone}
    try:
        yield streams
    finally:
        for stream in streams.values():
            stream.close()


def text_sink(streams: StepStreams, owners: Sequence[int]) -> OnText:
    """The callback for an engine's growing texts.

    Args:
        streams: texts of exchanges without one are ignored.
        owners: for each row of the engine's run, the index of its exchange.
    """

    def on_text(row: int, text: str) -> None:
        if (stream := streams.get(owners[row])) is not None:
            stream.feed(text)

    return on_text
