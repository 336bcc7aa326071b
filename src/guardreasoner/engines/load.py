"""Load an engine by name."""

from __future__ import annotations

from typing import Any

from guardreasoner.engines.base import Engine
from guardreasoner.errors import ConfigError, UnknownName

ENGINES = ("onnx", "hf", "classifier", "vllm", "openai", "anthropic", "moderation", "scripted")
SERVERS = ("openai", "anthropic", "moderation")


def load_engine(
    kind: str, /, *, model: str, base_url: str | None = None, revision: str | None = None, **options: Any
) -> Engine:
    """Load an engine; its library is imported only now.

    Args:
        kind: one of `ENGINES`.
        model: folder (onnx), folder or hub id (hf, classifier, vllm), the server's model name (openai, anthropic,
            moderation).
        base_url: where the server listens (`SERVERS` only).
        revision: commit of a hub id (hf, classifier, vllm).
        options: keyword arguments of the engine.

    Raises:
        UnknownName: there is no engine of that kind.
        ConfigError: the engine does not take one of the options, or the folder is wrong.
        MissingDependency: its extra is not installed.
        EngineError: the weights cannot be loaded.
    """
    if kind not in ENGINES:
        raise UnknownName("engine", kind, ENGINES)
    if kind not in SERVERS and base_url is not None:
        raise ConfigError(f"engine {kind} runs in this process and takes no --base-url; use --engine openai")
    try:
        return _load(kind, model, base_url, revision, options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        option = str(error).rsplit("'", 2)[-2]
        raise ConfigError(f"engine {kind} has no option {option!r}") from None


def _load(kind: str, model: str, base_url: str | None, revision: str | None, options: dict[str, Any]) -> Engine:
    if kind == "onnx":
        from guardreasoner.engines.onnx import OnnxEngine

        return OnnxEngine(model, **options)
    if kind == "hf":
        from guardreasoner.engines.hf import HfEngine

        return HfEngine(model, revision=revision, **options)
    if kind == "classifier":
        from guardreasoner.engines.classifier import ClassifierEngine

        return ClassifierEngine(model, revision=revision, **options)
    if kind == "vllm":
        from guardreasoner.engines.vllm import VllmEngine

        return VllmEngine(model, revision=revision, **options)
    if kind == "openai":
        from guardreasoner.engines.openai import OpenAIEngine

        return OpenAIEngine(model, base_url=base_url, **options)
    if kind == "anthropic":
        from guardreasoner.engines.anthropic import AnthropicEngine

        return AnthropicEngine(model, base_url=base_url, **options)
    if kind == "moderation":
        from guardreasoner.engines.moderation import ModerationEngine

        return ModerationEngine(model, base_url=base_url, **options)
    from guardreasoner.engines.scripted import ScriptedEngine

    return ScriptedEngine(name=model or "scripted", **options)
