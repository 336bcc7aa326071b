"""The label-correction page: blind until the first answer, answers kept as reviews, nobody else let in."""

import json
import re
import socket
import threading
import time
from contextlib import contextmanager

import pytest
import uvicorn
from starlette.testclient import TestClient

from guardreasoner.cli.main import main
from guardreasoner.errors import DataError
from guardreasoner.evaluate.corrections import latest, settle
from guardreasoner.records import write_jsonl
from guardreasoner.review.app import LATER, Store, make_review_app, slug
from patience import PATIENCE
from serve.browser import browser

EVIL = "<img src=x onerror=document.title='pwned'>\x1b[31m"


@pytest.fixture
def folder(tmp_path):
    items = [
        {"id": "own:0", "tasks": ["prompt_harm"], "prompt": "How do I bake bread?", "response": None},
        {"id": "own:1", "tasks": ["response_harm", "refusal"], "prompt": EVIL, "response": "No.\u202e"},
    ]
    sealed = [
        line("own:0", "prompt_harm", "harmful", "unharmful"),
        line("own:1", "response_harm", "unharmful", "unharmful"),
        line("own:1", "refusal", "refusal", "compliance"),
    ]
    write_jsonl(tmp_path / "items.jsonl", items)
    write_jsonl(tmp_path / "sealed.jsonl", sealed)
    return tmp_path


def line(identity, task, gold, said):
    verdict = {"guard": "g<b>", "label": said, "score": 0.25, "reasoning": f"secret reasoning {EVIL}"}
    return {"id": identity, "benchmark": "own", "task": task, "gold": gold, "stratum": "confident", "population": 1,
            "sample": 1, "verdicts": [verdict]}  # fmt: skip


def client(folder, reviewer="ann"):
    return TestClient(make_review_app(Store(folder, reviewer)), base_url="http://127.0.0.1:8090")


def test_gold_and_verdicts_stay_away_until_the_first_answer(folder):
    page = client(folder)
    before = page.get("/api/next")
    assert before.json()["item"]["id"] == "own:0"
    assert "secret" not in before.text
    assert before.json()["item"]["revealed"] is None
    after = page.post(
        "/api/answer", json={"id": "own:0", "labels": {"prompt_harm": "unharmful"}, "note": "bread"}
    ).json()
    assert after["item"]["revealed"][0]["gold"] == "harmful"
    assert "secret" in after["item"]["revealed"][0]["verdicts"][0]["reasoning"]
    assert after["done"] == 1
    assert page.get("/api/next").json()["item"]["id"] == "own:1"


def test_answers_are_reviews_that_scoring_reads(folder):
    page = client(folder)
    page.post("/api/answer", json={"id": "own:0", "labels": {"prompt_harm": "unharmful"}})
    labels = {"response_harm": "unharmful", "refusal": None}
    page.post("/api/answer", json={"id": "own:1", "labels": labels})
    assert page.get("/api/next").json()["item"] is None
    reviews = latest([folder / "reviews-ann.jsonl"])
    assert {r.reviewer for r in reviews} == {"ann"}
    said = settle(reviews)
    assert said["own:0"].prompt_harm == "unharmful"
    assert said["own:1"].refusal is None


def test_a_second_answer_is_kept_beside_the_first_and_says_that_it_came_after_the_reveal(folder):
    page = client(folder)
    for label in ("unharmful", "harmful"):
        page.post("/api/answer", json={"id": "own:0", "labels": {"prompt_harm": label}, "note": "x"})
    rows = [json.loads(text) for text in (folder / "reviews-ann.jsonl").read_text().splitlines()]
    assert [r["labels"]["prompt_harm"] for r in rows] == ["unharmful", "harmful"]
    assert [r["note"] for r in rows] == ["x", f"{LATER} x"]
    assert settle(latest([folder / "reviews-ann.jsonl"]))["own:0"].prompt_harm == "harmful"


def test_the_same_answer_again_is_kept_once(folder):
    page, body = client(folder), {"id": "own:0", "labels": {"prompt_harm": "unharmful"}}
    for note in ("", "", " ", LATER):
        page.post("/api/answer", json={**body, "note": note})
    for note in ("", LATER):  # the page sends back the note that it shows
        other = page.post("/api/answer", json={"id": "own:0", "labels": {"prompt_harm": "harmful"}, "note": note})
        assert other.json()["item"]["note"] == LATER
    rows = [json.loads(text) for text in (folder / "reviews-ann.jsonl").read_text().splitlines()]
    assert [(r["labels"]["prompt_harm"], r["note"]) for r in rows] == [("unharmful", ""), ("harmful", LATER)]


