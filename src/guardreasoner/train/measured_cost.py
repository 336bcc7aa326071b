"""What training costs on this machine: time and memory of a pass through one and through two layers of the base.

The difference is a layer; the rest is embeddings, head and loss. So a base of any depth is measured in seconds, in the
number format, attention and row lengths that the run will have.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from guardreasoner.engines.hardware import limit_threads
from guardreasoner.train.attention import best_attention
from guardreasoner.train.losses import answer_logits, head_of
from guardreasoner.train.settings import TrainingConfig
from guardreasoner.train.trainer import recompute_layers, settled

clock = time.monotonic
"""Measures seconds."""
MOST_TOKENS = 4096
"""Tokens of a measured pass; a longer one is measured on fewer rows."""
DECODED_TOGETHER = 16
"""Answers that are written at once."""


@dataclass(frozen=True)
class PassShape:
    """Rows of one pass."""

    rows: int
    length: int
    """Tokens of a row, padding included."""
    answer: int
    """Of these, tokens that are learned."""


@dataclass(frozen=True)
class Measured:
    """One pass of the whole model, and what it keeps."""

    train_s: float
    """Seconds forward and backward, recomputation included."""
    forward_s: float
    step_s: float
    """Seconds of an optimizer step."""
    kept_bytes: float
    """Activations that are kept for the backward pass, at the highest."""


def measure(model_config: Any, config: TrainingConfig, shape: PassShape) -> Measured:
    """A pass of `shape` through a model of this configuration with random weights.

    Args:
        config: number format, recomputation and threads.
        shape: rows of one pass and device.
    """
    limit_threads(torch, config.threads)
    config = settled(config)
    rows = max(1, min(shape.rows, MOST_TOKENS // shape.length))
    small = PassShape(rows, shape.length, shape.answer)
    depth = int(model_config.num_hidden_layers)
    one, two = (_measured(model_config, config, small, layers) for layers in (1, 2))
    scale = shape.rows / rows

    def whole(name: str) -> float:
        first, second = one[name], two[name]
        return float(first + (depth - 1) * max(0.0, second - first))

    layer = max(0.0, two["bytes"] - one["bytes"])
    inputs = rows * shape.length * model_config.hidden_size * 4
    kept = one["bytes"] + (depth - 1) * (inputs if config.gradient_checkpointing else layer)
    return Measured(
        train_s=whole("train") * scale,
        forward_s=whole("forward") * scale,
        step_s=whole("step"),
        kept_bytes=kept * scale,
    )


def _measured(model_config: Any, config: TrainingConfig, shape: PassShape, layers: int) -> dict[str, float]:
    model = _model(model_config, layers, best_attention())
    head = head_of(model)
    ids = _ids(model, shape.rows, shape.length)
    labels = ids.clone()
    labels[:, : shape.length - shape.answer] = -100
    mixed = torch.autocast(model.device.type, torch.bfloat16) if config.precision == "bf16" else nullcontext()

    def loss() -> Any:
        with mixed:
            logits, targets, _ = answer_logits(model, head, labels, input_ids=ids)
        return functional.cross_entropy(logits, targets)

    def forward() -> None:
        with torch.no_grad():
            loss()

    model.train()
    kept = _kept_bytes(model, loss)
    if config.gradient_checkpointing:
        recompute_layers(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    result = {"bytes": float(kept), "train": _timed(lambda: loss().backward()), "forward": _timed(forward)}
    return {**result, "step": _timed(lambda: optimizer.step())}


def _model(model_config: Any, layers: int, attention: str = "sdpa") -> Any:
    """A base of this many layers with random weights."""
    from transformers import AutoModelForCausalLM

    changed = type(model_config)(**{**model_config.to_dict(), "num_hidden_layers": layers, "layer_types": None})
    changed._attn_implementation = attention
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        return AutoModelForCausalLM.from_config(changed, dtype=torch.float32)


def _ids(model: Any, rows: int, length: int) -> torch.Tensor:
    return torch.randint(10, model.config.vocab_size, (rows, length), device=model.device)


def _timed(act: Callable[[], Any]) -> float:
    """Seconds of the second of two calls, or the faster of two more where they are short."""
    times = []
    for _ in range(3):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        began = clock()
        act()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(clock() - began)
        if len(times) == 2 and times[1] > 2:
            break
    return min(times[1:])


def _kept_bytes(model: Any, loss: Callable[[], Any]) -> int:
    """Bytes of the tensors that autograd keeps for one backward pass, weights left out."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss().backward()
    model.zero_grad()
    return sum(kept.values())


def seconds_per_answer(model_config: Any, *, tokens: int, prompt: int) -> float:
    """Seconds of one sampled answer on the hf engine here, in batches."""
    one, two = (_decoded(model_config, layers, prompt) for layers in (1, 2))
    depth = int(model_config.num_hidden_layers)
    start, per_token = (a + (depth - 1) * max(0.0, b - a) for a, b in zip(one, two, strict=True))
    return float((start + per_token * tokens) / DECODED_TOGETHER)


def _decoded(model_config: Any, layers: int, prompt: int) -> tuple[float, float]:
    """Seconds of the prompts, and of each token after them."""
    model = _model(model_config, layers).eval()
    ids = _ids(model, DECODED_TOGETHER, prompt)
    steps = 6
    with torch.inference_mode():
        begin = _timed(lambda: model(input_ids=ids, use_cache=True, logits_to_keep=1))
        cache = model(input_ids=ids, use_cache=True, logits_to_keep=1).past_key_values

        def tokens() -> None:
            for _ in range(steps):
                model(input_ids=ids[:, :1], past_key_values=cache, use_cache=True)

        return begin, _timed(tokens) / steps
