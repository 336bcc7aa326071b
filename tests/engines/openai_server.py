"""A server that speaks OpenAI's protocol over a toy model, on a thread, for tests.

`script` is a list of things that happen to the next calls, in order: an HTTP status, `(status, body, headers)`,
`"hang"`, `"garbage"` (HTTP 200 and no JSON), `"drop"` (the connection is closed), a dict (that very body). When it is
empty the toy model answers: completions go on with the value of the longest key of `knows` that the prompt ends in,
word by word.
"""

import json
import math
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PIECE = re.compile(r" ?\w+|\n|[^\w]")


class OpenAIServer:
    """Context manager; `url` ends in /v1."""

    def __init__(self, knows=None, *, latency=0.0, echo=True, top=20):
        self.knows, self.latency, self.echo, self.top = dict(knows or {}), latency, echo, top
        self.script, self.calls, self.headers = [], [], []
        self.in_flight = self.most_in_flight = 0
        self._lock = threading.Lock()

    def __enter__(self):
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                server.handle(self)

            def log_message(self, *args):
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._http.server_close()

    def handle(self, handler):
        body = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        with self._lock:
            self.calls.append((handler.path, body))
            self.headers.append({k.lower(): v for k, v in handler.headers.items()})
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            event = self.script.pop(0) if self.script else None
        try:
            time.sleep(self.latency)
            if event == "hang":
                time.sleep(3)
            elif event == "drop":
                handler.connection.shutdown(socket.SHUT_RDWR)
                return
            self._answer(handler, body, event)
        except OSError:
            pass
        finally:
            with self._lock:
                self.in_flight -= 1

    def _answer(self, handler, body, event):
        status, content, headers = 200, b"", {}
        if event == "garbage":
            content = b"<html>gateway</html>"
        elif isinstance(event, int):
            status, content = event, b'{"error": {"message": "no"}}'
        elif isinstance(event, tuple):
            status, content, headers = event[0], json.dumps(event[1]).encode(), event[2]
        elif isinstance(event, dict):
            content = json.dumps(event).encode()
        else:
            reply = self.chat(body) if handler.path.endswith("/chat/completions") else self.complete(body)
            content = json.dumps(reply).encode()
        handler.send_response(status)
        for name, value in {"content-type": "application/json", "x-request-id": "r1", **headers}.items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def next_pieces(self, text):
        keys = [k for k in self.knows if text.endswith(k)]
        return PIECE.findall(self.knows[max(keys, key=len)]) if keys else []

    def logprobs(self, text):
        """The likeliest next piece has 0.7, ` harmful` and ` refusal` share 0.2."""
        first = (self.next_pieces(text) or ["."])[0]
        shares = {" harmful": 0.1, " refusal": 0.1, first: 0.7}
        return {token: math.log(p) for token, p in list(shares.items())[-self.top :]}

    def complete(self, body):
        prompt = body["prompt"]
        text = prompt if isinstance(prompt, str) else "".join(chr(i) for i in prompt)
        pieces = self.next_pieces(text)
        made = "".join(pieces[: body["max_tokens"]])
        finish = "length" if len(pieces) > body["max_tokens"] else "stop"
        for stop in body.get("stop") or []:
            if stop in made:
                made, finish = made[: made.index(stop)], "stop"
        found = None
        if body.get("logprobs"):
            tops = self.logprobs(text)
            found = {
                "tokens": [max(tops, key=tops.get)],
                "token_logprobs": [max(tops.values())],
                "text_offset": [len(text)],
            }
            found["top_logprobs"] = [tops]
            if body.get("echo") and self.echo:
                found = self._echoed(text)
        used = {"prompt_tokens": len(prompt), "completion_tokens": len(PIECE.findall(made)), "total_tokens": 0}
        choice = {"text": made, "index": 0, "finish_reason": finish, "logprobs": found}
        return {"id": "c", "object": "text_completion", "created": 0, "model": "m", "choices": [choice], "usage": used}

    def _echoed(self, text):
        tokens, offsets, values = [], [], []
        for match in PIECE.finditer(text):
            tokens.append(match.group())
            offsets.append(match.start())
            tops = self.logprobs(text[: match.start()])
            values.append(None if match.start() == 0 else tops.get(match.group(), math.log(1e-3)))
        return {"tokens": tokens, "token_logprobs": values, "text_offset": offsets, "top_logprobs": None}

    def chat(self, body):
        text = body["messages"][-1]["content"]
        pieces = self.next_pieces(text)
        budget = body.get("max_tokens") or body.get("max_completion_tokens")
        message = {"role": "assistant", "content": "".join(pieces[:budget])}
        choice = {"index": 0, "message": message, "finish_reason": "length" if len(pieces) > budget else "stop"}
        used = {"prompt_tokens": 7, "completion_tokens": min(len(pieces), budget), "total_tokens": 0}
        return {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": used}
