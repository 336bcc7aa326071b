"""The OpenAI-compatible proxy: all that a client can make the model read, or it can say, is judged or refused."""

import concurrent.futures as futures
import json
import socket
import threading

import httpx
import pytest

from guardreasoner.errors import ConfigError
from guardreasoner.serve.access.keys import read_keys
from guardreasoner.serve.chat.stream import HeldReply
from guardreasoner.serve.policy import policy_of
from patience import PATIENCE, until
from serve.running import Upstream, completion, serving, upstream

CHAT = "/v1/chat/completions"
BLOCKED = "This was blocked by the content policy."


def user(text):
    return {"role": "user", "content": text}


def said(text):
    return {"role": "assistant", "content": text}


def rules(up: Upstream, **more):
    proxy = {"upstream": up.url, **more.pop("proxy", {})}
    return {"proxy": proxy, **more}


def chat(served, *messages, **more):
    return served.http.post(CHAT, json={"model": "m", "messages": list(messages), **more})


def content(answer: httpx.Response):
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"]


def chunks(answer: httpx.Response) -> list[dict]:
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def text_of(answer: httpx.Response, index: int = 0) -> str:
    found = [c for chunk in chunks(answer) for c in chunk.get("choices", []) if c["index"] == index]
    return "".join(c["delta"].get("content") or "" for c in found)


def finish_of(answer: httpx.Response, index: int = 0):
    found = [c for chunk in chunks(answer) for c in chunk.get("choices", []) if c["index"] == index]
    return [c["finish_reason"] for c in found if c["finish_reason"]]


# ---- requests


def test_a_body_without_messages_is_refused_in_a_sentence_about_messages(proxied):
    _, served = proxied
    for body in ({"model": "m"}, {"model": "m", "message": "hi"}, {"messages": "hi"}):
        error = served.http.post(CHAT, json=body).json()["error"]
        assert error["message"] == "messages is missing, or no list of messages"


def test_a_harmless_request_and_reply_pass_unchanged(proxied):
    up, served = proxied
    answer = chat(served, user("hi"), temperature=0.5, seed=7)
    assert content(answer) == "Hello there."
    assert up.seen == [{"model": "m", "messages": [user("hi")], "temperature": 0.5, "seed": 7}]
    assert answer.headers["x-guardreasoner"] == "passed"
    assert answer.json()["usage"]["total_tokens"] == 8


def test_a_harmful_request_never_reaches_the_upstream(proxied):
    up, served = proxied
    answer = chat(served, user("bad"))
    assert (content(answer), up.seen) == (BLOCKED, [])
    assert answer.json()["choices"][0]["finish_reason"] == "content_filter"
    assert answer.json()["guardreasoner"]["request"]["labels"]["prompt_harm"] == "harmful"
    streamed = chat(served, user("bad"), stream=True)
    assert (text_of(streamed), finish_of(streamed), up.seen) == (BLOCKED, ["content_filter"], [])


def test_a_block_may_be_an_error_instead_of_a_message():
    with upstream() as up, serving(rules(up, proxy={"on_block": "error"})) as served:
        answer = chat(served, user("bad"))
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "content_filter")


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "system", "content": "be bad"}, user("hi")]},
        {"messages": [{"role": "developer", "content": "be bad"}, user("hi")]},
        {"messages": [user([{"type": "text", "text": "hi"}, {"type": "text", "text": "bad"}])]},
        {"messages": [{"role": "user", "content": "hi", "name": "bad"}]},
        {"messages": [user("bad"), user("hi")]},
        {"messages": [user("hi"), said("bad")]},
        {"messages": [user("hi"), {"role": "assistant", "content": None, "refusal": "bad"}]},
        {
            "messages": [
                user("look it up"),
                {
                    "role": "assistant",
                    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                },
                {"role": "tool", "tool_call_id": "1", "content": "page says: be bad"},
            ]
        },
        {
            "messages": [
                user("look it up"),
                {
                    "role": "assistant",
                    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": '"bad"'}}],
                },
                {"role": "tool", "tool_call_id": "1", "content": "fine"},
            ]
        },
        {"messages": [user("hi")], "tools": [{"type": "function", "function": {"name": "f", "description": "bad"}}]},
        {"messages": [user("hi")], "response_format": {"type": "json_schema", "json_schema": {"description": "bad"}}},
    ],
)
def test_everything_the_model_would_read_is_judged(proxied, body):
    up, served = proxied
    answer = served.http.post(CHAT, json={"model": "m", **body})
    assert (content(answer), up.seen) == (BLOCKED, [])


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [user([{"type": "image_url", "image_url": {"url": "x"}}])]},
        {"messages": [user([{"type": "text", "text": "hi", "extra": "bad"}])]},
        {"messages": [{"role": "user", "content": "hi", "zzz": "bad"}]},
        {"messages": [{"role": "wizard", "content": "hi"}]},
        {"messages": [user({"text": "hi"})]},
        {"messages": []},
        {"messages": "hi"},
        {"messages": ["hi"]},
        {},
        {"messages": [user("hi")], "prediction": {"type": "content", "content": "bad"}},
        {"messages": [user("hi")], "logprobs": True},
        {"messages": [user("hi")], "audio": {"voice": "x"}},
        {"messages": [user("hi")], "web_search_options": {}},
        {"messages": [user("hi"), {"role": "assistant", "audio": {"id": "x"}}, user("more")]},
        {"messages": [user("hi")], "n": 1000},
    ],
)
def test_what_cannot_be_judged_is_refused_under_closed(proxied, body):
    up, served = proxied
    answer = served.http.post(CHAT, json={"model": "m", **body})
    assert (answer.status_code, up.seen) == (400, [])
    assert "bad" not in answer.json()["error"]["message"]


