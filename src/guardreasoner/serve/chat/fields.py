"""The OpenAI chat wire as allow-lists: what of a request and of a reply is read, sent on, or refused."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

UNREAD_FIELDS = frozenset((
    "model", "temperature", "top_p", "n", "stream", "stream_options", "stop", "max_tokens", "max_completion_tokens",
    "presence_penalty", "frequency_penalty", "seed", "user", "tool_choice", "parallel_tool_calls", "reasoning_effort",
    "verbosity", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
))  # fmt: skip
"""Fields of a request that no model reads as text."""
READ_FIELDS = ("tools", "functions", "response_format")
"""Fields whose text a model reads: judged by themselves."""
MESSAGES = "messages"

FINISHES = frozenset(("stop", "length", "tool_calls", "function_call", "content_filter"))
SPOKEN_FIELDS = ("content", "refusal", "reasoning_content", "reasoning")
_NAME = re.compile(r"[\w.:/@+ -]{0,200}")


def unknown_fields(body: Mapping[str, Any]) -> int:
    """How many fields of a request are on no list; null ones do not count."""
    known = UNREAD_FIELDS | {MESSAGES, *READ_FIELDS}
    return sum(v is not None and k not in known for k, v in body.items())


def clean_reply(reply: Mapping[str, Any]) -> dict[str, Any]:
    """A whole reply (or a chunk of one) with the fields that are known, and nothing else that a model could fill."""
    choices = reply.get("choices")
    kept: dict[str, Any] = {k: _name(reply.get(k)) for k in ("id", "object", "model", "system_fingerprint")}
    kept = {k: v for k, v in kept.items() if v is not None}
    if isinstance(reply.get("created"), int):
        kept["created"] = reply["created"]
    kept["choices"] = [_choice(c) for c in choices if isinstance(c, Mapping)] if isinstance(choices, list) else []
    if isinstance(reply.get("usage"), Mapping):
        kept["usage"] = _numbers(reply["usage"])
    return kept


def said(message: Mapping[str, Any]) -> str:
    """All that a cleaned message or delta says, as one text in the order of its fields."""
    parts = [message[name] for name in SPOKEN_FIELDS if message.get(name)]
    calls = message.get("tool_calls") or []
    functions = [*(c.get("function") or {} for c in calls), message.get("function_call") or {}]
    parts += [f.get(k) for f in functions for k in ("name", "arguments")]
    return "".join(p for p in parts if p)


def _choice(choice: Mapping[str, Any]) -> dict[str, Any]:
    index, finish = choice.get("index"), choice.get("finish_reason")
    kept: dict[str, Any] = {"index": index if isinstance(index, int) else 0}
    for name in ("message", "delta"):
        if isinstance(choice.get(name), Mapping):
            kept[name] = _message(choice[name])
    known = finish is None or (isinstance(finish, str) and finish in FINISHES)
    kept["finish_reason"] = finish if known else "stop"
    return kept


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {"role": "assistant"} if "role" in message else {}
    for name in SPOKEN_FIELDS:
        if name in message and isinstance(message[name], str | None):
            kept[name] = message[name]
    if isinstance(message.get("tool_calls"), list):
        kept["tool_calls"] = [_call(c) for c in message["tool_calls"] if isinstance(c, Mapping)]
    if isinstance(message.get("function_call"), Mapping):
        kept["function_call"] = _function(message["function_call"])
    return kept


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {"index": call["index"]} if isinstance(call.get("index"), int) else {}
    if (identity := _name(call.get("id"))) is not None:
        kept["id"] = identity
    if call.get("type") == "function" or "type" in call:
        kept["type"] = "function"
    if isinstance(call.get("function"), Mapping):
        kept["function"] = _function(call["function"])
    return kept


def _function(function: Mapping[str, Any]) -> dict[str, Any]:
    return {k: function[k] for k in ("name", "arguments") if isinstance(function.get(k), str)}


def _name(value: Any) -> str | None:
    return value if isinstance(value, str) and _NAME.fullmatch(value) else None


def _numbers(usage: Mapping[str, Any]) -> dict[str, Any]:
    nested = {k: _numbers(v) for k, v in usage.items() if isinstance(v, Mapping)}
    return {**{k: v for k, v in usage.items() if isinstance(v, int | float)}, **nested}


def parse_event(line: str) -> dict[str, Any] | None:
    """The chunk in one `data:` line of a stream; None for anything else, `[DONE]` included."""
    if not line.startswith("data:"):
        return None
    try:
        value = json.loads(line[5:])
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
