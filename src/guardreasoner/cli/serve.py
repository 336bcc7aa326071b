"""`guardreasoner serve`: one HTTP server for every wire, and the playground."""

from __future__ import annotations

import argparse
import os
import socket
import sys
from functools import partial
from typing import Any

from guardreasoner.cli.options import add_guard, guard_options
from guardreasoner.errors import ConfigError, need
from guardreasoner.guards.load import find_row, load_guard


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", metavar="H", help="address to listen on (default 127.0.0.1); "
                        "any that others can reach needs GUARDREASONER_API_KEYS")  # fmt: skip
    parser.add_argument("--port", type=int, default=8080, metavar="P", help="0 = any free one (default 8080)")
    parser.add_argument(
        "--policy", metavar="FILE", help="YAML with thresholds, fail modes, budgets, limits (docs/policy.md)"
    )
    parser.add_argument("--upstream", metavar="URL", help="serve /v1/chat/completions in front of this OpenAI-"
                        "compatible base URL (key: GUARDREASONER_UPSTREAM_KEY)")  # fmt: skip
    parser.add_argument("--drain", type=float, default=1.0, metavar="S", help="seconds in which the server still takes "
                        "requests after SIGTERM (default 1)")  # fmt: skip
    add_guard(parser, policy=True)


def run(args: argparse.Namespace) -> int:
    need("fastapi", "serve"), need("uvicorn", "serve")  # one sentence instead of a traceback from the modules below
    from guardreasoner.serve.access.keys import check_exposure, names_for, read_keys, read_upstream_key
    from guardreasoner.serve.access.log import set_up
    from guardreasoner.serve.app import make_app
    from guardreasoner.serve.policy import policy_of, read_policy
    from guardreasoner.serve.run import serve

    policy = read_policy(args.policy)
    over = _overrides(args, policy)
    if over:
        policy = policy_of({**policy.model_dump(exclude_unset=True, mode="json"), **over}, "command line")
    keys = read_keys(os.environ)
    check_exposure(args.host, keys)
    if ":" not in args.guard:
        find_row(args.guard)  # a wrong name is an error before anything starts
    options = {**guard_options(args), "mode": policy.mode, "fail_mode": policy.fail_mode}
    sock = _listen(args.host, args.port)
    set_up()
    gate = make_app(
        partial(load_guard, args.guard, **options),
        policy,
        keys=keys,
        names=names_for(args.host, policy.hosts),
        upstream_key=read_upstream_key(os.environ),
    )
    host, port = sock.getsockname()[:2]
    address = f"http://{_shown(host)}:{port}"
    print(f"serving {args.guard} on {address} (playground at /), loading; a line says when it is ready",
          file=sys.stderr, flush=True)  # fmt: skip
    serve(gate, sock, drain_s=args.drain)
    return 0


def _overrides(args: argparse.Namespace, policy: Any) -> dict[str, Any]:
    over: dict[str, Any] = {k: v for k, v in (("mode", args.mode), ("fail_mode", args.fail_mode)) if v is not None}
    if args.upstream:
        over["proxy"] = {**policy.proxy.model_dump(exclude_unset=True, mode="json"), "upstream": args.upstream}
    return over


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        why = (getattr(error, "strerror", None) or str(error)).partition(" (while attempting")[0]
        raise ConfigError(f"cannot listen on {host}:{port} ({why}); give another --host or --port") from None


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
