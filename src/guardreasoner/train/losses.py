"""The losses of R-SFT and HS-DPO as pure functions; only answer tokens are projected onto the vocabulary.

R-SFT (paper section 3.2) is the negative log-likelihood of the answer. With `verdict_weight` w the verdict words have a
mean of their own, so that a hundred easy tokens of scaffold do not drown three decisions:

    (w * mean CE(verdict words) + mean CE(other answer tokens)) / (w + 1)

HS-DPO (paper section 3.3; the SFT term is `pref_ftx` of the official scripts) is, over pairs i with weight alpha_i,

    mean_i(alpha_i * -logsigmoid(beta * delta_i)) + 2.0 * mean_i(-mean-token-logp(chosen_i))
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


def head_of(model: Any) -> nn.Module:
    """The module that turns hidden states into logits, found before any distributed wrapper is put around the model."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = getattr(base, "lm_head", None) or base.get_output_embeddings()
    assert isinstance(head, nn.Module)
    return head


@contextmanager
def only_positions(head: nn.Module, keep: Tensor) -> Iterator[None]:
    """Inside, `head` sees only the hidden states at `keep` (bool, batch x length) and gives logits (kept x vocabulary).

    A hook, not another forward: DDP, FSDP and LoRA wrappers stay in charge of the pass.
    """
    handle = head.register_forward_pre_hook(lambda _, args: (args[0][keep], *args[1:]))
    try:
        yield
    finally:
        handle.remove()


def answer_logits(
    model: Any, head: nn.Module, labels: Tensor, *, share: bool = False, **inputs: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of the tokens that have a label, and nothing else.

    Args:
        head: `head_of` the bare model.
        labels: (batch, length); -100 = no label. Label t is predicted at position t - 1.
        share: compute what all rows begin with (the instruction) once, and let them share its keys and values.

    Returns:
        Logits (n, vocabulary) in float32, targets (n,), and the bool mask (batch, length) of the positions they sit at.
    """
    target = labels.new_full(labels.shape, -100)
    target[:, :-1] = labels[:, 1:]
    keep = target != -100
    start = _common(inputs["input_ids"], keep) if share else 0
    past = _shared(model, head, inputs["input_ids"], start) if start else None
    if past is not None:
        inputs = {**inputs, "input_ids": inputs["input_ids"][:, start:], "past_key_values": past}
    with only_positions(head, keep[:, start:]):
        logits = model(**inputs, use_cache=past is not None).logits
    return logits.float(), target[keep], keep


def _common(ids: Tensor, keep: Tensor) -> int:
    """How many tokens all rows begin with, as far as nothing is to be predicted there."""
    apart = (ids != ids[:1]).any(0) | keep.any(0)
    return int(apart.nonzero()[0]) if len(ids) > 1 and apart.any() else 0


def _shared(model: Any, head: nn.Module, ids: Tensor, length: int) -> Any:
    """Keys and values of the first tokens, computed once and repeated for every row; gradients flow through them."""
    from transformers import DynamicCache

    cache = DynamicCache()
    with only_positions(head, torch.zeros(1, length, dtype=torch.bool)):
        model(input_ids=ids[:1, :length], past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(len(ids))
    return cache


class TokenCounts(NamedTuple):
    """Labelled tokens of a whole optimizer step, over all micro-batches and processes."""

    text: Tensor
    verdict: Tensor


def count_tokens(labels: Tensor, verdict: Tensor) -> Tensor:
    """(text tokens, verdict tokens) that have a label, as a tensor of two."""
    has = labels[:, 1:] != -100
    is_verdict = verdict[:, 1:] > 0
    return torch.stack([(has & ~is_verdict).sum(), (has & is_verdict).sum()])


def sft_loss(losses: Tensor, is_verdict: Tensor, counts: TokenCounts, verdict_weight: float | None) -> Tensor:
    """This micro-batch's share of the loss of the optimizer step.

    Args:
        losses: cross-entropy of each labelled token, (n,).
        is_verdict: which of them are verdict words, (n,).
        counts: labelled tokens of the whole step; the shares of all micro-batches sum to the loss of the step.
        verdict_weight: None = plain mean over tokens (the paper).
    """
    if verdict_weight is None:
        return losses.sum() / (counts.text + counts.verdict).clamp(min=1)
    text = losses[~is_verdict].sum() / counts.text.clamp(min=1)
    verdict = losses[is_verdict].sum() / counts.verdict.clamp(min=1)
    return (verdict_weight * verdict + text) / (verdict_weight + 1)


def token_logps(logits: Tensor, targets: Tensor) -> Tensor:
    """Log-probability of each target, (n,)."""
    return -functional.cross_entropy(logits, targets, reduction="none")


def sequence_logps(logps: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Summed log-probability and number of tokens per sequence, both (batch,); `keep` (batch, length) says where."""
    full = logps.new_zeros(keep.shape).masked_scatter(keep, logps)
    return full.sum(1), keep.sum(1)


class DpoLoss(NamedTuple):
    """The loss and what it is made of."""

    loss: Tensor
    preference: Tensor
    """alpha_i * -logsigmoid(beta * delta_i), (pairs,)."""
    sft: Tensor
    """-mean-token-logp(chosen_i), (pairs,)."""
    delta: Tensor
    """Margin of the policy over the reference, (pairs,)."""


def dpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    *,
    chosen_tokens: Tensor,
    weights: Tensor,
    beta: float,
    sft_weight: float,
    weight_sft: bool = False,
) -> DpoLoss:
    """Weighted HS-DPO loss of some pairs.

    Args:
        chosen, rejected, ref_chosen, ref_rejected: summed log-probabilities per pair, (pairs,).
        chosen_tokens: tokens of each chosen answer.
        weights: alpha of each pair.
        beta: strength of the reference (paper: 0.01).
        sft_weight: weight of the SFT term (paper: 2).
        weight_sft: whether alpha also scales the SFT term; the paper's equation puts it before the DPO term only.
    """
    delta = (chosen - ref_chosen) - (rejected - ref_rejected)
    preference = weights * -functional.logsigmoid(beta * delta)
    sft = -chosen / chosen_tokens.clamp(min=1)
    total = preference.mean() + sft_weight * ((weights * sft) if weight_sft else sft).mean()
    return DpoLoss(total, preference, sft, delta)
