"""Mocks on bare sockets, one process: a chat model and a guard model, each answering after a fixed time.

    python bench/mocks.py PORT

`/v1/chat/completions` is the upstream (after `UPSTREAM_MS`), streamed when asked; `/guard/v1/chat/completions` and
`/beta/litellm_basic_guardrail_api` are a guard (after `GUARD_MS`) as NeMo and LiteLLM call theirs. All passes.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys

UPSTREAM_S, GUARD_S = (float(os.environ.get(name, "0")) / 1000 for name in ("UPSTREAM_MS", "GUARD_MS"))
REPLY_TEXT = (
    "Put the egg into boiling water. For a soft yolk wait six minutes, for a firm one wait ten. Then cool it under "
    "cold water, so that it stops cooking and the shell comes off easily. Salt it and eat."
)
WORDS = re.findall(r"\s*\S+", REPLY_TEXT)


def completion(text: str) -> bytes:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": 10, "completion_tokens": 40, "total_tokens": 50}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "mock"}
    return json.dumps({**head, "choices": [choice], "usage": usage}).encode()


def chunk(delta: dict[str, str], finish: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "mock"}
    return b"data: " + json.dumps({**head, "choices": [choice]}).encode() + b"\n\n"


REPLY = completion(REPLY_TEXT)
STREAM = b"".join(chunk({"content": w}, None) for w in WORDS) + chunk({}, "stop") + b"data: [DONE]\n\n"
VERDICT = completion("Prompt harm: unharmful\nResponse Harm: unharmful")
NONE = b'{"action": "NONE"}'


async def answer(path: str, body: bytes) -> tuple[bytes, str]:
    """Body and type for one request."""
    if path.startswith("/guard/"):
        await asyncio.sleep(GUARD_S)
        return VERDICT, "application/json"
    if path.startswith("/beta/"):
        await asyncio.sleep(GUARD_S)
        return NONE, "application/json"
    if path.endswith("/chat/completions"):
        await asyncio.sleep(UPSTREAM_S)
        if json.loads(body).get("stream"):
            return STREAM, "text/event-stream"
        return REPLY, "application/json"
    return b"{}", "application/json"


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            lines = head.split("\r\n")
            fields = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:] if ": " in line)}
            body = await reader.readexactly(int(fields.get("content-length", "0")))
            content, kind = await answer(lines[0].split(" ")[1], body)
            top = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(content)}\r\n\r\n"
            writer.write(top.encode() + content)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main(port: int) -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
