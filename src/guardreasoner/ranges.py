"""What a value may be that a person gives: a flag of the command line, an option of a guard, a key of a recipe.

Its type is that of the field or parameter that takes it. What a number may be is in one table for all of them, by name:
a number that is in no row is at least 0; none is NaN or infinite.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from guardreasoner.errors import ConfigError, UnknownName, printable

T = TypeVar("T")
MOST = 1e12
"""No number is larger."""
RANGES: tuple[tuple[str, float, float, frozenset[str]], ...] = (
    ("at least 1", 1, MOST, frozenset((
        "attempts", "batch", "batch_rows", "batch_tokens", "benign", "chunk", "concurrency",
        "context_tokens", "harmful", "in_flight", "k", "layers", "limit", "log_every", "long_tokens", "max_batch",
        "max_batch_tokens", "max_steps", "max_tokens", "judged_tokens", "micro_batch", "n", "processes", "rank",
        "repeat", "save_every", "subset", "threads", "tokens", "validation_rows", "workers",
    ))),
    ("more than 0", math.ulp(0.0), MOST, frozenset((
        "beta", "epochs", "fail_below", "head_rate", "learning_rate", "poll_s", "requests_per_minute",
        "timeout_s", "tokens_per_minute",
    ))),
    ("from 0 to 1", 0, 1, frozenset((
        "alone", "joined", "labels_only", "long", "reasoning", "share", "threshold", "warmup", "worn",
    ))),
    ("more than 0 and at most 1", math.ulp(0.0), 1, frozenset(("top_p", "gpu_memory_utilization"))),
    ("from 0 up to but not 1", 0, math.nextafter(1, 0), frozenset((
        "adam_beta2", "budget", "larger_budget", "dropout", "gamma", "smoothing",
    ))),
    ("from 0 to 65535", 0, 65535, frozenset(("port",))),
)  # fmt: skip
"""In words, least, most, names."""


def check_range(name: str, value: Any, where: str) -> None:
    """That a number, or each number of a mapping or list, is one that its name allows; other values pass.

    Args:
        name: of the option, flag or key; hyphens count as underscores.
        where: how the error names it.

    Raises:
        ConfigError: it is out of range.
    """
    if isinstance(value, Mapping):
        value = list(value.values())
    for number in value if isinstance(value, list | tuple) else (value,):
        if isinstance(number, int | float) and not isinstance(number, bool):
            words, least, most = _range(name.replace("-", "_"))
            if not least <= number <= most:  # NaN is in no range
                said = words if number <= MOST or math.isnan(number) else f"at most {MOST:.0e}"
                raise ConfigError(f"{where} must be {said}, not {printable(str(number), 40)}")


def check_ranges(**numbers: Any) -> None:
    """As `check_range`, for parameters of a function, which go by their own names.

    Raises:
        ConfigError: one is out of range.
    """
    for name, value in numbers.items():
        check_range(name, value, name)


def _range(name: str) -> tuple[str, float, float]:
    for words, least, most, names in RANGES:
        if name in names:
            return words, least, most
    return "0 or more", 0, MOST


def build(kind: type[T], values: Any, where: str, extra: Mapping[str, Any] | None = None) -> T:
    """A dataclass from plain values; `where` names them in errors.

    Raises:
        UnknownName: a key does not exist.
        ConfigError: a value has the wrong type, or is out of range.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where or 'the recipe'} must be a mapping of keys, not {_shown(values)}")
    hints = get_type_hints(kind)
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise UnknownName(f"key in {where}" if where else "section of a recipe", str(key), known)
    made = {key: convert(value, hints[key], f"{where}.{key}".lstrip(".")) for key, value in values.items()}
    for key, value in made.items():
        check_range(key, value, f"{where}.{key}".lstrip("."))
    return kind(**{**made, **(extra or {})})


def convert(value: Any, hint: Any, where: str) -> Any:
    """A plain value as the type that a field or parameter declares.

    Raises:
        ConfigError: it is not of that type.
    """
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _one_of(value, parts, where)
    if origin is Literal:
        value = {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value  # YAML's on and off
        if value not in parts:
            raise ConfigError(f"{where} must be one of {', '.join(map(str, parts))}, not {_shown(value)}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where} must be a list, not {_shown(value)}")
        return tuple(convert(item, parts[0], f"{where}[{i}]") for i, item in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} must be a mapping, not {_shown(value)}")
        return {str(k): convert(v, parts[1], f"{where}.{k}") for k, v in value.items()}
    if origin is not None:
        return value  # of a kind that no file can hold, such as a function
    if is_dataclass(hint) and not isinstance(value, hint):  # type: ignore[arg-type]
        return build(hint, value, where)  # type: ignore[arg-type]
    return _plain(value, hint, where)


def _one_of(value: Any, parts: tuple[Any, ...], where: str) -> Any:
    if value is None and type(None) in parts:
        return None
    rest = [p for p in parts if p is not type(None)]
    for position, part in enumerate(rest):
        try:
            return convert(value, part, where)
        except ConfigError:
            if position == len(rest) - 1:
                raise
    raise ConfigError(f"{where} cannot be {_shown(value)}")


def _plain(value: Any, kind: type, where: str) -> Any:
    if kind is float and isinstance(value, str):  # YAML 1.1 reads 5e-5 as a text
        try:
            return float(value)
        except ValueError:
            pass
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, kind) and not (kind in (int, float) and isinstance(value, bool)):
        return value
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    raise ConfigError(f"{where} must be {names.get(kind, kind.__name__)}, not {_shown(value)}")


def _shown(value: Any) -> str:
    kind = "" if isinstance(value, str) else f"{type(value).__name__} "
    return "empty" if value is None else kind + printable(repr(value), 40)
