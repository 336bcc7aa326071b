"""Any causal model of the hub or a folder, on transformers: CPU or GPU, batched, every kind of step.

Prompts are padded on the left. A batch's cache grows by one column for every token fed to any of its rows. Columns that
hold no token of a row (padding, or tokens that were taken back) are masked for it, and its positions count only its own
tokens.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np

from guardreasoner.engines.base import Capabilities, OnText
from guardreasoner.engines.decoding import Extension, Logits, Settings, complete
from guardreasoner.engines.hardware import limit_threads, multiplies_bf16
from guardreasoner.engines.prompt_tokens import tokenizer_of
from guardreasoner.errors import ConfigError, EngineError, need, printable
from guardreasoner.generation import Completion, Plan, Prompt

Kind = Literal["causal", "image-text", "sequence"]
HEADS = ("score", "classifier", "qa_outputs")
"""Where models that write no text have their answer."""
_CLASSES: dict[Kind, str] = {
    "causal": "AutoModelForCausalLM",
    "image-text": "AutoModelForImageTextToText",
    "sequence": "AutoModelForSequenceClassification",
}


class HfEngine:
    """A causal language model on transformers."""

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        adapter: str | None = None,
        adapter_revision: str | None = None,
        adapter_subfolder: str = "",
        device: str | None = None,
        dtype: str = "auto",
        kind: Kind = "causal",
        max_batch: int = 16,
        max_batch_tokens: int = 1 << 16,
        context_tokens: int | None = None,
        threads: int | None = None,
        top_p: float = 0.95,
        seed: int = 0,
        show_special: bool = False,
        name: str | None = None,
    ) -> None:
        """Args:
        model: hub id or folder; safetensors only, and no code of the repository is run.
        adapter: LoRA weights on top of the model, hub id or folder (needs peft).
        adapter_revision: commit of the adapter's hub id.
        adapter_subfolder: their place in the repository or folder.
        device: cpu, cuda, cuda:1, ...; None = cuda if there is one.
        dtype: float32, bfloat16, float16, or auto: as stored, but float32 on a CPU that does not multiply bfloat16.
        kind: causal, or image-text for models that also see (used on text only).
        max_batch: rows that decode together.
        max_batch_tokens: rows of a batch times the longest of them.
        context_tokens: None = what the model's config says.
        threads: of torch on the CPU, for the whole process; None = at most the cores that are there.
        top_p: nucleus of sampling, where temperature > 0.
        seed: of sampling; the same prompt with the same seed gives the same samples.
        show_special: keep markers such as `<|channel|>` in the text, for formats that are made of them.
        """
        self.torch = need("torch", "hf")
        limit_threads(self.torch, threads)
        self.device = device or ("cuda" if self.torch.cuda.is_available() else "cpu")
        self.model = load_model(model, kind, revision=revision, dtype=dtype, device=self.device)
        if adapter:
            self.model = load_adapter(self.model, adapter, revision=adapter_revision, subfolder=adapter_subfolder)
        tokenizer = load_tokenizer(model, revision)
        self.tokenizer = tokenizer_of(tokenizer, show_special=show_special)
        self.name = name or model
        context = context_tokens or context_of(self.model.config)
        self.capabilities = Capabilities(True, True, context, keeps_deadline=True, streams=True)
        self.settings = Settings(
            context=context or 1 << 20,
            ends=end_ids(self.model, tokenizer),
            top_p=top_p,
            max_rows=max_batch,
            max_tokens=max_batch_tokens,
        )
        self.seed = seed
        self._lock = threading.Lock()

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
        """See `Engine.run`. Calls from several threads run one after the other, `on_text` included."""
        with self._lock, self.torch.inference_mode():
            return complete(
                prompts,
                plan,
                tokenizer=self.tokenizer,
                settings=replace(self.settings, temperature=temperature, seed=self.seed),
                open_batch=lambda rows, tokens: HfBatch(self.model, self.torch),
                deadline=deadline,
                n=n,
                on_text=on_text,
            )

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return self.tokenizer.offsets(text)

    def close(self) -> None:
        """Give back the model's memory; the engine cannot run afterwards."""
        self.model = None
        if self.device.startswith("cuda"):
            self.torch.cuda.empty_cache()


