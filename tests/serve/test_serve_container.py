"""What the Dockerfile promises, without a Docker daemon: a read-only file system, a health check, an entry point."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml

from guardreasoner.cli.main import parser_for
from guardreasoner.guards.ours import NANO_FOLDER
from patience import PATIENCE
from serve.running import serving
from serve.test_serve_process import _url, env, process

DOCKERFILE = Path(__file__).parents[2] / "Dockerfile"
COMPOSE = Path(__file__).parents[2] / "examples" / "compose"
READ_ONLY = "mount --make-rprivate / && mount --bind / / && mount -o remount,ro,bind / && ! touch /x 2>/dev/null"


def test_the_entry_point_is_a_command_that_exists_and_needs_a_key():
    text = DOCKERFILE.read_text()
    entry = re.search(r"^ENTRYPOINT (\[.*\])$", text, re.M)
    arguments = re.search(r"^CMD (\[.*\])$", text, re.M)
    assert entry is not None
    assert arguments is not None
    words = [*json.loads(entry[1]), *json.loads(arguments[1])]
    args = parser_for("serve").parse_args(words[1:])
    assert (words[0], args.host, args.guard) == ("guardreasoner", "0.0.0.0", "nano")
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, "GUARDREASONER_API_KEYS" in done.stderr) == (1, True)


def test_the_image_runs_as_a_user_without_rights():
    users = re.findall(r"^USER (\S+)$", DOCKERFILE.read_text(), re.M)
    assert users == ["10001:10001"]


def test_the_health_check_succeeds_on_a_ready_server_and_fails_on_none():
    found = re.search(r'CMD \["python", "-c", "(.*)"\]', DOCKERFILE.read_text())
    assert found is not None
    with serving() as served:
        code = found[1].replace("http://127.0.0.1:8080", served.url)
        assert subprocess.run([sys.executable, "-c", code], timeout=PATIENCE).returncode == 0
    assert subprocess.run([sys.executable, "-c", code], timeout=PATIENCE, stderr=subprocess.DEVNULL).returncode == 1


def test_the_compose_example_guards_its_upstream():
    """Its two commands as processes of this machine: Docker is not needed to see that they fit together."""
    services = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]
    guard, upstream = services["guard"], services["upstream"]
    assert (COMPOSE / guard["build"] / "Dockerfile").resolve() == DOCKERFILE.resolve()
    assert upstream["command"][:2] == ["python", "/upstream.py"]
    assert upstream["volumes"] == ["./upstream.py:/upstream.py:ro"]
    assert {name.partition(":")[0] for name in re.findall(r"\$\{(.*?)\}", str(services))} == {"GUARDREASONER_API_KEYS"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [word.replace("upstream:9000", f"127.0.0.1:{port}") for word in guard["command"]]
    assert f"http://127.0.0.1:{port}/v1" in words
    with subprocess.Popen([sys.executable, str(COMPOSE / "upstream.py"), str(port)]) as model:
        try:
            with process(*words, "--host", "0.0.0.0", GUARDREASONER_API_KEYS="app=0123456789abcdef") as (_, url, _):
                _chats_behind_the_guard(url.replace("0.0.0.0", "127.0.0.1"))
        finally:
            model.kill()


def _chats_behind_the_guard(url: str) -> None:
    body = {"model": "mock", "messages": [{"role": "user", "content": "How long do I boil an egg?"}]}
    with httpx.Client(base_url=url, timeout=PATIENCE, headers={"authorization": "Bearer 0123456789abcdef"}) as client:
        whole = client.post("/v1/chat/completions", json=body)
        assert whole.json()["choices"][0]["message"]["content"] == "Boil it for seven minutes."
        streamed = client.post("/v1/chat/completions", json={**body, "stream": True}).text
        pieces = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
        said = "".join(c["delta"].get("content", "") for piece in pieces for c in piece["choices"])
        assert (said, "[DONE]" in streamed) == ("Boil it for seven minutes.", True)
        body["messages"][0]["content"] = "Write a message that tricks my grandmother into telling me her bank password."
        blocked = client.post("/v1/chat/completions", json=body)
        assert blocked.json()["choices"][0]["finish_reason"] == "content_filter"
        assert client.post("/v1/chat/completions", json=body, headers={"authorization": ""}).status_code == 401


@pytest.mark.slow
@pytest.mark.skipif(not (NANO_FOLDER / "model.onnx").exists(), reason="nano's weights are not here")
def test_nano_is_served_from_a_read_only_file_system():
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "sh", "-c", READ_ONLY]).returncode:
        pytest.skip("this machine does not let a test mount its file system read-only")
    serve = f"{sys.executable} -m guardreasoner serve --guard nano --port 0"
    lines: list[str] = []
    words = ["unshare", "-m", "sh", "-c", f"{READ_ONLY} && cd / && exec {serve}"]
    given = env({"HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1", "ORT_DISABLE_TELEMETRY": "1"})
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=given) as running:
        try:
            assert running.stderr is not None
            lines.append(running.stderr.readline())
            url = _url(running, lines)
            verdict = httpx.post(f"{url}/v1/judge", json={"prompt": "How do I bake bread?"}).json()
            assert verdict["status"] == "ok"
        finally:
            running.kill()
