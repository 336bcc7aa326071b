"""Table 3's design as a recipe: what it says, what it would take, and a toy of it, killed and resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="the train extra is not installed")

from ablation_compare import CONTESTANTS, STEPS

from ablation import PAGE, RESULT, ablate, check, conclude, finished, main, seeded
from guardreasoner.errors import ConfigError, DataError, RunFolderError
from guardreasoner.guards.ours import MINI_FOLDER
from guardreasoner.records import read_jsonl
from guardreasoner.train.recipe import load_recipe, parse_recipe

TOY = """
model: {base: tiny, wire: raw}
data: {only: [everyday-q05, everyday-q06], limit: 24}
synthesize: {teacher: written}
sft: {learning_rate: 1.0e-3, batch: 4, micro_batch: 4, max_steps: 4, max_tokens: 700, precision: fp32, save_every: 2,
      gradient_checkpointing: false, threads: 1, log_every: 1, judged_tokens: 60}
variants:
  baseline: {reasoning: 0, labels_only: 1, only: [everyday-q05]}
  baseline-mix: {reasoning: 0, labels_only: 1}
  other: {leave_out: [everyday-q06]}
sample: {models: [sft, other], k: 3, temperature: 1.5, max_tokens: 8, forced: true, chunk: 8}
mine: {task: hardest}
dpo: {learning_rate: 1.0e-3, batch: 2, micro_batch: 2, max_steps: 2, max_tokens: 700, precision: fp32, save_every: 1,
      gradient_checkpointing: false, threads: 1, log_every: 1, judged_tokens: 60}