class HfBatch:
    """The cache of rows that started together, and which of its columns each row sees."""

    def __init__(self, model: Any, torch: ModuleType) -> None:
        self.model, self.torch = model, torch
        self.cache: Any = None
        self.rows: list[int] = []
        """Row number by place in the cache."""
        self.seen: Any = None
        """(places, columns), int64: 1 where the column holds a token of the row."""

    def feed(self, asks: Mapping[int, Extension]) -> Mapping[int, Logits]:
        if self.cache is None:
            return self._begin(asks)
        for place, row in enumerate(self.rows):
            if row in asks:
                self._take_back(place, asks[row].keep)
        tokens = [asks[row].tokens if row in asks else () for row in self.rows]
        logits = self._forward(tokens)
        return {row: logits[place] for place, row in enumerate(self.rows) if row in asks}

    def drop(self, row: int) -> None:
        """Drop a row; once half of the places are idle, their memory is freed."""
        if self.cache is None or row not in self.rows:
            return
        self.rows[self.rows.index(row)] = -1
        live = [place for place, r in enumerate(self.rows) if r >= 0]
        if live and len(live) * 2 <= len(self.rows):
            self._select(live)

    def _begin(self, asks: Mapping[int, Extension]) -> Mapping[int, Logits]:
        """Every different prompt once, then one place for each row."""
        prompts = list(dict.fromkeys(tuple(ask.tokens) for ask in asks.values()))
        self.rows = list(range(len(prompts)))
        self.seen = self.torch.zeros((len(prompts), 0), dtype=self.torch.int64, device=self.model.device)
        logits = self._forward(prompts)
        places = [prompts.index(tuple(ask.tokens)) for ask in asks.values()]
        if places != self.rows:
            self._select(places)
        self.rows = list(asks)
        return {row: logits[place] for row, place in zip(asks, places, strict=True)}

    def _select(self, places: Sequence[int]) -> None:
        index = self.torch.tensor(places, device=self.model.device)
        self.cache.batch_select_indices(index)
        self.seen = self.seen[index]
        self.rows = [self.rows[place] for place in places]

    def _take_back(self, place: int, keep: int) -> None:
        columns = self.seen[place].nonzero()[:, 0]
        if len(columns) > keep:
            self.seen[place, columns[keep:]] = 0

    def _forward(self, tokens: Sequence[Sequence[int]]) -> Any:
        """Feed each place its tokens (some may have none); logits after the last, float32 (places, vocabulary)."""
        torch, width = self.torch, max(len(t) for t in tokens)
        ids = torch.zeros((len(tokens), width), dtype=torch.int64)
        new = torch.zeros_like(ids)
        for place, row in enumerate(tokens):
            if row:
                ids[place, width - len(row) :] = torch.tensor(row)
                new[place, width - len(row) :] = 1
        new = new.to(self.model.device)
        held = self.seen.sum(dim=1, keepdim=True)
        self.seen = torch.cat([self.seen, new], dim=1)
        try:
            output = self.model(
                input_ids=ids.to(self.model.device),
                attention_mask=self.seen,
                position_ids=(held + new.cumsum(dim=1) - 1).clamp(min=0),
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=1,
            )
        except torch.OutOfMemoryError:
            raise EngineError("the model ran out of memory; give the engine a smaller max_batch") from None
        self.cache = output.past_key_values
        return output.logits[:, -1].float().cpu().numpy().astype(np.float32, copy=False)


