"""Options that several commands share."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from guardreasoner.engines.load import ENGINES
from guardreasoner.errors import ConfigError
from guardreasoner.guards.ours import BUNDLED
from guardreasoner.records import sha256
from guardreasoner.types import MODES

SECRET = re.compile("key|token|secret|password|auth|header", re.IGNORECASE)


def add_data(parser: argparse.ArgumentParser) -> None:
    """`--data`, the folder of the benchmarks."""
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder with benchmarks/ (default GUARDREASONER_DATA)")


def add_guard(
    parser: argparse.ArgumentParser, *, default: str | None = BUNDLED, optional: bool = False, policy: bool = False
) -> None:
    """`--guard`, `--mode`, `--fail-mode` and what overrides the guard's row.

    Args:
        parser: of the command.
        default: the guard where none is named.
        optional: there may be no guard.
        policy: the command reads a policy, whose mode and fail mode hold where none is given.
    """
    group = parser.add_argument_group("guard")
    group.add_argument(
        "--guard",
        default=default,
        required=default is None and not optional,
        metavar="NAME",
        help="a name from `guardreasoner guards`, a model folder, a YAML row, or module:attribute"
        + (f" (default {default})" if default else ""),
    )
    modes, fails = "|".join(MODES), "what becomes of what could not be judged"
    stays = "; instead of the policy's, but for what it says of a route"
    group.add_argument(
        "--mode",
        default=None if policy else "auto",
        metavar="MODE",
        help=modes + (stays if policy else " (default auto)"),
    )
    group.add_argument(
        "--fail-mode",
        default=None if policy else "closed",
        metavar="closed|open",
        help=fails + (stays if policy else ""),
    )
    group.add_argument("--engine", choices=ENGINES, help="run on this engine instead of the guard's own")
    group.add_argument("--model", metavar="ID|FOLDER", help="use these weights instead of the guard's own; needs "
                       "--guard, for the bundled guard is made of three models")  # fmt: skip
    group.add_argument("--revision", metavar="COMMIT", help="of the weights on the hub; main = what is there now")
    group.add_argument("--base-url", metavar="URL", help="where the guard's server listens")
    group.add_argument(
        "--calibration", metavar="FILE", type=Path, help="a calibration file made by `guardreasoner calibrate`"
    )
    group.add_argument("--policy-text", metavar="FILE", type=Path, help="policy for guards that follow one")
    group.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of the guard or its engine, e.g. threads=2; repeatable",
    )


def guard_options(args: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of `load_guard` from the parsed options."""
    options: dict[str, Any] = {}
    for item in args.option:
        key, found, value = item.partition("=")
        if not found or not key.isidentifier():
            raise ConfigError(f"--option {item!r} is not KEY=VALUE")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    if args.calibration:
        options["calibration"] = args.calibration
    if args.policy_text:
        options["policy"] = args.policy_text
    return {
        "mode": args.mode,
        "fail_mode": args.fail_mode,
        "engine": args.engine,
        "model": args.model,
        "base_url": args.base_url,
        "revision": args.revision,
        **options,
    }


def identity(guard: str, options: Mapping[str, Any]) -> dict[str, str]:
    """What binds a run folder to a guard: its options, without what may be a secret, and digests of the guard, weights,
    calibration and policy where these are files or folders, for the same path may hold others tomorrow."""
    shown = {k: str(v) for k, v in options.items() if v is not None and not SECRET.search(k)}
    if url := shown.get("base_url"):
        parts = urlsplit(url)
        shown["base_url"] = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    file, _, attribute = guard.rpartition(":")
    named = {"guard": file if attribute and file.endswith(".py") else guard}
    named |= {k: shown[k] for k in ("model", "calibration", "policy") if k in shown}
    return shown | {f"{k}_sha256": sha256(path) for k, path in named.items() if Path(path).exists()}
