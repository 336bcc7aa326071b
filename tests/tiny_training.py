"""Training runs of a second or two: a tiny base, quick configurations, and what HS-DPO starts from."""

from contextlib import contextmanager
from dataclasses import asdict

import pytest
import torch

from guardreasoner.formats import guardreasoner as wire_format
from guardreasoner.records import write_jsonl
from guardreasoner.train.models import load_base, save_checkpoint
from guardreasoner.train.settings import DpoConfig, ModelConfig, SftConfig
from guardreasoner.train.trainer import LossCurve
from guardreasoner.types import Labels, Preference, Task
from train_tools import example

torch.set_num_threads(1)  # two cores shared with others: threads that wait for each other cost more than they give
TINY = ModelConfig(base="tiny", wire="raw")
QUICK = {
    "learning_rate": 1e-3,
    "batch": 4,
    "micro_batch": 4,
    "max_tokens": 600,
    "precision": "fp32",
    "gradient_checkpointing": False,
    "log_every": 1,
    "threads": 1,
}
QUICK_SFT = SftConfig(**QUICK, max_steps=6, save_every=2)
QUICK_DPO = DpoConfig(**QUICK, max_steps=3, save_every=1, group_by_length=False, beta=0.5)


class Killed(BaseException):
    """Stands for a kill."""


@contextmanager
def killed_after(step):
    """The training that runs inside ends like a killed one, once the loss of this step is logged."""
    original = LossCurve.on_log

    def stop(self, args, state, control, logs=None, **more):
        original(self, args, state, control, logs, **more)
        if state.global_step == step:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LossCurve, "on_log", stop)
        with pytest.raises(Killed):
            yield


def preference(number, weight=1.0):
    one = example(number)
    other = Labels("unharmful" if one.gold.prompt_harm == "harmful" else "harmful")
    return Preference(
        example_id=one.exchange.id,
        task=Task.prompt_harm,
        prompt=asdict(one.exchange),
        chosen=wire_format.answer("# Task 1\n## Reasoning Step 1\n" + "so it is. " * (number % 3 + 1), one.gold),
        rejected=wire_format.answer("# Task 1\n## Reasoning Step 1\nno.\n", other),
        wrong=1,
        right=3,
        weight=weight,
        provenance={},
    )


def write_run(out, preferences, *, model=None):
    write_jsonl(out / "mine" / "preferences.jsonl", preferences)
    base, tokenizer = load_base(TINY)
    (out / "sft").mkdir(parents=True, exist_ok=True)
    save_checkpoint(model or base, tokenizer, out / "sft" / "checkpoint", meta={"wire": "raw", "base": "tiny"})
