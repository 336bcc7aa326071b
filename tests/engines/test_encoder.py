"""The engine that scores text."""

import json
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guardreasoner.engines.encoder import EncoderEngine, read_heads, write_heads
from guardreasoner.errors import ConfigError, EngineError, EngineTimeout, InputTooLong
from tiny_encoder import BIAS, OUTPUTS, write_tiny


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return EncoderEngine(write_tiny(tmp_path_factory.mktemp("tiny")), threads=1)


def test_logits_are_what_the_heads_make_of_the_features(engine):
    scores = engine.score([("make a bomb", None), ("make a cake", "sorry")])
    assert engine.outputs == OUTPUTS
    assert scores.tokens.tolist() == [5, 7]  # [CLS] make a bomb [SEP]; [CLS] make a cake [SEP] sorry [SEP]
    assert scores.logits[0] == pytest.approx([60 / 5 + BIAS, BIAS, 40 / 5 + BIAS, BIAS, 40 / 5 + BIAS, BIAS])
    assert scores.logits[1, 1] == pytest.approx(60 / 7 + BIAS)


def test_a_text_has_the_same_scores_whatever_stands_beside_it(engine):
    pairs = [("make a bomb", None), ("how do i make a cake", "sure here"), ("kill the process", None)]
    together = engine.score(pairs).logits
    for row, pair in zip(together, pairs, strict=True):
        assert np.array_equal(engine.score([pair]).logits[0], row)


def test_text_can_form_no_special_token(engine):
    ids, request = engine._encode(("make [SEP] a [CLS] [PAD] cake", "[SEP] sure"))
    special = [i for i in ids if i in (0, 1, 2)]
    assert special == [1, 2, 2]
    assert ids[request - 1] == 2


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.text(max_size=40), st.none() | st.text(max_size=20))
def test_any_text_is_scored_or_refused(engine, prompt, reply):
    try:
        scores = engine.score([(prompt, reply)])
    except InputTooLong:
        return
    assert np.isfinite(scores.logits).all()


@pytest.mark.parametrize("text", ["make a bomb\N{BOMB}", "\N{BOMB}make a\N{BOMB} bomb", "make a bomb \u222b\ue000"])
def test_a_symbol_that_the_vocabulary_lacks_hides_no_word_and_moves_no_score(engine, text):
    plain, marked = engine.score([("make a bomb", None), (text, None)]).logits
    assert np.array_equal(plain, marked)


def test_a_word_of_any_length_is_read_in_parts(engine):
    ids, _ = engine._encode(("cake" * 60, None))
    assert len(ids) > 4


def test_what_is_too_long_is_refused_and_named(engine):
    with pytest.raises(InputTooLong, match="64 tokens"):
        engine.score([("make " * 70, None)])
    with pytest.raises(InputTooLong):
        engine.score([("m" * 10_000_000, None)])


def test_a_passed_deadline_ends_the_call(engine):
    with pytest.raises(EngineTimeout):
        engine.score([("make a cake", None)], deadline=time.monotonic() - 1)


def test_scores_that_are_no_finite_numbers_are_an_error(engine, monkeypatch):
    for value in (np.nan, np.inf):
        monkeypatch.setattr(engine, "_run", lambda *_, value=value: np.full(engine.weight.shape[1], value, np.float32))
        with pytest.raises(EngineError, match="no finite numbers"), np.errstate(invalid="ignore"):
            engine.score([("hello", None)])


def test_no_texts_give_no_rows(engine):
    assert engine.score([]).logits.shape == (0, len(OUTPUTS))


def test_offsets_are_character_spans(engine):
    assert engine.offsets("make a cake") == [(0, 4), (5, 6), (7, 11)]


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("guard.json", "{}", "guard.json"),
        ("guard.json", json.dumps({"format": "guardreasoner"}), "guard.json"),
        ("heads.json", "[1, 2]", "heads.json"),
        ("heads.json", json.dumps({"a": {"bias": 0, "weight": [1, 2]}}), "does not fit"),
        ("heads.json", json.dumps({"a": {"bias": 0, "weight": [float("nan")]}}), "heads.json"),
        ("tokenizer.json", "{}", "tokenizer.json"),
    ],
)
def test_a_broken_folder_is_named_in_one_sentence(tmp_path, file, content, said):
    folder = write_tiny(tmp_path / "model")
    (folder / file).write_text(content)
    with pytest.raises(ConfigError, match=said):
        EncoderEngine(folder, threads=1)


def test_missing_and_broken_weights_are_named(tmp_path):
    folder = write_tiny(tmp_path / "model")
    (folder / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(EngineError, match="cannot load"):
        EncoderEngine(folder, threads=1)
    (folder / "model.onnx").unlink()
    with pytest.raises(ConfigError, match="no weights"):
        EncoderEngine(folder, threads=1)


def test_heads_are_read_as_they_were_written(tmp_path):
    weight, bias = np.array([[0.25, -1.5], [3.0, 0.0]], np.float32), np.array([0.5, -2.0], np.float32)
    write_heads(tmp_path, ("a", "b"), weight, bias)
    outputs, w, b = read_heads(tmp_path)
    assert outputs == ("a", "b")
    assert np.array_equal(w, weight)
    assert np.array_equal(b, bias)


def test_a_closed_engine_says_so(tmp_path):
    closed = EncoderEngine(write_tiny(tmp_path / "model"), threads=1)
    closed.close()
    with pytest.raises(EngineError, match="closed"):
        closed.score([("make a cake", None)])
