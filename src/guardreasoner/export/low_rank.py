"""A model in the 4 bits that its base came in, with what training added beside them: none of those is rounded again.

Rounding a small model to 4 bits spoils it. But where the base's own matrices are on a 4-bit grid already (`train/grid`)
and adapters changed each by a matrix of low rank only, the merged checkpoint W is known exactly in little room:

    W = step * code + offset + up @ down

    y = MatMulNBits(x; code - 8, step) + [sums of x over its blocks | x @ down^T] @ [offset + 8 step | up]^T

The codes stay as they came, `up` and `down` (by singular values) are float16, embeddings and head are one matrix of
8 bits in blocks of 32, as GGUF's Q8_0 has them. Query, key and value share a product, and so do gate and up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guardreasoner.errors import ConfigError, EngineError, need
from guardreasoner.export.embeddings import MIDDLE, look_up
from guardreasoner.train.four_bit_weights import BLOCK, FourBits

TOLERANCE = 1e-5
"""Of the largest weight: what may be left of a change when its part of low rank is taken away. Merging in float32
leaves 1e-7."""
OVERSAMPLED = 8
FLOAT = 1
INTEGER_PRODUCTS = 4
"""`accuracy_level` of MatMulNBits: x is rounded to 8 bits a block; in float32 (1) it takes four times as long."""
FUSED = {
    "qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "gate_proj": ("mlp.gate_proj", "mlp.up_proj"),
}
"""What the builder calls a product -> the checkpoint's matrices in it. `up_proj` is computed with `gate_proj`."""
_PRODUCT = re.compile(r"/model/layers\.(\d+)/(attn|mlp)/(\w+)/MatMul$")
Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Merged:
    """One matrix, or several under one another: the grid, and the change as `up @ down`."""

    grid: FourBits
    up: Matrix
    """(outputs, rank of all)."""
    down: Matrix
    """(rank of all, inputs)."""


def on_grid(folder: Path, weights: Mapping[str, Matrix], grids: Mapping[str, FourBits], *, rank: int) -> None:
    """Rewrite `folder`, which onnxruntime-genai's builder wrote in float32, in the base's 4 bits.

    Args:
        folder: its `model.onnx` and `model.onnx.data` are replaced.
        rank: of the change of each matrix, at most.
    """
    onnx = need("onnx", "train")
    model = onnx.load(str(folder / "model.onnx"), load_external_data=False)
    graph, nodes, gone = _Additions(model.graph), [], set()
    for node in model.graph.node:
        found = _PRODUCT.match(node.name)
        if found is None or node.op_type != "MatMul":
            nodes.append(node)
            continue
        gone.add(node.input[1])
        layer, part, what = found.groups()
        names = FUSED.get(what, (f"{'self_attn' if part == 'attn' else 'mlp'}.{what}",))
        if what != "up_proj":
            split = _split([f"model.layers.{layer}.{name}.weight" for name in names], weights, grids, rank)
            nodes += graph.product(f"layers.{layer}.{what}", split, node)
    if not gone:
        raise EngineError("the builder wrote no matrices that are known here; its version has changed")
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    gone |= _share(graph, weights["model.embed_tokens.weight"])
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in gone]
    for tensor in kept:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(folder))
    del model.graph.initializer[:]
    model.graph.initializer.extend([*kept, *graph.tensors.values()])
    for name in ("model.onnx", "model.onnx.data"):
        (folder / name).unlink()
    onnx.save(model, str(folder / "model.onnx"), save_as_external_data=True, location="model.onnx.data")


def low_rank(change: Matrix, rank: int) -> tuple[Matrix, Matrix]:
    """The best `up @ down` of this rank, exact where the change has no higher one; (outputs, rank), (rank, inputs)."""
    probe = np.random.default_rng(0).standard_normal((change.shape[1], rank + OVERSAMPLED)).astype(np.float32)
    basis, _ = np.linalg.qr(change @ probe)
    left, values, right = np.linalg.svd(basis.T @ change, full_matrices=False)
    half = np.sqrt(values[:rank])
    return basis @ left[:, :rank] * half, half[:, None] * right[:rank]


def _split(names: list[str], weights: Mapping[str, Matrix], grids: Mapping[str, FourBits], rank: int) -> Merged:
    pairs = []
    for name in names:
        if name not in grids or grids[name].codes.shape != weights[name].shape:
            raise ConfigError(f"the base has no 4-bit matrix {name} of that shape; export with precision int8")
        change = weights[name] - grids[name].weights
        up, down = low_rank(change, rank)
        left = float(np.abs(change - up @ down).max() / np.abs(weights[name]).max())
        if not left <= TOLERANCE:
            raise ConfigError(
                f"{name} differs from the base by more than a change of rank {rank} ({left:.1g} of the largest weight "
                "is left); only adapters merged in float32 can be exported so: export with precision int8"
            )
        pairs.append((up, down))
    up = np.zeros((sum(len(u) for u, _ in pairs), rank * len(pairs)), np.float32)
    row = 0
    for k, (part, _) in enumerate(pairs):
        up[row : row + len(part), k * rank : (k + 1) * rank] = part
        row += len(part)
    whole = FourBits(*(np.concatenate([getattr(grids[n], field) for n in names]) for field in FourBits.__slots__))
    return Merged(whole, up, np.concatenate([down for _, down in pairs]))