def test_under_open_what_cannot_be_read_passes_marked_and_counted():
    with upstream() as up, serving(rules(up, fail_mode="open")) as served:
        image = {"type": "image_url", "image_url": {"url": "x"}}
        answer = chat(served, user([{"type": "text", "text": "hi"}, image]), prediction={"content": "x"})
        assert content(answer) == "Hello there."
        assert (answer.headers["x-guardreasoner"], answer.json()["guardreasoner"]["unread"]) == ("unjudged", 2)
        assert up.seen[0]["prediction"] == {"content": "x"}
        assert served.metric("unjudged_total", route="proxy", fail_mode="open", status="unreadable") == 2


@pytest.mark.parametrize("stream", [False, True])
def test_an_unjudged_request_is_refused_when_closed_and_marked_when_open(stream):
    with upstream() as up, serving(rules(up)) as served:
        answer = chat(served, user("RAISE"), stream=stream)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unjudged_unavailable")
        assert up.seen == []
    with upstream() as up, serving(rules(up, fail_mode="open")) as served:
        answer = chat(served, user("RAISE"), stream=stream)
        assert (answer.status_code, answer.headers["x-guardreasoner"]) == (200, "unjudged")
        assert served.metric("unjudged_total", route="proxy", fail_mode="open", status="unavailable") >= 1


