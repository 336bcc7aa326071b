"""`guardreasoner export`."""

import json

import pytest

pytest.importorskip("torch", reason="needs the train extra")

from guardreasoner.cli.main import main
from guardreasoner.export import onnx
from guardreasoner.guards.load import load_guard
from tiny_torch import tiny_checkpoint


def test_a_checkpoint_becomes_a_folder_that_is_a_guard(tmp_path, capsys):
    checkpoint = tiny_checkpoint(tmp_path)
    (checkpoint / "guard.json").write_text('{"wire": "raw"}')
    assert main(["export", str(checkpoint), "--out", str(tmp_path / "run"), "--precision", "fp32"]) == 0
    made = capsys.readouterr().out.splitlines()[-1]
    assert made == str(tmp_path / "run" / "export" / "model")
    guard = load_guard(made, mode="instant")
    assert guard.check("how to kill a process").status == "ok"
    manifest = json.loads((tmp_path / "run" / "export" / "manifest.json").read_text())
    assert manifest["config"] == {
        "precision": "fp32",
        "check": True,
        "rank": None,
        "guard": {},
        "compare": 0,
    }
    assert manifest["max_deviation"] < 1e-4


def test_a_recipe_exports_the_last_checkpoint_of_its_run(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx, "_build", lambda *_: None)
    folder = tmp_path / "run" / "dpo"
    folder.mkdir(parents=True)
    tiny_checkpoint(tmp_path).rename(folder / "checkpoint")
    assert main(["export", "smoke", "--out", str(tmp_path / "run"), "--no-check"]) == 0
    manifest = json.loads((tmp_path / "run" / "export" / "manifest.json").read_text())
    assert list(manifest["inputs"]) == ["dpo/checkpoint"]
    assert manifest["config"] == {
        "precision": "int8",
        "check": False,
        "rank": None,
        "guard": {},
        "compare": 0,
    }


@pytest.mark.parametrize(
    ("name", "words"), [("smoke", "config.json"), ("nano", "no encoder yet"), ("smok", "'smoke'"), ("a/b", "neither")]
)
def test_what_is_not_there_is_one_sentence(tmp_path, capsys, name, words):
    assert main(["export", name, "--out", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
