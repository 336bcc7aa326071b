"""From an exported `minilm` guard back to a checkpoint that can be trained further or averaged.

    python -m guardreasoner.train.unpack MODEL CHECKPOINT

The bundled guard comes as int8 ONNX only; this is how to fine-tune it on rows of your own (`model: {base: CHECKPOINT,
wire: compact}`). Weights are the numbers that the 8-bit blocks stand for: exported again, they score as before.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guardreasoner.errors import ConfigError, GuardReasonerError, need
from guardreasoner.export.bert_graph import dequantize
from guardreasoner.train.minilm import load_minilm
from guardreasoner.train.models import read_meta, save_checkpoint

Arrays = Mapping[str, NDArray[Any]]
Weights = dict[str, NDArray[np.float32]]


def unpack(model: str | Path, out: str | Path) -> Path:
    """Write the checkpoint of an exported folder (int8 or fp32) to `out`, which must not exist.

    Raises:
        ConfigError: the folder holds no export of a `minilm` guard, it is int4, or `out` is there.
        MissingDependency: the extra `train` is not installed.
    """
    source, target = Path(model), Path(out)
    if target.exists():
        raise ConfigError(f"{target} is already there; give another folder")
    meta = read_meta(source)
    if not (source / "model.onnx").exists() or meta.get("base") != "minilm":
        raise ConfigError(f"{source} holds no exported guard on the base minilm (model.onnx and guard.json)")
    torch, onnx = need("torch", "train"), need("onnx", "train")
    transformers = need("transformers", "train")
    graph = onnx.load(str(source / "model.onnx")).graph
    arrays = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    network, _ = load_minilm()
    state = network.state_dict()
    try:
        found = named(arrays, network.config)
        added = state["bert.embeddings.token_type_embeddings.weight"][0]  # by the graph, to every position
        found["bert.embeddings.position_embeddings.weight"] -= added.numpy()
        for name, value in found.items():
            state[name].copy_(torch.from_numpy(np.array(value)))
    except (KeyError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{source} does not hold the network of minilm in int8 or fp32: {error}") from None
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(source))
    target.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(network, tokenizer, target, meta={k: v for k, v in meta.items() if k != "explaining"})
    return target


def named(arrays: Arrays, config: Any) -> Weights:
    """Weights of the graph of `bert_graph.py` under the names of `BertLMHeadModel.state_dict()`."""
    found: Weights = {
        "bert.embeddings.word_embeddings.weight": matrix(arrays, "tokens"),
        "bert.embeddings.position_embeddings.weight": arrays["positions"].copy(),
        "cls.predictions.bias": arrays["head.bias"],
    }

    def linear(names: Sequence[str], name: str) -> None:
        weight, bias = matrix(arrays, name), arrays[f"{name}.bias"]
        for part, w, b in zip(names, np.split(weight, len(names)), np.split(bias, len(names)), strict=True):
            found[f"{part}.weight"], found[f"{part}.bias"] = w, b

    def norm(key: str, name: str) -> None:
        found[f"{key}.weight"], found[f"{key}.bias"] = arrays[f"{name}.scale"], arrays[f"{name}.shift"]

    norm("bert.embeddings.LayerNorm", "embeddings")
    for layer in range(config.num_hidden_layers):
        key, name = f"bert.encoder.layer.{layer}", f"layer{layer}"
        linear([f"{key}.attention.self.{part}" for part in ("query", "key", "value")], f"{name}.qkv")
        linear([f"{key}.attention.output.dense"], f"{name}.project")
        norm(f"{key}.attention.output.LayerNorm", f"{name}.norm1")
        linear([f"{key}.intermediate.dense"], f"{name}.up")
        linear([f"{key}.output.dense"], f"{name}.down")
        norm(f"{key}.output.LayerNorm", f"{name}.norm2")
    linear(["cls.predictions.transform.dense"], "transform")
    norm("cls.predictions.transform.LayerNorm", "transform.norm")
    return found


def matrix(arrays: Arrays, name: str) -> NDArray[np.float32]:
    """A matrix of the graph as (out, in): the token table, or a layer's weight."""
    if f"{name}.codes" in arrays:
        return dequantize(arrays[f"{name}.codes"], arrays[f"{name}.scales"])
    return np.asarray(arrays[name] if name in arrays else arrays[f"{name}.weight"].T, dtype=np.float32)


def main(words: Sequence[str]) -> int:
    """Entry point."""
    if len(words) != 2:
        print("usage: python -m guardreasoner.train.unpack MODEL CHECKPOINT", file=sys.stderr)
        return 2
    try:
        print(unpack(*words))
    except GuardReasonerError as error:
        print(f"unpack: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
