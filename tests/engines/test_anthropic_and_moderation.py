"""Anthropic's and the moderation endpoint's protocol, against a local server that speaks them and misbehaves."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from guardreasoner.engines.anthropic import AnthropicEngine
from guardreasoner.engines.load import load_engine
from guardreasoner.engines.moderation import ModerationEngine
from guardreasoner.errors import ConfigError, EngineError, PlanUnsupported
from guardreasoner.generation import Chat, Choice, Free, Judged, Scaffold, Text, Turn
from guardreasoner.guards.load import load_guard
from guardreasoner.types import Exchange, Labels

pytest.importorskip("aiohttp", reason="the openai extra is not installed")

KEY = "planted-key-4711"
CHAT = Chat((Turn("system", (Scaffold("Be brief."),)), Turn("user", (Scaffold("Q: "), Judged("hat?")))))
PLAN = (Free(9, ("---", "\n")),)


class Provider:
    """Answers each request with the next of `script`: (status, body, headers, seconds to wait); the last one stays."""

    def __init__(self):
        self.script, self.seen = [], []
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                provider.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                answer = provider.script.pop(0) if len(provider.script) > 1 else provider.script[0]
                status, content, headers, wait = (*answer, {}, 0)[:4] if len(answer) < 4 else answer
                content = content(body) if callable(content) else content
                time.sleep(wait)
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in {"content-type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                return None

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def provider(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    made = Provider()
    yield made
    made.server.shutdown()
    made.server.server_close()


def message(text, stop="end_turn", blocks=None):
    content = [{"type": "text", "text": text}] if blocks is None else blocks
    return {"content": content, "stop_reason": stop, "usage": {"input_tokens": 12, "output_tokens": 3}}


def claude(provider, **more):
    return AnthropicEngine("claude-x", base_url=provider.url, backoff_s=0.01, **more)


def moderator(provider, **more):
    return ModerationEngine("omni-x", base_url=f"{provider.url}/v1", backoff_s=0.01, **more)


def results(body):
    flagged = ["bad" in text for text in body["input"]]
    return {"results": [{"flagged": f, "category_scores": {"violence": 0.9 if f else 0.1}} for f in flagged]}


def test_claude_is_asked_in_its_own_protocol(provider):
    provider.script = [(200, message("Answers:"))]
    ((completion,),) = claude(provider).run([CHAT], PLAN)
    path, headers, body = provider.seen[0]
    assert path == "/v1/messages"
    assert (headers["x-api-key"], headers["anthropic-version"]) == (KEY, "2023-06-01")
    assert body == {
        "model": "claude-x",
        "max_tokens": 9,
        "system": "Be brief.",
        "messages": [{"role": "user", "content": "Q: hat?"}],
        "temperature": 0.0,
        "stop_sequences": ["---"],
    }
    assert (completion.text, completion.finish) == ("Answers:", "stop")
    assert (completion.prompt_tokens, completion.completion_tokens) == (12, 3)


def test_a_model_that_takes_no_temperature_gets_none_and_plain_text_is_a_user_message(provider):
    provider.script = [(200, message("x"))]
    claude(provider, temperature=False).run([(Scaffold("one "), Judged("two"))], (Free(5),))
    body = provider.seen[0][2]
    assert body == {"model": "claude-x", "max_tokens": 5, "messages": [{"role": "user", "content": "one two"}]}


def test_answers_keep_their_order_and_n_gives_n(provider):
    provider.script = [(200, lambda body: message(body["messages"][0]["content"]))]
    prompts = [(Judged(str(i)),) for i in range(12)]
    done = claude(provider, in_flight=4).run(prompts, (Free(5),), n=2, temperature=0.7)
    assert [[c.text for c in row] for row in done] == [[str(i)] * 2 for i in range(12)]
    assert provider.seen[0][2]["temperature"] == 0.7


@pytest.mark.parametrize(
    ("answer", "finish", "text"),
    [
        (message("", "refusal"), "refused", ""),
        (message("half a th", "max_tokens"), "length", "half a th"),
        (message("", blocks=[{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "yes"}]), "stop", "yes"),
        ({"content": None}, "unavailable", ""),
        ({"nothing": 1}, "unavailable", ""),
        (b"<html>", "unavailable", ""),
        (b"[]", "unavailable", ""),
    ],
)
def test_refusals_truncation_and_malformed_bodies_are_told_apart(provider, answer, finish, text):
    provider.script = [(200, answer)]
    ((completion,),) = claude(provider, retries=1).run([CHAT], PLAN)
    assert (completion.finish, completion.text) == (finish, text)
    assert completion.complete or completion.error


@pytest.mark.parametrize("make", [claude, moderator])
@pytest.mark.parametrize("status", [429, 500, 503, 529])
def test_a_passing_failure_is_tried_again_and_the_answer_counts(provider, make, status):
    good = message("fine") if make is claude else results
    provider.script = [(status, {"error": {"type": "x"}}), (status, {}), (200, good)]
    ((completion,),) = make(provider).run([CHAT], PLAN if make is claude else ())
    assert completion.finish == "stop"
    assert len(provider.seen) == 3


@pytest.mark.parametrize("make", [claude, moderator])
@pytest.mark.parametrize(("status", "finish"), [(429, "overloaded"), (529, "overloaded"), (500, "unavailable")])
def test_a_lasting_failure_ends_after_bounded_retries(provider, make, status, finish):
    provider.script = [(status, {})]
    ((completion,),) = make(provider, retries=2).run([CHAT], PLAN if make is claude else ())
    assert (completion.finish, len(provider.seen)) == (finish, 3)
    assert str(status) in completion.error


@pytest.mark.parametrize("make", [claude, moderator])
@pytest.mark.parametrize(("status", "finish"), [(400, "unavailable"), (413, "input_too_long"), (422, "unavailable")])
def test_what_the_server_says_about_the_request_is_not_tried_again(provider, make, status, finish):
    provider.script = [(status, {"error": {"message": f"no {KEY}"}})]
    ((completion,),) = make(provider).run([CHAT], PLAN if make is claude else ())
    assert (completion.finish, len(provider.seen)) == (finish, 1)
    assert KEY not in completion.error
    assert "hat" not in completion.error


@pytest.mark.parametrize("make", [claude, moderator])
@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_key_or_an_unknown_model_ends_the_run_in_one_sentence(provider, make, status):
    provider.script = [(status, {"error": {"message": f"no {KEY}"}})]
    with pytest.raises(EngineError, match=f"HTTP {status}") as caught:
        make(provider).run([CHAT], PLAN if make is claude else ())
    assert len(provider.seen) == 1
    assert KEY not in str(caught.value)
    assert "hat" not in str(caught.value)


@pytest.mark.parametrize("make", [claude, moderator])
def test_a_slow_server_is_a_timeout_within_the_deadline(provider, make):
    provider.script = [(200, message("late"), {}, 5)]
    ((completion,),) = make(provider).run([CHAT], PLAN if make is claude else (), deadline=time.monotonic() + 0.4)
    assert completion.finish == "timeout"


def test_a_wait_that_the_server_asks_for_is_kept_unless_the_deadline_is_nearer(provider):
    provider.script = [(429, {}, {"retry-after": "1"}, 0), (200, message("fine"))]
    started = time.monotonic()
    ((completion,),) = claude(provider).run([CHAT], PLAN)
    assert completion.finish == "stop"
    assert time.monotonic() - started >= 1
    provider.script = [(429, {}, {"retry-after": "20"}, 0)]
    ((completion,),) = claude(provider).run([CHAT], PLAN, deadline=time.monotonic() + 2)
    assert completion.finish == "overloaded"


def test_a_server_that_is_not_there_is_unavailable(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    engine = AnthropicEngine("claude-x", base_url="http://127.0.0.1:9", retries=1, backoff_s=0.01)
    ((completion,),) = engine.run([CHAT], PLAN)
    assert (completion.finish, KEY in completion.error) == ("unavailable", False)


def test_texts_are_moderated_in_batches_and_in_order(provider):
    provider.script = [(200, results)]
    texts = ["fine", "bad", "fine", "bad", "bad"]
    done = moderator(provider, batch=2).run([(Judged(t),) for t in texts], ())
    assert [json.loads(c.text)["flagged"] for (c,) in done] == [t == "bad" for t in texts]
    assert sorted(len(body["input"]) for _, _, body in provider.seen) == [1, 2, 2]
    path, headers, body = provider.seen[0]
    assert (path, headers["authorization"], body["model"]) == ("/v1/moderations", f"Bearer {KEY}", "omni-x")


def test_a_text_that_the_server_does_not_take_takes_no_other_with_it(provider):
    provider.script = [(400, {}), (200, results), (413, {}), (200, results)]
    done = moderator(provider, in_flight=1).run([(Judged(t),) for t in ("fine", "long", "bad")], ())
    assert [c.finish for (c,) in done] == ["stop", "input_too_long", "stop"]
    assert json.loads(done[2][0].text)["flagged"]
    assert [len(body["input"]) for _, _, body in provider.seen] == [3, 1, 1, 1]


def test_what_cannot_be_sent_is_replaced(provider):
    provider.script = [(200, results)]
    moderator(provider).run([(Judged("a\ud800b\0"),)], ())
    assert provider.seen[0][2]["input"] == ["a\ufffdb\ufffd"]


@pytest.mark.parametrize("answer", [{"results": []}, {"results": None}, {}, {"results": [{}, {}]}, b"{"])
def test_an_answer_that_misses_a_text_is_unavailable(provider, answer):
    provider.script = [(200, answer)]
    ((completion,),) = moderator(provider, retries=0).run([(Judged("x"),)], ())
    assert completion.finish == "unavailable"


def test_neither_can_force_text(provider):
    with pytest.raises(PlanUnsupported, match="cannot force"):
        claude(provider).run([CHAT], (Text("a"), Choice((" b", " c"))))
    with pytest.raises(PlanUnsupported, match="writes no text"):
        moderator(provider).run([CHAT], PLAN)
    assert not claude(provider).capabilities.force


def test_a_missing_key_is_said_by_its_variable(monkeypatch):
    for name, kind in (("ANTHROPIC_API_KEY", "anthropic"), ("OPENAI_API_KEY", "moderation")):
        monkeypatch.delenv(name, raising=False)
        with pytest.raises(ConfigError, match=name):
            load_engine(kind, model="x")


def test_the_rows_of_the_table_run_on_these_protocols(provider):
    block = "---\n\nAnswers:\nRequest: harmful\nCompletion: refusal\nResponse: unharmful"
    provider.script = [(200, message(block))]
    guard = load_guard("claude-3-5-sonnet", base_url=provider.url, backoff_s=0.01)
    (verdict,) = guard.judge([Exchange("1", "bad hat?", "no")])
    assert verdict.labels == Labels("harmful", "refusal", "unharmful")
    assert (verdict.mode, verdict.usage.prompt_tokens) == ("full", 12)
    provider.script = [(200, message("", "refusal"))]
    (verdict,) = guard.judge([Exchange("1", "bad hat?")])
    assert (verdict.status, verdict.flagged, verdict.fail_mode) == ("refused", True, "closed")
    guard.close()
    provider.script = [(200, results)]
    guard = load_guard("openai-moderation", base_url=f"{provider.url}/v1", backoff_s=0.01)
    (verdict,) = guard.judge([Exchange("1", "a bad hat?", "a fine one")])
    assert verdict.labels == Labels("harmful", None, "unharmful")
    assert verdict.scores == {"prompt_harm": 0.9, "refusal": None, "response_harm": 0.1}
    guard.close()


def openai_answer(text, **choice):
    said = {"role": "assistant", "content": text} | choice.pop("message", {})
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": said, "finish_reason": "stop", **choice}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }


@pytest.mark.parametrize(("name", "roles"), [("gpt-4o", ["system", "user"]), ("gemini-1-5-pro", ["user"])])
def test_chat_rows_send_the_papers_messages_to_an_openai_compatible_server(provider, monkeypatch, name, roles):
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    provider.script = [(200, openai_answer("Answers:\nRequest: harmful\nCompletion: None\nResponse: None"))]
    guard = load_guard(name, base_url=f"{provider.url}/v1", api="chat", backoff_s=0.01)
    (verdict,) = guard.judge([Exchange("1", "hat?")])
    path, headers, body = provider.seen[0]
    assert (path, headers["authorization"]) == ("/v1/chat/completions", f"Bearer {KEY}")
    assert [m["role"] for m in body["messages"]] == roles
    assert body["messages"][-1]["content"].endswith("Human user:\nhat?\n\nAI assistant:\nNone")
    assert verdict.labels == Labels("harmful")
    provider.script = [(200, openai_answer(None, message={"refusal": "I can't."}))]
    assert guard.judge([Exchange("1", "hat?")])[0].status == "refused"
    provider.script = [(200, openai_answer("", finish_reason="content_filter"))]
    assert guard.judge([Exchange("1", "hat?")])[0].status == "refused"
    guard.close()
