"""`precision: auto` is settled by the hardware, and the manifest says what it came to."""

from dataclasses import replace

import pytest

pytest.importorskip("trl", reason="the train extra is not installed")

from guardreasoner.engines.hf import _stored
from guardreasoner.train import trainer
from guardreasoner.train.settings import DpoConfig, SftConfig
from guardreasoner.train.sft import run_sft
from tiny_training import QUICK_SFT, TINY
from train_tools import write_traces


@pytest.mark.parametrize(("fast", "wanted"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_bf16_where_the_hardware_multiplies_it_and_fp32_elsewhere(monkeypatch, fast, wanted):
    monkeypatch.setattr(trainer, "multiplies_bf16", lambda *_: fast)
    for config in (SftConfig(), DpoConfig()):
        assert config.precision == "auto"
        assert trainer.settled(config).precision == wanted
    assert trainer.settled(SftConfig(precision="bf16")).precision == "bf16"


def test_the_manifest_holds_what_auto_came_to(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "multiplies_bf16", lambda *_: False)
    write_traces(tmp_path, 8)
    manifest = run_sft(replace(QUICK_SFT, precision="auto", max_steps=1), TINY, out=tmp_path)
    assert manifest["config"]["precision"] == "fp32"


@pytest.mark.parametrize(("fast", "wanted"), [(True, "auto"), (False, "float32")])
def test_the_hf_engine_runs_stored_bf16_in_float32_on_a_cpu_that_does_not_multiply_it(monkeypatch, fast, wanted):
    monkeypatch.setattr("guardreasoner.engines.hf.multiplies_bf16", lambda *_: fast)
    assert _stored("auto", "cpu") == wanted
    assert _stored("auto", "cuda") == "auto"
    assert _stored("bfloat16", "cpu") == "bfloat16"
