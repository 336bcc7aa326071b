"""What a number may be that a person gives: a flag of the command line, an option of a guard, a key of a recipe.

One table for all of them, by name. A number that is in no row is at least 0; none is NaN or infinite.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from guardreasoner.errors import ConfigError, printable

MOST = 1e12
"""No number is larger."""
RANGES: tuple[tuple[str, float, float, frozenset[str]], ...] = (
    ("at least 1", 1, MOST, frozenset((
        "attempts", "batch", "batch_rows", "batch_tokens", "benign", "categories", "chunk", "concurrency",
        "context_tokens", "harmful", "in_flight", "k", "limit", "log_every", "long_tokens", "max_batch",
        "max_batch_tokens", "max_steps", "max_tokens", "judged_tokens", "micro_batch", "n", "processes", "rank",
        "repeat", "save_every", "subset", "threads", "tokens", "validation_rows", "workers",
    ))),
    ("more than 0", math.ulp(0.0), MOST, frozenset((
        "beta", "epochs", "fail_below", "head_rate", "learning_rate", "poll_s", "requests_per_minute", "save_minutes",
        "timeout_s", "tokens_per_minute",
    ))),
    ("from 0 to 1", 0, 1, frozenset((
        "alone", "joined", "labels_only", "long", "reasoning", "share", "threshold", "warmup", "worn",
    ))),
    ("more than 0 and at most 1", math.ulp(0.0), 1, frozenset(("top_p", "gpu_memory_utilization"))),
    ("from 0 up to but not 1", 0, math.nextafter(1, 0), frozenset((
        "adam_beta2", "budget", "dropout", "gamma", "smoothing",
    ))),
    ("from 0 to 65535", 0, 65535, frozenset(("port",))),
)  # fmt: skip
"""In words, least, most, names."""


def check_range(name: str, value: Any, where: str) -> None:
    """That a number, or each number of a mapping or list, is one that its name allows; other values pass.

    Args:
        name: of the option, flag or key; hyphens count as underscores.
        value: any.
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


def _range(name: str) -> tuple[str, float, float]:
    for words, least, most, names in RANGES:
        if name in names:
            return words, least, most
    return "0 or more", 0, MOST
