"""Starting and ending the servers that the benchmarks talk to."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence

QUIET = {
    "DO_NOT_TRACK": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOG": "ERROR",
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_TELEMETRY": "False",
    "NEMO_GUARDRAILS_DISABLE_CHAT_UI": "true",
    "NEMO_GUARDRAILS_IORAILS_ENGINE": "1",
    "NEMO_GUARDRAILS_NO_USAGE_STATS": "1",
    "NO_PROXY": "127.0.0.1",
    "OPENAI_API_KEY": "none",
    "OTEL_SDK_DISABLED": "true",
}
"""Logging, telemetry and remote price lists off; NeMo's faster engine (IORails) on."""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def running(command: Sequence[str], health: str | None, seconds: float = 120, **environment: str) -> Iterator[int]:
    """A server, until the block ends; gives its process id.

    Raises:
        RuntimeError: it does not answer at its health address in time.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryDirectory() as home:
        kept = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
        env = {**kept, **QUIET, "HOME": home, **environment}
        with subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=env) as process:
            try:
                end = time.monotonic() + seconds
                while health is not None and not _up(health):
                    if process.poll() is not None or time.monotonic() > end:
                        output.seek(0)
                        raise RuntimeError(f"{command[0]} does not answer: {output.read()[-2000:]}")
                    time.sleep(0.2)
                yield process.pid
            finally:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)
                process.kill()


def _up(health: str) -> bool:
    try:
        with urllib.request.urlopen(health, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
