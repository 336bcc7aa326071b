"""The server as a process: how it starts, what it says when it cannot, and how it ends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from patience import PATIENCE, until

TESTS = Path(__file__).parent.parent
GUARD = "serve.fake_guards:WordGuard"


@contextmanager
def process(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """`guardreasoner serve` on a free port; gives the process, its URL, and its standard error so far."""
    command = [sys.executable, "-m", "guardreasoner", "serve", "--port", "0", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env(environment)) as running:
        lines: list[str] = []
        assert running.stderr is not None
        reader = threading.Thread(target=lambda: lines.extend(iter(running.stderr.readline, "")), daemon=True)
        reader.start()
        try:
            yield running, _url(running, lines), lines
        finally:
            running.kill()
            reader.join(PATIENCE)


def env(more: dict[str, str]) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(TESTS), **more}


def _url(running: subprocess.Popen[str], lines: list[str]) -> str:
    def ready() -> str:
        assert running.poll() is None, "".join(lines)
        found = re.search(r"http://\S+:\d+", "".join(lines))
        with suppress(httpx.TransportError):
            return found[0] if found and httpx.get(f"{found[0]}/readyz").status_code == 200 else ""
        return ""

    return until(ready)


def failed(*arguments: str, **environment: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "guardreasoner", "serve", "--port", "0", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=env(environment))
    return done.returncode, done.stderr


def test_sigterm_under_load_loses_no_accepted_request():
    asyncio.run(_sigterm_under_load())


async def _sigterm_under_load() -> None:
    answered: list[tuple[int, dict]] = []
    turned_away: list[BaseException] = []

    async def caller(client: httpx.AsyncClient) -> None:
        while not turned_away:
            try:
                answer = await client.post("/v1/judge", json={"prompt": "bad SLEEP:0.01"})
                answered.append((answer.status_code, answer.json()))
            except httpx.TransportError as error:  # the door is closed, or closes on who stands in it
                turned_away.append(error)

    with process("--guard", GUARD, "--drain", "0.5") as (running, url, lines):
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as client:
            callers = [asyncio.create_task(caller(client)) for _ in range(12)]
            while len(answered) < 24:
                await asyncio.sleep(0.01)
            before = len(answered)
            running.send_signal(signal.SIGTERM)
            await asyncio.gather(*callers)
        assert running.wait(PATIENCE) == 0
    accepted = [line for line in lines if '"route": "judge"' in line]
    assert len(accepted) == len(answered)  # every request that the server took was answered, and the answer arrived
    assert 1 < before < len(answered)
    assert {code for code, _ in answered} <= {200, 429}
    assert all(v["flagged"] and v["status"] == "ok" for code, v in answered if code == 200)
    assert "stopping" in "".join(lines)


def test_a_stopped_server_leaves_with_zero_and_without_its_guard():
    with process("--guard", GUARD) as (running, url, _):
        httpx.post(f"{url}/v1/judge", json={"prompt": "hi"})
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        assert children
        running.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        assert httpx.get(f"{url}/readyz").json()["status"] == "draining"
        assert running.wait(PATIENCE) == 0
    until(lambda: not any(Path(f"/proc/{child}").exists() for child in children))


def test_a_killed_server_takes_a_hanging_guard_with_it():
    with process("--guard", GUARD) as (running, url, _):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/v1/judge", json={"prompt": "HANG"}, timeout=0.3)
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        running.kill()
        running.wait(PATIENCE)
        until(lambda: not any(Path(f"/proc/{child}").exists() for child in children))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--guard", "nanoo"], "did you mean 'nano'"),
        (["--guard", "serve.fake_guards:UnloadableGuard"], "the weights are not there"),
        (["--guard", GUARD, "--host", "0.0.0.0"], "GUARDREASONER_API_KEYS"),
        (["--guard", GUARD, "--host", "203.0.113.7", "--mode", "full"], "GUARDREASONER_API_KEYS"),
        (["--guard", GUARD, "--policy", "/nowhere.yaml"], "cannot be read"),
        (["--guard", GUARD, "--upstream", "http://user:pw-4711@host/v1"], "no user name, password"),
        (["--guard", GUARD, "--fail-mode", "ajar"], "fail_mode"),
    ],
)
def test_a_server_that_cannot_start_says_why_in_one_sentence(arguments, said):
    code, errors = failed(*arguments)
    assert code == 1
    assert said in errors
    assert "Traceback" not in errors
    assert "pw-4711" not in errors


def test_an_address_in_use_is_said():
    with process("--guard", GUARD) as (_, url, _):
        code, errors = failed("--guard", GUARD, "--port", url.rsplit(":", 1)[1])
    assert (code, "(Address already in use); give" in errors) == (1, True)


def test_flags_override_the_policy_and_secrets_are_in_no_output(tmp_path):
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\nfail_mode: closed\ndeadline_s: 5\nproxy: {on_block: error}\n")
    secrets = {"GUARDREASONER_API_KEYS": "web=planted-key-0123456789", "GUARDREASONER_UPSTREAM_KEY": "planted-up-key"}
    flags = ("--guard", GUARD, "--policy", str(policy), "--fail-mode", "open", "--upstream", "http://127.0.0.1:9/v1")
    with process(*flags, **secrets) as (_, url, lines):
        headers = {"authorization": "Bearer planted-key-0123456789"}
        verdict = httpx.post(f"{url}/v1/judge", json={"prompt": "RAISE"}, headers=headers).json()
        assert (verdict["fail_mode"], verdict["status"]) == ("open", "unavailable")
        body = {"model": "m", "messages": [{"role": "user", "content": "bad"}]}
        assert httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers).status_code == 400
        metrics = httpx.get(f"{url}/metrics", headers=headers).text
    assert "planted" not in "".join(lines) + metrics
    assert '"key": "web"' in "".join(lines)
