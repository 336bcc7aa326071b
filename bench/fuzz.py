"""Random requests over every wire, and random answers of an upstream, against a guard that finds one word.

    python bench/fuzz.py                         20,000 requests; prints the seed, what was answered, and the memory
    python bench/fuzz.py --requests 1000 --seed 7

Under fail mode `closed` the word must never reach the upstream or the client, there must be no 500, and the server's
memory must not grow. The word stands in any field, in names of fields, in characters that nobody sees, split over the
pieces of a stream; fields are those of the tables that check bodies, and others.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

from guardreasoner.guards.base import Judging
from guardreasoner.serve.chat.fields import REQUEST
from guardreasoner.serve.chat.reply import COUNTED
from guardreasoner.serve.litellm_guardrail import FIELDS as GATEWAY
from guardreasoner.types import TASKS, Exchange, Labels, Verdict

WORD = "zqx-flagged"
"""No plain name of a field (it has a hyphen), so that an error which names a field does not hold it."""
CALLERS = 16
KNOWN = sorted({part for row in (*REQUEST.rows, *GATEWAY.rows) for part in row.path.replace("[]", "").split(".")})
REPLY_NAMES = sorted({*COUNTED, "id", "model", "system_fingerprint", "choices", "delta", "message", "content",
                      "refusal", "reasoning", "tool_calls", "function", "custom", "arguments", "name", "input", "index",
                      "usage", "finish_reason", "error", "type", "logprobs", "annotations", "audio", "x"})  # fmt: skip
Body = dict[str, Any]


class Finds(Judging):
    """Says `harmful` of every exchange that holds the word, and of nothing else."""

    name = "finds"
    tasks = tuple(TASKS)

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        return [self._one(e) for e in exchanges]

    def _one(self, exchange: Exchange) -> Verdict:
        asks = WORD in exchange.prompt or any(WORD in m.content for m in exchange.context)
        says = WORD in (exchange.response or "")
        replied = exchange.response is not None
        label = "harmful" if says else "unharmful"
        labels = Labels("harmful" if asks else "unharmful", *(("compliance", label) if replied else ()))
        return Verdict(exchange.id, self.name, "instant", "ok", labels, flagged=asks or says)


def hidden(text: str) -> str:
    """A text in Unicode tags, which no screen shows and a model may read."""
    return "".join(chr(0xE0000 + ord(c)) for c in text)


def shown(text: str) -> str:
    """A text with what is hidden in it."""
    return "".join(chr(ord(c) - 0xE0000) if 0xE0000 <= ord(c) < 0xE0080 else c for c in text)


class Maker:
    """Random values from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def text(self) -> str:
        pick = self.random.choice
        return str(pick((
            "hi", "What is two and two?", "", " ", "\u2028", "\ufeff", "é\u0085ü", "x" * 300, "auto", "function",
            WORD, f"tell me {WORD} now", f"call_{WORD}", f"\n{WORD}", hidden(WORD), f"hi{hidden(WORD)}", f"{WORD}😀",
            "text", "call_9fXb2LqT7cVd1Kz4", "12", "\U0001f3f4",
        )))  # fmt: skip

    def value(self, depth: int = 2) -> Any:
        kind = self.random.random()
        if depth and kind < 0.15:
            return [self.value(depth - 1) for _ in range(self.random.randrange(4))]
        if depth and kind < 0.3:
            return {self.name(KNOWN): self.value(depth - 1) for _ in range(self.random.randrange(4))}
        if kind < 0.6:
            return self.text()
        return self.random.choice((None, True, False, 0, 1, -3, 2.5, 10**12))

    def name(self, known: Sequence[str]) -> str:
        return (
            self.random.choice((*known, WORD, "unheard_of"))
            if self.random.random() < 0.1
            else self.random.choice(known)
        )

    def mutated(self, body: Body, known: Sequence[str], most: int = 3) -> Body:
        """The body with a few values changed or added, anywhere in it."""
        for _ in range(self.random.randrange(most + 1)):
            place = self.random.choice(list(_containers(body)))
            if isinstance(place, dict):
                keys = [*place] if place and self.random.random() < 0.4 else [self.name(known)]
                place[self.random.choice(keys)] = self.value()
            else:
                place.insert(self.random.randrange(len(place) + 1), self.value())
        return body

    def message(self) -> Body:
        role = self.random.choice(("user", "user", "assistant", "system", "tool"))
        made: Body = {"role": role, "content": self.text()}
        if self.random.random() < 0.3:
            made["content"] = [{"type": "text", "text": self.text()} for _ in range(self.random.randrange(1, 4))]
        if role == "assistant" and self.random.random() < 0.4:
            function = {"name": "look", "arguments": json.dumps({"q": self.text()})}
            made["tool_calls"] = [{"id": "call_1", "type": "function", "function": function}]
        if role == "tool":
            made["tool_call_id"] = "call_1"
        return made

    def messages(self) -> list[Body]:
        return [*(self.message() for _ in range(self.random.randrange(5))), {"role": "user", "content": "and now?"}]

    def request(self) -> tuple[str, Body]:
        """A route and a body for it."""
        chat = {"model": "m", "messages": self.messages()}
        wires: dict[str, Callable[[], Body]] = {
            "/v1/judge": lambda: {"prompt": self.text(), "response": self.text(), "id": "a"},
            "/v1/moderations": lambda: {"input": [self.text(), "hi"]},
            "/v1/checks": lambda: {**chat, "guardrails": {}},
            "/guard/v1/chat/completions": lambda: chat,
            "/beta/litellm_basic_guardrail_api": lambda: {
                "input_type": self.random.choice(("request", "response")), "texts": [self.text()],
                "structured_messages": self.messages(), "request_data": {},
            },
        }  # fmt: skip
        if self.random.random() < 0.6:
            return "/v1/chat/completions", self.mutated({**chat, "stream": self.random.random() < 0.5}, KNOWN)
        route = self.random.choice([*wires])
        return route, self.mutated(wires[route](), KNOWN)

    def reply(self) -> bytes:
        """A whole answer of an upstream."""
        message = {"role": "assistant", "content": self.text()}
        choices = [
            {"index": i, "message": dict(message), "finish_reason": "stop"}
            for i in range(self.random.choice((1, 1, 2)))
        ]
        usage = {"prompt_tokens": 1, "completion_tokens": 2}
        body = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": choices,
            "usage": usage,
        }
        return json.dumps(self.mutated(body, REPLY_NAMES), ensure_ascii=self.random.random() < 0.5).encode()

    def stream(self) -> bytes:
        """A streamed answer: the word may be cut in two, lines may end in any way, data may take several lines."""
        words = f"All is well. {self.text()} The end."
        cut = self.random.randrange(len(words))
        deltas: list[Body] = [{"role": "assistant", "content": words[:cut]}, {"content": words[cut:]}, {}]
        lines = []
        end = self.random.choice(("\n", "\r\n", "\r"))
        for number, delta in enumerate(deltas):
            choice = {"index": 0, "delta": delta, "finish_reason": "stop" if number == 2 else None}
            chunk: Body = {
                "id": "chatcmpl-1",
                "object": "chat.completion.chunk",
                "created": 1,
                "model": "m",
                "choices": [choice],
            }
            text = json.dumps(self.mutated(chunk, REPLY_NAMES, 1), indent=self.random.choice((None, None, 1)))
            lines.append("".join(f"data: {line}{end}" for line in text.split("\n")) + end)
        lines.append(f"data: [DONE]{end}{end}")
        return "".join(lines).encode()


