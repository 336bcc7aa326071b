"""Base models and checkpoints: where a guard starts from, and how a trained one is laid down.

A checkpoint is a transformers folder (safetensors, tokenizer) plus `guard.json`, which says how to talk to it: wire,
format version, base, and the licence classes of the rows that its weights have seen.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from guardreasoner.errors import ConfigError, EngineError, need
from guardreasoner.formats import guardreasoner as wire_format
from guardreasoner.records import write_atomic
from guardreasoner.train.settings import NAMED_BASES, TEMPLATES, ModelConfig
from guardreasoner.train.smollm import load_smollm
from guardreasoner.train.tiny import load_tiny

ADAPTER = "adapter_config.json"
"""What a checkpoint of adapters alone has in place of `config.json`."""


def load_base(config: ModelConfig, *, dtype: str = "float32") -> tuple[Any, Any]:
    """The base model and its tokenizer.

    Raises:
        ConfigError: the chat template has no known name.
        EngineError: the weights cannot be loaded; the message says what to do.
        MissingDependency: torch or transformers is not installed.
    """
    need("torch", "train")
    need("transformers", "train")
    from guardreasoner.train.attention import best_attention

    attention = config.attention or best_attention()
    if config.base == "tiny":
        return load_tiny(attention)
    if config.base == "smollm2":
        model, tokenizer = load_smollm(attention)
        return model, prepare_tokenizer(tokenizer, config)
    model, tokenizer = load_checkpoint(config.base, revision=config.revision, dtype=dtype, attention=attention)
    return model, prepare_tokenizer(tokenizer, config)


def base_tokenizer(config: ModelConfig) -> Any:
    """The tokenizer of a base alone.

    Raises:
        ConfigError: as `prepare_tokenizer`.
        EngineError: there is none at hand.
    """
    if config.base in NAMED_BASES:
        return load_base(config)[1]
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(config.base, revision=config.revision)
    except (OSError, ValueError) as error:
        raise EngineError(explain(config.base, error)) from None
    return prepare_tokenizer(tokenizer, config)


def prepare_tokenizer(tokenizer: Any, config: ModelConfig) -> Any:
    """The tokenizer with the recipe's chat template, end token and a padding token.

    Raises:
        ConfigError: there is no chat template, none of that name, or its markers are no tokens here.
    """
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
    """A causal language model (safetensors only) and its tokenizer from a folder or the hub; adapters are merged.

    Raises:
        EngineError: it cannot be loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    adapter = Path(source) / ADAPTER
    if adapter.is_file():
        from guardreasoner.engines.hf import load_adapter

        base = str(json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"])
        model, _ = load_checkpoint(base, dtype=dtype, attention=attention)
        return load_adapter(model, str(source)), AutoTokenizer.from_pretrained(str(source))
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(source), revision=revision)
        model = AutoModelForCausalLM.from_pretrained(
            str(source),
            revision=revision,
            dtype=getattr(torch, dtype),
            attn_implementation=attention,
            use_safetensors=True,
        )
    except (OSError, ValueError) as error:  # ValueError: files are there, but not those of a model
        raise EngineError(explain(str(source), error)) from None
    return model, tokenizer


def explain(source: str, error: Exception) -> str:
    """One sentence on why a model cannot be loaded, and what to do."""
    text = str(error)
    if "gated" in text or "401" in text or "403" in text:
        return (
            f"{source} is gated: accept its licence at https://huggingface.co/{source} and set HF_TOKEN "
            "to a token that may read it"
        )
    if Path(source).exists():
        return f"{source} holds no safetensors checkpoint with a tokenizer"
    return f"{source} cannot be loaded: it is neither a folder nor a repository that the hub gives us"


def save_checkpoint(
    model: Any, tokenizer: Any, target: Path, *, meta: Mapping[str, Any], state: Mapping[str, Any] | None = None
) -> None:
    """Write a checkpoint whole or not at all: beside its place first, then renamed; `state` = gathered weights."""
    unfinished = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished, state_dict=state)
    tokenizer.save_pretrained(unfinished)
    write_meta(unfinished, meta)
    if target.exists():
        shutil.rmtree(target)
    os.replace(unfinished, target)


def write_meta(folder: Path, meta: Mapping[str, Any]) -> None:
    """`guard.json` of a model folder."""
    known = {"format": "guardreasoner", "format_version": wire_format.VERSION}
    write_atomic(folder / "guard.json", json.dumps({**known, **meta}, indent=2) + "\n")


def read_meta(folder: Path) -> dict[str, Any]:
    """`guard.json` of a model folder; empty where there is none."""
    path = folder / "guard.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def save_trained(trainer: Any, tokenizer: Any, target: Path, *, meta: Mapping[str, Any], merge: bool = False) -> None:
    """Write the trained weights as a checkpoint: adapters merged in or by themselves, sharded ones gathered."""
    accelerator = trainer.accelerator
    bare = accelerator.unwrap_model(trainer.model)
    state = accelerator.get_state_dict(trainer.model_wrapped) if _is_sharded(trainer) else None
    if merge:
        if state is not None:
            raise ConfigError("lora with fsdp or zero3 cannot be merged here; train adapters with distributed: ddp")
        bare = bare.merge_and_unload()
    bare.__dict__.pop("forward", None)  # TRL's patched forward
    if trainer.is_world_process_zero():
        save_checkpoint(bare, tokenizer, target, meta=meta, state=state)
    accelerator.wait_for_everyone()


def _is_sharded(trainer: Any) -> bool:
    return bool(trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)
