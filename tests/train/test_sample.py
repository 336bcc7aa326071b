"""Sampling: k answers per example and model, kept one row at a time, nothing asked twice."""

import pytest

from guardreasoner.engines.scripted import ScriptedEngine
from guardreasoner.errors import ConfigError, DataError, EngineError
from guardreasoner.formats import guardreasoner as wire_format
from guardreasoner.generation import Completion, Free
from guardreasoner.records import read_jsonl
from guardreasoner.train.sample import SampleConfig, plan_for, run_sample
from train_tools import example, write_traces

ANSWER = "# Task 1\n## Reasoning Step 1\nfine.\n---\n\nAnswers: \nRequest: harmful\nCompletion: None\nResponse: None\n"


class Models:
    """Opens scripted engines and remembers what they were asked."""

    def __init__(self, **scripts):
        self.scripts, self.engines = scripts, {}

    def __call__(self, name):
        self.engines[name] = ScriptedEngine(default=self.scripts.get(name, ANSWER))
        return self.engines[name], "raw"

    def prompts(self, name):
        return [text for texts, _ in self.engines[name].calls for text in texts] if name in self.engines else []


def rows(out):
    return [row for _, row in read_jsonl(out / "sample" / "samples.jsonl")]


def test_every_example_gets_k_answers_of_every_model(tmp_path):
    write_traces(tmp_path, 7)
    models = Models(second="no idea")
    manifest = run_sample(SampleConfig(models=("sft", "second"), k=3, chunk=2), out=tmp_path, open_model=models)
    found = rows(tmp_path)
    asked = {(f"mild-{n}", model) for n in range(7) for model in ("sft", "second")}
    assert {(r["example_id"], r["model"]) for r in found} == asked
    assert all(len(r["texts"]) == 3 and r["temperature"] == 0.7 for r in found)
    assert manifest["counts"] == {"in": 14, "out": 14, "dropped": {}}
    assert manifest["models"] == {"sft": 7, "second": 7}


def test_a_stopped_run_asks_only_for_what_it_lacks(tmp_path):
    write_traces(tmp_path, 10)
    config = SampleConfig(k=2, chunk=1)
    asked = []

    def stops_after_four(text):
        asked.append(text)
        if len(asked) > 8:  # two answers each
            raise KeyboardInterrupt
        return ANSWER

    with pytest.raises(KeyboardInterrupt):
        run_sample(config, out=tmp_path, open_model=Models(sft=stops_after_four))
    assert len(rows(tmp_path)) == 4
    with open(tmp_path / "sample" / "samples.jsonl", "ab") as stream:
        stream.write(b'{"example_id": "mild-9", "mod')  # a line that a kill tore
    models = Models()
    manifest = run_sample(config, out=tmp_path, open_model=models)
    assert len(models.prompts("sft")) == 6
    assert manifest["counts"] == {"in": 10, "out": 10, "dropped": {}}
    ids = [r["example_id"] for r in rows(tmp_path)]
    assert sorted(ids) == sorted(f"mild-{n}" for n in range(10))
    again = Models()
    assert run_sample(config, out=tmp_path, open_model=again) == manifest
    assert not again.engines


def test_a_free_plan_is_one_text_and_a_forced_one_ends_with_all_three_lines():
    assert plan_for(example(0).exchange.tasks, SampleConfig()) == (Free(2048),)
    forced = SampleConfig(forced=True, max_tokens=40)
    engine = ScriptedEngine(default="fine.\n---\n")
    for one in (example(0), example(1)):
        plan = plan_for(one.exchange.tasks, forced)
        text = engine.run([wire_format.render(one.exchange)], plan, temperature=1.0)[0][0].text
        labels, problem = wire_format.read_labels(text)
        assert problem is None
        assert labels.tasks == one.exchange.tasks
        assert text.count("None") == 3 - len(one.exchange.tasks)
        assert text.endswith("\n")


def test_answers_that_failed_are_left_out_and_said(tmp_path):
    write_traces(tmp_path, 3)
    script = {"number 1": Completion("", "timeout", error="the deadline passed")}

    def open_model(_):
        return ScriptedEngine(script, default=ANSWER), "raw"

    run_sample(SampleConfig(k=2), out=tmp_path, open_model=open_model)
    found = {r["example_id"]: r for r in rows(tmp_path)}
    assert (found["mild-1"]["texts"], found["mild-1"]["finish"]) == ([], ["timeout", "timeout"])
    assert len(found["mild-2"]["texts"]) == 2


def test_a_call_in_which_every_text_is_too_long_is_no_fault_of_the_model(tmp_path):
    write_traces(tmp_path, 3)
    script = {"number 1": Completion("", "input_too_long", error="the text does not fit")}
    opened = run_sample(
        SampleConfig(k=2, chunk=1), out=tmp_path, open_model=lambda _: (ScriptedEngine(script, default=ANSWER), "raw")
    )
    found = {r["example_id"]: r for r in rows(tmp_path)}
    assert opened["counts"]["out"] == 3
    assert found["mild-1"]["finish"] == ["input_too_long", "input_too_long"]
    assert len(found["mild-2"]["texts"]) == 2


def test_a_model_that_answers_nothing_at_all_is_an_error(tmp_path):
    write_traces(tmp_path, 2)
    dead = Models(sft=Completion("", "unavailable", error="out of memory"))
    with pytest.raises(EngineError, match="out of memory"):
        run_sample(SampleConfig(), out=tmp_path, open_model=dead)


def test_a_diversity_model_may_sample_only_what_it_was_trained_on(tmp_path):
    write_traces(tmp_path, 9, sources=("a", "b", "c"))
    config = SampleConfig(models=("sft", "no-b"), k=2, only_trained_on=True)
    trained_on = {"no-b": frozenset({"a", "c"})}
    manifest = run_sample(config, out=tmp_path, open_model=Models(), trained_on=trained_on)
    assert manifest["counts"] == {"in": 18, "out": 15, "dropped": {"not_trained_on": 3}}
    assert not [r for r in rows(tmp_path) if r["model"] == "no-b" and r["example_id"].startswith("b-")]


def test_a_limit_takes_the_same_examples_in_every_run(tmp_path):
    chosen = []
    for name in ("one", "two"):
        write_traces(tmp_path / name, 20)
        run_sample(SampleConfig(limit=5), out=tmp_path / name, open_model=Models())
        chosen.append({r["example_id"] for r in rows(tmp_path / name)})
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 5


def test_what_cannot_be_sampled_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="the same answer k times"):
        SampleConfig(temperature=0.0)
    with pytest.raises(ConfigError, match="name a model"):
        SampleConfig(models=())
    with pytest.raises(DataError, match="guardreasoner synthesize"):
        run_sample(SampleConfig(), out=tmp_path, open_model=Models())
