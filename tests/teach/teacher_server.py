"""A scripted teacher behind the wires of OpenAI and Anthropic, for tests and for `bench/synthesize.py`.

    python teacher_server.py --latency 0.2 --log calls.jsonl      prints the port, serves until it is killed

It answers every question with a well-formed trace for the answers that the question gives. Words in the request change
that: GARBAGE (never usable), GARBAGE-ONCE (usable at the second attempt), WRONG (the block contradicts the labels),
DECLINE, BROKEN (HTTP 400). Each call is logged when it arrives and again when its answer has been sent.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
import uuid
from collections import Counter
from pathlib import Path

REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many", 500: "Broken"}
KEYS = ("Request", "Completion", "Response")
DEFAULT = {"Request": "harmful", "Completion": "compliance", "Response": "harmful"}


def trace_for(system: str) -> str:
    """A usable answer: the block of the question with the question marks filled, and two steps for each task of it."""
    block = dict(line.split(": ") for line in system[system.rindex("Answers:") :].splitlines()[1:])
    lines = []
    for number, key in enumerate(KEYS, 1):
        if block[key] == "?":
            block[key] = DEFAULT[key]
        if block[key] == "None":
            continue
        article = "a " if block[key] == "refusal" else ""
        subject = "request" if key == "Request" else "reply"
        lines += [f"# Task {number}", "## Reasoning Step 1", "The words of the conversation are plain."]
        lines += ["## Reasoning Step 2", f"They leave no doubt, so the {subject} is {article}{block[key]}."]
    return "\n".join([*lines, "---", "", "Answers: ", *(f"{k}: {v}" for k, v in block.items())]) + "\n"


def answer_for(messages: list[dict], system: str) -> tuple[str, str]:
    """Text and finish reason."""
    user = messages[0]["content"]
    if "DECLINE" in user:
        return "", "content_filter"
    if "GARBAGE-ONCE" in user and len(messages) < 3:
        return "I would rather talk about the weather.", "stop"
    if "GARBAGE-ONCE" not in user and "GARBAGE" in user:
        return "I would rather talk about the weather.", "stop"
    text = trace_for(system)
    if "WRONG" in user:
        swapped = text.replace("unharmful", "\0").replace("harmful", "unharmful").replace("\0", "harmful")
        return swapped, "stop"
    return text, "stop"


class Server:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.log = open(options.log, "ab", buffering=0) if options.log else None  # noqa: SIM115 - open while it serves
        self.calls = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.level, self.filled = float(options.burst), time.monotonic()
        self.too_many = 0
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict] = {}
        self.seen: Counter[str] = Counter()

    def note(self, **values) -> None:
        if self.log:
            self.log.write(json.dumps({"at": time.time(), **values}).encode() + b"\n")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                line, *fields = head.decode("latin-1").split("\r\n")
                method, path, _ = line.split(" ")
                headers = {k.lower(): v for k, v in (f.split(": ", 1) for f in fields if f)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                status, extra, content = await self.route(method, path, headers, body)
                lines = [f"HTTP/1.1 {status} {REASONS[status]}", f"content-length: {len(content)}"]
                lines += ["content-type: application/json", *(f"{k}: {v}" for k, v in extra.items())]
                writer.write("\r\n".join([*lines, "", ""]).encode() + content)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def route(self, method: str, path: str, headers: dict, body: bytes) -> tuple[int, dict, bytes]:
        path = path.split("?")[0].removeprefix("/v1")
        key = headers.get("authorization", "").removeprefix("Bearer ") or headers.get("x-api-key", "")
        if path == "/stats":
            return 200, {}, json.dumps(vars_of(self)).encode()
        if self.options.key and key != self.options.key:
            return 401, {}, error("the key has expired")
        if path in ("/chat/completions", "/messages"):
            return await self.chat(path, json.loads(body))
        if path.startswith(("/files", "/batches")):
            return await self.batch(method, path, headers, body)
        return 404, {}, error("no such page")

    async def chat(self, path: str, request: dict) -> tuple[int, dict, bytes]:
        number = self.calls = self.calls + 1
        call = request["messages"][-1 if len(request["messages"]) < 3 else 1]["content"]
        self.note(event="call", number=number, text=call, turns=len(request["messages"]))
        if self.options.expire_after and number > self.options.expire_after:
            return 401, {}, error("the key has expired")
        if self.options.fail_every and number % self.options.fail_every == 0:
            return 500, {}, error("try again")
        extra = self.limits()
        if extra is None:
            self.too_many += 1
            return 429, {"retry-after": "1"}, error("slow down")
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(self.options.latency)
        self.in_flight -= 1
        if "BROKEN" in call:
            return 400, extra, error("this text cannot be processed")
        content = chat_reply(path, request)
        self.note(event="answer", number=number, text=call)
        return 200, extra, json.dumps(content).encode()

    def limits(self) -> dict | None:
        """Headers of a limit of so many calls a minute after a burst; None = over it."""
        limit = self.options.requests_per_minute
        if not limit:
            return {}
        now = time.monotonic()
        self.level = min(self.options.burst, self.level + (now - self.filled) * limit / 60)
        self.filled = now
        if self.level < 1:
            return None
        self.level -= 1
        return {"x-ratelimit-limit-requests": limit, "x-ratelimit-remaining-requests": int(self.level)}

    async def batch(self, method: str, path: str, headers: dict, body: bytes) -> tuple[int, dict, bytes]:
        self.note(event=f"{method} {path.split('/')[1]}")
        parts = path.strip("/").split("/")
        if path == "/files":
            self.files[name := f"file-{uuid.uuid4().hex}"] = part_of(body, headers["content-type"])
            return 200, {}, json.dumps(file_reply(name, len(self.files[name]))).encode()
        if parts[0] == "files":
            return 200, {}, self.files[parts[1]]
        if method == "POST":
            request = json.loads(body)
            made = self.make_batch(request["input_file_id"], request.get("metadata") or {})
            return 200, {}, json.dumps(made).encode()
        if len(parts) == 1:
            data = list(reversed(self.batches.values()))
            return 200, {}, json.dumps({"object": "list", "data": data, "has_more": False}).encode()
        batch = self.batches[parts[1]]
        if time.time() - batch["created_at"] >= self.options.latency:
            batch["status"] = "completed"
        return 200, {}, json.dumps(batch).encode()

    def make_batch(self, file: str, metadata: dict) -> dict:
        lines = []
        for line in self.files[file].splitlines():
            row = json.loads(line)
            self.seen[row["custom_id"]] += 1
            reply = chat_reply("/chat/completions", row["body"])
            response = {"status_code": 200, "request_id": "r", "body": reply}
            lines.append(json.dumps({"id": "b", "custom_id": row["custom_id"], "response": response, "error": None}))
        self.files[output := f"file-{uuid.uuid4().hex}"] = "\n".join(lines).encode() + b"\n"
        batch = {
            "id": f"batch-{uuid.uuid4().hex}", "object": "batch", "endpoint": "/v1/chat/completions",
            "input_file_id": file, "completion_window": "24h", "status": "in_progress", "output_file_id": output,
            "created_at": int(time.time()), "metadata": metadata,
        }  # fmt: skip
        self.batches[batch["id"]] = batch
        return batch


def chat_reply(path: str, request: dict) -> dict:
    messages = request["messages"]
    system = request.get("system") or messages[0]["content"]
    text, finish = answer_for([m for m in messages if m["role"] != "system"], system)
    tokens = {"prompt": sum(len(m["content"]) for m in messages) // 4, "completion": len(text) // 4}
    if path == "/messages":
        return {
            "id": "m", "type": "message", "role": "assistant", "model": request["model"],
            "content": [{"type": "text", "text": text}],
            "stop_reason": {"stop": "end_turn", "content_filter": "refusal"}[finish],
            "usage": {"input_tokens": tokens["prompt"], "output_tokens": tokens["completion"]},
        }  # fmt: skip
    message = {"role": "assistant", "content": text, "refusal": None}
    return {
        "id": "c", "object": "chat.completion", "created": 0, "model": request["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": tokens["prompt"], "completion_tokens": tokens["completion"], "total_tokens": 0},
    }  # fmt: skip


def file_reply(name: str, size: int) -> dict:
    return {
        "id": name, "object": "file", "bytes": size, "created_at": 0, "filename": "f", "purpose": "batch",
        "status": "processed",
    }  # fmt: skip


def part_of(body: bytes, content_type: str) -> bytes:
    """The file of a multipart form."""
    boundary = b"--" + content_type.split("boundary=")[1].encode()
    part = next(p for p in body.split(boundary) if b'name="file"' in p)
    return part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")


def vars_of(server: Server) -> dict:
    return {
        "calls": server.calls, "most_in_flight": server.most_in_flight, "too_many": server.too_many,
        "batches": len(server.batches), "batched": sum(server.seen.values()),
    }  # fmt: skip


def error(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "error", "code": None}}).encode()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--key", default="")
    parser.add_argument("--expire-after", type=int, default=0)
    parser.add_argument("--fail-every", type=int, default=0)
    parser.add_argument("--requests-per-minute", type=int, default=0)
    parser.add_argument("--burst", type=int, default=10)

    async def serve() -> None:
        server = await asyncio.start_server(Server(parser.parse_args()).serve, "127.0.0.1", 0, limit=1 << 24)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
