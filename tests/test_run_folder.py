"""Counts that add up, and folders that belong to one run."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from guardreasoner.errors import ConfigError, DataError, EngineError, MissingDependency, RunFolderError
from guardreasoner.run_folder import Counts, RunFolder


def test_counts_that_do_not_add_up_are_refused():
    counts = Counts(in_=3, out=1)
    counts.drop("too long", 2)
    assert counts.as_dict() == {"in": 3, "out": 1, "dropped": {"too long": 2}}
    with pytest.raises(ValueError, match="do not add up"):
        replace(counts, out=2).as_dict()


def test_another_config_on_the_same_folder_names_the_differing_key(tmp_path):
    with RunFolder(tmp_path, "sft", config={"lr": 1e-3, "epochs": 1}):
        pass
    with pytest.raises(RunFolderError, match=r"config key 'lr' \(0.001 there, 0.002 now\)"):
        RunFolder(tmp_path, "sft", config={"lr": 2e-3, "epochs": 1})
    with RunFolder(tmp_path, "sft", config={"lr": 2e-3, "epochs": 1}, fresh=True) as run:
        assert run.config["lr"] == 2e-3


def test_another_input_on_the_same_folder_is_refused(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text("{}\n")
    with RunFolder(tmp_path, "sft", config={}, inputs=[source]):
        pass
    source.write_text("{}\n{}\n")
    with pytest.raises(RunFolderError, match="another input"):
        RunFolder(tmp_path, "sft", config={}, inputs=[source])


def test_the_second_process_on_a_folder_is_refused_and_a_killed_one_frees_it(tmp_path):
    code = (
        "import sys, time; from guardreasoner.run_folder import RunFolder\n"
        "run = RunFolder(sys.argv[1], 'sft', config={}); print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline().strip() == "held"
    with pytest.raises(RunFolderError, match="in use by another process"):
        RunFolder(tmp_path, "sft", config={})
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    time.sleep(0.05)
    RunFolder(tmp_path, "sft", config={}).close()


def test_fresh_empties_no_folder_of_another_kind(tmp_path):
    with RunFolder(tmp_path, "", config={"a": 1}, kind="evaluate"):
        (tmp_path / "verdicts.jsonl").write_text("{}")
    with pytest.raises(RunFolderError, match="holds a run of evaluate, so --fresh leaves it"):
        RunFolder(tmp_path, "", config={"a": 1}, fresh=True, kind="stress")
    assert (tmp_path / "verdicts.jsonl").exists()
    RunFolder(tmp_path, "", config={"a": 2}, fresh=True, kind="evaluate").close()
    assert not (tmp_path / "verdicts.jsonl").exists()


def end_with(error, out, stage="", files=(), *, ticks=False):
    """A run that writes files and then ends with an error."""
    with RunFolder(out, stage, config={}, kind="stage") as run:
        for name, text in files:
            (run.path / name).write_text(text)
        if ticks:
            run.tick()
        raise error


@pytest.mark.parametrize("error", [ConfigError("no"), DataError("no"), MissingDependency("torch", "train")])
def test_a_refused_run_leaves_no_folder_whatever_it_had_begun_to_write(tmp_path, error):
    with pytest.raises(type(error)):
        end_with(error, tmp_path / "a" / "b", "sft", [("validation.jsonl", "{}\n")])
    assert list(tmp_path.iterdir()) == []


def test_a_refused_run_takes_only_its_own_files_away(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError):
        end_with(ConfigError("no"), tmp_path, files=[("scores.jsonl", "{}\n")])
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("error", [EngineError("no"), KeyboardInterrupt()])
def test_a_run_that_ends_before_it_wrote_anything_leaves_no_folder_and_one_that_wrote_stays(tmp_path, error):
    with pytest.raises(type(error)):
        end_with(error, tmp_path / "a", "sft", [("rows.jsonl", "")])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(type(error)):
        end_with(error, tmp_path / "a", "sft", [("rows.jsonl", "{}\n")])
    assert sorted(p.name for p in (tmp_path / "a" / "sft").iterdir()) == [".lock", "rows.jsonl", "run.json"]


def test_work_that_was_ticked_or_is_of_an_earlier_sitting_stays_when_the_run_is_refused(tmp_path):
    with pytest.raises(ConfigError):
        end_with(ConfigError("the cost cap is reached"), tmp_path, "sft", [("paid.jsonl", "{}\n")], ticks=True)
    with pytest.raises(DataError):
        end_with(DataError("another file is broken"), tmp_path, "sft")
    assert sorted(p.name for p in (tmp_path / "sft").iterdir()) == [".lock", "paid.jsonl", "run.json"]


@pytest.mark.parametrize("content", [b"[]", b"{", b"\xff\xfe"])
def test_a_state_that_cannot_be_read_is_named_and_fresh_starts_over(tmp_path, content):
    RunFolder(tmp_path, "sft", config={"a": 1}).close()
    (tmp_path / "sft" / "run.json").write_bytes(content)
    with pytest.raises(DataError, match=r"run\.json"):
        RunFolder(tmp_path, "sft", config={"a": 1})
    RunFolder(tmp_path, "sft", config={"a": 1}, fresh=True).close()


def test_the_manifest_says_what_was_asked_read_made_and_dropped(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text("{}\n")
    with RunFolder(tmp_path, "mine", config={"k": 4}, inputs=[source]) as run:
        assert run.manifest is None
        run.log(loss=1.0)
        run.finish(Counts(in_=1, out=1), note="x")
        manifest = run.manifest
    assert set(manifest) == {
        "stage", "config", "inputs", "versions", "counts", "started", "finished", "seconds", "note",
    }  # fmt: skip
    assert manifest["inputs"]["in.jsonl"] == "ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356"
    assert json.loads((tmp_path / "mine" / "log.jsonl").read_text())["loss"] == 1.0
