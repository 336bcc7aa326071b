"""Windows of a text that is too long, and what turns margins into probabilities."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.errors import ConfigError
from guardreasoner.guards.calibration import Calibration, Curve, read_calibration
from guardreasoner.guards.windows import split, windows
from guardreasoner.types import Exchange, Task
from scripted import word_spans


@given(st.integers(1, 400), st.integers(8, 60))
def test_windows_cover_every_word_and_overlap(count, size):
    text = " ".join(f"w{i}" for i in range(count))
    pieces = split(text, word_spans(text), size)
    assert all(len(p.split()) <= size for p in pieces)
    assert {w for p in pieces for w in p.split()} == set(text.split())
    if len(pieces) > 1:
        assert set(pieces[0].split()) & set(pieces[1].split())


def test_request_and_reply_are_windowed_apart():
    exchange = Exchange("x", " ".join(["ask"] * 100), " ".join(["reply"] * 100))
    made = windows(exchange, 64, 16, word_spans)
    assert [w.response is None for w in made][:2] == [True, True]
    assert any(w.response is not None and w.prompt for w in made)
    assert windows(exchange, 64, 2, word_spans) is None


def test_a_text_of_more_characters_than_the_windows_hold_is_too_long_without_tokenising_it():
    def never(text):
        raise AssertionError

    assert windows(Exchange("x", "a" * 100_000), 64, 16, never) is None


@given(st.floats(0.1, 5), st.floats(-5, 5), st.floats(0.01, 0.99))
def test_the_margin_is_where_the_probability_meets_the_threshold(slope, shift, threshold):
    curve = Curve("platt", (slope, shift), threshold)
    assert curve.probability(curve.margin()) == pytest.approx(threshold)


def test_calibration_survives_writing_and_reading(tmp_path):
    calibration = Calibration({(Task.refusal, "full"): Curve("platt", (2.0, -1.0), 0.3, None)}, "rows of a test")
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(calibration.as_dict()))
    assert read_calibration(path) == calibration


@pytest.mark.parametrize(
    "row",
    [
        {"method": "magic", "params": [1, 0], "threshold": 0.5},
        {"method": "platt", "params": [-1, 0], "threshold": 0.5},
        {"method": "platt", "params": [1, 0], "threshold": 1.5},
        {"method": "platt", "threshold": 0.5},
    ],
)
def test_a_wrong_calibration_file_is_one_sentence(tmp_path, row):
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps({"tasks": {"refusal": {"full": row}}}))
    with pytest.raises(ConfigError, match="not a calibration file"):
        read_calibration(path)
