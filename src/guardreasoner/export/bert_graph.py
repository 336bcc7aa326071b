"""The ONNX graph of a BERT-type causal decoder (`BertLMHeadModel`, `is_decoder`), made by hand from numpy weights.

onnxruntime-genai's own builder knows no BERT: absolute positions, layer norm after each block, erf gelu. The graph
keeps the interface of the Llama-type graphs that builder makes (input_ids, attention_mask, position_ids, key/value
cache in and out), so that one loop decodes both. Two things differ on purpose:

- logits are given for the last real token of each row only, shape (batch, 1, vocabulary): with 30,000 words the output
  layer would cost more than the network for every token of the prompt. Position 0 marks padding on the right.
- the token embeddings are stored once: `GatherBlockQuantized` and `MatMulNBits` read the same 8-bit blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from guardreasoner.errors import ConfigError, need

Precision = Literal["int8", "int4", "fp32"]
Weights = Mapping[str, NDArray[np.float32]]

BLOCK = 32
"""Weights that share a scale; activations are quantised in blocks of the same size."""
_BITS: dict[Precision, tuple[int, int]] = {"int8": (8, 8), "int4": (4, 8), "fp32": (0, 0)}
"""Bits of the layers and of the token embeddings."""
_ACTIVATIONS = {"gelu": "Gelu", "gelu_new": "FastGelu", "gelu_pytorch_tanh": "FastGelu"}


@dataclass(frozen=True, slots=True)
class BertShape:
    """The sizes of a BERT decoder, named as in its `config.json`."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    layer_norm_eps: float = 1e-12
    hidden_act: str = "gelu"

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> BertShape:
        """The shape that a `config.json` describes.

        Raises:
            ConfigError: it is not a BERT decoder that this graph can express.
        """
        if config.get("model_type") != "bert" or not config.get("is_decoder"):
            raise ConfigError(
                "this checkpoint is not a BERT decoder: its config needs model_type bert and is_decoder true"
            )
        if config.get("position_embedding_type", "absolute") != "absolute" or config.get("add_cross_attention"):
            raise ConfigError("only BERT decoders with absolute positions and without cross-attention can be exported")
        shape = cls(**{name: config[name] for name in cls.__slots__ if name in config})
        if shape.hidden_act not in _ACTIVATIONS:
            raise ConfigError(f"hidden_act {shape.hidden_act!r} cannot be exported; known: {', '.join(_ACTIVATIONS)}")
        if shape.hidden_size % (BLOCK * 1) or shape.intermediate_size % BLOCK:
            raise ConfigError(f"hidden_size and intermediate_size must be multiples of {BLOCK}")
        return shape


