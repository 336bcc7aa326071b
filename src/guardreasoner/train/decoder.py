"""micro's second network: the first layers of SmolLM2-135M with adapters, and the same heads as nano's.

It reads from left to right, once: what it says of a request is read at the request's end, before the reply, and what it
says of a reply at the reply's end. So one exchange teaches all three tasks, and no request is judged by its reply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.nn import functional

from guardreasoner.engines.encoder import cut
from guardreasoner.engines.hardware import multiplies_bf16
from guardreasoner.engines.micro import TEXT
from guardreasoner.train.encoder_rows import EncoderRow
from guardreasoner.train.encoder_settings import EncoderConfig
from guardreasoner.train.minilm import OUTPUTS
from guardreasoner.train.smollm import load_smollm
from guardreasoner.types import Task

Encoded = tuple[list[int], int]
"""Token ids, and the place of the token at which the request is judged."""
REPLIED = [OUTPUTS.index(task.value) for task in (Task.refusal, Task.response_harm)]
"""Outputs that are asked of a reply; of a request, the others."""
ASKED = [i for i in range(len(OUTPUTS)) if i not in REPLIED]
MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Adapted(torch.nn.Module):  # type: ignore[misc, unused-ignore]
    """A matrix of the base, kept as it is, and what training adds to it: `up @ down`."""

    def __init__(self, base: torch.nn.Linear, rank: int, numbers: torch.dtype) -> None:
        super().__init__()
        outputs, inputs = base.weight.shape
        self.register_buffer("base", base.weight.detach().to(numbers), persistent=False)
        self.down = torch.nn.Parameter(torch.randn(rank, inputs) / inputs**0.5)
        self.up = torch.nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.to(self.base.dtype).flatten(0, -2)
        low = functional.linear(rows, self.down.to(rows.dtype))
        made = torch.addmm(functional.linear(rows, self.base), low, self.up.to(rows.dtype).t(), alpha=2)
        return made.unflatten(0, x.shape[:-1])


class DecoderModel(torch.nn.Module):  # type: ignore[misc, unused-ignore]
    """`forward` takes what `padded` gives and returns logits (rows, outputs) in the order of `OUTPUTS`."""

    def __init__(self, config: EncoderConfig) -> None:
        """The base's layers with fresh adapters and heads.

        Args:
            config: `layers`, `freeze` and `rank` are read.
        """
        super().__init__()
        self.fast = multiplies_bf16(torch)
        numbers = torch.bfloat16 if self.fast else torch.float32
        model, self.tokenizer = load_smollm("eager")  # on CPUs a sixth faster to train than sdpa
        self.base = model.model.requires_grad_(False)
        self.base.layers = self.base.layers[: config.layers]
        self.base.norm = torch.nn.Identity()
        for layer in self.base.layers[config.freeze :]:
            for part in (layer.self_attn, layer.mlp):
                for name in MATRICES:
                    if hasattr(part, name):
                        setattr(part, name, Adapted(getattr(part, name), config.rank, numbers))
        width = model.config.hidden_size
        self.scale = torch.nn.Parameter(torch.ones(width))
        self.drop = torch.nn.Dropout(0.1)
        asked, replied = (torch.nn.Linear(2 * width, len(outputs)) for outputs in (ASKED, REPLIED))
        self.heads = torch.nn.ModuleList((asked, replied))

    def forward(self, ids: torch.Tensor, request: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.fast):
            states = self.base(input_ids=ids, use_cache=False).last_hidden_state.float()
        states = states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + 1e-5) * self.scale
        place, row = torch.arange(ids.shape[1])[None], torch.arange(len(ids))
        first = place <= request[:, None]
        asked = self.heads[0](self.drop(torch.cat([states[row, request], _mean(states, first)], 1)))
        second = ~first & (place <= end[:, None])
        replied = self.heads[1](self.drop(torch.cat([states[row, end], _mean(states, second)], 1)))
        logits = asked.new_empty(len(asked), len(OUTPUTS))
        logits[:, ASKED], logits[:, REPLIED] = asked, replied
        return logits

    def trained(self) -> dict[str, torch.Tensor]:
        """What a checkpoint holds: adapters and heads."""
        return {name: p.detach().contiguous() for name, p in self.named_parameters() if p.requires_grad}

    def encode(self, rows: Sequence[EncoderRow], limits: Sequence[int]) -> list[Encoded]:
        """Each row in tokens, request and reply at most half of `limits[i]`; the middle of a longer one is left out."""
        before, judged, between, after = (self._ids([text])[0] for text in TEXT)
        requests, replies = self._ids([r.prompt for r in rows]), self._ids([r.response or "" for r in rows])
        made = []
        for row, request, reply, limit in zip(rows, requests, replies, limits, strict=True):
            ids = [*before, *cut(request, limit // 2), *judged]
            place = len(ids) - 1
            if row.response is not None:
                ids += [*between, *cut(reply, limit // 2), *after]
            made.append((ids, place))
        return made

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        made: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return made

    @staticmethod
    def padded(rows: Sequence[Encoded]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Ids (rows, longest), and each row's places of judgement; what pads stands after both, where nothing looks."""
        ids = torch.zeros(len(rows), max(len(ids) for ids, _ in rows), dtype=torch.long)
        for i, (row, _) in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        return ids, torch.tensor([place for _, place in rows]), torch.tensor([len(row) - 1 for row, _ in rows])


def _mean(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    share = mask.float() / mask.sum(1, keepdim=True).clamp(min=1)
    return (states * share[:, :, None]).sum(1)


def one_head_each(trained: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The checkpoint with one weight a feature for every output: the request's features, then the reply's.

    What is asked of a request has no weight for the reply's features, nor the other way round.
    """
    asked, replied = (trained[f"heads.{i}.weight"] for i in (0, 1))
    weight = asked.new_zeros(len(OUTPUTS), asked.shape[1] + replied.shape[1])
    bias = asked.new_zeros(len(OUTPUTS))
    weight[ASKED, : asked.shape[1]], weight[REPLIED, asked.shape[1] :] = asked, replied
    bias[ASKED], bias[REPLIED] = trained["heads.0.bias"], trained["heads.1.bias"]
    rest = {name: tensor for name, tensor in trained.items() if not name.startswith("heads.")}
    return {**rest, "heads.weight": weight, "heads.bias": bias}


def whole_exchanges(rows: Sequence[EncoderRow]) -> list[EncoderRow]:
    """Each row once, and no request alone whose exchange is there: reading that judges the request too."""
    asked = {row.prompt for row in rows if row.response is not None}
    return [row for row in dict.fromkeys(rows) if row.response is not None or row.prompt not in asked]
