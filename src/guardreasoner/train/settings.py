"""Hyper-parameters that R-SFT and HS-DPO share, and batch arithmetic; no torch here, so that recipes read fast."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from guardreasoner.errors import ConfigError


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adapters instead of full fine-tuning; merged into the weights when the stage ends."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: tuple[str, ...] | None = None
    """Names of the layers; None = all linear layers but the output head."""


@dataclass(frozen=True)
class TrainingConfig:
    """Hyper-parameters of a training stage; defaults of R-SFT (`train/R-SFT_{1b,3b,8b}.sh`, paper appendix)."""

    learning_rate: float = 5e-5
    """Peak (R-SFT script: `--learning_rate 5e-5`)."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """`--lr_scheduler_type cosine`."""
    warmup: float = 0.0
    """Share of the steps (`--warmup_steps 0`)."""
    epochs: float = 3.0
    """`--num_train_epochs 3.0`."""
    max_steps: int | None = None
    """Stop after so many optimizer steps, whatever `epochs` says."""
    batch: int = 384
    """Rows per optimizer step over all devices (6 x 16 accumulation x 4 GPUs)."""
    micro_batch: int = 6
    """Rows per pass and device (`--per_device_train_batch_size 6`); pairs in HS-DPO."""
    max_tokens: int = 2048
    """Longest row, prompt and answer (`--cutoff_len 2048`); longer requests lose their middle, and are counted."""
    judged_tokens: int | None = None
    """Most tokens of the request and of the reply each; None = as many as fit."""
    max_grad_norm: float = 1.0
    """`--max_grad_norm 1.0`."""
    weight_decay: float = 0.0
    """LLaMA-Factory's default."""
    adam_beta2: float = 0.999
    """adamw_torch's default."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """`--bf16`: float32 weights, bfloat16 products; fp32 where two runs must agree to the last digits."""
    gradient_checkpointing: bool = True
    """Recompute activations; LLaMA-Factory's default."""
    group_by_length: bool = True
    """Rows of like length share a pass: less padding, same rows per epoch (scripts: off, as in the paper's recipes)."""
    distributed: Literal["ddp", "fsdp", "zero3"] = "ddp"
    """How several processes share a model; the scripts use ZeRO-3 on 4 GPUs, `fsdp` is its counterpart in torch."""
    liger: bool = False
    """Liger kernels where they are installed (norms, rotary, MLP; the loss is ours)."""
    lora: LoraSettings | None = None
    """None = full fine-tuning (the paper)."""
    save_every: int = 1000
    """Optimizer steps between checkpoints (`--save_steps 1000`)."""
    log_every: int = 10
    """Optimizer steps between lines of the curve."""
    validate_every: int = 0
    """Optimizer steps between validations (loss, strict F1 of `instant`); 0 = none."""
    validation_rows: int = 2000
    """Most validation rows."""
    keep: Literal["last", "best"] = "last"
    """Which weights the stage hands on; `best` = by validation loss."""
    threads: int | None = None
    """CPU threads per process; None = torch's choice."""
    tensorboard: bool = False
    """Write TensorBoard logs beside `log.jsonl`."""
    seed: int = 42
    """Order of rows, and every random choice."""

    def __post_init__(self) -> None:
        for key in ("learning_rate", "epochs", "batch", "micro_batch", "max_tokens", "save_every", "log_every"):
            if getattr(self, key) <= 0:
                raise ConfigError(f"{key} must be more than 0")
        if self.keep == "best" and not self.validate_every:
            raise ConfigError("keep: best needs validate_every, which says how often validation loss is measured")


RESUMABLE = ("threads", "log_every", "tensorboard")
"""Configuration that may change when a stage is resumed: it changes no result."""


def accumulation(config: TrainingConfig, world: int) -> int:
    """Passes per optimizer step.

    Raises:
        ConfigError: the batch cannot be shared out evenly.
    """
    steps, rest = divmod(config.batch, config.micro_batch * world)
    if rest or not steps:
        raise ConfigError(
            f"batch {config.batch} is no multiple of micro_batch {config.micro_batch} x {world} processes; "
            f"set micro_batch to a divisor of {config.batch // world or config.batch}"
        )
    return steps


def world_size() -> int:
    """Processes that train together, as torchrun says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process's number."""
    return int(os.environ.get("RANK", "0"))