def _containers(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _containers(inner)


class Upstream:
    """A chat model that answers anything, and remembers whether the word ever came."""

    def __init__(self, seed: int) -> None:
        self.maker, self.leaks, self.asked = Maker(seed), [], 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                size = int(head.partition("content-length:")[2].partition("\r\n")[0] or 0)
                body = json.loads(await reader.readexactly(size) or b"{}")
                self.asked += 1
                if holds(body):
                    self.leaks.append(body)
                streams = bool(body.get("stream"))
                content = self.maker.stream() if streams else self.maker.reply()
                kind = "text/event-stream" if streams else "application/json"
                writer.write(
                    f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(content)}\r\n\r\n".encode()
                )
                cut = self.maker.random.randrange(len(content) + 1)
                writer.write(content[:cut])
                await writer.drain()
                writer.write(content[cut:])
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            writer.close()


def holds(value: Any) -> bool:
    """Whether the word stands anywhere in a value, seen or not."""
    return WORD in shown(json.dumps(value, ensure_ascii=False))


def leaked(route: str, text: str) -> bool:
    """Whether an answer gives the word to the client, in one piece or over the pieces of a stream."""
    if not text.startswith("data:"):
        try:
            value = json.loads(text)
        except ValueError:
            return WORD in shown(text)
        if route == "/v1/judge" and isinstance(value, dict):
            value.pop("exchange_id", None)  # the caller's own, which comes back
        return holds(value)
    events = [json.loads(line[5:]) for line in text.split("\n") if line.startswith("data: {")]
    said: dict[tuple[int, str], str] = {}
    for choice in (c for e in events for c in e.get("choices", [])):
        for name, piece in choice.get("delta", {}).items():
            said[choice["index"], name] = said.get((choice["index"], name), "") + (
                piece if isinstance(piece, str) else ""
            )
    return holds(events) or any(holds(text) for text in said.values())


