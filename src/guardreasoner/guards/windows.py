"""Long input in overlapping windows: nothing is cut silently, and the cost is bounded.

Request and reply are windowed separately. Windows of the request are judged without the reply; windows of the reply are
judged with the request, or with its first window if it does not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from guardreasoner.types import Exchange

Offsets = Callable[[str], list[tuple[int, int]]]

MOST_WINDOWS = 16
"""A text that needs more is `input_too_long`."""
TOO_MANY = f"the text needs more than {MOST_WINDOWS} windows; shorten it or split it"
CHARACTERS_PER_TOKEN = 8
"""Characters a window may hold per token of its size: text that a tokenizer swallows whole is bounded too."""


def whole_request(exchange: Exchange) -> str:
    """The request with the earlier messages in front of it, each under its role."""
    return "".join(f"[{m.role}] {m.content}\n" for m in exchange.context) + exchange.prompt


def windows(exchange: Exchange, capacity: int, limit: int, offsets: Offsets) -> list[Exchange] | None:
    """The exchanges to judge in place of one, or None when it needs more than `limit`.

    Args:
        exchange: its `context` counts as part of the request.
        capacity: tokens of judged text that one pass can hold.
        limit: the most windows.
        offsets: character spans of the tokens of a text.
    """
    if exchange.characters > capacity * limit * CHARACTERS_PER_TOKEN:
        return None
    if sum(len(t.encode("utf-8", "replace")) for t in exchange.texts) <= capacity:  # a token has at least one byte
        return [exchange]
    reply_tokens = offsets(exchange.response) if exchange.response else []
    request_tokens = offsets(exchange.prompt)
    context_tokens = sum(len(offsets(m.content)) + 4 for m in exchange.context)
    if context_tokens + len(request_tokens) + len(reply_tokens) <= capacity:
        return [exchange]
    return _split(exchange, request_tokens, reply_tokens, capacity=capacity, limit=limit, offsets=offsets)


def _split(
    exchange: Exchange,
    request_tokens: Sequence[tuple[int, int]],
    reply_tokens: Sequence[tuple[int, int]],
    *,
    capacity: int,
    limit: int,
    offsets: Offsets,
) -> list[Exchange] | None:
    prompt = exchange.prompt
    if exchange.context:
        prompt = whole_request(exchange)
        request_tokens = offsets(prompt)
    if exchange.response is None:
        parts = split(prompt, request_tokens, capacity)
        made = [replace(exchange, prompt=p, context=()) for p in parts]
        return made if len(made) <= limit else None
    made = []
    share = capacity // 2
    if len(request_tokens) > share:
        requests = split(prompt, request_tokens, capacity)
        made = [replace(exchange, prompt=p, context=(), response=None) for p in requests]
        prompt, used = split(prompt, request_tokens, share)[0], share
    else:
        used = len(request_tokens)
    replies = split(exchange.response, reply_tokens, capacity - used)
    made += [replace(exchange, prompt=prompt, context=(), response=r) for r in replies]
    return made if len(made) <= limit else None


def split(text: str, tokens: Sequence[tuple[int, int]], size: int) -> list[str]:
    """A text in pieces of at most `size` tokens, each overlapping the one before by an eighth."""
    if len(tokens) <= size:
        return [text]
    step = max(1, size - size // 8)
    starts = range(0, max(1, len(tokens) - size // 8), step)
    pieces = []
    for start in starts:
        end = min(start + size, len(tokens))
        left = 0 if start == 0 else tokens[start][0]
        right = len(text) if end == len(tokens) else tokens[end - 1][1]
        pieces.append(text[left:right])
    return pieces
