"""Encoders that read their labels along with the text, each through its own library: GLiNER2 and GLiClass.

Weights come from safetensors only. No code of the repository runs: only its data files are fetched, and a config that
names code is refused. The libraries join labels and text into one string, so their markers are broken up in judged
text. A completion has empty text and, per question, label -> log-probability (softmax over the question's labels).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from guardreasoner.engines.base import LATE, Capabilities
from guardreasoner.engines.special_tokens import sendable
from guardreasoner.errors import ConfigError, EngineError, PlanUnsupported, need
from guardreasoner.generation import Choice, Completion, Plan, Prompt, Text, segments_of
from guardreasoner.metrics import logit

Library = Literal["gliner2", "gliclass"]
Question = tuple[str, tuple[str, ...]]
"""Its name and its labels."""
DATA = ("*.json", "*.safetensors", "*.txt", "*.model")
MARKS: Mapping[str, tuple[str, ...]] = {
    "gliner2": (
        *("[SEP_STRUCT]", "[SEP_TEXT]", "[P]", "[C]", "[E]", "[R]", "[L]"),
        *("[EXAMPLE]", "[OUTPUT]", "[DESCRIPTION]"),
    ),
    "gliclass": ("<<LABEL>>", "<<SEP>>", "<<EXAMPLE>>"),
}
"""What each library sets labels apart from text with."""


class SchemaEngine:
    """GLiNER2 or GLiClass: questions with labels, a probability per label."""

    def __init__(
        self,
        model: str,
        *,
        library: Library,
        revision: str | None = None,
        device: str | None = None,
        max_batch: int = 16,
        context_tokens: int = 512,
        name: str | None = None,
    ) -> None:
        """Args:
        device: cpu, cuda, ...; None = cuda if there is one.
        max_batch: texts that run together.
        context_tokens: text and labels together; longer texts are judged in windows.
        """
        if library not in MARKS:
            raise ConfigError(f"there is no library {library!r} for labels with the text; known: {', '.join(MARKS)}")
        self.library: Library = library
        torch = need("torch", "encoders")
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        folder = _folder(model, revision)
        load = _load_gliner2 if library == "gliner2" else _load_gliclass
        try:
            self.model, self._tokenizer = load(str(folder), self.device)
        except Exception as error:
            raise EngineError(f"{model} cannot be loaded by {library} ({type(error).__name__})") from None
        self.max_batch, self.name = max_batch, name or model
        self.capabilities = Capabilities(False, True, context_tokens, samples=False)

    def run(
        self,
        prompts: Sequence[Prompt],
        plan: Plan,
        *,
        deadline: float | None = None,
        n: int = 1,
        temperature: float = 0.0,
    ) -> list[list[Completion]]:
        """See `Engine.run`. The plan is a `Text` with the name of a question, its `Choice` of labels, and so on."""
        questions = _questions(plan, self.name)
        done: list[Completion] = []
        for start in range(0, len(prompts), self.max_batch):
            group = [sendable(segments_of(p), MARKS[self.library]) for p in prompts[start : start + self.max_batch]]
            if deadline is not None and time.monotonic() >= deadline:
                done += [LATE] * len(group)
                continue
            scored = self._score([text for text, _ in group], questions)
            for (text, broken), choices in zip(group, scored, strict=True):
                tokens = len(self.offsets(text))
                notes: dict[str, object] = {"special_tokens": broken} if broken else {}
                done.append(Completion("", "stop", prompt_tokens=tokens, choices=choices, notes=notes))
        return [[completion] * n for completion in done]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        found = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return [(a, b) for a, b in found if b > a]

    def close(self) -> None:
        """Give back the model's memory; the engine cannot run afterwards."""
        self.model = None

    def _score(self, texts: Sequence[str], questions: Sequence[Question]) -> list[tuple[dict[str, float], ...]]:
        if self.library == "gliner2":
            asked = {
                name: {"labels": list(labels), "multi_label": True, "cls_threshold": 0.0} for name, labels in questions
            }
            found = self.model.batch_classify_text(
                list(texts), asked, batch_size=self.max_batch, include_confidence=True
            )
            return [
                tuple(_softmax({a["label"]: a["confidence"] for a in row[name]}) for name, _ in questions)
                for row in found
            ]
        each = [
            [
                _softmax({a["label"]: a["score"] for a in row})
                for row in self.model(list(texts), list(labels), threshold=0.0)
            ]
            for _, labels in questions
        ]
        return list(zip(*each, strict=True))


def _questions(plan: Plan, name: str) -> list[Question]:
    pairs = list(zip(plan[::2], plan[1::2], strict=False))
    if len(plan) % 2 or not pairs or not all(isinstance(a, Text) and isinstance(b, Choice) for a, b in pairs):
        raise PlanUnsupported(f"{name} writes no text: it answers questions, each a name and a choice of labels")
    return [(a.text, tuple(b.words)) for a, b in pairs if isinstance(a, Text) and isinstance(b, Choice)]


def _softmax(sigmoids: Mapping[str, float]) -> dict[str, float]:
    """Log-probabilities under a softmax over the logits behind some sigmoids."""
    logits = {k: logit(p) for k, p in sigmoids.items()}
    top = max(logits.values())
    total = top + math.log(sum(math.exp(v - top) for v in logits.values()))
    return {k: v - total for k, v in logits.items()}


def _folder(model: str, revision: str | None) -> Path:
    """The model's data files on this disk, checked to name no code."""
    path = Path(model)
    if not path.is_dir():
        hub = need("huggingface_hub", "encoders")
        try:
            path = Path(hub.snapshot_download(model, revision=revision, allow_patterns=list(DATA)))
        except Exception as error:
            raise EngineError(f"{model} cannot be fetched ({type(error).__name__})") from None
    if not any(path.glob("*.safetensors")):
        raise EngineError(f"{model} holds no safetensors; other weights are not loaded")
    for config in path.rglob("*.json"):
        if '"auto_map"' in config.read_text("utf-8", errors="replace") and "auto_map" in json.loads(
            config.read_text("utf-8")
        ):
            raise EngineError(f"{model} wants code of its repository to run ({config.name}); that is not done")
    return path


def _load_gliner2(folder: str, device: str) -> tuple[Any, Any]:
    model = need("gliner2", "encoders").GLiNER2.from_pretrained(folder)
    model.to(device)
    model.eval()
    return model, model.processor.tokenizer


def _load_gliclass(folder: str, device: str) -> tuple[Any, Any]:
    library, transformers = need("gliclass", "encoders"), need("transformers", "encoders")
    model = library.GLiClassModel.from_pretrained(folder, use_safetensors=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    pipeline = library.ZeroShotClassificationPipeline(
        model, tokenizer, classification_type="multi-label", device=device, progress_bar=False
    )
    return pipeline, tokenizer