def test_a_body_that_two_readers_may_read_differently_is_not_forwarded(proxied):
    up, served = proxied
    lists = [json.dumps([user(text)]) for text in ("bad", "hi")]
    twice = f'{{"model": "m", "messages": {lists[0]}, "messages": {lists[1]}}}'
    answer = served.http.post(CHAT, content=twice, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"], up.seen) == (400, "key_twice", [])


def test_roles_that_only_the_operator_writes_may_be_trusted():
    with upstream() as up, serving(rules(up, trusted_roles=["system"])) as served:
        assert content(chat(served, {"role": "system", "content": "refuse bad things"}, user("hi"))) == "Hello there."
        assert content(chat(served, {"role": "developer", "content": "be bad"}, user("hi"))) == BLOCKED


# ---- conversations


def test_a_blocked_turn_is_cut_out_of_later_requests(proxied):
    up, served = proxied
    talk = [user("bad"), said(BLOCKED), user("what is two and two?")]
    answer = chat(served, *talk)
    assert content(answer) == "Hello there."
    assert up.seen[0]["messages"] == [user("what is two and two?")]
    assert answer.json()["guardreasoner"]["removed_messages"] == 2


def test_a_turn_that_was_judged_is_not_judged_again(proxied):
    _, served = proxied
    talk = [user("first of its kind")]
    content(chat(served, *talk))
    before = served.metric("batch_exchanges_sum")
    content(chat(served, *talk, said("Hello there."), user("second of its kind")))
    assert served.metric("batch_exchanges_sum") == before + 4  # the new turn and the reply to it, with and without more


def test_a_forged_history_is_judged(proxied):
    up, served = proxied
    content(chat(served, user("hi"), said("here is a bad plan"), user("go on")))
    assert up.seen[0]["messages"] == [user("go on")]


@pytest.mark.parametrize(("window", "kept"), [({"window": "last"}, 0), ({"window_n": 2}, 2), ({"window": "full"}, 6)])
def test_the_window_says_how_much_is_judged_together(window, kept, monkeypatch):
    with upstream() as up, serving(rules(up, **window)) as served:
        asked = []
        judge = served.core.judge
        monkeypatch.setattr(served.core, "judge", lambda e, *more: asked.append(e) or judge(e, *more))
        talk = [m for i in range(3) for m in (user(f"question {i}"), said(f"answer {i}"))]
        content(chat(served, *talk, user("last question")))
        assert len(asked[-1][0].context) == kept
        assert asked[-1][0].prompt == "last question"


def test_a_tool_result_that_was_blocked_takes_its_call_along(proxied):
    up, served = proxied
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    talk = [
        user("keep this"), said("kept"), user("look it up"), {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "bad page"}, said("done"), user("thanks"),
    ]  # fmt: skip
    content(chat(served, *talk))
    assert up.seen[0]["messages"] == [user("keep this"), said("kept"), user("thanks")]


# ---- replies


def reply_with(**message):
    body = completion("x")
    body["choices"][0]["message"] = {"role": "assistant", "content": None, **message}
    return body


@pytest.mark.parametrize(
    "message",
    [
        {"content": "a bad thing"},
        {"refusal": "bad"},
        {"reasoning_content": "let me plan something bad", "content": "fine"},
        {"reasoning": "bad", "content": "fine"},
        {"tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": "bad"}'}}]},
        {"function_call": {"name": "bad", "arguments": "{}"}},
    ],
)
def test_everything_the_model_says_is_judged(proxied, message):
    up, served = proxied
    up.reply = lambda body: reply_with(**message)
    answer = chat(served, user("hi"))
    choice = answer.json()["choices"][0]
    assert (choice["message"], choice["finish_reason"]) == ({"role": "assistant", "content": BLOCKED}, "content_filter")
    assert answer.headers["x-guardreasoner"] == "blocked"
    up.reply = lambda body: [{"choices": [{"index": 0, "delta": message, "finish_reason": None}]}]
    streamed = chat(served, user("hi"), stream=True)
    assert finish_of(streamed) == ["content_filter"]
    assert all("bad" not in json.dumps(c["choices"]) for c in chunks(streamed))


def test_fields_of_a_reply_that_are_on_no_list_are_dropped(proxied):
    up, served = proxied
    body = reply_with(content="fine", audio={"transcript": "bad"}, annotations=["bad"])
    body |= {"bad_extra": "bad", "choices": [{**body["choices"][0], "logprobs": {"content": ["bad"]}}]}
    up.reply = lambda _: body
    answer = chat(served, user("hi"))
    assert content(answer) == "fine"
    assert "bad" not in answer.text
    up.reply = lambda _: [{"choices": [{"index": 0, "delta": {"content": "fine", "audio": "bad"}, "logprobs": "bad"}]}]
    streamed = chat(served, user("hi"), stream=True)
    assert (text_of(streamed), "bad" in streamed.text) == ("fine", False)


def test_each_of_several_replies_is_judged_by_itself(proxied):
    up, served = proxied
    up.reply = lambda _: completion("one", "bad two", "three")
    answer = chat(served, user("hi"), n=3)
    assert [c["message"]["content"] for c in answer.json()["choices"]] == ["one", BLOCKED, "three"]

    def piece(index, text):
        return {"choices": [{"index": index, "delta": {"content": text}, "finish_reason": None}]}

    up.reply = lambda _: [piece(0, "one"), piece(1, "bad two"), piece(2, "three"), piece(1, " more"), piece(0, " end")]
    streamed = chat(served, user("hi"), n=3, stream=True)
    assert [text_of(streamed, i) for i in range(3)] == ["one end", BLOCKED, "three"]


def test_a_reply_that_could_not_be_judged_does_not_pass_when_closed(proxied):
    up, served = proxied
    up.reply = lambda body: "RAISE"
    assert chat(served, user("hi")).status_code == 503
    streamed = chat(served, user("hi"), stream=True)
    assert (text_of(streamed), finish_of(streamed)) == ("", ["content_filter"])
    with upstream(lambda body: "RAISE") as up2, serving(rules(up2, fail_mode="open")) as opened:
        answer = chat(opened, user("hi"))
        assert (content(answer), answer.headers["x-guardreasoner"]) == ("RAISE", "unjudged")
        streamed = chat(opened, user("hi"), stream=True)
        assert text_of(streamed) == "RAISE"
        (last,) = [c for c in chunks(streamed) if "guardreasoner" in c]
        assert last["guardreasoner"]["replies"][0]["fail_mode"] == "open"
        assert (
            opened.metric("unjudged_total", route="proxy", fail_mode="open", status="unavailable") == 4
        )  # with its request, and alone


def test_in_shadow_nothing_is_blocked_and_everything_is_recorded():
    with upstream(lambda body: "bad reply") as up, serving(rules(up, shadow=True)) as served:
        answer = chat(served, user("bad"))
        assert content(answer) == "bad reply"
        report = answer.json()["guardreasoner"]
        assert report["request"]["notes"]["shadow"] == {"action": "block", "flagged": True}
        assert report["replies"][0]["notes"]["shadow"]["action"] == "block"
        assert text_of(chat(served, user("bad"), stream=True)) == "bad reply"


# ---- streams


def test_a_harmless_stream_passes_whole_and_in_pieces(proxied):
    up, served = proxied
    long = "All is well. " * 120
    up.reply = lambda body: long
    with served.http.stream("POST", CHAT, json={"model": "m", "messages": [user("hi")], "stream": True}) as answer:
        pieces = list(answer.iter_text())
    assert len(pieces) > 2
    whole = httpx.Response(200, text="".join(pieces))
    assert (text_of(whole), finish_of(whole)) == (long, ["stop"])
    assert whole.text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("ahead", [0, 40])
def test_no_more_than_the_documented_number_of_characters_passes_before_the_cut(ahead):
    harmless, harmful = "well " * 40, "bad " * 40
    settings = {"stride": 20, "span": 100, "ahead": ahead}
    whole = harmless + harmful
    pieces = [p for i in range(0, len(whole), 5) for p in (whole[i : i + 5], 0.002)]
    with upstream(lambda body: pieces) as up, serving(rules(up, proxy=settings)) as served:
        answer = chat(served, user("hi"), stream=True)
    passed = text_of(answer)
    assert finish_of(answer) == ["content_filter"]
    assert len(passed) >= 100
    if ahead == 0:
        assert "bad" not in passed  # nothing unjudged passes
    else:
        assert len(passed) - len(harmless) <= ahead


def test_harm_that_is_split_over_two_steps_is_found_by_the_overlap():
    settings = {"stride": 19, "span": 64}
    with upstream(lambda body: "x" * 18 + "bad" + "y" * 60) as up, serving(rules(up, proxy=settings)) as served:
        assert finish_of(chat(served, user("hi"), stream=True)) == ["content_filter"]


def test_harm_beyond_one_window_is_found_and_every_character_was_in_a_window():
    settings = {"stride": 50, "span": 80}
    with (
        upstream(lambda body: [("ok " * 2000) + "bad" + (" ok" * 2000)]) as up,
        serving(rules(up, proxy=settings)) as served,
    ):
        streamed = chat(served, user("hi"), stream=True)
        assert (finish_of(streamed), text_of(streamed)) == (["content_filter"], BLOCKED)


def test_windows_cover_every_character_and_overlap():
    held = HeldReply(policy_of({"proxy": {"stride": 30, "span": 100}}).proxy)
    whole = "".join(chr(33 + i % 90) for i in range(1234))
    held.add({"content": whole}, None)
    seen = []

    async def look(text):
        seen.append(text)

    import asyncio

    while held.due(finished=True):
        asyncio.run(held.advance(look, lambda _: False))
    ends, position = [], 0
    for text in seen:
        start = whole.index(text, max(0, position - 100))
        assert start <= max(0, position - 30)
        position = start + len(text)
        ends.append(position)
    assert ends[-1] == len(whole)
    assert max(map(len, seen)) <= 100


def test_an_upstream_that_dies_in_the_middle_leaves_an_error_and_no_unjudged_words(proxied):
    up, served = proxied
    up.reply = lambda body: ["fine " * 60, 0.2, "too few to be judged", None]
    answer = chat(served, user("hi"), stream=True)
    assert text_of(answer) == "fine " * 60
    assert chunks(answer)[-1]["error"]["code"] == "upstream_died"
    assert "[DONE]" not in answer.text


def test_an_upstream_that_forgets_its_last_line_is_not_dead(proxied):
    up, served = proxied
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    up.reply = lambda body: ["fine", end, None]
    answer = chat(served, user("hi"), stream=True)
    assert (text_of(answer), finish_of(answer)) == ("fine", ["stop"])


def test_a_client_that_leaves_a_stream_ends_the_upstream_call(proxied):
    up, served = proxied
    up.gone.clear()
    up.reply = lambda body: ["fine " * 60] + ["more " * 60, 0.05] * 100
    with served.http.stream("POST", CHAT, json={"model": "m", "messages": [user("hi")], "stream": True}) as answer:
        next(answer.iter_text())
    assert up.gone.wait(PATIENCE)


def test_a_client_that_leaves_while_the_upstream_thinks_ends_the_call(proxied):
    up, served = proxied
    up.gone.clear()
    started = threading.Event()

    def slow(body):
        started.set()
        return [0.05, "x"] * 2_000  # until the connection is gone

    up.reply = slow
    content = json.dumps({"model": "m", "messages": [user("hi")]}).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(content)}\r\n"
    with socket.create_connection(("127.0.0.1", served.port)) as caller:
        caller.sendall(f"{head}content-type: application/json\r\n\r\n".encode() + content)
        assert started.wait(PATIENCE)
    assert up.gone.wait(PATIENCE)


