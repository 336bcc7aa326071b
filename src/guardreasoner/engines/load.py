"""Load an engine by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_type_hints

from guardreasoner.errors import ConfigError, EngineError, GuardReasonerError, UnknownName, printable
from guardreasoner.ranges import check_range, convert

if TYPE_CHECKING:
    from guardreasoner.engines.base import Engine

LFS = b"version https://git-lfs.github.com/"
"""How a pointer file begins that git-lfs leaves where the weights were not fetched."""

CLASSES = {
    "onnx": "onnx:OnnxEngine",
    "hf": "hf:HfEngine",
    "classifier": "classifier:ClassifierEngine",
    "schema": "schema:SchemaEngine",
    "vllm": "vllm:VllmEngine",
    "openai": "openai:OpenAIEngine",
    "anthropic": "anthropic:AnthropicEngine",
    "moderation": "moderation:ModerationEngine",
    "scripted": "scripted:ScriptedEngine",
}
"""Name -> module and class; only the module that is asked for is imported."""
ENGINES = tuple(CLASSES)
SERVERS = ("openai", "anthropic", "moderation")
REMOTE = ("hf", "classifier", "schema", "vllm")
"""Engines that load from the hub, by id and revision."""


def load_engine(
    kind: str, /, *, model: str, base_url: str | None = None, revision: str | None = None, **options: Any
) -> Engine:
    """Load an engine; its library is imported only now.

    Args:
        model: folder (onnx), folder or hub id (hf, classifier, vllm), the server's model name (openai, anthropic,
            moderation).
        base_url: where the server listens (`SERVERS` only).
        revision: commit of a hub id (`REMOTE` only).
    """
    if kind not in ENGINES:
        raise UnknownName("engine", kind, ENGINES)
    if kind not in SERVERS and base_url is not None:
        raise ConfigError(f"engine {kind} runs in this process and takes no --base-url; use --engine openai")
    module, name = CLASSES[kind].split(":")
    engine = getattr(import_module(f"guardreasoner.engines.{module}"), name)
    options = check_options(kind, engine, options)
    own: dict[str, Any] = {"base_url": base_url} if kind in SERVERS else {}
    own |= {"revision": revision} if kind in REMOTE else {}
    try:
        if kind == "scripted":
            return cast("Engine", engine(name=model or "scripted", **options))
        return cast("Engine", engine(model, **own, **options))
    except GuardReasonerError:
        raise
    except Exception as error:
        raise EngineError(_why(kind, model, error)) from error


def check_options(kind: str, engine: type[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, each as the engine takes it."""
    wanted = _hints(engine)
    if kind in SERVERS:
        from guardreasoner.engines.http import HttpClient  # here: an event loop and sockets are for servers only

        wanted = _hints(HttpClient) | wanted  # its `**client`
    found = dict(options)
    for name, value in options.items():
        where = f"option {name} of engine {kind}"
        if name in wanted:
            found[name] = convert(value, wanted[name], where)
            check_range(name, found[name], where)
        elif kind != "vllm":  # its `**engine` is vLLM's own to check
            raise UnknownName(f"option of engine {kind}", name, list(wanted))
    return found


def _hints(engine: type[Any]) -> dict[str, Any]:
    """The types of the options that a class takes by name."""
    hints = get_type_hints(engine.__init__, vars(import_module(engine.__module__)))
    given = ("model", "root", "headers")  # by `load_engine` and by the engines themselves
    named = (p for p in inspect.signature(engine).parameters.values() if p.kind is not p.VAR_KEYWORD)
    return {p.name: hints[p.name] for p in named if p.name not in given}


def _why(kind: str, model: str, error: Exception) -> str:
    for path in sorted(Path(model).glob("*")) if Path(model).is_dir() else ():
        if path.is_file() and path.stat().st_size < 1024 and path.read_bytes().startswith(LFS):
            return f"{path} is a git-lfs pointer in place of the weights; run `git lfs pull` in that folder"
    first = printable((str(error).splitlines() or [""])[0], 160)
    return f"engine {kind} cannot load {printable(model, 200)} ({type(error).__name__}: {first})"
