"""A stand-in for the model behind the proxy: every chat request gets the same reply, whole or streamed.

python upstream.py [PORT]     (9000)
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WORDS = ("Boil", " it", " for", " seven", " minutes.")


def chunk(delta, finish=None):
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0, "model": "mock", "choices": [choice]}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def completion():
    message = {"role": "assistant", "content": "".join(WORDS)}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 8, "completion_tokens": len(WORDS), "total_tokens": 8 + len(WORDS)}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": "mock"}
    return json.dumps({**head, "choices": [choice], "usage": usage}).encode()


class Upstream(BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        streamed = asked.get("stream", False)
        body = b"".join([*(chunk({"content": word}) for word in WORDS), chunk({}, "stop"), b"data: [DONE]\n\n"])
        body = body if streamed else completion()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream" if streamed else "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        body = json.dumps({"object": "list", "data": [{"id": "mock", "object": "model"}]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing: what is asked is not written down."""


if __name__ == "__main__":
    with ThreadingHTTPServer(("", int((sys.argv[1:] or [9000])[0])), Upstream) as server:
        server.serve_forever()
