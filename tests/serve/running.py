"""A real server on a loopback port, in a thread of its own, its guard in a process of its own."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from guardreasoner.serve.access.connection import FrontDoor
from guardreasoner.serve.access.keys import HostNames, Keys
from guardreasoner.serve.app import make_app
from guardreasoner.serve.core.judge import Core
from guardreasoner.serve.policy import policy_of
from guardreasoner.serve.run import Server, configuration
from patience import PATIENCE, until
from serve import fake_guards


@dataclass
class Served:
    """A running server."""

    url: str
    gate: FrontDoor
    http: httpx.Client

    @property
    def core(self) -> Core:
        return self.gate.app.state.core  # type: ignore[attr-defined, no-any-return]

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def metric(self, name: str, **labels: str) -> float:
        return self.gate.metrics.registry.get_sample_value(f"guardreasoner_{name}", labels) or 0.0


@contextmanager
def serving(
    policy: dict[str, Any] | None = None,
    *,
    guard: Callable[[], Any] = fake_guards.words,
    keys: Keys | None = None,
    names: HostNames | None = None,
    upstream_key: str | None = None,
    wait: bool = True,
) -> Iterator[Served]:
    """Serve until the block ends. A policy that says nothing of a deadline waits as long as a test does."""
    gate = make_app(
        guard, policy_of({"deadline_s": PATIENCE, **(policy or {})}), keys=keys, names=names, upstream_key=upstream_key
    )
    sock = socket.create_server(("127.0.0.1", 0))
    server = Server(configuration(gate), gate, drain_s=0.0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    worker = gate.app.state.core.worker  # type: ignore[attr-defined]
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    with httpx.Client(base_url=url, timeout=PATIENCE) as client:
        if wait:
            until(lambda: worker.broken or client.get("/readyz").status_code == 200, "the guard did not load")
            assert worker.broken is None, worker.broken
        yield Served(url, gate, client)
    server.should_exit = True
    thread.join(PATIENCE)
    assert not thread.is_alive()


@contextmanager
def busy(served: Served, place: Path) -> Iterator[Callable[[int], None]]:
    """The guard judges one exchange until the block ends, and what is asked meanwhile waits.

    Args:
        served: its guard is a `WordGuard`.
        place: an empty folder.

    Yields:
        What waits until so many exchanges wait.
    """
    core = served.core
    core.waiting.learn = lambda batch, seconds: None  # type: ignore[method-assign]  # it would take itself for slow
    with futures.ThreadPoolExecutor(1) as pool:
        held = pool.submit(httpx.post, f"{served.url}/v1/judge", json={"prompt": f"HOLD:{place}"}, timeout=PATIENCE)
        until((place / "began").exists)
        try:
            yield lambda number: until(lambda: len(core.waiting.items) == number) and None
        finally:
            (place / "go").touch()
            held.result()


@dataclass
class Upstream:
    """A chat model that answers what the test wrote down."""

    url: str
    seen: list[dict[str, Any]]
    headers: list[dict[str, str]]
    reply: Callable[[dict[str, Any]], Any]
    gone: threading.Event


@contextmanager
def upstream(reply: Callable[[dict[str, Any]], Any] = lambda body: "Hello there.") -> Iterator[Upstream]:
    """An OpenAI-compatible server. `reply` gives a text, a whole body, a list of stream pieces, a status, or bytes.

    In a list of stream pieces a text is a content delta, a dict a chunk, a number a pause, and None the death of the
    connection.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            return

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            state.seen.append(body)
            state.headers.append({k.lower(): v for k, v in self.headers.items()})
            try:
                answer(self, body, state.reply(body))
            except (BrokenPipeError, ConnectionResetError):
                state.gone.set()
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state = Upstream(f"http://127.0.0.1:{server.server_address[1]}/v1", [], [], reply, threading.Event())
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield state
    server.shutdown()
    server.server_close()


def answer(handler: BaseHTTPRequestHandler, body: dict[str, Any], reply: Any) -> None:
    if isinstance(reply, bytes):
        send_raw(handler, reply)
    elif isinstance(reply, int):
        send(handler, reply, {"error": {"message": "planted-upstream-words"}})
    elif isinstance(reply, list):
        stream(handler, reply)
    elif isinstance(reply, dict):
        send(handler, 200, reply)
    elif body.get("stream"):
        stream(handler, [reply[i : i + 5] for i in range(0, len(reply), 5)])
    else:
        send(handler, 200, completion(reply))


def completion(*texts: str) -> dict[str, Any]:
    choices = [
        {"index": i, "finish_reason": "stop", "message": {"role": "assistant", "content": t}}
        for i, t in enumerate(texts)
    ]
    usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": choices,
        "usage": usage,
    }


def send_raw(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """A stream as it stands."""
    handler.send_response(200)
    handler.send_header("content-type", "text/event-stream")
    handler.send_header("connection", "close")
    handler.end_headers()
    handler.close_connection = True
    handler.wfile.write(content)


def send(handler: BaseHTTPRequestHandler, status: int, value: Any) -> None:
    content = json.dumps(value).encode()
    handler.send_response(status)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def stream(handler: BaseHTTPRequestHandler, pieces: list[Any]) -> None:
    handler.send_response(200)
    handler.send_header("content-type", "text/event-stream")
    handler.send_header("connection", "close")
    handler.end_headers()
    handler.close_connection = True
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    for piece in pieces:
        if piece is None:
            return
        if isinstance(piece, int | float):
            time.sleep(piece)
            continue
        choice = {"index": 0, "delta": {"content": piece}, "finish_reason": None}
        chunk = piece if isinstance(piece, dict) else {**head, "choices": [choice]}
        handler.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        handler.wfile.flush()
    end = {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    handler.wfile.write(f"data: {json.dumps(end)}\n\ndata: [DONE]\n\n".encode())
