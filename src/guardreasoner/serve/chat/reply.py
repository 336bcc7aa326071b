"""An upstream's answer, as far as it is understood: one model of a reply, whole or in pieces.

What the model says is judged and passed on. What is known not to be speech (log-probabilities, citations, timings) is
left out and counted. An unknown shape is an error, never an empty good answer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from guardreasoner.serve.access.limits import Refused
from guardreasoner.serve.fields import coded, harmless, sealed, visible

Body = dict[str, Any]
Side = Literal["message", "delta"]
"""Where the words of a choice are: in a whole reply, or in a chunk of a stream."""

FINISHES = frozenset(("stop", "length", "tool_calls", "function_call", "content_filter"))
NOT_YET = ("", "null")
"""What some servers write as the finish reason of a reply that goes on."""
KEEP_ALIVE: Body = {"type": "ping"}
"""A chunk that some servers send to keep the connection open."""
SPOKEN_FIELDS = ("content", "refusal", "reasoning_content", "reasoning")
LABELS = ("model", "system_fingerprint")
"""Words of an envelope, which the upstream chooses: judged once by themselves."""
TEXT_PARTS = {"text": "content", "output_text": "content", "refusal": "refusal", "thinking": "reasoning_content",
              "reasoning": "reasoning_content"}  # fmt: skip
"""Kind of a content part -> the field that its text is passed on in."""
CALLS = {"function": ("name", "arguments"), "custom": ("name", "input")}
"""Kind of a tool call -> its texts."""
COUNTED = frozenset((
    "prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details",
    "cached_tokens", "reasoning_tokens", "audio_tokens", "text_tokens", "image_tokens", "accepted_prediction_tokens",
    "rejected_prediction_tokens", "prompt_cache_hit_tokens", "prompt_cache_miss_tokens", "cache_creation_input_tokens",
    "cache_read_input_tokens", "input_tokens", "output_tokens", "cost", "cost_details", "prompt_time",
    "completion_time", "total_time", "queue_time", "num_search_queries",
))  # fmt: skip
"""Names in `usage`."""


@dataclass(frozen=True, slots=True)
class UpstreamReply:
    """A reply, or a chunk of one."""

    body: Body
    """What may be passed on once it has been judged: known fields only."""
    dropped: int = 0
    """Fields with text in them that were left out."""


def unclear(what: str) -> Refused:
    """The error for a reply that is not understood."""
    return Refused(502, f"the upstream's answer cannot be read: {what}", "upstream_not_understood")


def read_reply(reply: Any, side: Side = "message") -> UpstreamReply:
    """A whole reply, or with `delta` a chunk of a stream."""
    if not isinstance(reply, Mapping):
        raise unclear("it is not an object")
    if reply.get("error"):
        raise Refused(502, "the upstream answered with an error", "upstream_error")
    kept: Body = {k: visible(reply[k]) for k in ("id", *LABELS) if isinstance(reply.get(k), str)}
    kept["object"] = "chat.completion" if side == "message" else "chat.completion.chunk"
    if _number(reply.get("created")):
        kept["created"] = reply["created"]
    given = reply.get("choices")
    silent = reply.get("usage") or reply == KEEP_ALIVE or harmless(_rest(reply))
    if given is None and not (side == "delta" and silent):
        raise unclear("it has no choices")
    choices = [] if given is None else given
    if not isinstance(choices, list) or not all(isinstance(c, Mapping) for c in choices):
        raise unclear("its choices are not objects")
    if side == "message" and not choices:
        raise unclear("it has no choices")
    read = [_choice(c, side) for c in choices]
    kept["choices"] = [choice for choice, _ in read]
    if isinstance(reply.get("usage"), Mapping):
        kept["usage"] = _counts(reply["usage"])
    return UpstreamReply(kept, sum(n for _, n in read) + (not harmless(_rest(reply))))


def said(message: Mapping[str, Any]) -> dict[str, str]:
    """All that a read message or delta says, by place: a field, or one of its tool calls.

    A client puts the pieces of a stream together place by place, however an upstream mixes them.
    """
    found = {name: message[name] for name in SPOKEN_FIELDS if message.get(name)}
    calls = [(f"call {call.get('index', n)}", call) for n, call in enumerate(message.get("tool_calls") or [])]
    calls += [("function_call", {"function": message["function_call"]})] if message.get("function_call") else []
    for place, call in calls:
        texts = [call["id"]] if "id" in call and not coded(call["id"]) else []
        texts += [(call.get(kind) or {}).get(name) for kind, names in CALLS.items() for name in names]
        if text := "".join(t for t in texts if t):
            found[place] = found.get(place, "") + text
    return found


def _rest(reply: Mapping[str, Any]) -> Body:
    known = {"id", "object", "created", "choices", "usage", "error", "service_tier", *LABELS}
    return {k: v for k, v in reply.items() if k not in known}


def _choice(choice: Mapping[str, Any], side: Side) -> tuple[Body, int]:
    index, finish = choice.get("index"), choice.get("finish_reason")
    finish = None if finish in NOT_YET else finish
    message = choice.get(side)
    if message is not None and not isinstance(message, Mapping):
        raise unclear(f"a {side} is not an object")
    if finish == "error":
        raise Refused(502, "the upstream answered with an error", "upstream_error")
    words, dropped = _message(message or {})
    left = {k: v for k, v in choice.items() if k not in ("index", "finish_reason", side)}
    dropped += not harmless(left)
    if dropped and finish is not None and side == "message" and not said(words):
        raise unclear("nothing of what it says is in a known field")
    known = finish is None or (isinstance(finish, str) and finish in FINISHES)
    number = index if isinstance(index, int) and not isinstance(index, bool) else 0
    return {"index": number, side: words, "finish_reason": finish if known else "stop"}, dropped


def _message(message: Mapping[str, Any]) -> tuple[Body, int]:
    kept: Body = {"role": "assistant"} if "role" in message else {}
    for name in SPOKEN_FIELDS:
        if name not in message:
            continue
        value = message[name]
        if isinstance(value, list):
            for field, text in _parts(value, name):
                kept[field] = (kept.get(field) or "") + visible(text)
        elif value is None or isinstance(value, str):
            kept[name] = value and visible(value)
        else:
            raise unclear(f"{name} is neither text nor parts")
    for block in _list(message, "thinking_blocks") if not kept.get("reasoning_content") else ():
        kept["reasoning_content"] = (kept.get("reasoning_content") or "") + visible(str(block.get("thinking") or ""))
    if calls := _list(message, "tool_calls"):
        kept["tool_calls"] = [_call(c) for c in calls]
    if isinstance(message.get("function_call"), Mapping):
        kept["function_call"] = _texts(message["function_call"], "function")
    elif message.get("function_call"):
        raise unclear("function_call is not an object")
    known = {"role", *SPOKEN_FIELDS, "tool_calls", "function_call", "thinking_blocks"}
    return kept, sum(not harmless(v) for k, v in message.items() if k not in known)


def _list(message: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    value = message.get(name) or []
    if not isinstance(value, list) or not all(isinstance(v, Mapping) for v in value):
        raise unclear(f"{name} is not a list of objects")
    return value


def _parts(parts: Sequence[Any], name: str) -> list[tuple[str, str]]:
    """The texts of content parts, each with the field that it is passed on in."""
    found = []
    for part in parts:
        if isinstance(part, str):
            found.append((name, part))
            continue
        kind = part.get("type") if isinstance(part, Mapping) else None
        target = TEXT_PARTS.get(kind) if isinstance(kind, str) else None
        if target is None:
            if harmless(part):
                continue
            raise unclear(f"a part of {name} is of an unknown kind")
        key = "text" if "text" in part else kind
        held = part.get(key)
        inner = held if isinstance(held, list) else [held]
        texts = [i.get("text") if isinstance(i, Mapping) else i for i in inner if i is not None]
        if not all(isinstance(t, str) for t in texts):
            raise unclear(f"a part of {name} holds no text")
        found.append((name if target == "content" else target, "".join(map(str, texts))))
    return found


def _call(call: Mapping[str, Any]) -> Body:
    kept: Body = {"index": call["index"]} if _number(call.get("index")) else {}
    if isinstance(call.get("id"), str):
        kept["id"] = visible(call["id"])
    kind = call.get("type")
    if kind is not None and kind not in ("", *CALLS):
        raise unclear("a tool call is of an unknown kind")
    if kind:
        kept["type"] = kind
    for name in CALLS:
        if isinstance(call.get(name), Mapping):
            kept[name] = _texts(call[name], name)
        elif call.get(name):
            raise unclear(f"the {name} of a tool call is not an object")
    signature = call.get("extra_content")
    for step in ("google", "thought_signature"):
        signature = signature.get(step) if isinstance(signature, Mapping) else None
    if isinstance(signature, str) and sealed(signature):
        kept["extra_content"] = {"google": {"thought_signature": signature}}
    if kind and not any(name in kept for name in CALLS):
        raise unclear("a tool call says neither function nor custom tool")
    return kept


def _texts(given: Mapping[str, Any], kind: str) -> Body:
    """Name and arguments; arguments that come as an object are passed on as the text that clients expect."""
    texts = {}
    for name in CALLS[kind]:
        value = given.get(name)
        if isinstance(value, Mapping | list):
            value = json.dumps(value, ensure_ascii=False)
        if value is not None and not isinstance(value, str):
            raise unclear(f"the {name} of a tool call is not text")
        if value is not None:
            texts[name] = visible(value)
    return texts


def _number(value: Any) -> bool:
    """Whether a value is a number that JSON can hold: Python reads NaN too."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _counts(usage: Mapping[str, Any]) -> Body:
    """The numbers of a `usage`, under names that are known or hold no word."""
    named = {k: v for k, v in usage.items() if k in COUNTED or coded(k)}
    nested = {k: _counts(v) for k, v in named.items() if isinstance(v, Mapping)}
    return {**{k: v for k, v in named.items() if _number(v)}, **nested}
