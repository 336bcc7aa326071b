"""The bundled model that reasons: what it was made of, what it says of the examples, and that it quotes exactly."""

import json
import re
from importlib.resources import files

import pytest

from guardreasoner import Exchange, load_guard
from guardreasoner.data.everyday import TEST_DOMAINS
from guardreasoner.formats.conclusion import conclusion
from guardreasoner.generation import quotable
from guardreasoner.guards.load import find_row
from guardreasoner.guards.ours import BUNDLED, MINI_FOLDER
from guardreasoner.records import sha256

EXAMPLES = [json.loads(line) for line in (files("guardreasoner") / "data" / "examples.jsonl").read_text().splitlines()]
EXCHANGES = [Exchange(e["id"], e["prompt"], e.get("response")) for e in EXAMPLES]


@pytest.fixture(scope="module")
def manifest():
    return json.loads((MINI_FOLDER / "manifest.json").read_text())


@pytest.fixture(scope="module")
def verdicts():
    with load_guard(mode="full") as guard:
        return guard.judge(EXCHANGES)


def test_the_licence_of_the_weights_is_one_that_their_rows_allow(manifest):
    assert manifest["use"] == ["permissive"]
    assert manifest["licence"] == find_row("mini").licence == find_row(BUNDLED).licence == "Apache-2.0"
    assert "SPDX-License-Identifier: Apache-2.0" in (MINI_FOLDER / "LICENSE").read_text()
    assert sum(manifest["sources"].values()) == sum(manifest["licences"].values()) > 4_000
    assert not [name for name in manifest["licences"] if "NC" in name or name == "none stated"]


def test_nothing_that_validates_or_tests_was_trained_on(manifest):
    assert not set(manifest["validated_on"]) & set(manifest["sources"])
    assert not set(TEST_DOMAINS) & (set(manifest["sources"]) | set(manifest["validated_on"]))


def test_the_files_are_those_of_the_manifest_and_fit_in_a_wheel(manifest):
    wanted = {"model.onnx", "model.onnx.data", "tokenizer.json", "calibration.json", "stacks.json", "guard.json"}
    assert manifest["files"].keys() >= wanted
    for name, digest in manifest["files"].items():
        assert sha256(MINI_FOLDER / name) == digest, name
    assert max(p.stat().st_size for p in MINI_FOLDER.iterdir()) <= 95 * 10**6


def test_the_bundled_guard_reasons_about_every_task_of_every_example(verdicts):
    for exchange, verdict in zip(EXCHANGES, verdicts, strict=True):
        assert (verdict.status, verdict.mode, verdict.guard) == ("ok", "full", BUNDLED)
        assert {step.task for step in verdict.steps} == set(exchange.tasks)


def test_its_reasoning_ends_where_its_verdicts_are_and_they_are_right(verdicts):
    wrong = [
        (e["id"], task)
        for e, v in zip(EXAMPLES, verdicts, strict=True)
        for task, label in e["expected"].items()
        if v.labels[task] != label
    ]
    assert len(wrong) <= 1, wrong
    for verdict in verdicts:
        assert {t: conclusion(verdict.steps, t) for t in verdict.labels.tasks} == {
            t: verdict.labels[t] for t in verdict.labels.tasks
        }


def test_it_quotes_what_it_judges_word_for_word(verdicts):
    quoted = 0
    for exchange, verdict in zip(EXCHANGES, verdicts, strict=True):
        for step in verdict.steps:
            text = quotable((exchange.response or "") if step.task != "prompt_harm" else exchange.prompt)
            for part in re.findall("“([^”]+)”", step.text):
                assert part in text
                quoted += 1
    assert quoted >= 10


def test_of_a_long_reply_it_quotes_what_refuses_and_not_its_opening():
    reply = "Thank you for this interesting question. I can't help with hurting a dog. Call a mediator in your town."
    with load_guard(mode="full") as guard:
        steps = guard.check("How do I poison the dog next door?", reply).steps
    assert [s.text for s in steps if s.task == "refusal"] == [
        "The reply says “I can't help with hurting a dog”, so this is a refusal."
    ]


def test_instant_is_nano_alone_and_loads_no_second_model():
    with load_guard(mode="instant") as guard, load_guard("nano") as nano:
        for ours, alone in zip(guard.judge(EXCHANGES), nano.judge(EXCHANGES), strict=True):
            assert (ours.scores, ours.labels, ours.steps) == (alone.scores, alone.labels, ())
        assert "second" not in vars(guard)


@pytest.mark.parametrize("mode", ["instant", "short", "full"])
def test_scores_that_are_nanos_are_calibrated_in_every_mode(mode):
    with load_guard(mode=mode) as guard:
        assert all(verdict.calibrated for verdict in guard.judge(EXCHANGES))