def test_usage_at_the_end_of_a_stream_is_kept(proxied):
    up, served = proxied
    usage = {"id": "c", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "x": {"y": 3, "z": "bad"}}}
    up.reply = lambda body: ["fine", usage]
    answer = chat(served, user("hi"), stream=True, stream_options={"include_usage": True})
    (kept,) = [c["usage"] for c in chunks(answer) if c.get("usage")]
    assert kept == {"prompt_tokens": 1, "completion_tokens": 2, "x": {"y": 3}}


# ---- upstreams


def test_the_request_may_be_judged_while_the_upstream_already_works(tmp_path):
    with upstream(lambda body: "Hello.") as up, serving(rules(up, proxy={"parallel": True})) as served:
        for number, (text, stream) in enumerate((("hi", True), ("be bad", False)), 1):
            place = tmp_path / str(number)
            place.mkdir()
            with futures.ThreadPoolExecutor(1) as pool:
                answer = pool.submit(chat, served, user(f"{text} HOLD:{place}"), stream=stream)
                until(lambda asked=number: len(up.seen) == asked)  # while the guard is still at it
                (place / "go").touch()
            assert (text_of(answer.result()) if stream else content(answer.result())) == (
                "Hello." if stream else BLOCKED
            )


@pytest.mark.parametrize(
    ("upstream_code", "code"), [(401, 401), (404, 404), (429, 429), (500, 502), (503, 502), (302, 502)]
)
def test_errors_of_the_upstream_come_through_without_its_words(proxied, upstream_code, code):
    up, served = proxied
    up.reply = lambda body: upstream_code
    for stream in (False, True):
        answer = chat(served, user("hi"), stream=stream)
        assert answer.status_code == code
        assert "planted-upstream-words" not in answer.text


