"""Numbers that are impossible are refused by name, wherever a person gives them."""

import json
import shutil

import pytest

from guardreasoner import load_guard
from guardreasoner.cli.main import main
from guardreasoner.engines.load import check_options
from guardreasoner.engines.openai import OpenAIEngine
from guardreasoner.errors import ConfigError
from guardreasoner.evaluate.regression_gate import gate
from guardreasoner.evaluate.run_benchmarks import evaluate
from guardreasoner.evaluate.stress import stress
from guardreasoner.guards.calibration import read_calibration
from guardreasoner.guards.ours import NANO_FOLDER
from guardreasoner.serve.policy import policy_of
from guardreasoner.train.recipe import load_recipe, parse_recipe


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "hi", "--option", "threads=-1"], "threads of engine encoder must be at least 1, not -1"),
        (["check", "hi", "--option", "threads=0"], "must be at least 1, not 0"),
        (["check", "hi", "--option", "threads=NaN"], "whole number"),
        (["check", "hi", "--option", "threads=1e999"], "whole number"),
        (["evaluate", "--guard", "constant", "--limit", "0", "--out", "run"], "--limit must be at least 1, not 0"),
        (["evaluate", "--guard", "constant", "--seed", "-1", "--out", "run"], "--seed must be 0 or more, not -1"),
        (["evaluate", "--guard", "constant", "--temperature", "nan", "--out", "run"], "--temperature must be 0 or"),
        (["stress", "--guard", "constant", "--harmful", "0", "--out", "run"], "--harmful must be at least 1, not 0"),
        (["batch", "in.jsonl", "out.jsonl", "--workers", "-2"], "--workers must be at least 1, not -2"),
        (["serve", "--port", "70000"], "--port must be from 0 to 65535, not 70000"),
        (["serve", "--drain", "-1"], "--drain must be 0 or more, not -1.0"),
        (["serve", "--drain", "inf"], "--drain must be at most 1e+12, not inf"),
        (["import-traces", "no.jsonl", "--out", "run"], "no.jsonl"),
        (
            ["import-traces", "rows.jsonl", "--out", "run"],
            "none of its 1 rows is a published trace; the first (rows:0)",
        ),
        (["synthesize", "recipe.yaml", "--out", "run"], "synthesize.temperature must be 0 or more, not -1.0"),
    ],
)
def test_a_refused_command_says_what_is_wrong_and_leaves_no_folder(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text('{"prompt": "hi"}\n')
    (tmp_path / "rows.jsonl").write_text('{"instruction": "", "input": "", "output": ""}\n')
    (tmp_path / "recipe.yaml").write_text("extends: smoke\nsynthesize: {temperature: -1}\n")
    before = sorted(tmp_path.iterdir())
    assert main(words) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_function_takes_no_impossible_number_either(tmp_path):
    guard = load_guard("constant")
    with pytest.raises(ConfigError, match="limit must be at least 1, not 0"):
        evaluate(guard, {}, tmp_path / "run", limit=0)
    with pytest.raises(ConfigError, match="harmful must be at least 1, not 0"):
        stress(guard, [], tmp_path / "run", harmful=0)
    with pytest.raises(ConfigError, match="fail_below must be more than 0, not 0"):
        gate([], [], 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("option", "value"),
    [("timeout_s", 0), ("timeout_s", float("inf")), ("retries", -1), ("in_flight", 0), ("backoff_s", float("nan")),
     ("top_p", 0), ("top_p", 1.5), ("context_tokens", -1)],
)  # fmt: skip
def test_an_engine_takes_no_impossible_number(option, value):
    with pytest.raises(ConfigError, match=f"option {option} of engine openai"):
        check_options("openai", OpenAIEngine, {option: value})


def test_a_format_takes_no_impossible_number():
    for given in ({"max_tokens": -5}, {"max_tokens": True}, {"max_tokens": "many"}, {"categories": -1}):
        with pytest.raises(ConfigError, match=next(iter(given))):
            load_guard("llama-guard-3-8b", engine="scripted", model="", **given)


@pytest.mark.parametrize(
    "section",
    ["sft: {learning_rate: 0}", "sft: {epochs: .inf}", "sft: {threads: -1}", "sft: {warmup: 1.5}", "sft: {seed: -1}",
     "sft: {lora: {rank: 0}}", "sft: {lora: {dropout: 1}}", "dpo: {beta: .nan}", "sample: {k: 0}",
     "sample: {temperature: -0.1}", "mine: {gamma: 1}", "encoder: {epochs: 0}", "encoder: {data: {alone: 2}}",
     "data: {caps: {x: -1}}", "data: {limit: 0}", "evaluate: {limit: -3}", "calibrate: {budget: 1}",
     "synthesize: {max_cost: -1}", "synthesize: {timeout_s: 0}", "export: {rank: 0}",
     "variants: {other: {max_steps: 0}}"],
)  # fmt: skip
def test_a_recipe_takes_no_impossible_number(section):
    name = section.replace("{x: -1}", "-1").replace("{", "").split(": ")[-2].strip()
    with pytest.raises(ConfigError, match=rf"{name} must be .*, not "):
        parse_recipe(section, name="mine")


@pytest.mark.parametrize("name", ["smoke", "nano", "mini", "1b", "8b"])
def test_the_bundled_recipes_are_in_range(name):
    assert load_recipe(name).sft.epochs > 0


@pytest.mark.parametrize(
    "policy",
    [{"version": 9}, {"version": True}, {"version": "1"}, {"deadline_s": float("nan")}, {"window_n": True},
     {"limits": {"hang_s": float("inf")}}, {"limits": {"queue": 10**30}}, {"budget": {"seconds": 1e300}},
     {"proxy": {"timeout_s": float("inf")}}, {"cache": {"entries": -1}}, {"thresholds": {"prompt_harm": float("nan")}},
     {"budget": {"per_key": True}}, {"budget": {"total": 10**30}}, {"thresholds": {"prompt_harm": True}},
     {"review": {"prompt_harm": [False, True]}}],
)  # fmt: skip
def test_a_policy_takes_no_unknown_version_and_no_impossible_number(policy):
    with pytest.raises(ConfigError, match=r"must|lies"):
        policy_of(policy)


@pytest.mark.parametrize("name", ["calibration.json", "guard.json"])
def test_a_file_of_another_version_is_refused_in_one_sentence(tmp_path, name):
    folder = tmp_path / "nano"
    shutil.copytree(NANO_FOLDER, folder)
    key = "version" if name == "calibration.json" else "format_version"
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**content, key: 9}))
    with pytest.raises(ConfigError, match=r"version.*9.*known: '?[12]"):
        load_guard(str(folder))


@pytest.mark.parametrize("band", [[0.6, 0.4], [-1, 0.5], [0.2, 2], ["NaN", 0.5]])
def test_a_band_that_is_none_is_refused(tmp_path, band):
    content = json.loads((NANO_FOLDER / "calibration.json").read_text())
    content["tasks"]["prompt_harm"]["instant"]["band"] = band
    (tmp_path / "c.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="band must be"):
        read_calibration(tmp_path / "c.json")
