"""HS-DPO through the whole Trainer: weights survive, the loss is the formula's, and stops leave no mark."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

pytest.importorskip("trl", reason="the train extra is not installed")

import torch
from safetensors.torch import load_file

from guardreasoner.errors import ConfigError, DataError
from guardreasoner.records import write_jsonl
from guardreasoner.run_folder import Counts
from guardreasoner.train import dpo_rows, dpo_trainer
from guardreasoner.train import trainer as training
from guardreasoner.train.dpo import run_dpo
from guardreasoner.train.dpo_rows import pairs_of
from guardreasoner.train.models import load_base
from guardreasoner.train.rows import RowMaker
from guardreasoner.train.settings import LoraSettings
from tiny_training import QUICK_DPO as QUICK
from tiny_training import TINY, killed_after, preference, write_run

torch.set_num_threads(1)


def curve(out):
    lines = [json.loads(line) for line in (out / "dpo" / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def weights(out):
    return load_file(out / "dpo" / "checkpoint" / "model.safetensors")


def trainer_of(tmp_path, preferences, **changes):
    """A trainer on a base that differs from its reference, so that delta is not zero."""
    config = replace(QUICK, **changes)
    model, tokenizer = load_base(TINY)
    maker = RowMaker(tokenizer, "raw", config.max_tokens)
    write_jsonl(tmp_path / "p.jsonl", preferences)
    rows, _ = dpo_rows.prepare(config, maker, tmp_path / "p.jsonl", tmp_path / "rows")
    arguments = training.arguments(config, tmp_path / "trainer")
    trainer = dpo_trainer.build(model, tokenizer, arguments, config=config, rows=rows, run=None)
    with torch.no_grad():
        lot = torch.Generator().manual_seed(3)
        for parameter in trainer.model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=lot))
    return trainer


def by_hand(model, rows, config):
    """The loss of some pairs, one sequence at a time."""
    reference = load_base(TINY)[0]

    def logp(of, prompt, answer):
        ids = torch.tensor([[*prompt, *answer]])
        logits = of(input_ids=ids).logits[0, :-1].log_softmax(-1)
        return logits.gather(-1, ids[0, 1:, None])[-len(answer) :, 0].sum()

    total = 0.0
    for row in rows:
        with torch.no_grad():
            parts = {
                (name, kind): logp(of, row["prompt_ids"], row[f"{kind}_ids"])
                for name, of in (("policy", model), ("reference", reference))
                for kind in ("chosen", "rejected")
            }
        delta = (parts["policy", "chosen"] - parts["reference", "chosen"]) - (
            parts["policy", "rejected"] - parts["reference", "rejected"]
        )
        sft = -parts["policy", "chosen"] / len(row["chosen_ids"])
        total += row["weight"] * -torch.nn.functional.logsigmoid(config.beta * delta) + config.sft_weight * sft
    return (total / len(rows)).item()


def batch_of(trainer, places):
    return trainer.data_collator([trainer.train_dataset[i] for i in places])


def test_weights_survive_the_collator(tmp_path):
    trainer = trainer_of(tmp_path, [preference(n, 0.8 + 0.1 * n) for n in range(4)])
    assert batch_of(trainer, [3, 1])["weight"].tolist() == pytest.approx([1.1, 0.9])
    batch = next(iter(trainer.get_train_dataloader()))
    assert sorted(batch["weight"].tolist()) == pytest.approx([0.8, 0.9, 1.0, 1.1])


def test_the_trainers_loss_is_the_formula_worked_pair_by_pair(tmp_path):
    trainer = trainer_of(tmp_path, [preference(n, 0.8 + 0.1 * n) for n in range(4)])
    loss = trainer.compute_loss(trainer.model, batch_of(trainer, range(4)))
    assert loss.item() == pytest.approx(by_hand(trainer.model, list(trainer.train_dataset), trainer.recipe), abs=1e-4)


@pytest.mark.parametrize("reference", ["precomputed", "live"])
def test_weight_one_and_one_pair_per_pass_equals_stock_trl(tmp_path, reference):
    from trl import DPOConfig as TrlConfig
    from trl import DPOTrainer
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    trainer = trainer_of(tmp_path, [preference(n) for n in range(3)], beta=0.01)

    class Stock(DPOTrainer):
        """TRL as it is, on rows that are tokens already."""

        def _prepare_dataset(self, dataset, *_):
            return dataset

    _, tokenizer = load_base(TINY)
    arguments = training.arguments(replace(QUICK, batch=1, micro_batch=1), tmp_path / "stock")
    stock = Stock(
        model=load_base(TINY)[0],
        ref_model=load_base(TINY)[0],
        args=TrlConfig(**arguments, beta=0.01, loss_type=["sigmoid", "sft"], loss_weights=[1.0, 2.0], max_length=None),
        data_collator=DataCollatorForPreference(pad_token_id=tokenizer.pad_token_id, max_length=None),
        train_dataset=trainer.train_dataset.remove_columns(["ref_chosen_logps", "ref_rejected_logps"]),
        processing_class=tokenizer,
    )
    stock.model.load_state_dict(trainer.model.state_dict())
    if reference == "live":
        trainer.ref_model = load_base(TINY)[0]
    for place in range(3):
        batch = batch_of(trainer, [place])
        if reference == "live":
            batch = {k: v for k, v in batch.items() if not k.startswith("ref_")}
        ours = trainer.compute_loss(trainer.model, batch)
        theirs = stock.compute_loss(
            stock.model, stock.data_collator([{k: v for k, v in trainer.train_dataset[place].items() if k != "weight"
                                              and not k.startswith("ref_")}])
        )  # fmt: skip
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)


def test_a_planted_weight_of_zero_gives_no_preference_gradient_through_the_whole_trainer(tmp_path):
    trainer = trainer_of(tmp_path, [preference(n, 0.0) for n in range(4)], sft_weight=0.0)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    training.be_quiet(trainer)
    trainer.train()
    after = dict(trainer.model.named_parameters())
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_weight_above_zero_does_change_the_model(tmp_path):
    trainer = trainer_of(tmp_path, [preference(n, 1.0) for n in range(4)], sft_weight=0.0)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    training.be_quiet(trainer)
    trainer.train()
    assert any(not torch.equal(before[name], p) for name, p in trainer.model.named_parameters())


def test_the_loss_does_not_depend_on_how_a_batch_is_split(tmp_path):
    curves = []
    for micro in (1, 2, 4):
        out = tmp_path / str(micro)
        write_run(out, [preference(n, 0.8 + 0.05 * n) for n in range(8)])
        run_dpo(replace(QUICK, micro_batch=micro), TINY, out=out)
        curves.append(curve(out))
    assert curves[0] == pytest.approx(curves[1], abs=1e-5)
    assert curves[0] == pytest.approx(curves[2], abs=1e-5)


def test_a_stage_leaves_changed_weights_finite_losses_and_a_manifest(tmp_path):
    write_run(tmp_path, [preference(n, 1.1) for n in range(6)])
    manifest = run_dpo(QUICK, TINY, out=tmp_path)
    assert manifest["counts"] == {"in": 6, "out": 6, "dropped": {}}
    start = load_file(tmp_path / "sft" / "checkpoint" / "model.safetensors")
    assert any(not torch.equal(start[name], value) for name, value in weights(tmp_path).items())
    assert all(0 < loss < 100 for loss in curve(tmp_path).values())
    meta = json.loads((tmp_path / "dpo" / "checkpoint" / "guard.json").read_text())
    assert (meta["wire"], meta["stage"]) == ("raw", "dpo")
    assert run_dpo(QUICK, TINY, out=tmp_path) == manifest


def test_a_run_that_was_stopped_ends_with_the_same_losses_and_weights(tmp_path):
    for name in ("whole", "stopped"):
        write_run(tmp_path / name, [preference(n, 0.8 + 0.05 * n) for n in range(8)])
    config = replace(QUICK, max_steps=5)
    run_dpo(config, TINY, out=tmp_path / "whole")
    with killed_after(3):
        run_dpo(config, TINY, out=tmp_path / "stopped")
    run_dpo(config, TINY, out=tmp_path / "stopped")
    assert curve(tmp_path / "stopped") == curve(tmp_path / "whole")
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_with_adapters_the_reference_is_the_model_without_them(tmp_path):
    write_run(tmp_path, [preference(n) for n in range(4)])
    run_dpo(replace(QUICK, lora=LoraSettings(rank=4), reference="live", max_steps=2), TINY, out=tmp_path)
    first = next(iter(json.loads(x) for x in (tmp_path / "dpo" / "log.jsonl").read_text().splitlines()))
    assert first["rewards/margins"] == pytest.approx(0.0, abs=1e-6)  # new adapters change nothing yet
    assert first["preference_loss"] == pytest.approx(0.693147, abs=1e-5)


def test_pairs_that_cannot_fit_are_counted(tmp_path):
    _, tokenizer = load_base(TINY)
    counts = Counts()
    long = replace(preference(0), chosen="word " * 2000)
    made = list(pairs_of([long, preference(1, 1.2)], RowMaker(tokenizer, "raw", 600), QUICK, counts))
    assert counts.as_dict() == {"in": 2, "out": 1, "dropped": {"too_long": 1}}
    assert made[0]["weight"] == 1.2
    plain = list(
        pairs_of([preference(1, 1.2)], RowMaker(tokenizer, "raw", 600), replace(QUICK, use_weights=False), counts)
    )
    assert plain[0]["weight"] == 1.0


def test_without_preferences_or_checkpoint_the_stage_says_what_to_run(tmp_path):
    with pytest.raises(DataError, match="guardreasoner mine"):
        run_dpo(QUICK, TINY, out=tmp_path)
    write_jsonl(tmp_path / "mine" / "preferences.jsonl", [preference(0)])
    with pytest.raises(DataError, match="guardreasoner sft"):
        run_dpo(QUICK, TINY, out=tmp_path)


def test_adapters_upon_adapters_are_refused_because_they_would_lose_r_sft(tmp_path):
    write_jsonl(tmp_path / "mine" / "preferences.jsonl", [preference(0)])
    start = tmp_path / "sft" / "checkpoint"
    start.mkdir(parents=True)
    (start / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"dpo\.lora\.merge: false wants a start of whole weights"):
        run_dpo(replace(QUICK, lora=LoraSettings(merge=False)), TINY, out=tmp_path)


@pytest.mark.parametrize("changes", [{"beta": 0.0}, {"validate_every": 5}])
def test_what_hs_dpo_cannot_do_is_refused(changes):
    with pytest.raises(ConfigError, match="dpo"):
        replace(QUICK, **changes)


RECIPE = """
model: {base: tiny, wire: raw}
dpo: {learning_rate: 1.0e-3, batch: 4, micro_batch: 2, max_steps: 4, max_tokens: 600, precision: fp32, log_every: 1,
      gradient_checkpointing: false, group_by_length: false, threads: 1, beta: 0.5}
"""


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(tmp_path):
    recipe = tmp_path / "two.yaml"
    recipe.write_text(RECIPE)
    for name, processes in (("one", 1), ("two", 2)):
        out = tmp_path / name
        write_run(out, [preference(n, 0.8 + 0.05 * n) for n in range(8)])
        command = [sys.executable, "-m", "guardreasoner", "dpo", str(recipe), "--out", str(out), "--processes"]
        done = subprocess.run([*command, str(processes)], capture_output=True, text=True, env={**os.environ})
        assert done.returncode == 0, done.stderr[-4000:]
        assert json.loads((out / "dpo" / "manifest.json").read_text())["processes"] == processes
    one, two = curve(tmp_path / "one"), curve(tmp_path / "two")
    assert len(one) == 4
    assert one == pytest.approx(two, abs=1e-4)
