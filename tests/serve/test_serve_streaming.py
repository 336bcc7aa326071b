"""Steps reach the caller while the guard still reasons, each once; a caller who leaves ends the reasoning."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from patience import PATIENCE, until
from serve import fake_guards
from serve.running import Served, serving

PATIENT = {"deadline_s": PATIENCE}


def events(answer: httpx.Response) -> Iterator[tuple[str, dict]]:
    """Each event as it arrives."""
    kind = ""
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            yield kind, json.loads(value)


def asked(prompt: str, mode: str) -> dict[str, object]:
    return {"prompt": prompt, "mode": mode, "stream": True}


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder for a guard to be told of: its path is plain words, in which no disguise can be undone."""
    letters = "".join(chr(ord("a") + int(digit)) for digit in str(os.getpid()))
    path = Path(tempfile.gettempdir()) / f"waiting-{letters}"
    path.mkdir()
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def waiting() -> Iterator[Served]:
    with serving(PATIENT, guard=fake_guards.waiting) as running:
        yield running


@pytest.mark.parametrize("mode", ["full", "auto"])
def test_the_first_step_is_there_before_the_guard_may_write_the_second(waiting, place, mode):
    body = asked(f"unsure WAIT:{place}", mode)
    with waiting.http.stream("POST", "/v1/judge", json=body) as answer:
        got = events(answer)
        first = next(got)
        assert not (place / "go").exists()  # the guard cannot have gone on
        (place / "go").touch()
        rest = list(got)
    assert (place / "finished").exists()
    *steps, (kind, verdict) = [first, *rest]
    assert kind == "verdict"
    assert {kind for kind, _ in steps} == {"step"}
    assert [step for _, step in steps] == verdict["steps"]
    assert [step["text"] for step in verdict["steps"]] == [step.text for step in fake_guards.WAITING_STEPS]
    assert (verdict["mode"], verdict["status"]) == ("full", "ok")


def test_a_caller_who_leaves_in_the_middle_ends_the_reasoning(waiting, place):
    pid, before = waiting.core.worker.pid, waiting.metric("cancelled_total")
    body = asked(f"WAIT:{place}", "full")
    with httpx.stream("POST", f"{waiting.url}/v1/judge", json=body, timeout=PATIENCE) as answer:
        next(events(answer))
    until(lambda: waiting.metric("cancelled_total") > before)
    (place / "go").touch()
    answer = waiting.http.post("/v1/judge", json={"prompt": "the next one", "mode": "full"})
    assert answer.json()["status"] == "ok"
    assert (place / "stopped").exists()
    assert not (place / "finished").exists()
    assert waiting.core.worker.pid == pid  # the guard itself was not harmed


def test_a_step_that_was_said_before_the_guard_died_is_not_said_again(place):
    with serving(PATIENT, guard=fake_guards.waiting) as served:
        with served.http.stream("POST", "/v1/judge", json=asked(f"DIE:{place}", "full")) as answer:
            *steps, (_, verdict) = list(events(answer))
        assert served.core.worker.starts == 2
    assert [step for _, step in steps] == verdict["steps"]
    assert len(verdict["steps"]) == len(fake_guards.WAITING_STEPS)
