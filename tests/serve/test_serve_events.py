"""Server-sent events by the standard: how the bytes are cut and how lines end makes no difference."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.serve.chat.events import EventReader, EventTooLong, ServerSent

DATA = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12)
EVENTS = st.lists(st.lists(DATA, min_size=1, max_size=3), max_size=5)
ENDS = st.sampled_from(["\n", "\r\n", "\r"])


def read(content: bytes, cuts=()) -> list[ServerSent]:
    reader, found, start = EventReader(), [], 0
    for cut in (*sorted(c % (len(content) + 1) for c in cuts), len(content)):
        found += reader.feed(content[start:cut])
        start = cut
    return [*found, *reader.feed(b"", last=True)]


def written(events, end: str, *, comments: bool = False, space: str = " ") -> bytes:
    lines = []
    for event in events:
        lines += [f":ping{end}"] if comments else []
        lines += [f"data:{space}{line}{end}" for line in event]
        lines.append(end)
    return "".join(lines).encode()


@given(EVENTS, ENDS, st.lists(st.integers(0, 500), max_size=8), st.booleans())
def test_any_split_into_bytes_and_any_line_end_gives_the_same_events(events, end, cuts, comments):
    expected = [ServerSent("\n".join(event)) for event in events]
    assert read(written(events, end, comments=comments), cuts) == expected


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), st.lists(st.integers(0, 200), max_size=6))
def test_any_bytes_give_the_same_events_however_they_are_cut(text, cuts):
    assert read(text.encode(), cuts) == read(text.encode())


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"])
def test_only_carriage_return_and_line_feed_end_a_line(separator):
    assert read(f"data: First.{separator}Second.\n\n".encode()) == [ServerSent(f"First.{separator}Second.")]


def test_the_fields_of_the_standard():
    assert read(b"\xef\xbb\xbfdata: a\n\n") == [ServerSent("a")]
    assert read(b"event: error\ndata: a\ndata: b\nid: 7\nretry: 9\nzzz: x\n\n") == [ServerSent("a\nb", "error")]
    assert read(b"data:  a\n\ndata:a\n\ndata\n\n") == [ServerSent(" a"), ServerSent("a"), ServerSent("")]
    assert read(b": only a comment\n\nevent: x\n\n") == []
    assert read(b"data: cut off by the end") == [ServerSent("cut off by the end")]
    assert read("data: ü".encode()[:-1] + b"\n\n") == [ServerSent("\ufffd")]


def test_an_event_without_end_is_not_kept_for_ever():
    for piece in (b"data: x", b"x", b":", b"data: x\n"):
        reader = EventReader(longest=1000)
        with pytest.raises(EventTooLong):
            feed_often(reader, piece)
    feed_often(EventReader(longest=1000), b": ping\n\n")


def feed_often(reader, piece):
    for _ in range(2000):
        list(reader.feed(piece))
