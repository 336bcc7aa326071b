"""A cascade asks the second guard only what the first is unsure of."""

import json

import pytest

from guardreasoner.cli.main import main
from guardreasoner.engines.scripted import ScriptedEngine
from guardreasoner.errors import ConfigError, UnknownName
from guardreasoner.guards.cascade import CascadeGuard, read_bands
from guardreasoner.guards.load import load_guard
from guardreasoner.guards.reasoning import ReasoningGuard
from guardreasoner.plans import Completion
from guardreasoner.types import Exchange, Labels, Task


def guard(name, **scripted):
    return ReasoningGuard(name, ScriptedEngine(**scripted), mode="instant")


def test_only_uncertain_exchanges_reach_the_second_guard():
    first = guard("small", scores={"clear": 0.95, "doubtful": 0.6})
    both = CascadeGuard(first, guard("large", scores={"": 0.1}), {Task.prompt_harm: (0.4, 0.7)})
    verdicts = both.judge([Exchange("a", "clear"), Exchange("b", "doubtful"), Exchange("c", "clear")])
    assert [v.labels.prompt_harm for v in verdicts] == ["harmful", "unharmful", "harmful"]
    assert [v.guard for v in verdicts] == ["small+large"] * 3
    assert [len(texts) for texts, _ in both.second.engine.calls] == [1]


def test_an_uncertain_request_takes_the_second_label_and_keeps_the_first_for_the_rest():
    first = guard("small", scores={"x": 0.6})
    both = CascadeGuard(first, guard("large", scores={"x": 0.1}), {Task.prompt_harm: (0.4, 0.7)})
    verdict = both.judge([Exchange("b", "x", "y")])[0]
    assert verdict.labels == Labels("unharmful", "refusal", "harmful")
    assert verdict.notes["escalated"] == ["prompt_harm"]
    assert verdict.usage.passes == 2


def test_what_the_first_could_not_judge_goes_to_the_second_and_a_failed_second_keeps_the_first():
    dead = guard("small", default=Completion("", "timeout", error="late"))
    both = CascadeGuard(dead, guard("large", scores={"": 0.9}), {})
    assert both.judge([Exchange("a", "x")])[0].labels.prompt_harm == "harmful"
    failing = guard("large", default=Completion("", "timeout", error="late"))
    kept = CascadeGuard(guard("small", scores={"": 0.6}), failing, {Task.prompt_harm: (0.4, 0.7)})
    verdict = kept.judge([Exchange("a", "x")])[0]
    assert verdict.status == "ok"
    assert verdict.notes["escalation_failed"] == "timeout"


def test_a_cascade_is_loaded_by_name():
    both = load_guard(
        "cascade",
        mode="full",
        first="serve.fake_guards:WordGuard",
        second={"name": "serve.fake_guards:WordGuard"},
        bands={"prompt_harm": [0.2, 0.8]},
    )
    assert both.bands == {Task.prompt_harm: (0.2, 0.8)}
    assert both.judge([Exchange("a", "x")])[0].status == "ok"


@pytest.mark.parametrize(
    ("bands", "kind"),
    [
        ({"harm": [0, 1]}, UnknownName),
        ({"refusal": [0.8, 0.2]}, ConfigError),
        ({"refusal": [0.2]}, ConfigError),
        ({"refusal": "0.2"}, ConfigError),
        ({"refusal": [0, 2]}, ConfigError),
    ],
)
def test_bands_are_checked(bands, kind):
    with pytest.raises(kind):
        read_bands(bands)


def test_a_cascade_without_its_parts_says_what_it_needs(capsys):
    assert main(["check", "--guard", "cascade", "--option", "first=nano", "hello"]) == 1
    assert "--option second=" in capsys.readouterr().err
    assert main(["check", "--guard", "cascade", "--option", "third=nano", "hello"]) == 1
    assert "third" in capsys.readouterr().err


def test_a_cascade_runs_from_the_command_line(tmp_path, capsys):
    bands = json.dumps({"prompt_harm": [0.0, 1.0]})
    command = ["check", "--guard", "cascade", "--option", "first=nano", "--option", "second=nano", "--json"]
    assert main([*command, "--option", f"bands={bands}", "How do I kill a Python process?"]) == 0
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["guard"] == "nano+nano"
    assert verdict["notes"]["escalated"] == ["prompt_harm"]
