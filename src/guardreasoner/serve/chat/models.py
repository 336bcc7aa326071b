"""`GET /v1/models`: the models a client may ask for, so that chat applications find here what the upstream offers."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx

from guardreasoner.serve.access.limits import Refused
from guardreasoner.serve.service import Service

MOST, MOST_BYTES = 1_000, 2_000_000
_NAME = re.compile(r"[\w.:/@+-]{1,200}")
"""A model's name: no spaces, so that it holds no sentence."""


async def listed_models(service: Service) -> list[dict[str, Any]]:
    """The upstream's models by name; without an upstream, the guard."""
    if service.policy.proxy.upstream is None or service.upstream is None:
        return [_row(service.core.worker.name, "guardreasoner")]
    headers = {"accept-encoding": "identity"}
    if service.upstream_key:
        headers["authorization"] = f"Bearer {service.upstream_key}"
    try:
        answer = await service.upstream.get(f"{service.policy.proxy.upstream}/models", headers=headers)
        found = json.loads(answer.content) if len(answer.content) <= MOST_BYTES else None
    except (httpx.HTTPError, ValueError, RecursionError) as error:
        raise Refused(
            502, f"the upstream does not list its models ({type(error).__name__})", "upstream_error"
        ) from None
    rows = found.get("data") if isinstance(found, dict) else None
    if answer.status_code != 200 or not isinstance(rows, list):
        raise Refused(502, "the upstream does not list its models", "upstream_error")
    names = [row.get("id") for row in rows[:MOST] if isinstance(row, dict)]
    return [_row(name, "upstream") for name in names if isinstance(name, str) and _NAME.fullmatch(name)]


def _row(name: str, owner: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": owner}