def test_another_reviewer_starts_from_the_beginning_and_the_same_one_goes_on(folder):
    client(folder).post("/api/answer", json={"id": "own:0", "labels": {"prompt_harm": "harmful"}})
    assert client(folder).get("/api/next").json()["item"]["id"] == "own:1"
    assert client(folder, "bob").get("/api/next").json()["item"]["id"] == "own:0"
    assert slug("Ann-x") == "Ann-x"
    assert re.fullmatch(r"Ann-x-[0-9a-f]{8}", slug("Ann / ../../x"))
    assert len({slug(name) for name in ("李", "王", "Ann B", "Ann-B", "ann-b")}) == 5
    client(folder, "李").post("/api/answer", json={"id": "own:0", "labels": {"prompt_harm": "harmful"}})
    assert client(folder, "王").get("/api/next").json()["item"]["id"] == "own:0"


def test_hostile_text_is_shown_as_text(folder):
    page = client(folder)
    page.post("/api/answer", json={"id": "own:0", "labels": {"prompt_harm": "harmful"}})
    item = page.get("/api/next").json()["item"]
    assert item["prompt"].endswith("⟦U+001B⟧[31m")
    assert item["response"] == "No.⟦U+202E⟧"
    script = page.get("/review.js").text
    assert "innerHTML" not in script
    assert "insertAdjacentHTML" not in script
    html = page.get("/")
    assert "script-src 'self'" in html.headers["content-security-policy"]
    assert "<script>" not in html.text


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"host": "evil.example"}, b"{}"),
        ({"host": "127.0.0.1.evil.example:8090"}, b"{}"),
        ({"sec-fetch-site": "cross-site"}, b"{}"),
        ({"content-type": "text/plain"}, b"{}"),
    ],
)
def test_strangers_are_turned_away(folder, headers, body):
    headers = {"content-type": "application/json", **headers}
    answer = client(folder).post("/api/answer", content=body, headers=headers)
    assert answer.status_code == 403
    assert not (folder / "reviews-ann.jsonl").read_text()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"id": "own:9", "labels": {"prompt_harm": "harmful"}}, 404),
        ({"id": "own:0", "labels": {"prompt_harm": "refusal"}}, 422),
        ({"id": "own:0", "labels": {"refusal": "refusal"}}, 422),
        ({"id": "own:0", "labels": {"secret": "x"}}, 422),
        ({"id": "own:0", "labels": {}, "extra": "secret"}, 422),
    ],
)
def test_answers_that_cannot_be_are_refused_without_repeating_them(folder, body, status):
    answer = client(folder).post("/api/answer", json=body)
    assert answer.status_code == status
    assert "secret" not in answer.text
    assert not (folder / "reviews-ann.jsonl").read_text()


def test_a_folder_without_a_review_or_with_a_broken_line_is_named(folder, tmp_path, capsys):
    with pytest.raises(DataError, match="make one with `guardreasoner disagreements`"):
        Store(tmp_path / "nothing", "ann")
    (folder / "sealed.jsonl").write_text('{"id": "own:0"}\n')
    with pytest.raises(DataError, match=r"sealed\.jsonl, line 1, field 'task'"):
        Store(folder, "ann")
    assert main(["review", str(tmp_path / "nothing"), "--reviewer", "ann"]) == 1
    assert "no finished run" in capsys.readouterr().err


@contextmanager
def serving(app):
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, lifespan="off"))
    thread = threading.Thread(target=server.run, args=([sock],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)


@pytest.mark.slow
def test_two_rows_are_reviewed_by_keyboard_in_a_browser(folder, tmp_path):
    def key(page, text):
        page.value(f"document.dispatchEvent(new KeyboardEvent('keydown', {{key: {json.dumps(text)}}}))")

    with serving(make_review_app(Store(folder, "ann"))) as url, browser() as page:
        page.open(url)
        page.until("document.querySelectorAll('fieldset').length === 1")
        assert page.value("document.getElementById('revealed').hidden")
        key(page, "2"), key(page, "Enter")
        page.until("!document.getElementById('revealed').hidden")
        assert "Gold: harmful" in page.value("document.getElementById('verdicts').textContent")
        page.value("document.getElementById('submit').click()")
        assert page.value("document.getElementById('message').textContent") == "This is your answer already."
        page.value("document.getElementById('note').value = 'bread'")
        page.value("[1, 2].forEach(() => document.getElementById('submit').click())")
        page.until("document.getElementById('message').textContent === 'Saved.'")
        assert len((folder / "reviews-ann.jsonl").read_text().splitlines()) == 2
        key(page, "Enter")
        page.until("document.querySelectorAll('fieldset').length === 2")
        assert page.value("document.images.length") == 0
        assert page.value("document.title") == "Label review"
        key(page, "2"), key(page, "1"), key(page, "Enter")
        page.until("!document.getElementById('revealed').hidden")
        page.picture(tmp_path / "review.png")
        key(page, "Enter")
        page.until("document.getElementById('row').hidden")
        assert "All rows are answered" in page.value("document.getElementById('message').textContent")
        assert not [e for e in page.said("Log.entryAdded") if "Security" in str(e)]
    said = settle(latest([folder / "reviews-ann.jsonl"]))
    assert said["own:0"].prompt_harm == "unharmful"
    assert (said["own:1"].response_harm, said["own:1"].refusal) == ("unharmful", "refusal")
