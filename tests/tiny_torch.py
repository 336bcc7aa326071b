"""Tiny randomly initialised models, saved as transformers folders: for tests that need torch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

import tiny
from tokenizers_of_all_kinds import LLAMA_MARKERS, LLAMA_TEMPLATE, byte_bpe


def tiny_llama_folder(tmp_path: Path, *, kind: str = "causal", tied: bool = True) -> Path:
    """A two-layer Llama with Llama 3's kind of tokenizer and chat template."""
    folder = tmp_path / f"llama-{kind}"
    tokenizer = byte_bpe()
    config = tiny_config(
        tokenizer,
        begin=LLAMA_MARKERS[0],
        end=LLAMA_MARKERS[-1],
        pad=LLAMA_MARKERS[1],
        intermediate_size=128,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        initializer_range=0.3,
        num_labels=3,
    )
    torch.manual_seed(0)
    network = LlamaForCausalLM(config) if kind == "causal" else LlamaForSequenceClassification(config)
    network.save_pretrained(folder)
    save_tokenizer(
        tokenizer, folder, chat_template=LLAMA_TEMPLATE, bos_token=LLAMA_MARKERS[0], eos_token=LLAMA_MARKERS[-1]
    )
    return folder


def tiny_checkpoint(tmp_path: Path) -> Path:
    """The checkpoint of the very network that `tiny.tiny_onnx_folder` holds."""
    folder = tmp_path / "wordpiece"
    tokenizer = tiny.tiny_tokenizer()
    config = tiny_config(
        tokenizer,
        begin="[CLS]",
        end="[SEP]",
        pad="[PAD]",
        intermediate_size=64,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
    )
    network, rng = LlamaForCausalLM(config), np.random.default_rng(0)
    with torch.no_grad():
        for _, weight in sorted(network.named_parameters()):
            scale = 1.5 / weight.shape[-1] ** 0.5 if weight.dim() > 1 else 0.1
            drawn = rng.normal(float(weight.dim() == 1), scale, weight.shape)
            weight.copy_(torch.tensor(drawn, dtype=torch.float32))
    network.save_pretrained(folder)
    save_tokenizer(tokenizer, folder, cls_token="[CLS]", eos_token="[SEP]", pad_token="[PAD]")
    return folder


def tiny_config(tokenizer: Tokenizer, *, begin: str, end: str, pad: str, **sizes: Any) -> LlamaConfig:
    """Two layers of 64, with the tokenizer's special tokens."""
    return LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=tokenizer.token_to_id(begin),
        eos_token_id=tokenizer.token_to_id(end),
        pad_token_id=tokenizer.token_to_id(pad),
        **sizes,
    )


def save_tokenizer(tokenizer: Tokenizer, folder: Path, **config: str) -> None:
    """tokenizer.json and tokenizer_config.json."""
    tokenizer.save(str(folder / "tokenizer.json"))
    content = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(content))


if __name__ == "__main__":  # python tests/tiny_torch.py makes tests/data/tiny anew
    from tempfile import TemporaryDirectory

    from guardreasoner.export.onnx import export

    with TemporaryDirectory() as work:
        made = tiny_checkpoint(Path(work))
        for precision in ("fp32", "int8"):
            export(made, tiny.DATA / precision, precision=precision)