def _share(graph: _Additions, embeddings: Matrix) -> set[str]:
    """One matrix of 8 bits for the embeddings and the head. Returns the names of the tensors that it replaces."""
    head = [n for n in graph.graph.node if n.name == "/lm_head/MatMul"]
    lookup = [n for n in graph.graph.node if n.op_type == "Gather" and n.name == "/model/embed_tokens/Gather"]
    turned = (
        [n for n in graph.graph.node if n.op_type == "Transpose" and n.output[0] == lookup[0].input[0]]
        if lookup
        else []
    )
    if len(head) != 1 or len(lookup) != 1 or len(turned) != 1:
        raise EngineError("the builder wrote embeddings or a head that are not known here; its version has changed")
    words, width = embeddings.shape
    blocks = embeddings.reshape(words, -1, BLOCK)
    scales = (np.abs(blocks).max(-1) / 127).astype(np.float16).astype(np.float32)  # as Q8_0 rounds them
    codes = np.rint(blocks / np.maximum(scales, 1e-9)[..., None]) + MIDDLE
    rows = graph.tensor("lm_head.MatMul.weight_Q8", codes.astype(np.uint8))
    steps = graph.tensor("lm_head.MatMul.weight_scales", scales)
    whole = graph.node("MatMulNBits", [head[0].input[0], rows, steps], head[0].output[0], domain="com.microsoft",
                       K=width, N=words, bits=8, block_size=BLOCK, accuracy_level=INTEGER_PRODUCTS)  # fmt: skip
    at = list(graph.graph.node).index(head[0])
    for old in (head[0], turned[0]):
        graph.graph.node.remove(old)
    graph.graph.node.insert(at - 1, whole)
    look_up(graph.graph, lookup[0], graph.tensors[rows], graph.tensors[steps])
    return {head[0].input[1]}


class _Additions:
    """What is added to a graph: tensors by name, and nodes."""

    def __init__(self, graph: Any) -> None:
        self.graph, self.tensors = graph, dict[str, Any]()
        self.onnx = need("onnx", "train")

    def tensor(self, name: str, values: NDArray[Any]) -> str:
        self.tensors[name] = self.onnx.numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def node(self, kind: str, inputs: list[str], output: str, *more: str, **attributes: Any) -> Any:
        return self.onnx.helper.make_node(kind, inputs, [output, *more], name=f"/{output}/{kind}", **attributes)

    def product(self, name: str, split: Merged, node: Any) -> list[Any]:
        """The nodes in place of a product of `node`'s input and a matrix."""
        grid, x = split.grid, node.input[0]
        outputs, inputs = grid.codes.shape
        pairs = grid.codes.reshape(outputs, -1, BLOCK)
        lift = grid.offsets.astype(np.float32) + 8 * grid.steps.astype(np.float32)
        sides = {
            "codes": pairs[..., 0::2] | pairs[..., 1::2] << 4,
            "steps": grid.steps,
            "down": split.down.T.astype(np.float16),
            "up": np.concatenate([lift, split.up], axis=1).T.astype(np.float16),
        }
        for side, values in sides.items():
            self.tensor(f"{name}.{side}", values)
        self.tensor("blocks", np.array([0, 0, -1, BLOCK], np.int64))
        self.tensor("last", np.array([-1], np.int64))
        many = "gate_proj" in name
        made = [f"{name}.gate_up"] if many else list(node.output)
        sizes = {"K": inputs, "N": outputs, "bits": 4, "block_size": BLOCK, "accuracy_level": INTEGER_PRODUCTS}
        matrix = [f"{name}.codes", f"{name}.steps.float"]
        nodes = [
            *(self.node("Cast", [f"{name}.{side}"], f"{name}.{side}.float", to=FLOAT) for side in list(sides)[1:]),
            self.node("MatMulNBits", [x, *matrix], f"{name}.main", domain="com.microsoft", **sizes),
            self.node("Reshape", [x, "blocks"], f"{name}.blocks"),
            self.node("ReduceSum", [f"{name}.blocks", "last"], f"{name}.sums", keepdims=0),
            self.node("MatMul", [x, f"{name}.down.float"], f"{name}.low"),
            self.node("Concat", [f"{name}.sums", f"{name}.low"], f"{name}.both", axis=-1),
            self.node("MatMul", [f"{name}.both", f"{name}.up.float"], f"{name}.rest"),
            self.node("Add", [f"{name}.main", f"{name}.rest"], made[0]),
        ]
        if many:
            up = node.output[0].replace("gate_proj", "up_proj")
            nodes.append(self.node("Split", made, node.output[0], up, axis=-1, num_outputs=2))
        return nodes
