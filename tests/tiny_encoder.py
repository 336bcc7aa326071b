"""An encoder folder in miniature: features are shares of words, so that every score can be worked out by hand."""

import json
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from guardreasoner.engines.encoder import write_heads

_WORDS = """
[PAD] [CLS] [SEP] [UNK] [MASK] how do i make a bomb cake kill the process sorry no sure here ##s steal user
assistant [ ] ignore rules . , ? ! and with to in is are you my it what
"""
WORDS = _WORDS.split()
OUTPUTS = ("prompt_harm", "refusal", "response_harm", "attack", "weapons", "crime")
WEIGHTS = {
    "prompt_harm": {"bomb": 60, "steal": 60, "kill": 20},
    "refusal": {"sorry": 60, "no": 30},
    "response_harm": {"bomb": 40, "sure": 20},
    "attack": {"ignore": 80, "rules": 40},
    "weapons": {"bomb": 40},
    "crime": {"steal": 40},
}
BIAS = -2.0


def write_tiny(folder: Path, *, context_tokens: int = 64) -> Path:
    """A model folder whose features are each word's share of the text; heads by `WEIGHTS`, bias -2 each."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "model.onnx").write_bytes(_graph(len(WORDS)).SerializeToString())
    weight = np.zeros((len(OUTPUTS), len(WORDS)), np.float32)
    for row, name in enumerate(OUTPUTS):
        for word, value in WEIGHTS[name].items():
            weight[row, vocabulary[word]] = value
    write_heads(folder, OUTPUTS, weight, np.full(len(OUTPUTS), BIAS, np.float32))
    meta = {"format": "encoder", "format_version": "2", "context_tokens": context_tokens}
    (folder / "guard.json").write_text(json.dumps(meta))
    return folder


def _graph(width: int):
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, ["rows", "tokens"]) for n in names]
    output = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", width])
    table = numpy_helper.from_array(np.eye(width, dtype=np.float32), "table")
    axis = numpy_helper.from_array(np.array([1], np.int64), "axis")
    kept = numpy_helper.from_array(np.array(0.0, np.float32), "zero")
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["words"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["token_type_ids"], ["segments"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "two"], ["mask3"]),
        helper.make_node("Mul", ["words", "mask3"], ["seen"]),
        helper.make_node("ReduceSum", ["seen", "axis"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "axis"], ["length"], keepdims=1),
        helper.make_node("ReduceSum", ["segments", "axis"], ["replied"], keepdims=1),
        helper.make_node("Mul", ["replied", "zero"], ["nothing"]),
        helper.make_node("Add", ["length", "nothing"], ["divisor"]),
        helper.make_node("Div", ["sum", "divisor"], ["features"]),
    ]
    two = numpy_helper.from_array(np.array([2], np.int64), "two")
    graph = helper.make_graph(nodes, "tiny", inputs, [output], [table, axis, kept, two])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
