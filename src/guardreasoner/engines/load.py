"""Load an engine by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args, get_type_hints

from guardreasoner.errors import ConfigError, EngineError, GuardReasonerError, UnknownName, printable
from guardreasoner.ranges import check_range

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
        kind: one of `ENGINES`.
        model: folder (onnx), folder or hub id (hf, classifier, vllm), the server's model name (openai, anthropic,
            moderation).
        base_url: where the server listens (`SERVERS` only).
        revision: commit of a hub id (`REMOTE` only).
        options: keyword arguments of the engine.

    Raises:
        UnknownName: there is no engine of that kind, or it has no such option.
        ConfigError: an option has a value of another kind or out of range, or the folder is wrong.
        MissingDependency: its extra is not installed.
        EngineError: the weights cannot be loaded.
    """
    if kind not in ENGINES:
        raise UnknownName("engine", kind, ENGINES)
    if kind not in SERVERS and base_url is not None:
        raise ConfigError(f"engine {kind} runs in this process and takes no --base-url; use --engine openai")
    module, name = CLASSES[kind].split(":")
    engine = getattr(import_module(f"guardreasoner.engines.{module}"), name)
    check_options(kind, engine, options)
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


def check_options(kind: str, engine: type[Any], options: Mapping[str, Any]) -> None:
    """That an engine takes these options.

    Raises:
        UnknownName: it has no such option.
        ConfigError: an option has a value of another kind, or out of range.
    """
    wanted = _hints(engine)
    if kind in SERVERS:
        from guardreasoner.engines.http import HttpClient  # here: an event loop and sockets are for servers only

        wanted = _hints(HttpClient) | wanted  # its `**client`
    for name, value in options.items():
        if name not in wanted:
            if kind == "vllm":
                continue  # its `**engine` is vLLM's own to check
            raise UnknownName(f"option of engine {kind}", name, list(wanted))
        kinds = get_args(wanted[name]) or (wanted[name],)
        plain = [k for k in kinds if k in (int, float, str, bool, type(None))]
        if len(plain) == len(kinds) and not any(_fits(value, k) for k in plain):
            names = " or ".join({int: "a whole number", float: "a number", str: "a text", bool: "true or false",
                                 type(None): "null"}[k] for k in plain)  # fmt: skip
            raise ConfigError(f"option {name} of engine {kind} is {names}, not {printable(repr(value), 40)}")
        check_range(name, value, f"option {name} of engine {kind}")


def _hints(engine: type[Any]) -> dict[str, Any]:
    """The types of the options that a class takes by name."""
    hints = get_type_hints(engine.__init__, vars(import_module(engine.__module__)))
    given = ("model", "root", "headers")  # by `load_engine` and by the engines themselves
    named = (p for p in inspect.signature(engine).parameters.values() if p.kind is not p.VAR_KEYWORD)
    return {p.name: hints[p.name] for p in named if p.name not in given}


def _fits(value: Any, kind: type[Any]) -> bool:
    if isinstance(value, bool) or kind is bool:
        return kind is bool and isinstance(value, bool)
    return isinstance(value, (int, float) if kind is float else kind)


def _why(kind: str, model: str, error: Exception) -> str:
    for path in sorted(Path(model).glob("*")) if Path(model).is_dir() else ():
        if path.is_file() and path.stat().st_size < 1024 and path.read_bytes().startswith(LFS):
            return f"{path} is a git-lfs pointer in place of the weights; run `git lfs pull` in that folder"
    first = printable((str(error).splitlines() or [""])[0], 160)
    return f"engine {kind} cannot load {printable(model, 200)} ({type(error).__name__}: {first})"
