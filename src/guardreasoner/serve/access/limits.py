"""What a request may hold: bytes, counted while reading; time to arrive; depth of nesting; shape.

Every refusal is a `Refused`; its message never repeats anything the caller sent.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from guardreasoner.records import KeyTwice, unique_keys
from guardreasoner.serve.policy import Limits, wanted

M = TypeVar("M", bound=BaseModel)
WHOLE = "whole"
"""Set in a request's state where its body has come with its head, so that there is nothing to wait for."""
DISCARD_BYTES, DISCARD_S = 64_000_000, 2.0
"""How much of a body that was refused is still read, so that the caller gets to read the refusal."""


class Refused(Exception):
    """An answer other than 200: status, one sentence, and a code that programs can read."""

    def __init__(self, status: int, message: str, code: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The error in the shape that OpenAI clients read."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": None, "code": self.code}}


class Overloaded(Refused):
    """Too much is waiting; come back later."""

    def __init__(self, retry_after_s: float, message: str = "too many requests are waiting; retry later") -> None:
        seconds = str(max(1, round(retry_after_s + 0.5)))
        super().__init__(429, message, "overloaded", {"retry-after": seconds})


def header(request: Request, name: bytes) -> str | None:
    """A header of a request, which the gate has read once."""
    headers: Mapping[bytes, str] = request.scope["state"]["headers"]
    return headers.get(name)


async def read_json(request: Request, limits: Limits) -> Any:
    """The body as JSON.

    Raises:
        Refused: it is too large, too slow, too deep, not JSON, or not declared as JSON.
        ClientDisconnect: the caller left while sending.
    """
    kind = (header(request, b"content-type") or "").partition(";")[0].strip().lower()
    if kind != "application/json":  # a browser cannot send this across origins without asking first
        await _discard(request)
        raise Refused(415, "send the body as application/json", "unsupported_media_type")
    if (header(request, b"content-encoding") or "identity").strip().lower() != "identity":
        await _discard(request)
        raise Refused(415, "send the body as it is, without content-encoding", "unsupported_media_type")
    body = await _read(request, limits)
    if body.count(b",") > limits.values and _STRINGS.sub(b"", body).count(b",") > limits.values:
        raise Refused(413, f"the body holds more than {limits.values} values", "too_many_values")
    try:
        value = _DECODER.decode(body.decode("utf-8-sig"))
    except RecursionError:
        raise Refused(400, f"the body is nested more than {limits.depth} levels deep", "too_deep") from None
    except KeyTwice:  # whoever reads the body next may take the other one
        raise Refused(400, "a key stands twice in an object of the body; send it once", "key_twice") from None
    except ValueError:  # not JSON, not UTF-8, NaN, or a number of thousands of digits
        raise Refused(400, "the body is not valid JSON", "bad_json") from None
    return _checked(value, limits.depth, b"\\u" in body)


def shaped(value: Any, kind: type[M]) -> M:
    """A plain value as a model; a refusal names the field and the rule, never the value.

    Raises:
        Refused: the fields are not what the model wants.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        known = [str(p) for p in first["loc"] if isinstance(p, int) or p in _names(kind)]
        message = wanted(first)
        if first["type"] == "extra_forbidden":
            known, message = known[:-1] if first["loc"][-1] in known else known, "holds a field that is not supported"
        raise Refused(400, f"{'.'.join(known) or 'the body'}: {message}", "bad_request") from None
    except RecursionError:
        raise Refused(400, "the body is nested too deeply", "too_deep") from None


def _names(kind: type[BaseModel]) -> set[str]:
    found, todo = set(), [kind]
    while todo:
        for name, field in todo.pop().model_fields.items():
            if name not in found:
                found.add(name)
                todo += _models_in(field.annotation)
    return found


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for a in getattr(annotation, "__args__", ()) for m in _models_in(a)]


async def _read(request: Request, limits: Limits) -> bytes:
    declared = header(request, b"content-length") or "0"
    if not declared.isdigit() or int(declared[:20]) > limits.body_bytes:
        await _discard(request)
        raise _too_large(limits)
    try:
        if request.scope["state"].get(WHOLE):
            body = await _collect(request, limits)
        else:
            async with asyncio.timeout(limits.body_seconds):
                body = await _collect(request, limits)
    except TimeoutError:
        raise Refused(408, "the body took too long to arrive", "slow_body", {"connection": "close"}) from None
    if len(body) > limits.body_bytes:
        await _discard(request)
        raise _too_large(limits)
    return body


async def _collect(request: Request, limits: Limits) -> bytes:
    """The body as it arrives, no further than a piece beyond the limit."""
    parts: list[bytes] = []
    size, more = 0, True
    while more and size <= limits.body_bytes:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
    return b"".join(parts)


def _too_large(limits: Limits) -> Refused:
    message = f"the body is larger than {limits.body_bytes} bytes"
    return Refused(413, message, "body_too_large", {"connection": "close"})


async def _discard(request: Request) -> None:
    """Read on for a moment: an answer to a caller who is still sending is lost when the connection closes."""
    size = 0
    try:
        async with asyncio.timeout(DISCARD_S):
            while size < DISCARD_BYTES:
                message = await request.receive()
                size += len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
    except (TimeoutError, ClientDisconnect):
        return


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _checked(value: Any, depth: int, escapes: bool) -> Any:
    """The value, no deeper than `depth`; lone surrogates, which no encoder takes, become U+FFFD."""
    if depth < 0:
        raise Refused(400, "the body is nested too deeply", "too_deep")
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode() if escapes and not _encodable(value) else value
    if isinstance(value, list):
        return [_checked(v, depth - 1, escapes) for v in value]
    if isinstance(value, dict):
        return {_checked(k, depth, escapes): _checked(v, depth - 1, escapes) for k, v in value.items()}
    return value


_STRINGS = re.compile(rb'"(?:[^"\\]+|\\.)*+"')
_DECODER = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=unique_keys)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
