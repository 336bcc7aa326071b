"""LoRA checkpoints: merged into the weights, or kept as adapters that HS-DPO and the hf engine can use."""

from dataclasses import replace

import pytest

pytest.importorskip("peft", reason="the train extra is not installed")

import torch
from safetensors.torch import load_file

from guardreasoner.errors import ConfigError, UnknownName
from guardreasoner.guards.load import load_guard
from guardreasoner.train.models import load_base, load_checkpoint, save_checkpoint
from guardreasoner.train.settings import LoraSettings, ModelConfig
from guardreasoner.train.sft import run_sft
from tiny_training import QUICK_SFT, TINY
from train_tools import write_traces


def train(root, *, merge, base):
    write_traces(root, 8)
    config = replace(QUICK_SFT, max_steps=2, lora=LoraSettings(rank=4, merge=merge))
    run_sft(config, ModelConfig(base=str(base), wire="raw"), out=root)
    return root / "sft" / "checkpoint"


def test_adapters_that_are_kept_give_the_merged_weights_when_they_are_loaded(tmp_path):
    model, tokenizer = load_base(TINY)
    save_checkpoint(model, tokenizer, tmp_path / "base", meta={"wire": "raw"})
    merged = train(tmp_path / "merged", merge=True, base=tmp_path / "base")
    kept = train(tmp_path / "kept", merge=False, base=tmp_path / "base")
    assert (kept / "adapter_model.safetensors").is_file()
    assert not (kept / "model.safetensors").exists()
    wanted, loaded = load_file(merged / "model.safetensors"), load_checkpoint(kept)[0].state_dict()
    assert all(torch.allclose(loaded[name], value, atol=1e-6) for name, value in wanted.items())
    before = load_file(tmp_path / "base" / "model.safetensors")
    assert any(not torch.equal(before[name], value) for name, value in wanted.items())
    guard = load_guard(str(kept), mode="instant")
    assert guard.check("A soup, please.").scores == pytest.approx(
        load_guard(str(merged), mode="instant").check("A soup, please.").scores, abs=1e-4
    )


def test_adapters_of_a_base_that_only_we_can_make_are_merged_or_refused(tmp_path):
    write_traces(tmp_path, 4)
    config = replace(QUICK_SFT, max_steps=1, lora=LoraSettings(merge=False))
    with pytest.raises(ConfigError, match="merge: false wants a base"):
        run_sft(config, TINY, out=tmp_path)


def test_curves_go_only_where_transformers_can_send_them_and_what_is_missing_is_said(tmp_path):
    write_traces(tmp_path, 4)
    with pytest.raises(UnknownName, match="'wandb'"):
        run_sft(replace(QUICK_SFT, report_to=("wandbb",)), TINY, out=tmp_path)
    with pytest.raises(ConfigError, match="swanlab is not installed"):
        run_sft(replace(QUICK_SFT, report_to=("swanlab",)), TINY, out=tmp_path, fresh=True)
