"""OpenAI messages as text and as exchanges: one rule for `context`, for chat logs and for `guard.check_messages`.

The text of a message is its string, or the texts of its parts; an assistant's also includes its refusal, reasoning and
tool calls. Anything that is not text (an image, a number) is an error, never a Python repr.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from guardreasoner.errors import DataError, printable
from guardreasoner.records import kind_of
from guardreasoner.types import Exchange, Message

PARTS = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
    "thinking": "thinking",
    "reasoning": "reasoning",
    "summary_text": "text",
}
"""Kind of a content part -> the field that holds its text."""
SPOKEN = ("reasoning_content", "reasoning", "content", "refusal")
"""The fields in which a message's words are, in the order in which they are read."""
ROLES = ("user", "assistant", "system", "developer", "tool", "function")


def text_of(content: Any, field: str) -> str | None:
    """The text of a `content`: a string, or the texts of a list of parts, a line each; None = there is none."""
    if content is None or isinstance(content, str):
        return content
    if isinstance(content, float) and content != content:  # how pandas writes a missing value
        return None
    if not isinstance(content, list | tuple):
        raise DataError(f"a {kind_of(content)} where a text is wanted", field=field)
    return "\n".join(_part(part, f"{field}[{i}]") for i, part in enumerate(content)) if content else None


def _part(part: Any, field: str) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else None
    name = PARTS.get(kind) if isinstance(kind, str) else None
    text = part.get(name) if isinstance(part, Mapping) and name else None
    if not isinstance(text, str):
        what = f"a part of type {printable(kind, 40)!r}" if isinstance(kind, str) else f"a {kind_of(part)}"
        raise DataError(f"{what} has no text that could be judged", field=field)
    return text


def read_message(message: Any, field: str) -> tuple[str, str]:
    """Role and text of one message."""
    if not isinstance(message, Mapping):
        raise DataError('a message is {"role", "content"}', field=field)
    role = message.get("role")
    if role not in ROLES:
        raise DataError(f"a message's role is one of {', '.join(ROLES)}", field=f"{field}.role")
    texts = [text_of(message.get(name), f"{field}.{name}") for name in SPOKEN]
    texts += [_call(call, f"{field}.tool_calls[{i}]") for i, call in enumerate(_calls(message, field))]
    said, name = "\n".join(text for text in texts if text), message.get("name")
    if name is not None and not isinstance(name, str):
        raise DataError(f"a {kind_of(name)} where a text is wanted", field=f"{field}.name")
    return str(role), f"{name}: {said}" if name and said else said


def _calls(message: Mapping[str, Any], field: str) -> list[Any]:
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list | tuple):
        raise DataError("a list of tool calls is wanted", field=f"{field}.tool_calls")
    legacy = message.get("function_call")
    return [*calls, *([{"function": legacy}] if legacy else [])]


def _call(call: Any, field: str) -> str:
    """A tool call as the text `[tool call] name(arguments)`; `custom` calls have an `input` in place of arguments."""
    own = next((call[k] for k in ("function", "custom") if call.get(k)), None) if isinstance(call, Mapping) else None
    if not isinstance(own, Mapping):
        raise DataError("a tool call has a `function` or `custom` with a name", field=field)
    given = own.get("arguments", own.get("input"))
    arguments = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False, default=str)
    return f"[tool call] {own.get('name') or ''}({'' if given is None else arguments})"


def read_turns(messages: Any, field: str = "messages") -> list[Message]:
    """Messages as roles and texts, one each."""
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Sequence):
        raise DataError(f'want a list of {{"role", "content"}}, not a {kind_of(messages)}', field=field)
    return [Message(*read_message(message, f"{field}[{i}]")) for i, message in enumerate(messages)]


def as_exchange(messages: Any, name: str) -> Exchange:
    """A conversation as an exchange: the last request, the reply if one follows it, and what came before as context.

    Whatever is said to the model is a request: a tool's result too.
    """
    turns = read_turns(messages, "messages")
    response = turns.pop().content if turns and turns[-1].role == "assistant" else None
    prompt = turns.pop().content if turns and turns[-1].role != "assistant" else ""
    return Exchange(name, prompt, response, tuple(turns))
