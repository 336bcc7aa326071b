"""Every error this package raises on purpose.

    GuardReasonerError                exit code 1, one sentence that says what to do next
      x ConfigError                   a recipe, flag or option is wrong; nothing was started
        · UnknownName                 no guard, mode, benchmark, key ... of that name; the nearest one is named
      x DataError                     a file or row is wrong; carries file, line and field
      x EngineError                   a model or server could not answer
        · PlanUnsupported             the engine cannot do a step of the plan (chat APIs cannot force text)
        · EngineTimeout               the deadline passed
        · EngineOverloaded            the server asked to slow down, after bounded retries
        · InputTooLong                the prompt does not fit in the context
      x MissingDependency             an extra is not installed; names the pip command
      x RunFolderError                a run folder is in use, or belongs to another configuration

An answer that cannot be read is not an error: it is a `Verdict` whose `status` is not `ok`.
Messages never contain judged text, keys or request headers.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from importlib import import_module
from types import ModuleType

from guardreasoner.generation import Failure


class GuardReasonerError(Exception):
    """Base of all errors of this package; `str(error)` is one sentence for a person."""


class ConfigError(GuardReasonerError):
    """A recipe, flag or option is wrong."""


SHOWN, LONGEST_NAME = 26, 80
"""Names that an error lists, and characters of one that are compared."""


def nearest(name: str, known: Iterable[str], cutoff: float = 0.8) -> str | None:
    """Of some names the one that a misspelt name is likely to mean; None = it is like none of them."""
    return next(iter(difflib.get_close_matches(name[:LONGEST_NAME].lower(), known, n=1, cutoff=cutoff)), None)


class UnknownName(ConfigError):
    """Something was asked for by a name that does not exist."""

    def __init__(self, kind: str, name: str, known: Iterable[str], meant: Mapping[str, str] | None = None) -> None:
        """`meant`: other words that people use -> the name that they mean."""
        names = sorted(known)
        proper = {n.lower(): n for n in names} | dict(meant or {})
        near = nearest(name, proper, 0.5)
        some = ", ".join(names[:SHOWN]) + (f", ... ({len(names)} in all)" if len(names) > SHOWN else "")
        hint = f"did you mean {proper[near]!r}?" if near else f"known: {some}."
        super().__init__(f"there is no {kind} named {printable(name)!r}; {hint}")


class DataError(GuardReasonerError):
    """A file or a row of it is wrong."""

    def __init__(
        self, message: str, *, file: str | None = None, line: int | None = None, field: str | None = None
    ) -> None:
        where = [str(file)] if file else []
        if line is not None:
            where.append(f"line {line}")
        if field:
            where.append(f"field {field!r}")
        super().__init__(f"{', '.join(where)}: {message}" if where else message)
        self.message, self.file, self.line, self.field = message, file, line, field


class EngineError(GuardReasonerError):
    """A model or a server could not answer."""

    retryable = False
    """Whether asking again may help."""
    finish: Failure = "unavailable"
    """How a completion that it prevented ends."""


class PlanUnsupported(EngineError):
    """The engine cannot do a step of the plan."""


class EngineTimeout(EngineError):
    """The deadline passed before the engine answered."""

    retryable, finish = True, "timeout"


class EngineOverloaded(EngineError):
    """The server asked to slow down and still did after bounded retries."""

    retryable, finish = True, "overloaded"


class InputTooLong(EngineError):
    """The prompt does not fit in the model's context."""

    finish = "input_too_long"


class MissingDependency(GuardReasonerError):
    """An optional library is not installed."""

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(f"{module} is not installed; run: pip install 'guardreasoner[{extra}]'")
        self.module, self.extra = module, extra


class RunFolderError(GuardReasonerError):
    """A run folder is in use by another process, or was made with another configuration."""


def need(module: str, extra: str) -> ModuleType:
    """Import an optional library, or say which extra brings it.

    Raises:
        MissingDependency: the library is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == module.split(".")[0]:
            raise MissingDependency(module.split(".")[0], extra) from None
        raise


def printable(text: str, limit: int = 80) -> str:
    """Text made safe for a message: control characters shown, not sent; long text shortened."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[: limit + 1])
    return shown if len(shown) <= limit else shown[:limit] + "…"
