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

from guardreasoner.ablation import PAGE, RESULT, ablate, conclude, finished, seeded
from guardreasoner.cli.main import main
from guardreasoner.errors import ConfigError, DataError, RunFolderError
from guardreasoner.evaluate.ablation import CONTESTANTS, STEPS
from guardreasoner.records import read_jsonl
from guardreasoner.reproduce import reproduce
from guardreasoner.train.recipe import load_recipe, parse_recipe

TOY = """
model: {base: tiny, wire: raw}
ablation: {seeds: 2}
data: {limit: 24}
sft: {learning_rate: 1.0e-3, batch: 4, micro_batch: 4, max_steps: 4, max_tokens: 700, precision: fp32, save_every: 2,
      gradient_checkpointing: false, threads: 1, log_every: 1, judged_tokens: 60}
variants:
  baseline: {reasoning: 0, labels_only: 1, only: [smoke]}
  baseline-mix: {reasoning: 0, labels_only: 1}
  other: {leave_out: [smoke_validation]}
sample: {models: [sft, other], k: 3, temperature: 1.5, max_tokens: 8, forced: true, chunk: 8}
mine: {task: hardest}
dpo: {learning_rate: 1.0e-3, batch: 2, micro_batch: 2, max_steps: 2, max_tokens: 700, precision: fp32, save_every: 1,
      gradient_checkpointing: false, threads: 1, log_every: 1, judged_tokens: 60}
export: {precision: fp32, check: false}
evaluate: {engine: onnx, bundled: true, limit: 12}
stages: [synthesize, sft, sample, mine, dpo, evaluate]
"""
BUNDLED = load_recipe("nano-ablation")


def test_the_bundled_ablation_is_table_3_with_at_most_6000_rows():
    assert BUNDLED.ablation is not None
    assert BUNDLED.data.limit <= 6000
    assert set(BUNDLED.data.caps) == set(BUNDLED.data.only)  # stratified: every source has its own share
    assert (BUNDLED.synthesize.teacher, BUNDLED.synthesize.share, BUNDLED.sample.k) == ("template", 1.0, 4)
    assert (BUNDLED.sft.reasoning, BUNDLED.sft.labels_only) == (1.0, 0.0)
    assert len(BUNDLED.variants["baseline"].only) == 1
    assert BUNDLED.sample.models == ("sft", "diversity-1", "diversity-2")
    assert BUNDLED.dpo.learning_rate == pytest.approx(BUNDLED.sft.learning_rate / 10)  # the paper's ratio
    assert "confirm nor refute" in BUNDLED.note


def test_every_source_that_a_variant_names_is_in_the_mix_and_the_baselines_source_is_in_all():
    named = [s for v in BUNDLED.variants.values() for s in (*v.only, *v.leave_out)]
    assert len(named) > 10
    assert set(named) <= set(BUNDLED.data.only)
    one = BUNDLED.variants["baseline"].only[0]
    left_out = [set(BUNDLED.variants[name].leave_out) for name in BUNDLED.sample.models[1:]]
    assert not left_out[0] & left_out[1]
    assert left_out[0] | left_out[1] | {one} == set(BUNDLED.data.only)


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
        (("only: [smoke]", "only: []"), "one source"),
        (("reasoning: 0, labels_only: 1, only", "reasoning: 1, labels_only: 1, only"), "reasoning: 0"),
        (("models: [sft, other]", "models: [sft]"), "the ensemble"),
        (("mine: {", "mine: {models: [sft], "), "mines twice"),
        (("seeds: 2", "seeds: 0"), "at least 1"),
    ],
)
def test_an_ablation_that_is_not_table_3_is_refused_when_the_recipe_is_read(change, message):
    with pytest.raises(ConfigError, match=message):
        parse_recipe(TOY.replace(*change), name="toy")


def test_a_dry_run_names_every_training_run_of_a_seed_and_trains_nothing(tmp_path, capsys):
    recipe = tmp_path / "toy.yaml"
    recipe.write_text(TOY)
    assert main(["reproduce", str(recipe), "--out", str(tmp_path / "run"), "--seeds", "5", "--dry-run"]) == 0
    said = capsys.readouterr().out
    for word in ("5 seeds", "sft:", "sft-baseline:", "sft-baseline-mix:", "sft-other:", "dpo-self:", "dpo-ensemble:"):
        assert word in said
    assert not (tmp_path / "run").exists()


def test_seeds_and_processes_are_refused_where_they_mean_nothing(tmp_path, capsys):
    assert main(["reproduce", "smoke", "--out", str(tmp_path / "run"), "--seeds", "2"]) == 1
    assert "--seeds is for ablations" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="one process"):
        next(reproduce(parse_recipe(TOY, name="toy"), "toy", out=tmp_path / "run", processes=2))
    with pytest.raises(ConfigError, match="no ablation"):
        next(ablate(load_recipe("smoke"), out=tmp_path / "run"))
    with pytest.raises(DataError, match="no seed of this ablation is finished"):
        conclude(tmp_path / "run")


def start(recipe: Path, out: Path, seeds: int):
    command = [
        sys.executable,
        "-m",
        "guardreasoner",
        "reproduce",
        str(recipe),
        "--out",
        str(out),
        "--seeds",
        str(seeds),
    ]
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
        list(ablate(replace(parse_recipe(TOY, name="toy"), evaluate=other), out=out))


def same_rows(out: Path):
    """Every model of every seed answered the same rows; seeds trained on different ones."""
    ids = {
        tuple(row["exchange_id"] for _, row in read_jsonl(path))
        for path in out.glob("seed-*/evaluate/*/verdicts/bundled.jsonl")
    }
    runs = list(out.glob("seed-*/evaluate/*"))
    assert len(runs) == 2 * (len(CONTESTANTS) + 3)
    assert len(ids) == 1
    assert len(next(iter(ids))) == 12
    trained = [
        {row["example"]["exchange"]["id"] for _, row in read_jsonl(out / f"seed-{n}" / "synthesize" / "traces.jsonl")}
        for n in (1, 2)
    ]
    assert trained[0] != trained[1]
