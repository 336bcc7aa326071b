"""micro's second network: the first layers of mini's graph with other adapters, and its last states pooled.

The 4-bit matrices and the embeddings stay where they are, in mini's `model.onnx.data`, so `micro.onnx` lies beside it
and holds the adapters alone. What it gives are the features of `train/decoder.py`: the state at the end of the
request, the mean of the request's, and the same of the reply.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guardreasoner.engines.micro import NETWORK
from guardreasoner.errors import EngineError, need
from guardreasoner.export.low_rank import FUSED
from guardreasoner.train.four_bit_weights import BLOCK

PRODUCTS = {
    "qkv_proj": FUSED["qkv_proj"],
    "o_proj": ("self_attn.o_proj",),
    "gate_proj": FUSED["gate_proj"],
    "down_proj": ("mlp.down_proj",),
}
"""What mini's graph calls a product -> the checkpoint's matrices in it."""
EPSILON = 1e-5
Matrix = NDArray[np.float32]


def export_micro(mini: Path, weights: Mapping[str, Matrix], *, layers: int, freeze: int) -> Path:
    """Write `micro.onnx` into mini's folder.

    Args:
        mini: a folder that `export/low_rank.py` wrote.
        weights: the checkpoint of the stage `decoder`.
        layers: of the checkpoint.
        freeze: of these, the lowest, that have no adapters.
    """
    onnx = need("onnx", "train")
    model = onnx.load(str(mini / "model.onnx"), load_external_data=False)
    graph = model.graph
    end = next((n for n in graph.node if n.name == f"/model/layers.{layers}/input_layernorm/SkipLayerNorm"), None)
    if end is None:
        raise EngineError(f"{mini}/model.onnx has no layer {layers} that is known here; export mini again")
    kept = list(graph.node)[: list(graph.node).index(end)]
    state = onnx.helper.make_node("Add", list(end.input[:2]), ["states"], name="/states/Add")
    del graph.node[:]
    graph.node.extend([*kept, state, *_pooled(onnx.helper)])
    tensors = {t.name: t for t in graph.initializer}
    added = {"scale": weights["scale"].astype(np.float32), "four": np.array([0, -1], np.int64)}
    for layer in range(freeze, layers):
        for product, matrices in PRODUCTS.items():
            name = f"layers.{layer}.{product}"
            lift = _lift(mini, tensors[f"{name}.up"], tensors[f"{name}.codes"])
            down, up = _adapters(weights, layer, matrices)
            added[f"{name}.down"] = down.T.astype(np.float16)
            added[f"{name}.up"] = np.concatenate([lift, up.T.astype(np.float16)])
    used = {i for n in graph.node for i in n.input}
    shared = [t for name, t in tensors.items() if name in used and name not in added]
    del graph.initializer[:]
    made = [onnx.numpy_helper.from_array(np.ascontiguousarray(v), name) for name, v in added.items()]
    graph.initializer.extend([*shared, *made])
    _ends(onnx, graph, used)
    path = mini / NETWORK
    path.write_bytes(model.SerializeToString())
    return path


def _adapters(weights: Mapping[str, Matrix], layer: int, matrices: tuple[str, ...]) -> tuple[Matrix, Matrix]:
    """`down` (rank of all, inputs) and `up` (outputs of all, rank of all), the factor of 2 included."""
    pairs = [[weights[f"base.layers.{layer}.{m}.{side}"] for side in ("down", "up")] for m in matrices]
    up = np.zeros((sum(len(u) for _, u in pairs), sum(len(d) for d, _ in pairs)), np.float32)
    row = column = 0
    for down, part in pairs:
        up[row : row + len(part), column : column + len(down)] = 2 * part
        row, column = row + len(part), column + len(down)
    return np.concatenate([down for down, _ in pairs]), up


def _lift(mini: Path, up: Any, codes: Any) -> NDArray[np.float16]:
    """The rows of mini's `up` that belong to the 4-bit grid and not to its adapters."""
    onnx = need("onnx", "train")
    whole = onnx.TensorProto()
    whole.CopyFrom(up)
    onnx.external_data_helper.load_external_data_for_tensor(whole, str(mini))
    blocks = codes.dims[1]
    if codes.dims[2] * 2 != BLOCK:
        raise EngineError(f"{mini}/model.onnx has blocks that are not known here; export mini again")
    return np.asarray(onnx.numpy_helper.to_array(whole)[:blocks], np.float16)


def _pooled(helper: Any) -> list[Any]:
    """Nodes from the last states to the features: normed, weighted by `places`, the four side by side."""
    return [
        helper.make_node("SimplifiedLayerNormalization", ["states", "scale"], ["normed"], name="/normed/Norm",
                         axis=-1, epsilon=EPSILON, stash_type=1),
        helper.make_node("MatMul", ["places", "normed"], ["pooled"], name="/pooled/MatMul"),
        helper.make_node("Reshape", ["pooled", "four"], ["features"], name="/features/Reshape"),
    ]  # fmt: skip


def _ends(onnx: Any, graph: Any, used: set[str]) -> None:
    """The graph's inputs and outputs."""
    kept = [i for i in graph.input if i.name in used]
    del graph.input[:]
    graph.input.extend(kept)
    kind = onnx.TensorProto.FLOAT
    graph.input.append(onnx.helper.make_tensor_value_info("places", kind, ["batch_size", 4, "sequence_length"]))
    del graph.output[:]
    scale = next(t for t in graph.initializer if t.name == "scale")
    graph.output.append(onnx.helper.make_tensor_value_info("features", kind, ["batch_size", 4 * scale.dims[0]]))
    del graph.value_info[:]
