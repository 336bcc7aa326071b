"""What the pages of the wires show is run as it is written, but for the port."""

import importlib.util
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from guardreasoner.serve.policy import ROUTES, policy_of
from guardreasoner.serve.wires.moderations import CROSSWALK
from serve import fake_guards
from serve.running import serving

DOCS = Path(__file__).parents[2] / "docs"
WIRES = DOCS / "wires"


def blocks(page: str, kind: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (WIRES / page).read_text(), re.S | re.M)
    return [text for name, text in found if name == kind]


def test_there_is_a_page_for_every_wire():
    pages = {route.partition("_")[0] for route in ROUTES}  # `nemo_model` is on the page of `nemo`
    assert {p.stem for p in WIRES.glob("*.md")} == pages
    assert len(pages) >= 5


@pytest.mark.parametrize("page", ["judge.md", "nemo.md"])
def test_the_curl_commands_of_the_pages_are_answered(served, page):
    commands = [b[b.index("curl") :] for b in blocks(page, "bash") if "curl" in b]
    assert commands
    for command in commands:
        words = shlex.split(command.replace("\\\n", " "))
        path = next(w for w in words if w.startswith("localhost")).removeprefix("localhost:8080")
        answer = served.http.post(path, json=json.loads(words[words.index("-d") + 1]))
        assert answer.status_code == 200, answer.text


def test_the_answer_that_the_servers_page_shows_is_what_the_bundled_guard_answers():
    text = (DOCS / "serve.md").read_text()
    (shown,) = re.findall(r"^```json\n(.*?)^```$", text, re.S | re.M)
    sent = re.search(r"-d '([^']+)'\n```\n\nThe answer is the whole verdict", text)[1]
    with serving(guard=fake_guards.bundled) as served:
        answer = served.http.post("/v1/judge", json=json.loads(sent)).json()
    assert json.loads(shown).items() <= answer.items()


def test_the_python_of_the_moderation_page_runs(served, capsys):
    pytest.importorskip("openai")
    (code,) = blocks("moderations.md", "python")
    exec(code.replace("http://127.0.0.1:8080", served.url), {})
    assert capsys.readouterr().out == "False ok\n"


def test_the_policies_of_the_pages_are_policies():
    found = [b for page in WIRES.glob("*.md") for b in blocks(page.name, "yaml") if b.startswith("version:")]
    assert found
    for text in found:
        policy_of(yaml.safe_load(text))


def test_the_crosswalk_of_the_page_is_the_one_that_is_used():
    rows = re.findall(r"^\| [^|`]+ \| ((?:`[a-z/-]+`(?:, )?)+) \|$", (WIRES / "moderations.md").read_text(), re.M)
    assert [tuple(re.findall(r"`([^`]+)`", row)) for row in rows] == [categories for _, categories in CROSSWALK]


def test_the_table_of_fields_is_the_one_that_checks():
    spec = importlib.util.spec_from_file_location("field_reference", DOCS / "fields.py")
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    assert reference.PAGE.read_text() == reference.page(), "docs/fields.md is stale: run `make docs`"
    assert {wire for wire, _ in reference.tables()} == set(ROUTES)