export: {precision: fp32, check: false}
evaluate: {engine: onnx, benchmarks: [everyday], limit: 12}
stages: [synthesize, sft, sample, mine, dpo, evaluate]
"""
SCRIPT = Path(__file__).parents[2] / "bench" / "ablation" / "ablation.py"
BUNDLED = load_recipe(SCRIPT.with_suffix(".yaml"))


def test_the_ablation_is_table_3_on_the_rows_and_the_base_of_mini():
    mini = load_recipe("mini")
    assert (BUNDLED.model, BUNDLED.data) == (mini.model, replace(mini.data, limit=1200))
    assert (BUNDLED.synthesize.teacher, BUNDLED.synthesize.share, BUNDLED.sample.k) == ("written", 1.0, 4)
    assert (BUNDLED.sft.reasoning, BUNDLED.sft.labels_only) == (1.0, 0.0)
    assert len(BUNDLED.variants["baseline"].only) == 1
    assert BUNDLED.sample.models == ("sft", "diversity")
    assert BUNDLED.dpo.learning_rate == pytest.approx(BUNDLED.sft.learning_rate / 10)  # the paper's ratio
    assert "confirm nor refute" in BUNDLED.note


def test_every_source_that_a_variant_names_is_in_the_mix():
    named = {s for v in BUNDLED.variants.values() for s in (*v.only, *v.leave_out)}
    assert named <= set(json.loads((MINI_FOLDER / "manifest.json").read_text())["sources"])
    assert len(named) == 4


def test_a_seed_moves_every_choice_and_keeps_the_models_paired():
    one, two = seeded(BUNDLED, 1), seeded(BUNDLED, 2)
    for section in ("data", "synthesize", "sft", "sample", "mine", "dpo"):
        before, after = getattr(one, section), getattr(two, section)
        assert after.seed == before.seed + 1
        assert replace(after, seed=before.seed) == before
    for recipe in (one, two):
        assert {v.seed for v in recipe.variants.values()} == {recipe.sft.seed}
    other = parse_recipe(TOY.replace("other: {", "other: {seed: 7, "), name="toy")
    assert seeded(other, 1).variants["other"].seed == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("baseline-mix: {reasoning: 0, labels_only: 1}", "mixed: {}"), "variant baseline-mix"),
        (("only: [everyday-q05]", "only: []"), "one source"),
        (("reasoning: 0, labels_only: 1, only", "reasoning: 1, labels_only: 1, only"), "reasoning: 0"),
        (("models: [sft, other]", "models: [sft]"), "the ensemble"),
        (("mine: {", "mine: {models: [sft], "), "mines twice"),
    ],
)
def test_an_ablation_that_is_not_table_3_is_refused_before_anything_runs(change, message):
    with pytest.raises(ConfigError, match=message):
        check(parse_recipe(TOY.replace(*change), name="toy"), 2)


def test_a_dry_run_names_every_training_run_of_a_seed_and_trains_nothing(tmp_path, capsys):
    recipe = tmp_path / "toy.yaml"
    recipe.write_text(TOY)
    assert main([str(recipe), "--out", str(tmp_path / "run"), "--seeds", "5", "--dry-run"]) == 0
    said = capsys.readouterr().out
    for word in ("5 seeds", "sft:", "sft-baseline:", "sft-baseline-mix:", "sft-other:", "dpo-self:", "dpo-ensemble:"):
        assert word in said
    assert not (tmp_path / "run").exists()


def test_no_seeds_and_other_recipes_are_refused_in_one_sentence(tmp_path, capsys):
    recipe = tmp_path / "toy.yaml"
    recipe.write_text(TOY)
    assert main([str(recipe), "--out", str(tmp_path / "run"), "--seeds", "0"]) == 1
    assert capsys.readouterr().err == "error: --seeds must be at least 1\n"
    with pytest.raises(ConfigError, match="variant baseline"):
        next(ablate(load_recipe("smoke"), 1, out=tmp_path / "run"))
    with pytest.raises(DataError, match="no seed of this ablation is finished"):
        conclude(tmp_path / "run")


def start(recipe: Path, out: Path, seeds: int):
    command = [sys.executable, str(SCRIPT), str(recipe), "--out", str(out), "--seeds", str(seeds)]
    log = open(out.with_suffix(".log"), "ab")  # noqa: SIM115 - the child's
    return subprocess.Popen(
        command, stdout=log, stderr=log, start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def done(out: Path):
    """When each finished stage was finished."""
    return {p.relative_to(out): json.loads(p.read_text())["finished"] for p in out.rglob("manifest.json")}


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_toy_of_the_whole_design_resumes_and_adds_a_seed(tmp_path):
    recipe, out = tmp_path / "toy.yaml", tmp_path / "run"
    recipe.write_text(TOY)
    log = out.with_suffix(".log")
    process = start(recipe, out, 1)
    while process.poll() is None and not (out / "seed-1" / "dpo-self" / "run.json").exists():
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert finished(out) == []
    assert start(recipe, out, 1).wait() == 0, log.read_text()[-3000:]
    assert finished(out) == [1]
    assert "One seed: there are no intervals over seeds" in (out / PAGE).read_text()
    before = done(out)
    assert start(recipe, out, 2).wait() == 0, log.read_text()[-3000:]
    after = done(out)
    assert {path: after[path] for path in before} == before  # nothing of the first seed was done again
    assert finished(out) == [1, 2]
    data = json.loads((out / RESULT).read_text())
    assert data["seeds"] == [1, 2]
    assert len(data["own"]["differences"]) == len(STEPS) * 4
    assert all(len(d["by_seed"]) == 2 for d in data["own"]["differences"])
    assert (out / PAGE).read_text().strip() in log.read_text()
    same_rows(out)
    other = replace(parse_recipe(TOY, name="toy").evaluate, limit=8)
    with pytest.raises(RunFolderError, match="limit"):
        list(ablate(replace(parse_recipe(TOY, name="toy"), evaluate=other), 2, out=out))


def same_rows(out: Path):
    """Every model of every seed answered the same rows; seeds trained on different ones."""
    ids = {
        tuple(row["exchange_id"] for _, row in read_jsonl(path))
        for path in out.glob("seed-*/evaluate/*/verdicts/everyday.jsonl")
    }
    runs = list(out.glob("seed-*/evaluate/*"))
    assert len(runs) == 2 * (len(CONTESTANTS) + 3)
    assert len(ids) == 1
    assert len(next(iter(ids))) == 24  # twelve for requests, twelve for replies
    trained = [
        {row["example"]["exchange"]["id"] for _, row in read_jsonl(out / f"seed-{n}" / "synthesize" / "traces.jsonl")}
        for n in (1, 2)
    ]
    assert trained[0] != trained[1]
