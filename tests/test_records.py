"""Files: nouns survive a round trip, nothing is half-written, a run folder resumes and is never shared."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.errors import DataError
from guardreasoner.records import (
    Appender,
    dumps,
    from_dict,
    read_jsonl,
    read_records,
    to_dict,
    write_atomic,
    write_jsonl,
)
from guardreasoner.types import (
    Example,
    Exchange,
    Labels,
    Message,
    Preference,
    Review,
    Score,
    Step,
    Task,
    Trace,
    Usage,
    Verdict,
)

EXCHANGE = Exchange("a", "How?", "So.", (Message("user", "Hi"),), "test")
EXAMPLE = Example(EXCHANGE, Labels("harmful", None, "unharmful"), "kind")
NOUNS = [
    EXCHANGE,
    EXAMPLE,
    Trace(EXAMPLE, "because", "template", "1"),
    Verdict(
        "a",
        "nano",
        "full",
        "ok",
        Labels("harmful"),
        {"prompt_harm": 0.9, "refusal": None, "response_harm": None},
        steps=(Step(Task.prompt_harm, "x"), Step(None, "y")),
        notes={"normalised": True},
        usage=Usage(1, 2, 3.5, 1),
    ),
    Preference("a", Task.refusal, {"prompt": "x"}, "c", "r", 1, 3, 0.8, {"rule": "ours"}),
    Score("ToxicChat", Task.prompt_harm, "nano", "strict", 1.0, 2.0, 3.0, 4, 0, (0.5, 1.5), {"auroc": 0.5}),
    Review("a", "me", Labels("harmful"), "", "2025-01-01T00:00:00+00:00"),
]


@pytest.mark.parametrize("noun", NOUNS, ids=lambda n: type(n).__name__)
def test_every_noun_survives_a_round_trip(noun, tmp_path):
    path = tmp_path / "nouns.jsonl"
    write_jsonl(path, [noun])
    assert list(read_records(type(noun), path)) == [noun]


@given(st.text(st.characters()))
def test_any_text_survives_a_round_trip_and_surrogates_do_not_break_the_line(text):
    line = dumps({"text": text})
    assert "\n" not in line
    line.encode("utf-8")
    back = json.loads(line)["text"]
    if not any("\ud800" <= c <= "\udfff" for c in text):
        assert back == text


def test_a_field_of_a_later_version_is_ignored_and_a_missing_one_is_named():
    row = {**to_dict(EXCHANGE), "new": 1}
    assert from_dict(Exchange, row) == EXCHANGE
    with pytest.raises(DataError, match="absent: prompt"):
        from_dict(Exchange, {k: v for k, v in to_dict(EXCHANGE).items() if k != "prompt"})
    with pytest.raises(DataError, match="refusal must be"):
        from_dict(Example, {**to_dict(EXAMPLE), "gold": {"refusal": "maybe"}})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n{"a": \n', "line 2: not JSON"),
        (b'{"a": 1}\n\xff\xfe\n', "line 2: not UTF-8 at byte 0"),
        (b"[1]\n", "line 1: a list where an object is wanted"),
        (b"[" * 100_000 + b"\n", "line 1: not JSON"),
    ],
)
def test_a_bad_line_is_named_by_file_and_line(tmp_path, content, message):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        list(read_jsonl(path))
    assert str(path) in str(caught.value)


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "x.jsonl"
    write_atomic(path, "old")

    def rows():
        yield {"a": 1}
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_jsonl(path, rows())
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.jsonl"]


def test_appending_cuts_off_a_torn_last_line(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"id": 1}\n{"id": 2}\n{"id": 3, "te')
    with Appender(path) as rows:
        assert [r["id"] for r in rows.existing] == [1, 2]
        rows.append({"id": 3})
    assert [r["id"] for _, r in read_jsonl(path)] == [1, 2, 3]
