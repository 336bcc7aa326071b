"""The embedded engine: ONNX model folders on onnxruntime, on the CPU, without torch.

It reads the folders that onnxruntime-genai's builder and our own export write (`model.onnx`, `genai_config.json`,
`tokenizer.json`), and keeps its own key/value cache. Every row of a batch can therefore be prefilled by itself, started
from a prefix computed once, forced, and rewound; onnxruntime-genai's generator allows that only for a batch of one.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guardreasoner.engines.base import Capabilities, DeadlinePassed, OnText
from guardreasoner.engines.decoding import Extension, Logits, Settings, complete
from guardreasoner.engines.hardware import available_cores
from guardreasoner.engines.prompt_tokens import tokenizer_from
from guardreasoner.errors import ConfigError, EngineError
from guardreasoner.generation import Completion, Plan, Prompt

MIN_PREFIX = 32
"""Tokens; shorter prefixes are not worth caching."""
KEPT_PREFIXES = 8
PART = 128
"""Tokens of a prompt that run together: between two parts the deadline is looked at."""
BATCH_TOKENS = 1 << 14
"""Rows that decode together times the longest of them: 0.75 GB of cache in a model of 135M."""
SLOW_FUSIONS = ["SkipLayerNormFusion"]
"""On the CPU the fused node takes several times the time of its parts (onnxruntime 1.31)."""
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class OnnxEngine:
    """A decoder in an ONNX folder."""

    def __init__(
        self,
        folder: str | Path,
        *,
        threads: int | None = None,
        max_batch: int = 16,
        top_p: float = 0.95,
        seed: int = 0,
        spin: bool = False,
        name: str | None = None,
    ) -> None:
        """Args:
        folder: what `export` or onnxruntime-genai's builder wrote.
        threads: of one matrix product; None = the cores this process may use.
        max_batch: rows that decode together; each holds its own cache.
        top_p: nucleus of sampling, where temperature > 0.
        seed: of sampling; the same prompt with the same seed gives the same samples.
        spin: let threads wait for each other actively: a little faster where every thread has a core of its own,
            and many times slower where other programs want the cores too.
        """
        path = Path(folder)
        self.model = OnnxModel(path, threads=threads or available_cores(), spin=spin)
        self.tokenizer = tokenizer_from(path)
        self.name = name or path.resolve().name
        context, ends = self.model.sizes.context, self.model.sizes.ends
        self.capabilities = Capabilities(True, True, context, keeps_deadline=True, streams=True)
        self.settings = Settings(context, ends, top_p=top_p, max_rows=max_batch, max_tokens=BATCH_TOKENS)
        self.seed = seed

    def run(
        self,
        prompts: Sequence[Prompt],
        plan: Plan,
        *,
        deadline: float | None = None,
        n: int = 1,
        temperature: float = 0.0,
        on_text: OnText | None = None,
    ) -> list[list[Completion]]:
        return complete(
            prompts,
            plan,
            tokenizer=self.tokenizer,
            settings=replace(self.settings, temperature=temperature, seed=self.seed),
            open_batch=lambda rows, tokens: OnnxBatch(self.model, rows, tokens, deadline),
            deadline=deadline,
            n=n,
            on_text=on_text,
        )

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return self.tokenizer.offsets(text)

    def close(self) -> None:
        """Give back the model's memory; the engine cannot run afterwards."""
        self.model.close()


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the loop needs to know of a model, from its genai_config.json."""

    layers: int
    heads: int
    head_size: int
    context: int
    ends: frozenset[int]
    filename: str
    past: tuple[str, ...]
    """Names of the cache inputs: key and value of each layer in turn."""
    present: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path) -> Sizes:
        """Raises:
        ConfigError: there is no readable genai_config.json, or it lacks something.
        """
        path = folder / "genai_config.json"
        if not folder.is_dir():
            raise ConfigError(f"{folder} is not a folder; give a folder that `guardreasoner export` wrote")
        if not path.is_file():
            raise ConfigError(f"{folder} has no genai_config.json; give a folder that `guardreasoner export` wrote")
        try:
            model = json.loads(path.read_text(encoding="utf-8"))["model"]
            decoder = model["decoder"]
            end, layers = model["eos_token_id"], range(int(decoder["num_hidden_layers"]))
            inputs, outputs = decoder["inputs"], decoder["outputs"]
            kinds = ("key", "value")
            return cls(
                layers=len(layers),
                heads=int(decoder["num_key_value_heads"]),
                head_size=int(decoder["head_size"]),
                context=int(model["context_length"]),
                ends=frozenset(int(e) for e in (end if isinstance(end, list) else [end])),
                filename=str(decoder["filename"]),
                past=tuple(inputs[f"past_{kind}_names"] % i for i in layers for kind in kinds),
                present=tuple(outputs[f"present_{kind}_names"] % i for i in layers for kind in kinds),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path} is broken ({type(error).__name__}: {error}); export the model again") from None


class OnnxModel:
    """An onnxruntime session with what the loop knows about it. Shared by concurrent batches."""

    def __init__(self, folder: Path, *, threads: int, spin: bool = False) -> None:
        self.folder, self.sizes = folder, Sizes.read(folder)
        path = folder / self.sizes.filename
        if path.resolve().parent != folder.resolve() and not path.is_symlink():
            raise ConfigError(f"{folder}/genai_config.json names a model outside the folder; export the model again")
        self.runtime = load_runtime()
        self.session = open_session(path, threads, spin=spin, without=SLOW_FUSIONS)
        inputs = {i.name: i.type for i in self.session.get_inputs()}
        missing = {"input_ids", "attention_mask", *self.sizes.past} - set(inputs)
        if missing or inputs[self.sizes.past[0]] not in _TYPES:
            raise ConfigError(f"{path} does not fit its genai_config.json; export the model again")
        self.positions = "position_ids" in inputs
        self.cache_type = _TYPES[inputs[self.sizes.past[0]]]
        logits = self.session.get_outputs()[0]
        self.logits = logits.name
        last_only = len(logits.shape) == 3 and logits.shape[1] == 1 and logits.type == "tensor(float)"
        self.vocabulary = logits.shape[2] if last_only and isinstance(logits.shape[2], int) else 0
        """Width of the logits, where they are given for the last token only; 0 = their shape is found when they
        come."""
        self._prefixes: dict[tuple[int, ...], list[NDArray[Any]]] = {}
        self._lock = threading.Lock()

    def prefix(self, ids: tuple[int, ...]) -> list[NDArray[Any]] | None:
        """The cached prefix, one (heads, tokens, head size) array per cache input."""
        with self._lock:
            found = self._prefixes.pop(ids, None)
            if found is not None:
                self._prefixes[ids] = found  # the least used one is first
            return found

    def keep_prefix(self, ids: tuple[int, ...], cache: list[NDArray[Any]]) -> None:
        """Cache a prefix."""
        with self._lock:
            while len(self._prefixes) >= KEPT_PREFIXES:
                self._prefixes.pop(next(iter(self._prefixes)))
            self._prefixes[ids] = cache

    def close(self) -> None:
        """Give back memory."""
        self.session = None
        self._prefixes.clear()


class OnnxBatch:
    """Key/value caches of several rows, in one buffer per cache input; rows that are done make room at the end."""

    def __init__(self, model: OnnxModel, rows: int, tokens: int, deadline: float | None = None) -> None:
        self.model, self.deadline = model, deadline
        sizes = model.sizes
        self.room = tokens + 1  # rows that only keep others company write one place further
        shape = (rows, sizes.heads, self.room, sizes.head_size)
        self.cache = [np.zeros(shape, model.cache_type) for _ in sizes.past]
        self.slot: dict[int, int] = {}
        self.length = np.zeros(rows, np.int64)
        self._bindings: dict[tuple[int, int], tuple[Any, Logits | None]] = {}

    def feed(self, asks: Mapping[int, Extension]) -> Mapping[int, Logits]:
        """Prompts and forced texts row by row, single tokens of all rows together."""
        answers: dict[int, Logits] = {}
        begun: dict[tuple[int, ...], int] = {}
        for row, ask in asks.items():
            if row not in self.slot:
                self.slot[row] = len(self.slot)
            slot = self.slot[row]
            self.length[slot] = ask.keep
            key = tuple(ask.tokens)
            if not ask.keep and key in begun:
                self._copy(self.slot[begun[key]], slot)
                answers[row] = answers[begun[key]]
            elif not ask.keep:
                begun[key] = row
                answers[row] = self._begin(slot, ask)
            elif len(ask.tokens) > 1:
                answers[row] = self._append(slot, ask.tokens)
        single = {row: ask.tokens[0] for row, ask in asks.items() if row not in answers}
        return answers | self._together(single)

    def drop(self, row: int) -> None:
        """Drop a row; the last one takes its place."""
        slot = self.slot.pop(row, None)
        if slot is None:
            return
        last = len(self.slot)
        if slot != last:
            mover = next(r for r, s in self.slot.items() if s == last)
            self._copy(last, slot)
            self.slot[mover] = slot

    def _begin(self, slot: int, ask: Extension) -> Logits:
        """Run a whole prompt: its shared prefix from the cache if possible, then the rest.

        The two are always run separately, so that results do not depend on earlier requests.
        """
        split = ask.prefix if MIN_PREFIX <= ask.prefix < len(ask.tokens) else 0
        if split:
            ids = tuple(ask.tokens[:split])
            kept = self.model.prefix(ids)
            if kept is None:
                self._append(slot, ids)
                self.model.keep_prefix(ids, [c[slot, :, :split].copy() for c in self.cache])
            else:
                for cache, part in zip(self.cache, kept, strict=True):
                    cache[slot, :, :split] = part
                self.length[slot] = split
        return self._append(slot, ask.tokens[split:])

    def _append(self, slot: int, tokens: Sequence[int]) -> Logits:
        """Logits after these tokens; many of them in parts, with an eye on the clock."""
        for start in range(0, len(tokens), PART):
            if start and self.deadline is not None and time.monotonic() >= self.deadline:
                raise DeadlinePassed
            part = tokens[start : start + PART]
            before = int(self.length[slot])
            self.length[slot] = before + len(part)
            ids = np.array([part], np.int64)
            places = np.arange(before, before + len(part), dtype=np.int64)[None]
            logits: Logits = self._step(slot, ids, places, np.ones((1, before + len(part)), np.int64))[0]
        return logits

    def _together(self, single: Mapping[int, int]) -> dict[int, Logits]:
        """One more token for these rows; the others run with a dummy token."""
        if not single:
            return {}
        if len(single) == 1:
            ((row, token),) = single.items()
            return {row: self._append(self.slot[row], [token])}
        count = len(self.slot)
        ids = np.zeros((count, 1), np.int64)
        for row, token in single.items():
            ids[self.slot[row], 0] = token
        places = self.length[:count, None].copy()
        mask = (np.arange(places.max() + 1)[None] <= places).astype(np.int64)
        logits = self._step(0, ids, places, mask)
        for row in single:
            self.length[self.slot[row]] += 1
        return {row: logits[self.slot[row]] for row in single}

    def _copy(self, source: int, target: int) -> None:
        length = self.length[target] = self.length[source]
        for cache in self.cache:
            cache[target, :, :length] = cache[source, :, :length]

    def _step(self, slot: int, ids: NDArray[np.int64], places: NDArray[np.int64], mask: NDArray[np.int64]) -> Any:
        """Run the model on neighbouring rows; logits after the last token of each, float32 (rows, vocabulary)."""
        binding, out = self._binding(slot, len(ids))
        binding.bind_cpu_input("input_ids", ids)
        binding.bind_cpu_input("attention_mask", mask)
        if self.model.positions:
            binding.bind_cpu_input("position_ids", places)
        try:
            self.model.session.run_with_iobinding(binding)
        except faults(self.model.runtime) as error:
            raise EngineError(f"onnxruntime failed while running the model ({type(error).__name__})") from None
        logits = binding.get_outputs()[0].numpy() if out is None else out.copy()
        return logits[:, -1].astype(np.float32, copy=False)

    def _binding(self, slot: int, rows: int) -> tuple[Any, Logits | None]:
        """A binding whose cache inputs and outputs are the same memory, and where its logits go; made once per
        place."""
        if (slot, rows) not in self._bindings:
            binding = self.model.session.io_binding()
            out = None
            if self.model.vocabulary:
                out = np.empty((rows, 1, self.model.vocabulary), np.float32)
                binding.bind_output(self.model.logits, "cpu", 0, np.float32, out.shape, out.ctypes.data)
            else:
                binding.bind_output(self.model.logits, "cpu")
            for past, present, cache in zip(self.model.sizes.past, self.model.sizes.present, self.cache, strict=True):
                part = cache[slot : slot + rows]
                place = ("cpu", 0, cache.dtype.type, part.shape, part.ctypes.data)
                binding.bind_input(past, *place)
                binding.bind_output(present, *place)
            self._bindings[slot, rows] = binding, out
        return self._bindings[slot, rows]


def load_runtime() -> ModuleType:
    """Import onnxruntime with its telemetry off: it would write device ids under the home folder, and call out."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    return import_module("onnxruntime")


def open_session(path: Path, threads: int, *, spin: bool = False, without: Sequence[str] = ()) -> Any:
    """A model on the CPU."""
    if not path.is_file():
        raise ConfigError(f"{path.parent} has no weights ({path.name}); export the model again")
    runtime = load_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
    try:
        providers = ["CPUExecutionProvider"]
        return runtime.InferenceSession(str(path), options, providers=providers, disabled_optimizers=list(without))
    except faults(runtime) as error:
        reason = " ".join(str(error).split()).replace(str(path.parent), "")
        raise EngineError(f"onnxruntime cannot load {path} ({reason[:160]}); export the model again") from None


def faults(runtime: ModuleType) -> tuple[type[Exception], ...]:
    """The exceptions that onnxruntime raises; they have no common base."""
    state = runtime.capi.onnxruntime_pybind11_state
    names = (
        "Fail InvalidArgument InvalidGraph InvalidProtobuf NoSuchFile NoModel NotImplemented RuntimeException "
        "EngineError EPFail ModelLoaded"
    )
    return (*(getattr(state, n) for n in names.split() if hasattr(state, n)), RuntimeError)
