"""One 8-bit matrix for both ends of a Llama-type model whose embeddings are tied.

onnxruntime-genai's builder quantises the output head to 8 bits and leaves the token embeddings, which are the same
matrix, in float32: 4 bytes a weight more. Here the rows of the head are looked up instead, and scaled back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from guardreasoner.errors import EngineError, need

MIDDLE = 128.0
"""Zero point of MatMulNBits at 8 bits without zero points of its own."""


def share_embeddings(folder: Path) -> None:
    """Rewrite `model.onnx` so that embeddings come from the head's 8-bit rows; the file of weights is written anew."""
    onnx = need("onnx", "train")
    model = onnx.load(str(folder / "model.onnx"))
    graph = model.graph
    known = {i.name: i for i in graph.initializer}
    lookup = [n for n in graph.node if n.op_type == "Gather" and "embed" in n.name and n.input[0] in known]
    head = [n for n in graph.node if n.op_type == "MatMulNBits" and "lm_head" in n.name and len(n.input) == 3]
    if len(lookup) != 1 or len(head) != 1 or {a.name: a.i for a in head[0].attribute}.get("bits") != 8:
        raise EngineError("the builder wrote embeddings or a head that are not known here; its version has changed")
    gather, (rows, scales) = lookup[0], (known[name] for name in head[0].input[1:3])
    _, blocks, size = rows.dims
    if blocks * size != known[gather.input[0]].dims[1]:
        raise EngineError("the head's rows are padded, so they are no embeddings; the hidden size is no multiple of 64")
    look_up(graph, gather, rows, scales)
    graph.initializer.remove(known[gather.input[0]])
    for name in ("model.onnx", "model.onnx.data"):
        (folder / name).unlink(missing_ok=True)
    onnx.save(model, str(folder / "model.onnx"), save_as_external_data=True, location="model.onnx.data")


def look_up(graph: Any, gather: Any, rows: Any, scales: Any) -> None:
    """Put nodes that look up the head's 8-bit rows in the place of `gather`.

    Args:
        gather: the node that looks up the embeddings.
        rows: tensor (words, blocks, weights of a block), `MIDDLE` = 0.
        scales: tensor with a float32 for each block.
    """
    onnx = need("onnx", "train")
    words, blocks, size = rows.dims
    constants = {
        "embed/by_row": np.array([words, blocks, 1], np.int64),
        "embed/middle": np.array(MIDDLE, np.float32),
        "embed/flat": np.array([0, 0, blocks * size], np.int64),
    }
    at = list(graph.node).index(gather)
    graph.node.remove(gather)
    for offset, node in enumerate(_nodes(onnx.helper, gather, rows.name, scales.name)):
        graph.node.insert(at + offset, node)
    graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())


def _nodes(helper: Any, gather: Any, rows: str, scales: str) -> list[Any]:
    ids, out = gather.input[1], gather.output[0]

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> Any:
        return helper.make_node(kind, inputs, [output], name=f"/{output}/{kind}", **attributes)

    return [
        node("Gather", [rows, ids], "embed/row"),
        node("Cast", ["embed/row"], "embed/float", to=1),
        node("Sub", ["embed/float", "embed/middle"], "embed/centred"),
        node("Reshape", [scales, "embed/by_row"], "embed/scales"),
        node("Gather", ["embed/scales", ids], "embed/scale"),
        node("Mul", ["embed/centred", "embed/scale"], "embed/scaled"),
        node("Reshape", ["embed/scaled", "embed/flat"], out),
    ]
