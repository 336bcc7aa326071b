"""Kill the guard's process again and again under load, with hardly any file descriptors, and see it come back.

    python bench/kills.py                        20 times, `ulimit -n 64`, 100 connections that ask all the time

Prints the seconds until the guard judged again after each kill; all must be at most 5, and `guard_restarts_total` the
number of kills.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import resource
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import httpx

from processes import free_port, running

HERE = Path(__file__).parent
CONNECTIONS, DESCRIPTORS, LONGEST_S = 100, 64, 5.0
ASK = b"POST /v1/judge HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\r\n"
BODY = b'{"prompt":"hi"}'


class Load:
    """Callers that ask all the time, each on a connection of its own; more of them than there are descriptors."""

    def __init__(self, port: int, callers: int) -> None:
        self.port, self.done, self.judged = port, threading.Event(), 0.0
        """`time.monotonic()` seconds of the newest verdict."""
        self.threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(callers)]

    def _ask(self) -> None:
        while not self.done.is_set():
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5) as sock:
                while not self.done.is_set():
                    sock.sendall(ASK + BODY)
                    answer = sock.recv(65536)
                    if b'"status": "ok"' in answer:
                        self.judged = time.monotonic()
                    if not answer:
                        break
                    self.done.wait(0.3)
            self.done.wait(0.5)


def child_of(pid: int) -> int | None:
    """The guard's process, while there is one."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else None


def kill_once(pid: int, load: Load) -> float:
    """Kill the guard once it judges; gives the seconds until another process judges."""
    while (child := child_of(pid)) is None or time.monotonic() - load.judged > 1:
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    began = time.monotonic()
    while child_of(pid) in (None, child):
        time.sleep(0.005)
    there = time.monotonic()
    while load.judged < there and time.monotonic() - began < 60:
        time.sleep(0.005)
    return time.monotonic() - began


def restarts(url: str) -> int:
    """What the server says about it."""
    found = re.search(r"guard_restarts_total (\d+)", httpx.get(f"{url}/metrics", timeout=10).text)
    return int(found[1]) if found else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    args = parser.parse_args()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    serve = [sys.executable, "-m", "guardreasoner", "serve", "--guard", f"{HERE / 'scripted_guard.py'}:Scripted"]
    command = ["bash", "-c", f'ulimit -n {DESCRIPTORS}; exec "$@"', "serve", *serve, "--port", str(port)]
    with running(command, f"{url}/readyz") as pid:
        load = Load(port, CONNECTIONS)
        for thread in load.threads:
            thread.start()
        seconds = []
        for _ in range(args.times):
            seconds.append(kill_once(pid, load))
            print(f"{seconds[-1]:.2f}", end=" ", flush=True)
        load.done.set()
        for thread in load.threads:
            thread.join(10)
        counted = restarts(url)
    print(f"descriptors {DESCRIPTORS} (here {limits[0]}), {CONNECTIONS} connections, killed {args.times} times")
    print(f"\nslowest {max(seconds):.2f}; guard_restarts_total {counted}")
    return 0 if max(seconds) <= LONGEST_S and counted == args.times else 1


if __name__ == "__main__":
    sys.exit(main())
