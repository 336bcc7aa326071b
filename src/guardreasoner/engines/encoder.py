"""An encoder that scores text, on onnxruntime: a request and its reply in, one number per label out.

A model folder holds `model.onnx` (text to features), `heads.json` (a bias and a weight per feature for each output, so
that heads can be retrained without the network), `tokenizer.json` (WordPiece) and `guard.json`. The network reads
`[CLS] request [SEP]` or `[CLS] request [SEP] reply [SEP]`, with the reply as second segment.

Texts run one at a time. An int8 network scales its activations over the whole run, so in a batch a text's numbers would
depend on its neighbours; and on a CPU a batch saves little (8 texts of 40 tokens: 18% of the time).
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Regex, Tokenizer
from tokenizers.pre_tokenizers import Sequence as Sequence_
from tokenizers.pre_tokenizers import Split

from guardreasoner.engines.hardware import available_cores
from guardreasoner.engines.onnx import faults, load_runtime, open_session
from guardreasoner.engines.prompt_tokens import clean
from guardreasoner.errors import ConfigError, EngineError, EngineTimeout, InputTooLong, printable
from guardreasoner.generation import NOT_FINITE
from guardreasoner.records import write_atomic

Floats = NDArray[np.float32]
Pair = tuple[str, str | None]
"""A request, and its reply if there is one."""
MOST_THREADS = 4
"""One short text keeps no more threads than this busy."""
LONGEST_BYTES = 64
"""Per token of the context: a longer text is refused before it is read."""
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
FORMAT_VERSION = "2"
"""Of a model folder; another one is read by another version of this package."""
LONGEST = 1 << 20
"""Tokens of a context: more is no encoder's."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What the network says about n texts."""

    logits: Floats
    """(n, outputs), in the order of `EncoderEngine.outputs`."""
    features: Floats
    """(n, width): what the heads read."""
    tokens: NDArray[np.int64]
    """(n,): length of each text."""


class EncoderEngine:
    """An encoder with heads. Safe to share between threads."""

    def __init__(self, folder: str | Path, *, threads: int | None = None, name: str | None = None) -> None:
        """Args:
        folder: a model folder as `guardreasoner.export.encoder` writes it.
        threads: of one run; None = the cores this process may use, at most `MOST_THREADS`.
        """
        path = self.folder = Path(folder)
        meta = read_meta(path)
        self.name = name or path.resolve().name
        self.context_tokens = int(meta["context_tokens"])
        self.outputs, self.weight, self.bias = read_heads(path)
        self.tokenizer = _tokenizer(path)
        marks = [i for t in ("[CLS]", "[SEP]", "[UNK]") if (i := self.tokenizer.token_to_id(t)) is not None]
        if len(marks) < 3:
            raise ConfigError(f"{path}/tokenizer.json has no [CLS], [SEP] and [UNK]; export the model again")
        self._first, self._last, self._unknown = marks
        self.runtime = load_runtime()
        self.session = open_session(path / "model.onnx", threads or min(MOST_THREADS, available_cores()))
        widths = [o.shape[-1] for o in self.session.get_outputs() if o.name == "features"]
        if {i.name for i in self.session.get_inputs()} != set(INPUTS) or widths != [self.weight.shape[1]]:
            raise ConfigError(f"{path}/model.onnx does not fit its heads.json; export the model again")

    def score(self, pairs: Sequence[Pair], *, deadline: float | None = None) -> Scores:
        """Logits of any number of texts, in order; equal texts are run once.

        Args:
            deadline: `time.monotonic()` seconds.
        """
        encoded = [self._encode(pair) for pair in pairs]
        done: dict[tuple[tuple[int, ...], int], Floats] = {}
        for key in encoded:
            if key not in done:
                if deadline is not None and time.monotonic() >= deadline:
                    raise EngineTimeout("the deadline passed before every text was scored")
                done[key] = self._run(*key)
        features = np.array([done[key] for key in encoded], np.float32).reshape(len(encoded), self.weight.shape[1])
        logits = features @ self.weight.T + self.bias
        if not np.isfinite(logits).all():
            raise EngineError(NOT_FINITE)
        return Scores(logits, features, np.array([len(ids) for ids, _ in encoded], np.int64))

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Character span of every token of a text."""
        return list(self.tokenizer.encode(clean(text), add_special_tokens=False).offsets)

    def close(self) -> None:
        """Give back the model's memory; the engine cannot run afterwards."""
        self.session = None

    def _encode(self, pair: Pair) -> tuple[tuple[int, ...], int]:
        """Token ids, and how many of them are the request's segment."""
        texts = [clean(text) for text in pair if text is not None]
        if sum(map(len, texts)) > self.context_tokens * LONGEST_BYTES:
            raise InputTooLong(f"the text does not fit in the model's {self.context_tokens} tokens")
        encoded = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        parts = [self._known(text, e) for text, e in zip(texts, encoded, strict=True)]
        ids = (self._first, *parts[0], self._last, *([*parts[1], self._last] if len(parts) > 1 else ()))
        if len(ids) > self.context_tokens:
            raise InputTooLong(f"the text does not fit in the model's {self.context_tokens} tokens")
        return ids, len(parts[0]) + 2

    def _known(self, text: str, encoding: Encoding) -> list[int]:
        """Token ids without those of symbols that the vocabulary does not hold: one word that says nothing, such as an
        emoji, would move the scores of all others."""
        if self._unknown not in encoding.ids:
            return list(encoding.ids)
        tokens = zip(encoding.ids, encoding.offsets, strict=True)
        return [i for i, (start, end) in tokens if i != self._unknown or any(map(str.isalnum, text[start:end]))]

    def _run(self, ids: tuple[int, ...], request: int) -> Floats:
        if self.session is None:
            raise EngineError(f"the engine {self.name} is closed")
        row = np.array([ids], np.int64)
        segments = (np.arange(len(ids)) >= request).astype(np.int64)[None]
        fed = dict(zip(INPUTS, (row, np.ones_like(row), segments), strict=True))
        try:
            features: Floats = self.session.run(["features"], fed)[0][0]
        except faults(self.runtime) as error:
            raise EngineError(f"onnxruntime failed while running the model ({type(error).__name__})") from None
        return features


