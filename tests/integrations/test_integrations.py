"""The in-process integrations, each inside the real package in an environment of its own."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from serve.peers import peer, quiet_env
from serve.running import upstream
from serve.test_serve_peers import BLOCKED, ask, free_port, running, user

HERE = Path(__file__).parent
SOURCES = Path(__file__).parents[2] / "src"
PAGE = Path(__file__).parents[2] / "docs" / "integrations.md"
CONFIG = """
model_list:
  - model_name: chat
    litellm_params: {model: openai/chat, api_base: "UPSTREAM", api_key: none}
guardrails:
  - guardrail_name: guardreasoner
    litellm_params:
      guardrail: guard_for_litellm.WordGuardReasoner
      mode: [pre_call, post_call]
      default_on: true
      window: last_n
"""


def script(name: str, cases: int, tmp_path: Path, python: Path | None = None) -> None:
    """Run a script where the package is, with a fresh home; it must say how many cases it passed."""
    (tmp_path / ".guardrailsrc").write_text("id=none\nenable_metrics=false\nuse_remote_inferencing=false\n")
    env = quiet_env(HOME=str(tmp_path), PYTHONPATH=os.pathsep.join((str(SOURCES), str(HERE))))
    command = [str(python or peer(name)), str(HERE / f"script_{name}.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().splitlines()[-1] == f"passed {cases}"


@pytest.mark.slow
def test_the_langchain_middleware_in_a_real_agent(tmp_path):
    script("langchain", 15, tmp_path)


@pytest.mark.slow
def test_the_langchain_middleware_with_nano_in_a_long_conversation(tmp_path):
    script("history", 3, tmp_path, peer("langchain"))


@pytest.mark.slow
def test_the_guardrails_validator_in_a_real_guard(tmp_path):
    script("gai", 7, tmp_path)


@pytest.mark.slow
def test_the_litellm_guardrail_in_a_real_proxy(tmp_path):
    program = peer("litellm").parent / "litellm"
    for name in ("guard_for_litellm.py", "script_guard.py"):
        shutil.copy(HERE / name, tmp_path)
    with upstream() as up:
        (tmp_path / "litellm.yaml").write_text(CONFIG.replace("UPSTREAM", up.url))
        url = f"http://127.0.0.1:{(port := free_port())}"
        master = f"sk-{secrets.token_hex(32)}"
        command = [str(program), "--config", str(tmp_path / "litellm.yaml"), "--port", str(port), "--host", "127.0.0.1"]
        given = {"LITELLM_MASTER_KEY": master, "PYTHONPATH": str(SOURCES)}
        headers = {"authorization": f"Bearer {master}"}
        with running(command, f"{url}/health/liveliness", **given), httpx.Client(base_url=url, timeout=60) as client:
            client.headers.update(headers)
            assert ask(client, user("hi")).json()["choices"][0]["message"]["content"] == "Hello there."
            up.seen.clear()
            blocked = ask(client, user("bad"))
            assert (blocked.status_code, BLOCKED in blocked.text, up.seen) == (400, True, [])
            broken = ask(client, user("RAISE"))
            assert "not judged" in broken.text
            assert "planted" not in broken.text
            talk = [user("bad thing"), {"role": "assistant", "content": BLOCKED}, user("and two and two?")]
            assert ask(client, *talk).status_code == 200
            assert [m["content"] for m in up.seen[-1]["messages"]] == [BLOCKED, BLOCKED, "and two and two?"]
            up.reply = lambda body: "a bad plan"
            assert BLOCKED in ask(client, user("hello")).text


def marked(mark: str) -> str:
    """The block of docs/integrations.md under a mark."""
    found = re.search(rf"<!-- {mark} -->\n```\w+\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert found is not None, mark
    return found[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("langchain", ["Boil it for seven minutes.", "I can't help with that."]),
        ("gai", ["True", "False", BLOCKED]),
    ],
)
def test_the_examples_of_the_page_run_as_written(name, printed, tmp_path):
    (tmp_path / ".guardrailsrc").write_text("id=none\nenable_metrics=false\nuse_remote_inferencing=false\n")
    (tmp_path / "example.py").write_text(marked(f"test: {name}"))
    command = [str(peer(name)), str(tmp_path / "example.py")]
    env = quiet_env(HOME=str(tmp_path), PYTHONPATH=str(SOURCES))
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().splitlines() == printed


@pytest.mark.slow
def test_the_litellm_example_of_the_page_runs_as_written(tmp_path):
    program = peer("litellm").parent / "litellm"
    for name in ("guard.py", "litellm.yaml"):
        (tmp_path / name).write_text(marked(f"file: {name}"))
    key, serve, *asked = marked("test: litellm").replace("\\\n", " ").strip().splitlines()
    assert key.startswith("export LITELLM_MASTER_KEY=")
    assert serve == "litellm --config litellm.yaml --port 4000"
    url = f"127.0.0.1:{(port := free_port())}"
    command = [str(program), "--config", str(tmp_path / "litellm.yaml"), "--port", str(port), "--host", "127.0.0.1"]
    given = {"LITELLM_MASTER_KEY": f"sk-{secrets.token_hex(32)}", "PYTHONPATH": str(SOURCES)}
    with running(command, f"http://{url}/health/liveliness", **given):
        egg, virus = (
            subprocess.run(
                ["sh", "-c", line.replace("localhost:4000", url)],
                capture_output=True,
                text=True,
                timeout=60,
                env=quiet_env(**given),
            ).stdout
            for line in asked
        )
    assert ("seven minutes" in egg, BLOCKED in virus, "seven minutes" in virus) == (True, True, False), (egg, virus)


@pytest.mark.parametrize("name", ["langchain", "litellm", "guardrails_ai"])
def test_without_the_package_an_integration_says_what_to_install(name):
    blocked = "import sys; sys.modules.update(dict.fromkeys(('langchain', 'litellm', 'guardrails', 'langchain_core')))"
    code = f"{blocked}; import guardreasoner.integrations.{name}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "is not installed; run: pip install" in done.stderr.splitlines()[-1]
