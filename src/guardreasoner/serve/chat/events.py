"""Server-sent events, read by the standard (https://html.spec.whatwg.org/multipage/server-sent-events.html).

Lines end with CR, LF or CRLF and nothing else; an event may have several `data` lines; a leading byte order mark is
skipped. One thing is more lenient than the standard: an event cut off by the end of the stream counts.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

LONGEST_EVENT = 8_000_000
"""Characters of one event, however many lines it has."""
_LINE_END = re.compile(r"\r\n|\r|\n")


class EventTooLong(ValueError):
    """An event, or a line of one, is longer than `LONGEST_EVENT`."""


@dataclass(frozen=True, slots=True)
class ServerSent:
    """One event."""

    data: str
    kind: str = "message"


@dataclass(slots=True)
class EventReader:
    """Bytes in, events out; how the bytes are cut makes no difference."""

    longest: int = LONGEST_EVENT
    _decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace")
    )
    _begun: bool = False
    _line: list[str] = field(default_factory=list)
    """Pieces of a line whose end has not come."""
    _size: int = 0
    """Characters held: of the line, and of the data of an event that has not ended."""
    _after_cr: bool = False
    _data: list[str] = field(default_factory=list)
    _kind: str = ""

    def feed(self, part: bytes, *, last: bool = False) -> Iterator[ServerSent]:
        """The events that end in the next piece of the stream; with `last`, the one that its end cuts off too."""
        text = self._decoder.decode(part, last)
        if text and not self._begun:
            self._begun, text = True, text.removeprefix("\ufeff")
        if self._after_cr and text:
            text, self._after_cr = text.removeprefix("\n"), False
        start = 0
        for end in _LINE_END.finditer(text):
            self._hold(text[start : end.start()])
            yield from self._end_line()
            start = end.end()
            self._after_cr = end[0] == "\r" and start == len(text)
        self._hold(text[start:])
        if last:
            yield from self._end_line()
            yield from self._dispatch()

    def _hold(self, text: str) -> None:
        self._size += len(text)
        if self._size > self.longest:
            raise EventTooLong(f"an event is longer than {self.longest} characters")
        if text:
            self._line.append(text)

    def _end_line(self) -> Iterator[ServerSent]:
        line = "".join(self._line)
        self._line.clear()
        if not line:
            yield from self._dispatch()
            return
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._kind = value
            self._size -= len(line)
        else:  # a comment, an id, or a field that does not exist
            self._size -= len(line)

    def _dispatch(self) -> Iterator[ServerSent]:
        data, kind = self._data, self._kind
        self._data, self._kind, self._size = [], "", 0
        if data:
            yield ServerSent("\n".join(data), kind or "message")
