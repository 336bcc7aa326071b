"""Base models and checkpoints: where a guard starts from, and how a trained one is saved.

A checkpoint is a transformers folder (safetensors, tokenizer) plus `guard.json`, which says how to talk to it: wire,
format version, base, and the licence classes of the rows that its weights have seen.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guardreasoner.engines.hf import load_adapter, load_model, load_tokenizer
from guardreasoner.errors import ConfigError, EngineError, need
from guardreasoner.formats import guardreasoner as wire_format
from guardreasoner.records import read_object, whole_folder, write_atomic
from guardreasoner.train.settings import NAMED_BASES, TEMPLATES, ModelConfig
from guardreasoner.train.smollm import load_smollm
from guardreasoner.train.tiny import load_tiny

ADAPTER = "adapter_config.json"
"""What a checkpoint of adapters alone has in place of `config.json`."""


def load_base(config: ModelConfig) -> tuple[Any, Any]:
    """The base model and its tokenizer."""
    need("torch", "train")
    need("transformers", "train")
    from guardreasoner.train.attention import best_attention

    attention = config.attention or best_attention()
    if config.base == "tiny":
        return load_tiny(attention)
    if config.base == "smollm2":
        model, tokenizer = load_smollm(attention)
        return model, prepare_tokenizer(tokenizer, config)
    model, tokenizer = load_checkpoint(config.base, revision=config.revision, dtype="float32", attention=attention)
    return model, prepare_tokenizer(tokenizer, config)


def base_tokenizer(config: ModelConfig) -> Any:
    """The tokenizer of a base alone."""
    if config.base in NAMED_BASES:
        return load_base(config)[1]
    return prepare_tokenizer(load_tokenizer(config.base, config.revision), config)


def prepare_tokenizer(tokenizer: Any, config: ModelConfig) -> Any:
    """The tokenizer with the recipe's chat template, end token and a padding token."""
    if config.chat_template:
        if config.chat_template not in TEMPLATES:
            raise ConfigError(f"there is no chat template {config.chat_template!r}; known: {', '.join(TEMPLATES)}")
        text, end = TEMPLATES[config.chat_template]
        known = tokenizer.get_vocab()
        lacking = sorted({marker for marker in re.findall(r"<\|\w+\|>", text) if marker not in known})
        if lacking:
            raise ConfigError(
                f"chat template {config.chat_template} is made of {lacking[0]}, which this base's tokenizer does not "
                "know; leave out model.chat_template for the model's own, or set model.wire: raw"
            )
        tokenizer.chat_template, tokenizer.eos_token = text, end
    if config.wire == "chat" and not tokenizer.chat_template:
        raise ConfigError("this base has no chat template; set model.chat_template: llama3, or model.wire: raw")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_checkpoint(
    source: str | Path, *, revision: str | None = None, dtype: str = "float32", attention: str = "sdpa"
) -> tuple[Any, Any]:
    """A causal language model (safetensors only) and its tokenizer from a folder or the hub; adapters are merged."""
    name, adapter = str(source), Path(source) / ADAPTER
    if adapter.is_file():
        base = str(read_object(adapter)["base_model_name_or_path"])
        model = load_adapter(load_checkpoint(base, dtype=dtype, attention=attention)[0], name)
    else:
        if Path(name).is_dir() and not any(Path(name).glob("*.safetensors")):
            raise EngineError(f"{name} holds no safetensors checkpoint")
        model = load_model(name, "causal", revision=revision, dtype=dtype, device="cpu", attention=attention)
    return model, load_tokenizer(name, revision)


def save_checkpoint(
    model: Any, tokenizer: Any, target: Path, *, meta: Mapping[str, Any], state: Mapping[str, Any] | None = None
) -> None:
    """Write a checkpoint whole or not at all; `state` = gathered weights."""
    with whole_folder(target) as folder:
        model.save_pretrained(folder, state_dict=state)
        tokenizer.save_pretrained(folder)
        write_meta(folder, meta)


def write_meta(folder: Path, meta: Mapping[str, Any]) -> None:
    """`guard.json` of a model folder."""
    known = {"format": "guardreasoner", "format_version": wire_format.VERSION}
    write_atomic(folder / "guard.json", json.dumps({**known, **meta}, indent=2) + "\n")


def read_meta(folder: Path) -> dict[str, Any]:
    """`guard.json` of a model folder; empty if there is none."""
    path = folder / "guard.json"
    return read_object(path) if path.exists() else {}


def save_trained(trainer: Any, tokenizer: Any, target: Path, *, meta: Mapping[str, Any], merge: bool = False) -> None:
    """Write the trained weights as a checkpoint: adapters merged in or by themselves, sharded ones gathered."""
    accelerator = trainer.accelerator
    bare = accelerator.unwrap_model(trainer.model)
    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    state = accelerator.get_state_dict(trainer.model_wrapped) if sharded else None
    if merge:
        if state is not None:
            raise ConfigError("lora with fsdp or zero3 cannot be merged here; train adapters with distributed: ddp")
        bare = bare.merge_and_unload()
    bare.__dict__.pop("forward", None)  # TRL's patched forward
    if trainer.is_world_process_zero():
        save_checkpoint(bare, tokenizer, target, meta=meta, state=state)
    accelerator.wait_for_everyone()