def cut(ids: list[int], room: int) -> list[int]:
    """At most `room` tokens; the middle is left out."""
    return ids if len(ids) <= room else ids[: room - room // 2] + ids[len(ids) - room // 2 :]


def read_meta(folder: Path) -> dict[str, Any]:
    """What `guard.json` says of an encoder's folder."""
    path = folder / "guard.json"
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        if meta["format"] != "encoder" or not 16 <= int(meta["context_tokens"]) <= LONGEST:
            raise ValueError("it describes another kind of model")
        if meta.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
            raise ValueError(f"its format_version is {printable(str(meta['format_version']))}, known: {FORMAT_VERSION}")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); export the model again") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is not an encoder's ({error}); export the model again") from None
    return dict(meta)


def read_heads(folder: Path) -> tuple[tuple[str, ...], Floats, Floats]:
    """Names of the outputs, their weights (outputs, features) and biases (outputs,)."""
    path = folder / "heads.json"
    try:
        heads = json.loads(path.read_text(encoding="utf-8"))
        weight = np.array([head["weight"] for head in heads.values()], np.float32)
        bias = np.array([head["bias"] for head in heads.values()], np.float32)
        if weight.ndim != 2 or not np.isfinite(weight).all() or not np.isfinite(bias).all():
            raise ValueError("weights are not a table of numbers")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); export the model again") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is broken ({type(error).__name__}: {error}); export the model again") from None
    return tuple(heads), weight, bias


def write_heads(folder: Path, outputs: Sequence[str], weight: Floats, bias: Floats) -> None:
    """Write `heads.json`, as `read_heads` reads it."""
    rows = zip(
        outputs, np.round(weight.astype(float), 7).tolist(), np.round(bias.astype(float), 7).tolist(), strict=True
    )
    heads = {name: {"bias": b, "weight": w} for name, w, b in rows}
    write_atomic(folder / "heads.json", json.dumps(heads) + "\n")


def _tokenizer(folder: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers raises bare Exception
        raise ConfigError(f"{folder}/tokenizer.json cannot be read ({str(error)[:80]}); export it again") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # `[SEP]` in a text is five letters and two brackets
    words = tokenizer.pre_tokenizer  # WordPiece gives a word up whole for one strange sign in it, or for its length
    tokenizer.pre_tokenizer = Sequence_([Split(Regex(r"\p{S}|\p{Co}|\w{96}"), "isolated"), *([words] if words else [])])
    return tokenizer
