"""micro's engine: two networks read a text, and heads stand on the features of both.

One is nano's encoder. The other is the lower layers of mini, a decoder of 135M, with adapters of its own
(`export/micro.py`); it reads `User: request` to `The request is`, and then a reply to `The reply is`, from left to
right, so that what it says of a request does not depend on the reply. A model folder holds `heads.json` (for each
output a weight for every feature of the first network, then of the second) and `guard.json`, which names two folders.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from guardreasoner.engines.encoder import EncoderEngine, Floats, Pair, Scores, cut, read_heads, read_meta
from guardreasoner.engines.hardware import available_cores
from guardreasoner.engines.onnx import SLOW_FUSIONS, Sizes, faults, load_runtime, open_session
from guardreasoner.engines.prompt_tokens import tokenizer_from
from guardreasoner.errors import ConfigError, EngineError, EngineTimeout
from guardreasoner.generation import NOT_FINITE

NETWORK = "micro.onnx"
"""In mini's folder: it shares mini's weights."""
TEXT = ("User: ", "\nThe request is", "\nAssistant: ", "\nThe reply is")
"""Before and after a request, and before and after a reply; the network judges where the second and the last end."""
ROOM = 256
"""Most tokens of a request, and of a reply; the middle of a longer one is left out."""


class MicroEngine:
    """Two networks with common heads. Safe to share between threads."""

    def __init__(self, folder: str | Path, *, threads: int | None = None, name: str | None = None) -> None:
        """Args:
        folder: a model folder as the stage `micro` writes it.
        threads: of one run; None = the cores this process may use, of the encoder fewer.
        """
        path = self.folder = Path(folder)
        networks = read_meta(path).get("networks", {})
        if not isinstance(networks, dict) or not all(isinstance(networks.get(k), str) for k in ("encoder", "decoder")):
            raise ConfigError(f"{path}/guard.json does not name the folders of two networks; export the model again")
        self.encoder = EncoderEngine(path / networks["encoder"], threads=threads)
        self.name, self.context_tokens = name or path.resolve().name, self.encoder.context_tokens
        self.outputs, self.weight, self.bias = read_heads(path)
        decoder = path / networks["decoder"]
        self.tokenizer = tokenizer_from(decoder)
        self._text = [list(self.tokenizer.continuation(text)) for text in TEXT]
        sizes = Sizes.read(decoder)
        self.runtime = load_runtime()
        self.session = open_session(decoder / NETWORK, threads or available_cores(), without=SLOW_FUSIONS)
        inputs = {i.name for i in self.session.get_inputs()}
        blank = np.zeros((1, sizes.heads, 0, sizes.head_size), np.float32)
        self._past = {name: blank for name in sizes.past if name in inputs}
        width = self.encoder.weight.shape[1] + self.session.get_outputs()[0].shape[-1]
        if self.outputs != self.encoder.outputs or self.weight.shape[1] != width:
            raise ConfigError(f"{path}/heads.json does not fit its two networks; export the model again")

    def score(self, pairs: Sequence[Pair], *, deadline: float | None = None) -> Scores:
        """Logits of any number of texts, in order; equal texts are run once.

        Args:
            deadline: `time.monotonic()` seconds.
        """
        first = self.encoder.score(pairs, deadline=deadline)
        read: dict[Pair, Floats] = {}
        for pair in pairs:
            if pair not in read:
                if deadline is not None and time.monotonic() >= deadline:
                    raise EngineTimeout("the deadline passed before every text was scored")
                read[pair] = self._run(pair)
        width = self.weight.shape[1] - first.features.shape[1]
        second = np.array([read[pair] for pair in pairs], np.float32).reshape(len(pairs), width)
        features = np.concatenate([first.features, second], axis=1)
        logits = features @ self.weight.T + self.bias
        if not np.isfinite(logits).all():
            raise EngineError(NOT_FINITE)
        return Scores(logits, features, first.tokens)

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Character span of every token of a text, as the encoder reads it."""
        return self.encoder.offsets(text)

    def close(self) -> None:
        """Give back the models' memory; the engine cannot run afterwards."""
        self.encoder.close()
        self.session = None

    def _run(self, pair: Pair) -> Floats:
        if self.session is None:
            raise EngineError(f"the engine {self.name} is closed")
        before, judged, between, after = self._text
        request, reply = pair
        ids = [*before, *cut(self.tokenizer.judged(request), ROOM), *judged]
        end = len(ids)
        if reply is not None:
            ids += [*between, *cut(self.tokenizer.judged(reply), ROOM), *after]
        places = np.zeros((1, 4, len(ids)), np.float32)
        places[0, 0, end - 1] = places[0, 2, -1] = 1
        places[0, 1, :end] = 1 / end
        places[0, 3, end:] = 1 / max(1, len(ids) - end)
        fed = {"input_ids": np.array([ids], np.int64), "attention_mask": np.ones((1, len(ids)), np.int64)}
        try:
            features: Floats = self.session.run(["features"], {**fed, "places": places, **self._past})[0][0]
        except faults(self.runtime) as error:
            raise EngineError(f"onnxruntime failed while running the model ({type(error).__name__})") from None
        return features
