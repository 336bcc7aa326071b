"""The playground in a real browser: by keyboard, without a network, and with hostile text that stays text."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from guardreasoner.serve.access.keys import read_keys
from guardreasoner.serve.access.limits import Overloaded
from patience import PATIENCE
from serve import fake_guards
from serve.browser import browser
from serve.running import serving

PAGES = Path(__file__).parents[2] / "src" / "guardreasoner" / "serve" / "pages"
HOSTILE = '<img src=x onerror="document.title=1"><script>document.title=2</script> bad fraud \u202ereversed'
CTRL = 2


def picture_folder(tmp_path: Path) -> Path:
    """Where the pictures go: GUARDREASONER_PICTURES for a person to look at, else the test's own folder."""
    return Path(os.environ.get("GUARDREASONER_PICTURES", tmp_path))


def test_the_pages_use_text_content_only_and_no_address_but_their_own():
    script = (PAGES / "playground.js").read_text()
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "localStorage", "cookie"):
        assert word not in script
    for page in PAGES.glob("playground.*"):
        assert not re.search(r"https?:|//[a-z]+\.", page.read_text())
    assert not re.search(r"<script(?![^>]*src=)|\sstyle=|\son\w+=", (PAGES / "playground.html").read_text())


def choose(page, mode: str) -> None:
    page.value(f"document.querySelector('#modes input[value={mode}]').click()")


@pytest.mark.slow
def test_a_person_judges_with_the_keyboard_and_sees_every_mode(tmp_path):
    with serving(guard=fake_guards.echoing) as served, browser() as page:
        page.open(served.url)
        page.until("document.getElementById('state').textContent.includes('ready')")
        assert page.value("document.activeElement.id") == "prompt"
        page.press("a", CTRL)
        page.type(HOSTILE)
        page.press("Tab")
        assert page.value("document.activeElement.id") == "response"
        page.type("sorry, no")
        choose(page, "all")
        page.press("Enter", CTRL)
        page.until("document.querySelectorAll('article').length === 4 && !document.querySelector('.waiting')")
        page.picture(picture_folder(tmp_path) / "playground.png")
        verdicts = page.value("[...document.querySelectorAll('article')].map(a => a.innerText)")
        assert [v.split()[0] for v in verdicts] == ["instant", "short", "full", "auto"]
        assert all("flagged" in v and "harmful" in v and "0.970" in v and "tokens" in v for v in verdicts)
        assert all("policy: block the request" in v for v in verdicts)
        assert HOSTILE.replace("\u202e", "\\u202e") in verdicts[2]  # a step quotes the request; it is shown as text
        assert "fast decided on request and reply; slow's own answer does not count" in verdicts[1]
        assert "the model that reasons answers otherwise: harmful on request" in verdicts[1]
        assert page.value("document.title") == "guardreasoner playground"
        assert page.value("document.querySelectorAll('article img, article script').length") == 0
        assert page.value("document.querySelectorAll('meter').length") >= 8
        urls = [r["request"]["url"] for r in page.said("Network.requestWillBeSent")]
        assert urls
        assert all(u.startswith((served.url, "data:")) for u in urls)
        problems = [e["entry"]["text"] for e in page.said("Log.entryAdded") if e["entry"]["level"] == "error"]
        assert problems == []
        assert page.said("Runtime.exceptionThrown") == []


@pytest.mark.slow
def test_steps_appear_while_the_guard_reasons_and_escape_stops(tmp_path):
    with serving({"deadline_s": PATIENCE}, guard=fake_guards.echoing) as served, browser() as page:
        page.open(served.url)
        page.press("a", CTRL)
        page.type("think SLEEP:0.2")
        choose(page, "full")
        page.press("Enter", CTRL)
        page.until("document.querySelectorAll('.steps li').length >= 1")
        page.until("document.querySelector('.verdict').textContent === 'passed'")
        page.press("a", CTRL)
        page.type("HANG")
        page.press("Enter", CTRL)
        page.until("!!document.querySelector('.waiting')")
        page.press("Escape")
        page.until("document.querySelector('.note').textContent === 'stopped'")