def load_model(
    model: str, kind: Kind, *, revision: str | None, dtype: str, device: str, attention: str | None = None
) -> Any:
    """The weights, ready to run."""
    transformers = need("transformers", "hf")
    need("safetensors", "hf")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        loaded, found = getattr(transformers, _CLASSES[kind]).from_pretrained(
            model,
            revision=revision,
            dtype=_stored(dtype, device),
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except OSError as error:
        raise EngineError(not_loaded(model, error)) from None
    except ValueError as error:
        raise ConfigError(f"transformers cannot use {printable(model)}: {_first_line(error)}") from None
    wanted = _CLASSES[kind].removeprefix("AutoModelFor")
    if lacking := sorted(found["missing_keys"]):  # transformers would fill them with random numbers, and go on
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise EngineError(f"{printable(model)} is no {wanted} model: it has no weights for {lacking[0]}{more}")
    if other := sorted(k for k in found["unexpected_keys"] if k.partition(".")[0] in HEADS):
        raise EngineError(f"{printable(model)} is no {wanted} model: its head is {other[0]}")
    return loaded.to(device).eval()


def _stored(dtype: str, device: str) -> str:
    """The number format that `auto` stands for on a device."""
    slow = dtype == "auto" and device == "cpu" and not multiplies_bf16(need("torch", "hf"))
    return "float32" if slow else dtype


def load_adapter(model: Any, adapter: str, *, revision: str | None = None, subfolder: str = "") -> Any:
    """A LoRA adapter merged into its base model."""
    peft = need("peft", "hf")
    folder = Path(adapter)
    try:
        if not folder.is_dir():
            patterns = ["*.json", "*.safetensors"]
            hub = need("huggingface_hub", "hf")
            folder = Path(hub.snapshot_download(adapter, revision=revision, allow_patterns=patterns))
        folder = folder / subfolder
        if not (folder / "adapter_model.safetensors").is_file():
            raise EngineError(f"{printable(adapter)} holds no adapter_model.safetensors")
        return peft.PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    except (OSError, ValueError) as error:
        raise EngineError(not_loaded(adapter, error)) from None
    except RuntimeError:
        raise EngineError(
            f"{printable(adapter)} does not fit this base model: it was trained on another one, or on one to which "
            "tokens were added"
        ) from None


def load_tokenizer(model: str, revision: str | None) -> Any:
    """The tokenizer of a model."""
    try:
        return need("transformers", "hf").AutoTokenizer.from_pretrained(
            model, revision=revision, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise EngineError(f"the tokenizer of {printable(model)} cannot be loaded: {_first_line(error)}") from None


def end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """The ids that end a text, by generation config, config and tokenizer."""
    ids: set[int] = set()
    sources = (getattr(model, "generation_config", None), model.config, getattr(model.config, "text_config", None))
    for source in sources:
        end = getattr(source, "eos_token_id", None)
        ids.update(end if isinstance(end, list) else [] if end is None else [end])
    if tokenizer.eos_token_id is not None:
        ids.add(tokenizer.eos_token_id)
    elif not ids and tokenizer.sep_token_id is not None:
        ids.add(tokenizer.sep_token_id)
    return frozenset(ids)


def context_of(config: Any) -> int | None:
    """Tokens a model can see, if its config says so."""
    for source in (config, getattr(config, "text_config", None)):
        length = getattr(source, "max_position_embeddings", None)
        if length:
            return int(length)
    return None


def _first_line(error: Exception) -> str:
    return printable(str(error).strip().split("\n", 1)[0], 200)


def not_loaded(model: str, error: Exception) -> str:
    """One sentence on why something of the hub, or a folder, cannot be loaded, and what to do."""
    shown, text = printable(model), str(error)
    if "gated" in text.lower() or "401" in text or "403" in text:
        return (
            f"{shown} is gated: accept its licence at https://huggingface.co/{shown} and set HF_TOKEN to a token of "
            "that account"
        )
    return f"{shown} cannot be loaded: {_first_line(error)}"
