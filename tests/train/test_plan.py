"""What a run would take, told before it costs: against hand-worked numbers and against the paper's own costs."""

from dataclasses import replace

import pytest

pytest.importorskip("trl", reason="the train extra is not installed")

from guardreasoner.cli.main import main
from guardreasoner.errors import UnknownName
from guardreasoner.train import plan
from guardreasoner.train.lengths import Lengths, lengths_of
from guardreasoner.train.recipe import load_recipe, parse_recipe, values
from guardreasoner.train.settings import DpoConfig, SftConfig
from train_tools import write_traces

PAPER_HOURS = {  # GPU-hours on H100: R-SFT, HS-DPO, and the pairs of HS-DPO (paper)
    "meta-llama/Llama-3.2-1B": (6.33, 3.70, 23_000),
    "meta-llama/Llama-3.2-3B": (13.69, 4.06, 14_000),
    "meta-llama/Llama-3.1-8B": (25.20, 5.31, 15_000),
}


@pytest.mark.parametrize("base", PAPER_HOURS)
def test_hours_on_an_h100_are_the_papers_within_30_percent(base):
    sft, dpo, pairs = PAPER_HOURS[base]
    parameters = plan.PARAMETERS[base]
    steps = plan.steps_of(SftConfig(), 127_544)
    assert steps == 997  # paper's scripts: about 996
    said = plan.h100_seconds(SftConfig(), steps=steps, length=755, parameters=parameters) / 3600
    assert said == pytest.approx(sft, rel=0.3)
    config = DpoConfig()
    said = plan.h100_seconds(config, steps=plan.steps_of(config, pairs), length=755, parameters=parameters, pairs=pairs)
    assert said / 3600 == pytest.approx(dpo, rel=0.3)


def test_recomputation_and_the_reference_are_counted():
    def seconds(config, **more):
        return plan.h100_seconds(config, steps=10, length=100, parameters=10**9, **more)

    work = 10 * 384 * 100 * 1e9 / (plan.H100_FLOPS * plan.H100_EFFICIENCY)
    passes = 10 * 384 / 6 * plan.H100_PASS_S
    assert seconds(SftConfig()) == pytest.approx(passes + 8 * work)
    assert seconds(SftConfig(gradient_checkpointing=False)) == pytest.approx(passes + 6 * work)
    once = seconds(DpoConfig(), pairs=100)
    assert seconds(DpoConfig(), pairs=100, reference=2) - once == pytest.approx(
        2 * 100 * 2 * 100 * 1e9 / (plan.H100_FLOPS * plan.H100_EFFICIENCY)
    )


def test_a_dry_run_of_the_papers_recipe_tells_samples_hours_disk_and_values(tmp_path):
    recipe = load_recipe("1b")
    lengths = lengths_of(recipe, tmp_path, None)
    rows = {
        name: plan._training(recipe, recipe.folder(name), lengths, tmp_path)[1] for name in ("sft", *recipe.variants)
    }
    assert rows == {"sft": 127_544, "diversity-1": 116_746, "diversity-2": 100_358, "diversity-3": 124_743}
    sample = plan._sample(recipe, lengths, model=None, parameters=plan.PARAMETERS[recipe.model.base])
    assert sample.rows == 4 * sum(rows.values()) == 1_877_564
    assert sample.h100_seconds / 3600 == pytest.approx(14, rel=0.05)
    assert values(recipe) == [
        "sft: learning_rate 5e-05, epochs 3, batch 384, max_tokens 2048",
        "sample: k 4, temperature 0.7",
        "mine: gamma 0.2, rule official",
        "dpo: learning_rate 5e-06, epochs 2, batch 256, beta 0.01, sft_weight 2",
    ]


def test_disk_is_what_is_kept_and_what_one_stage_needs_at_a_time(tmp_path):
    recipe = load_recipe("1b")
    p = 1e9
    found = [
        plan.look(name, recipe.sft, rows=1000, lengths=Lengths(1000, (100,)), model=None, parameters=int(p))
        for name in ("sft", "sft-a")
    ]
    assert found[0].steps == 8  # one save, at the end: weights and the optimizer's two states, and the checkpoint
    assert plan.most_on_disk(found) == 4 * p + (12 * p + 4 * p)
    often = replace(recipe.sft, save_every=1)
    one = plan.look("sft", often, rows=1000, lengths=Lengths(1000, (100,)), model=None, parameters=int(p))
    assert one.peak_bytes == 4 * p + 3 * 12 * p  # two are kept; the third is written before the first goes


def test_values_that_are_not_the_papers_are_shown_beside_them():
    recipe = parse_recipe("model: {base: tiny, wire: raw}\nsft: {batch: 8, micro_batch: 8}\nstages: [sft]", name="x")
    assert values(recipe) == ["sft: learning_rate 5e-05, epochs 3, batch 8 (paper 384), max_tokens 2048"]


@pytest.mark.parametrize(
    ("text", "near"),
    [("stages: [synthesise]", "'synthesize'"), ("model: {chat_template: lama3}", "'llama3'")],
)
def test_an_unknown_stage_or_chat_template_is_found_before_anything_runs(text, near):
    with pytest.raises(UnknownName, match=near):
        parse_recipe(text, name="x")


def test_a_dry_run_refuses_a_source_that_the_traces_do_not_have(tmp_path, capsys):
    write_traces(tmp_path / "run", 8, sources=("AegisTrain", "ToxicChatTrain"))
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "model: {base: tiny, wire: raw}\nsft: {batch: 4, micro_batch: 4, leave_out: [ToxicChat]}\nstages: [sft]"
    )
    assert main(["reproduce", str(recipe), "--out", str(tmp_path / "run"), "--dry-run"]) == 1
    assert "did you mean 'ToxicChatTrain'" in capsys.readouterr().err


def test_rows_of_random_order_are_padded_to_the_longest_of_a_pass():
    lengths = Lengths(2, (100, 300))
    assert lengths.padded(2, grouped=True) == 200
    assert lengths.padded(2, grouped=False) == pytest.approx(250, rel=0.03)  # 300 in three of four passes
    assert lengths.padded(1, grouped=False) == 200


def test_more_processes_take_more_memory_each_where_the_model_is_copied_and_less_where_it_is_shared(monkeypatch):
    monkeypatch.setattr("guardreasoner.train.trainer.resident_bytes", lambda: 0)
    config, p = SftConfig(precision="fp32"), 1000
    assert plan._memory(config, p, p, processes=1) == 16 * p
    assert plan._memory(config, p, p, processes=4) == 20 * p
    assert plan._memory(replace(config, distributed="fsdp"), p, p, processes=4) == 4 * p
    assert plan._memory(DpoConfig(precision="fp32"), p, p, processes=1) == 20 * p