@pytest.mark.slow
def test_a_page_without_a_key_asks_for_one_and_works_with_it(tmp_path):
    keys = read_keys({"GUARDREASONER_API_KEYS": "one=0123456789abcdef"})
    with serving(keys=keys) as served, browser() as page:
        page.open(served.url)
        page.type("hello")
        choose(page, "instant")
        page.press("Enter", CTRL)
        page.until("!document.getElementById('keyline').hidden")
        page.value("document.getElementById('key').focus()")
        page.type("0123456789abcdef")
        page.press("Enter", CTRL)
        page.until("document.querySelector('.verdict')?.textContent === 'passed'")
        page.picture(picture_folder(tmp_path) / "playground-key.png")


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_an_example_shows_one_verdict_and_the_code_that_asks_for_it(tmp_path, width, theme):
    with serving({"thresholds": {"response_harm": 0.3}}, guard=fake_guards.echoing) as served, browser() as page:
        page.open(served.url)
        page.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        page.until("document.getElementById('state').textContent.includes('ready')")
        page.picture(picture_folder(tmp_path) / f"playground-before-{width}-{theme}.png")
        assert page.value("document.querySelectorAll('#examples button').length") == 5
        page.press("Enter", CTRL)
        page.until("!document.getElementById('hint').hidden")
        assert page.value("document.querySelectorAll('article').length") == 0
        page.value("document.querySelectorAll('#examples button')[2].click()")
        page.until("document.querySelectorAll('article').length === 1 && !document.querySelector('.waiting')")
        assert page.value("document.getElementById('hint').hidden")
        assert page.value("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        marks = page.value("[...document.querySelectorAll('.bar i')].map(i => parseFloat(i.style.left))")
        assert marks == [42.0, 50.0, 30.0]
        seen = "b => b.getBoundingClientRect().width > 40 && b.title.includes('from 0.')"
        assert page.value(f"[...document.querySelectorAll('.bar')].every({seen})")
        page.value("document.getElementById('code').open = true")
        page.picture(picture_folder(tmp_path) / f"playground-after-{width}-{theme}.png")
        command = page.value("document.getElementById('curl').textContent")
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=PATIENCE)
        assert json.loads(done.stdout)["status"] == "ok", done.stdout
        compile(page.value("document.getElementById('python').textContent"), "python", "exec")


DONE = "!!document.querySelector('article') && !document.querySelector('.waiting')"


@pytest.mark.slow
def test_the_first_click_on_full_shows_what_mini_wrote_and_who_decided(tmp_path):
    with serving(guard=fake_guards.bundled) as served, browser() as page:
        page.open(served.url)
        choose(page, "full")
        page.value("document.querySelectorAll('#examples button')[4].click()")
        page.until(DONE)
        page.picture(picture_folder(tmp_path) / "playground-bundled.png")
        assert page.value("document.querySelectorAll('.steps li').length") >= 1
        who = page.value("document.querySelector('.who').innerText")
        assert "nano and micro decided; mini's own answer does not count" in who
        choose(page, "instant")
        page.press("Enter", CTRL)
        page.until(DONE)
        assert page.value("document.querySelectorAll('.steps li').length") == 0
        assert page.value("document.querySelector('.who').innerText").splitlines()[0] == "nano decided"


@pytest.mark.slow
def test_an_example_and_then_the_button_judge_once():
    with serving(guard=fake_guards.echoing) as served, browser() as page:
        page.open(served.url)
        count = "(path, ...more) => (asked += path === '/v1/judge', real(path, ...more))"
        page.value(f"window.asked = 0; window.real = fetch; window.fetch = {count}; 0")
        choose(page, "full")
        page.value("document.querySelectorAll('#examples button')[1].click()")
        for _ in range(2):
            page.value("document.querySelector('#form button').click()")
        page.until(DONE)
        assert page.value("asked") == 1
        page.value("document.querySelector('#form button').click()")  # it has been judged: this asks again
        page.until("asked === 2")
        page.value("document.querySelectorAll('#examples button')[2].click()")  # and so does another text, at once
        page.until(f"asked === 3 && {DONE}")


@pytest.mark.slow
def test_where_the_guard_is_busy_the_page_asks_again_by_itself(monkeypatch):
    with serving(guard=fake_guards.echoing) as served, browser() as page:
        page.open(served.url)
        refusals = iter([Overloaded(0.1), Overloaded(0.1)])

        def admit(*_, **__):
            if refusal := next(refusals, None):
                raise refusal

        monkeypatch.setattr(served.core.waiting, "admit", admit)
        page.type("hello")
        for _ in range(2):  # whoever is impatient clicks twice
            page.press("Enter", CTRL)
        page.until("document.querySelector('.verdict')?.textContent === 'passed'")
        assert next(refusals, None) is None
        monkeypatch.setattr(served.core, "_pay", lambda *_: refuse(Overloaded(60.0, "the budget is spent")))
        page.press("Enter", CTRL)
        page.until("document.querySelector('.note').textContent === 'the budget is spent'")


def refuse(error):
    raise error