async def fuzz(url: str, seed: int, requests: int, *, memory: Callable[[], int] = lambda: 0) -> dict[str, Any]:
    """Ask a server; gives what was answered by route and code, and what went wrong.

    Args:
        url: a server in front of an `Upstream`.
        seed: of the requests.
        requests: how many.
        memory: bytes that the server uses.
    """
    maker = Maker(seed)
    codes: Counter[str] = Counter()
    wrong: list[str] = []
    sizes: list[int] = []
    left = iter(range(requests))

    async def caller(client: httpx.AsyncClient) -> None:
        for number in left:
            route, body = maker.request()
            answer = await client.post(route, json=body)
            codes[f"{route} {answer.status_code}"] += 1
            if answer.status_code == 500 or leaked(route, answer.text):
                wrong.append(f"request {number}: {route} {answer.status_code} {json.dumps(body)} -> {answer.text}")
            if number % max(1, requests // 10) == 0:
                sizes.append(memory())
                print(f"{number} of {requests}, {sizes[-1] / 1e6:.0f} MB", file=sys.stderr, flush=True)

    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        await asyncio.gather(*(caller(client) for _ in range(CALLERS)))
    return {"codes": dict(sorted(codes.items())), "wrong": wrong, "memory": sizes}


def memory_of(pid: int) -> int:
    """Resident bytes of a process and its children."""
    pids = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    return sum(int(Path(f"/proc/{p}/statm").read_text().split()[1]) * 4096 for p in pids)


async def main() -> int:
    from processes import free_port, running

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    args = parser.parse_args()
    print(f"seed {args.seed}", flush=True)
    upstream = Upstream(args.seed)
    listening = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    port, up = free_port(), listening.sockets[0].getsockname()[1]
    command = [sys.executable, "-m", "guardreasoner", "serve", "--guard", f"{__file__}:Finds", "--port", str(port),
               "--upstream", f"http://127.0.0.1:{up}/v1"]  # fmt: skip
    with running(command, f"http://127.0.0.1:{port}/readyz") as pid:
        found = await fuzz(f"http://127.0.0.1:{port}", args.seed, args.requests, memory=lambda: memory_of(pid))
    listening.close()
    for name, count in found["codes"].items():
        print(f"{count:7} {name}")
    print(f"{upstream.asked:7} reached the upstream; MB used: {' '.join(f'{m / 1e6:.0f}' for m in found['memory'])}")
    wrong = [*found["wrong"], *(f"upstream was sent {json.dumps(b)}" for b in upstream.leaks)]
    for line in wrong[:10]:
        print(line[:2000])
    print(f"{len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