def quantize(weight: NDArray[np.float32], bits: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Symmetric blocks of `BLOCK` along the last axis of (rows, columns).

    Returns:
        Codes as MatMulNBits wants them, uint8 (rows, columns / BLOCK, BLOCK * bits / 8), low half first in 4 bits, zero
        point 2 ** (bits - 1); and scales, float32 (rows, columns / BLOCK).
    """
    rows, columns = weight.shape
    blocks = weight.reshape(rows, columns // BLOCK, BLOCK).astype(np.float32)
    zero, top = 1 << (bits - 1), (1 << (bits - 1)) - 1
    if bits == 4:  # the code -8 is used too: the largest weight of a block is met exactly, by sign
        extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1)[..., 0]
        scales = extreme / -float(zero)
    else:
        scales = np.abs(blocks).max(-1) / top
    safe = np.where(scales == 0, 1.0, scales).astype(np.float32)
    codes = (np.clip(np.rint(blocks / safe[..., None]), -zero, top) + zero).astype(np.uint8)
    if bits == 4:
        codes = (codes[..., 0::2] | (codes[..., 1::2] << 4)).astype(np.uint8)
    return codes, safe


def dequantize(codes: NDArray[np.uint8], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """The values of `quantize`'s 8-bit codes, float32 (rows, columns).

    Raises:
        ValueError: codes and scales do not fit together (codes of 4 bits are packed and do not).
    """
    blocks = (codes.reshape(len(codes), -1, BLOCK).astype(np.float32) - 128) * scales[:, :, None]
    return np.asarray(blocks.reshape(len(codes), -1), dtype=np.float32)


class _Graph:
    """Nodes and initializers, with one method per layer of the network."""

    def __init__(self, precision: Precision) -> None:
        self.onnx = need("onnx", "train")
        self.helper, self.numpy_helper = self.onnx.helper, need("onnx.numpy_helper", "train")
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.bits, self.embedding_bits = _BITS[precision]

    def const(self, name: str, value: NDArray[Any]) -> str:
        self.initializers.append(self.numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(
        self, op: str, inputs: Sequence[str], output: str | Sequence[str], domain: str = "", **attributes: Any
    ) -> str:
        outputs = [output] if isinstance(output, str) else list(output)
        self.nodes.append(self.helper.make_node(op, inputs, outputs, name=outputs[0], domain=domain, **attributes))
        return outputs[0]

    def ms(self, op: str, inputs: Sequence[str], output: str | Sequence[str], **attributes: Any) -> str:
        return self.node(op, inputs, output, "com.microsoft", **attributes)

    def linear(self, name: str, x: str, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> str:
        """x @ weight.T + bias, weight (out, in)."""
        b = self.const(f"{name}.bias", bias.astype(np.float32))
        if not self.bits:
            product = self.node(
                "MatMul", [x, self.const(f"{name}.weight", weight.T.astype(np.float32))], f"{name}.matmul"
            )
            return self.node("Add", [product, b], f"{name}.out")
        codes, scales = quantize(weight, self.bits)
        inputs = [x, self.const(f"{name}.codes", codes), self.const(f"{name}.scales", scales), "", "", b]
        return self.matmul_nbits(name, inputs, weight.shape, self.bits)

    def matmul_nbits(self, name: str, inputs: Sequence[str], shape: tuple[int, ...], bits: int) -> str:
        sizes = {"N": shape[0], "K": shape[1], "bits": bits, "block_size": BLOCK}
        return self.ms("MatMulNBits", inputs, f"{name}.out", accuracy_level=4, **sizes)

    def norm(self, name: str, x: str, skip: str | None, weights: Weights, key: str, eps: float) -> str:
        """Layer norm of x, or of x + skip."""
        scale = self.const(f"{name}.scale", weights[f"{key}.weight"].astype(np.float32))
        shift = self.const(f"{name}.shift", weights[f"{key}.bias"].astype(np.float32))
        if skip is not None:  # SkipLayerNormalization would do both, 6 times slower (42 rows of 384, one core)
            x = self.node("Add", [x, skip], f"{name}.sum")
        return self.node("LayerNormalization", [x, scale, shift], f"{name}.out", axis=-1, epsilon=eps)


def bert_graph(shape: BertShape, weights: Weights, precision: Precision = "int8") -> Any:
    """The model of a BERT decoder as an `onnx.ModelProto`.

    Args:
        shape: its sizes.
        weights: its arrays under the names of `BertLMHeadModel.state_dict()`; the output layer is tied to the token
            embeddings; `cls.predictions.transform.*` may be absent.
        precision: of the matrices. The key/value cache, norms and positions are float32.

    Raises:
        ConfigError: a weight is missing or has another size.
    """
    g = _Graph(precision)
    try:
        x = _embed(g, shape, weights)
        lengths = _lengths(g)
        for layer in range(shape.num_hidden_layers):
            x = _layer(g, shape, weights, layer, x, lengths)
        _head(g, shape, weights, x)
    except KeyError as error:
        raise ConfigError(f"the checkpoint has no weight named {error.args[0]!r}") from None
    return _model(g, shape)


def _embed(g: _Graph, shape: BertShape, weights: Weights) -> str:
    table = weights["bert.embeddings.word_embeddings.weight"]
    if table.shape != (shape.vocab_size, shape.hidden_size):
        raise ConfigError(
            f"the token embeddings are {table.shape}, the config says {(shape.vocab_size, shape.hidden_size)}"
        )
    positions = weights["bert.embeddings.position_embeddings.weight"]
    types = weights.get("bert.embeddings.token_type_embeddings.weight")
    folded = positions + types[0] if types is not None else positions  # every token has type 0
    place = g.node("Gather", [g.const("positions", folded.astype(np.float32)), "position_ids"], "place")
    if g.embedding_bits:
        codes, scales = quantize(table, 8)
        g.const("tokens.codes", codes.reshape(shape.vocab_size, shape.hidden_size))
        g.const("tokens.scales", scales)
        word = g.ms(
            "GatherBlockQuantized",
            ["tokens.codes", "input_ids", "tokens.scales"],
            "word",
            bits=8,
            block_size=BLOCK,
            gather_axis=0,
            quantize_axis=1,
        )
    else:
        word = g.node("Gather", [g.const("tokens", table.astype(np.float32)), "input_ids"], "word")
    return g.norm("embeddings", word, place, weights, "bert.embeddings.LayerNorm", shape.layer_norm_eps)


def _lengths(g: _Graph) -> tuple[str, str]:
    """GroupQueryAttention's two lengths: tokens of each row less one, and the longest row."""
    axis, one = g.const("axis1", np.array([1], np.int64)), g.const("one", np.array([1], np.int64))
    total = g.node("ReduceSum", ["attention_mask", axis], "row_length", keepdims=0)
    last = g.node("Cast", [g.node("Sub", [total, one], "row_last")], "seqlens_k", to=g.onnx.TensorProto.INT32)
    longest = g.node("Shape", ["attention_mask"], "longest64", start=1, end=2)
    flat = g.node("Squeeze", [longest], "longest_scalar")
    return last, g.node("Cast", [flat], "longest", to=g.onnx.TensorProto.INT32)


def _layer(g: _Graph, shape: BertShape, weights: Weights, layer: int, x: str, lengths: tuple[str, str]) -> str:
    key, name = f"bert.encoder.layer.{layer}", f"layer{layer}"
    parts = [f"{key}.attention.self.{part}" for part in ("query", "key", "value")]
    qkv = g.linear(
        f"{name}.qkv",
        x,
        np.concatenate([weights[f"{p}.weight"] for p in parts]),
        np.concatenate([weights[f"{p}.bias"] for p in parts]),
    )
    past = [f"past_key_values.{layer}.{kind}" for kind in ("key", "value")]
    present = [f"present.{layer}.{kind}" for kind in ("key", "value")]
    heads = shape.num_attention_heads
    attended = g.ms(
        "GroupQueryAttention",
        [qkv, "", "", *past, *lengths],
        [f"{name}.attended", *present],
        num_heads=heads,
        kv_num_heads=heads,
        do_rotary=0,
    )
    dense = f"{key}.attention.output.dense"
    attended = g.linear(f"{name}.project", attended, weights[f"{dense}.weight"], weights[f"{dense}.bias"])
    eps = shape.layer_norm_eps
    x = g.norm(f"{name}.norm1", x, attended, weights, f"{key}.attention.output.LayerNorm", eps)
    up, down = f"{key}.intermediate.dense", f"{key}.output.dense"
    wide = g.linear(f"{name}.up", x, weights[f"{up}.weight"], weights[f"{up}.bias"])
    wide = g.ms(_ACTIVATIONS[shape.hidden_act], [wide], f"{name}.act")
    narrow = g.linear(f"{name}.down", wide, weights[f"{down}.weight"], weights[f"{down}.bias"])
    return g.norm(f"{name}.norm2", x, narrow, weights, f"{key}.output.LayerNorm", eps)


def _head(g: _Graph, shape: BertShape, weights: Weights, x: str) -> None:
    places = g.node("Cast", ["position_ids"], "positions32", to=g.onnx.TensorProto.INT32)
    last = g.node("ArgMax", [places], "last_token", axis=1, keepdims=1)  # padding has position 0
    x = g.node("GatherND", [x, last], "last_flat", batch_dims=1)
    x = g.node("Unsqueeze", [x, g.const("axis_1", np.array([1], np.int64))], "last_hidden")
    transform = "cls.predictions.transform"
    if f"{transform}.dense.weight" in weights:
        x = g.linear("transform", x, weights[f"{transform}.dense.weight"], weights[f"{transform}.dense.bias"])
        x = g.ms(_ACTIVATIONS[shape.hidden_act], [x], "transform.act")
        x = g.norm("transform.norm", x, None, weights, f"{transform}.LayerNorm", shape.layer_norm_eps)
    bias = weights.get("cls.predictions.bias", np.zeros(shape.vocab_size, np.float32))
    b = g.const("head.bias", bias.astype(np.float32))
    if g.embedding_bits:
        sizes = g.const("codes_shape", np.array([shape.vocab_size, shape.hidden_size // BLOCK, BLOCK], np.int64))
        codes = g.node("Reshape", ["tokens.codes", sizes], "tokens.blocks")
        inputs = [x, codes, "tokens.scales", "", "", b]
        scores = g.matmul_nbits("head", inputs, (shape.vocab_size, shape.hidden_size), 8)
        g.node("Identity", [scores], "logits")
        return
    turned = g.node("Transpose", ["tokens"], "tokens.turned", perm=[1, 0])
    g.node("Add", [g.node("MatMul", [x, turned], "head.matmul"), b], "logits")


def _model(g: _Graph, shape: BertShape) -> Any:
    info, types = g.helper.make_tensor_value_info, g.onnx.TensorProto
    cache = ["batch", shape.num_attention_heads, "past", shape.head_size]
    layers = range(shape.num_hidden_layers)
    inputs = [
        info("input_ids", types.INT64, ["batch", "tokens"]),
        info("attention_mask", types.INT64, ["batch", "total"]),
        info("position_ids", types.INT64, ["batch", "tokens"]),
        *(info(f"past_key_values.{i}.{kind}", types.FLOAT, cache) for i in layers for kind in ("key", "value")),
    ]
    grown = ["batch", shape.num_attention_heads, "total", shape.head_size]
    outputs = [
        info("logits", types.FLOAT, ["batch", 1, shape.vocab_size]),
        *(info(f"present.{i}.{kind}", types.FLOAT, grown) for i in layers for kind in ("key", "value")),
    ]
    graph = g.helper.make_graph(g.nodes, "bert_decoder", inputs, outputs, g.initializers)
    opsets = [g.helper.make_opsetid("", 21), g.helper.make_opsetid("com.microsoft", 1)]
    return g.helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="guardreasoner")