def test_an_upstream_that_is_not_there_is_a_502():
    with serving({"proxy": {"upstream": "http://127.0.0.1:9/v1"}}) as served:
        assert chat(served, user("hi")).status_code == 502


@pytest.mark.parametrize("reply", [[], {"choices": "bad"}, {"choices": [{"message": {"content": {"a": "bad"}}}]}])
def test_a_malformed_reply_lets_nothing_through(proxied, reply):
    up, served = proxied
    up.reply = lambda body: reply
    assert "bad" not in chat(served, user("hi")).text.replace("upstream_bad_json", "")


def test_the_upstreams_key_comes_from_the_environment_and_ours_is_not_passed_on():
    keys = read_keys({"GUARDREASONER_API_KEYS": "one=0123456789abcdef"})
    ours = {"authorization": "Bearer 0123456789abcdef"}
    body = {"model": "m", "messages": [user("hi")]}
    with upstream() as up, serving(rules(up), keys=keys, upstream_key="upstream-secret") as served:
        served.http.post(CHAT, json=body, headers=ours)
        assert up.headers[0]["authorization"] == "Bearer upstream-secret"
    with upstream() as up, serving(rules(up), keys=keys) as served:
        served.http.post(CHAT, json=body, headers=ours)
        assert "authorization" not in up.headers[0]
    with upstream() as up, serving(rules(up)) as served:
        served.http.post(CHAT, json=body, headers={"authorization": "Bearer client-secret", "x-other": "1"})
        assert up.headers[0]["authorization"] == "Bearer client-secret"
        assert "x-other" not in up.headers[0]


@pytest.mark.parametrize("url", ["ftp://x/v1", "http://user:pass@host/v1", "http://host/v1?key=1", "nonsense"])
def test_an_upstream_address_must_be_plain(url):
    with pytest.raises(ConfigError) as caught:
        policy_of({"proxy": {"upstream": url}})
    assert "pass" not in str(caught.value).replace("password", "")
