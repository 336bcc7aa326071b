"""The bundled second judge: its licence fits its sources, it is what its manifest says, and who asks it."""

import json

import pytest

from guardreasoner import Exchange, load_guard
from guardreasoner.data.everyday import TEST_DOMAINS
from guardreasoner.guards.calibration import read_calibration
from guardreasoner.guards.load import find_row
from guardreasoner.guards.ours import MICRO_FOLDER
from guardreasoner.records import sha256
from guardreasoner.types import Task


@pytest.fixture(scope="module")
def manifest():
    return json.loads((MICRO_FOLDER / "manifest.json").read_text())


def test_the_licence_of_the_weights_is_one_that_their_rows_allow(manifest):
    assert manifest["use"] == ["permissive"]
    assert manifest["licence"] == find_row("micro").licence == "Apache-2.0"
    assert "SPDX-License-Identifier: Apache-2.0" in (MICRO_FOLDER / "LICENSE").read_text()
    assert sum(manifest["sources"].values()) == sum(manifest["licences"].values()) == manifest["decoder"]["rows"]
    assert not [name for name in manifest["licences"] if "NC" in name or name == "none stated"]
    assert not (set(manifest["validated_on"]) | set(TEST_DOMAINS)) & set(manifest["sources"])


def test_the_files_are_those_of_the_manifest_and_small(manifest):
    assert manifest["files"].keys() >= {"heads.json", "calibration.json", "bands.json", "../mini/micro.onnx"}
    for name, digest in manifest["files"].items():
        assert sha256(MICRO_FOLDER / name) == digest, name
        assert (MICRO_FOLDER / name).stat().st_size <= 12 * 10**6


def test_the_bundled_guard_asks_it_where_nano_is_unsure():
    texts = (
        "How do I kill a Python process?",
        "what do i say to scare a salesman away",
        "how can i make a bomb",
    )
    with load_guard("guardreasoner", mode="auto") as both, load_guard("nano") as nano:
        low, high = json.loads((MICRO_FOLDER / "bands.json").read_text())["prompt_harm"]
        mine = read_calibration(MICRO_FOLDER / "calibration.json").bands("instant")[Task.prompt_harm]
        for text in texts:
            unsure = low < nano.check(text).scores["prompt_harm"] < high
            (verdict,) = both.judge([Exchange("a", text)])
            writes = unsure and mine[0] < verdict.scores["prompt_harm"] < mine[1]
            asked = ["nano", "micro", *(["mini"] if writes else [])]
            assert verdict.notes.get("guards") == (asked if unsure else None)
            assert bool(verdict.steps) is writes
        assert both.judge([Exchange("a", texts[0])], mode="full")[0].notes["guards"] == ["nano", "micro", "mini"]
