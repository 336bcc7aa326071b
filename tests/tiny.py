"""A whole model folder in 200 kB, made in milliseconds and without torch: for tests of everything above it.

The network is a BERT decoder with random weights: it answers nonsense, always the same nonsense. Its tokenizer is of
the bundled model's kind: lower-case WordPiece whose scaffold strings and verdict words are single tokens.
"""

import json
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from guardreasoner.export.bert_graph import BertShape, Precision
from guardreasoner.export.onnx import write_bert_folder

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SCAFFOLD = (
    "\n",
    "Human user:",
    "AI assistant:",
    "Answers:",
    "Request:",
    "Completion:",
    "Response:",
    "---",
    "# Task 1",
    "# Task 2",
    "# Task 3",
    "## Reasoning Step 1",
    "## Reasoning Step 2",
    "None",
)
SENTENCE = "the user asks for how to kill a process is request response so and it this no risk of harm answer says help"
WORDS = ("harmful", "unharmful", "refusal", "compliance", *SENTENCE.split(), "please", "sorry", "i", "cannot", "cake")
SIGNS = "abcdefghijklmnopqrstuvwxyz0123456789.,;:!?'\"()[]{}<>|/\\-_#*&@$%+=~`^"


def tiny_tokenizer() -> Tokenizer:
    """Lower-case WordPiece of about 170 entries; every ASCII word can be spelled."""
    words = [*SPECIAL, *WORDS, *(c for c in SIGNS if c not in WORDS), *(f"##{c}" for c in SIGNS)]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=200))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SCAFFOLD])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", special_tokens=[("[CLS]", tokenizer.token_to_id("[CLS]"))]
    )
    return tokenizer


def tiny_shape(vocabulary: int, *, positions: int = 256) -> BertShape:
    """Two layers, 64 wide."""
    return BertShape(
        vocab_size=vocabulary,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=positions,
    )


def tiny_weights(shape: BertShape, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights under the names of `BertLMHeadModel.state_dict()`, wide enough that logits differ."""
    rng = np.random.default_rng(seed)
    h, wide = shape.hidden_size, shape.intermediate_size

    def matrix(rows: int, columns: int, scale: float) -> np.ndarray:
        return rng.normal(0, scale, (rows, columns)).astype(np.float32)

    weights = {
        "bert.embeddings.word_embeddings.weight": matrix(shape.vocab_size, h, 0.5),
        "bert.embeddings.position_embeddings.weight": matrix(shape.max_position_embeddings, h, 0.3),
        "bert.embeddings.token_type_embeddings.weight": matrix(2, h, 0.1),
        "cls.predictions.bias": rng.normal(0, 0.1, shape.vocab_size).astype(np.float32),
    }
    norms, linears = ["bert.embeddings.LayerNorm", "cls.predictions.transform.LayerNorm"], {}
    linears["cls.predictions.transform.dense"] = (h, h)
    for i in range(shape.num_hidden_layers):
        key = f"bert.encoder.layer.{i}"
        linears |= {f"{key}.attention.self.{part}": (h, h) for part in ("query", "key", "value")}
        linears |= {
            f"{key}.attention.output.dense": (h, h),
            f"{key}.intermediate.dense": (wide, h),
            f"{key}.output.dense": (h, wide),
        }
        norms += [f"{key}.attention.output.LayerNorm", f"{key}.output.LayerNorm"]
    for name, (rows, columns) in linears.items():
        weights[f"{name}.weight"] = matrix(rows, columns, 1.5 / columns**0.5)
        weights[f"{name}.bias"] = rng.normal(0, 0.1, rows).astype(np.float32)
    for name in norms:
        weights[f"{name}.weight"] = rng.normal(1, 0.1, h).astype(np.float32)
        weights[f"{name}.bias"] = rng.normal(0, 0.1, h).astype(np.float32)
    return weights


def tiny_onnx_folder(tmp_path: Path, *, precision: Precision = "int8", positions: int = 256, seed: int = 0) -> Path:
    """A model folder that `OnnxEngine` and `load_guard` take."""
    folder = tmp_path / f"tiny-{precision}-{positions}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tiny_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "cls_token": "[CLS]",
        "eos_token": "[SEP]",
        "pad_token": "[PAD]",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    shape = tiny_shape(tokenizer.get_vocab_size(), positions=positions)
    ids = {f"{k}_token_id": tokenizer.token_to_id(t) for k, t in (("bos", "[CLS]"), ("eos", "[SEP]"), ("pad", "[PAD]"))}
    write_bert_folder(folder, shape, tiny_weights(shape, seed), precision=precision, special_ids=ids)
    return folder
