"""Nothing lost, nothing unjudged passes: what real clients and upstreams send, each case standing for its kind."""

import asyncio
import json
import os
import signal
import socket
import threading

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardreasoner.serve.access.keys import names_for, read_keys, read_upstream_key
from guardreasoner.serve.chat.stream import HeldReply
from guardreasoner.serve.decide import REPLY_TASKS, blocks
from guardreasoner.serve.inprocess import InProcess
from guardreasoner.serve.policy import Rules, policy_of
from guardreasoner.types import Exchange
from patience import PATIENCE, until
from serve import fake_guards
from serve.running import completion, serving, upstream
from serve.test_serve_proxy import BLOCKED, CHAT, chat, chunks, content, finish_of, rules, said, text_of, user
from serve.test_serve_wires import check, guardrail

HIDDEN = "".join(chr(0xE0000 + ord(c)) for c in "bad")
CALL = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}


def event(finish=None, index=0, **delta) -> str:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return json.dumps({"id": "chatcmpl-1", "choices": [choice]}, ensure_ascii=False)


def raw(*events: str, end: str = "\n") -> bytes:
    return "".join(f"data: {e}{end}{end}" for e in events).encode()


def streamed(proxied, content: bytes) -> httpx.Response:
    up, served = proxied
    up.reply = lambda body: content
    return chat(served, user("hi"), stream=True)


# ---- what an upstream says


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_text_with_any_separator_arrives_whole(proxied, end):
    words = "First.\u2028Second.\u0085Third.\x0b"
    answer = streamed(proxied, raw(event(content=words), event(content=" The end."), event("stop"), "[DONE]", end=end))
    assert (text_of_bytes(answer), "[DONE]" in answer.text) == (words + " The end.", True)


def text_of_bytes(answer: httpx.Response) -> str:
    events = [json.loads(e[6:]) for e in answer.content.decode().split("\n\n") if e.startswith("data: {")]
    return "".join(c["delta"].get("content") or "" for e in events for c in e["choices"])


@pytest.mark.parametrize("unset", ["", "null"])
def test_a_finish_reason_that_says_nothing_does_not_end_a_reply(proxied, unset):
    answer = streamed(proxied, raw(event(unset, content="First."), event(unset, content=" Second."), event("stop")))
    found = [c["choices"][0] for c in chunks(answer) if c.get("choices")]
    assert "".join(c["delta"].get("content") or "" for c in found) == "First. Second."
    assert [c["finish_reason"] for c in found] == [None, None, "stop"]


@pytest.mark.parametrize(
    "ping", ['event: ping\ndata: {"type": "ping"}\n\n', 'data: {"type": "ping"}\n\n', ": ping\n\n"]
)
def test_what_keeps_a_connection_open_is_read_over(proxied, ping):
    answer = streamed(proxied, ping.encode() + raw(event("stop", content="Hello."), "[DONE]"))
    assert (text_of_bytes(answer), "[DONE]" in answer.text) == ("Hello.", True)


NO_NUMBERS = '{"created": NaN, "usage": {"cost": NaN, "prompt_tokens": Infinity, "total_tokens": 3}, "choices": [%s]}'


def test_a_number_that_json_does_not_have_is_left_out(proxied):
    up, served = proxied
    piece = '{"index": 0, "finish_reason": "stop", "%s": {"content": "Hello."}}'
    answer = streamed(proxied, raw(NO_NUMBERS % piece % "delta", "[DONE]"))
    assert (text_of_bytes(answer), "NaN" in answer.text, "Infinity" in answer.text) == ("Hello.", False, False)
    up.reply = lambda body: (NO_NUMBERS % piece % "message").encode()
    whole = chat(served, user("hi"))
    assert (whole.json()["usage"], "created" in whole.json()) == ({"total_tokens": 3}, False)


def test_an_event_over_several_lines_and_behind_a_byte_order_mark_is_read(proxied):
    first = json.dumps(json.loads(event(content="whole")), indent=1).replace("\n", "\ndata: ")
    answer = streamed(proxied, b"\xef\xbb\xbf: ping\n\n" + raw(first, event("stop"), "[DONE]"))
    assert text_of(answer) == "whole"


@pytest.mark.parametrize(
    "events",
    [
        [event(content="The answer is "), '{"error": {"message": "planted words", "code": 500}}', "[DONE]"],
        ['{"error": {"message": "planted words"}}', "[DONE]"],
        [event(content="fine"), "planted words that are no JSON", "[DONE]"],
        [event(content="fine"), '["planted words"]', "[DONE]"],
        [event(content={"planted": "words"}), event("stop"), "[DONE]"],
        [event(tool_calls=[{"id": "c1", "type": "planted", "planted": {"name": "words"}}]), "[DONE]"],
        [
            '{"choices": [{"index": 0, "delta": {}, "message": {"content": "planted"}, "finish_reason": "stop"}]}',
            "[DONE]",
        ],
        [event(audio={"transcript": "planted words"}), event("stop"), "[DONE]"],
        [event("error"), "[DONE]"],
        ["[DONE]"],
    ],
)
def test_what_is_not_understood_ends_a_stream_with_an_error(proxied, events):
    answer = streamed(proxied, raw(*events))
    assert chunks(answer)[-1]["error"]["code"] in ("upstream_error", "upstream_not_understood")
    assert "planted" not in answer.text
    assert "[DONE]" not in answer.text


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "planted words"}},
        {"choices": []},
        {"id": "c", "object": "chat.completion"},
        {**completion("x"), "choices": [{"index": 0, "message": {"content": None, "audio": {"transcript": "planted"}},
                                         "finish_reason": "stop"}]},
        {**completion("x"), "choices": [{"index": 0, "delta": {"content": "planted"}, "finish_reason": "stop"}]},
    ],
)  # fmt: skip
def test_what_is_not_understood_is_no_empty_good_answer(proxied, body):
    up, served = proxied
    up.reply = lambda _: body
    answer = chat(served, user("hi"))
    assert answer.status_code == 502
    assert "planted" not in answer.text


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (
            {"content": [{"type": "text", "text": "It is "}, {"type": "text", "text": "four."}]},
            {"content": "It is four."},
        ),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                    {"type": "text", "text": "4"},
                ]
            },
            {"content": "4", "reasoning_content": "hm"},
        ),
        ({"tool_calls": [{"id": "c1", "type": "custom", "custom": {"name": "run", "input": "ls"}}]}, {}),
        ({"tool_calls": [CALL]}, {}),
    ],
)
def test_other_shapes_of_a_message_are_judged_and_passed_on(proxied, message, shown):
    up, served = proxied
    body = completion("x")
    body["choices"][0]["message"] = {"role": "assistant", **message}
    up.reply = lambda _: body
    whole = chat(served, user("hi")).json()["choices"][0]["message"]
    assert whole == {"role": "assistant", **message, **shown}
    answer = streamed(proxied, raw(event(**message), event("stop"), "[DONE]"))
    deltas = [c["delta"] for e in chunks(answer) for c in e["choices"] if c["delta"]]
    assert deltas == [{**message, **shown}]
    bad = json.loads(
        json.dumps(message).replace("four", "bad").replace("hm", "bad").replace("Oslo", "bad").replace('"ls"', '"bad"')
    )
    assert finish_of(streamed(proxied, raw(event(**bad), event("stop"), "[DONE]"))) == ["content_filter"]


def test_arguments_that_come_as_an_object_are_passed_on_as_the_text_that_clients_expect(proxied):
    call = {**CALL, "function": {"name": "get_weather", "arguments": {"city": "Oslo"}}}
    answer = streamed(proxied, raw(event(tool_calls=[call]), event("tool_calls"), "[DONE]"))
    (delta,) = [c["delta"] for e in chunks(answer) for c in e["choices"] if c["delta"]]
    assert delta["tool_calls"] == [CALL]


def call(index, arguments, **more):
    return [
        {
            "index": index,
            **more,
            "function": {"name": "f", "arguments": arguments} if more else {"arguments": arguments},
        }
    ]


@pytest.mark.parametrize(
    "deltas",
    [
        [{"reasoning_content": "b"}, {"content": "x"}, {"reasoning_content": "ad"}],
        [{"content": "x b", "reasoning_content": "q"}, {"content": "ad", "reasoning_content": "r"}],
        [{"refusal": "ba"}, {"content": "x"}, {"refusal": "d"}],
        [
            {"tool_calls": call(0, "b", id="call_1", type="function")},
            {"tool_calls": call(1, "x", id="call_2", type="function")},
            {"tool_calls": call(0, "ad")},
        ],
        [{"tool_calls": call(0, "b", id="call_1", type="function")}, {"content": "x"}, {"tool_calls": call(0, "ad")}],
    ],
)
def test_a_word_is_found_however_an_upstream_mixes_the_places_in_which_it_speaks(proxied, deltas):
    answer = streamed(proxied, raw(*(event(**d) for d in deltas), event("stop"), "[DONE]"))
    assert finish_of(answer) == ["content_filter"]
    assert [c["delta"] for chunk in chunks(answer) for c in chunk["choices"] if c["delta"]] == [{"content": BLOCKED}]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_the_order_of_its_pieces_every_place_is_judged_as_it_will_be_read(data):
    held = HeldReply(policy_of({"proxy": {"stride": 16, "span": 64}}).proxy)
    names = ("content", "reasoning", "call 0", "call 1", "call 2")
    places = {name: data.draw(st.text("xyz ", max_size=90)) for name in names}
    hidden = data.draw(st.sampled_from(sorted(places)))
    at = data.draw(st.integers(0, len(places[hidden])))
    left = {**places, hidden: places[hidden][:at] + "bad" + places[hidden][at:]}
    seen: list[str] = []

    async def look(text):
        seen.append(text)

    out = dict.fromkeys(left, "")
    while any(left.values()):
        name = data.draw(st.sampled_from([n for n, text in left.items() if text]))
        cut = data.draw(st.integers(1, 40))
        held.add({name: left[name][:cut]}, (name, left[name][:cut]))
        left[name] = left[name][cut:]
        while held.due(finished=not any(left.values())):
            asyncio.run(held.advance(look, lambda _: False))
        for place, text in held.release():
            out[place] += text
        assert "bad" not in out[hidden] or any("bad" in window for window in seen)
        assert max(map(len, seen), default=0) <= 2 * 64 + len(names)  # however many places say something
    assert any("bad" in window for window in seen)
    assert out[hidden].replace("bad", "") == places[hidden]


def test_a_word_that_goes_on_in_the_next_part_is_read_as_one(proxied):
    _, served = proxied
    parts = [{"type": "text", "text": "so b"}, {"type": "text", "text": "ad."}]
    assert chat(served, user(parts)).headers["x-guardreasoner"] == "blocked"
    assert chat(served, user(parts[:1]), user(parts[1:])).headers["x-guardreasoner"] == "passed"
    answer = chat(served, user("hi"), said(parts), user("go on"))
    assert answer.json()["guardreasoner"]["removed_messages"] > 0


@pytest.mark.parametrize("n", [True, 1.0, "1", 0, 65])
def test_a_number_of_replies_that_is_none_is_refused(proxied, n):
    up, served = proxied
    assert chat(served, user("hi"), n=n).status_code == 400
    assert not up.seen


def test_usage_beside_choices_is_kept(proxied):
    last = {
        "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
        "usage": {"total_tokens": 8, "a bad key": 1},
    }
    answer = streamed(proxied, raw(event(content="Hello."), json.dumps(last), "[DONE]"))
    assert [c["usage"] for c in chunks(answer) if c.get("usage")] == [{"total_tokens": 8}]


@pytest.mark.parametrize("name", ["id", "model", "system_fingerprint"])
def test_names_that_an_upstream_chooses_are_judged(proxied, name):
    up, served = proxied
    up.reply = lambda _: {**completion("fine"), name: "a bad name"}
    answer = chat(served, user("hi"))
    assert content(answer) == "fine"
    assert "a bad name" not in answer.text
    body = json.loads(event(content="fine"))
    assert (
        "a bad name"
        not in streamed(proxied, raw(json.dumps({**body, name: "a bad name"}), event("stop"), "[DONE]")).text
    )


def test_characters_that_nobody_sees_go_neither_way(proxied):
    up, served = proxied
    up.reply = lambda _: {**completion(f"fine{HIDDEN}"), "model": f"m{HIDDEN}"}
    answer = chat(served, user(f"hi{HIDDEN}"), model=f"m{HIDDEN}")
    assert (content(answer), answer.json()["model"]) == ("fine", "m")
    assert (up.seen[0]["messages"], up.seen[0]["model"]) == ([user("hi")], "m")
    body = {"model": f"m{HIDDEN}", "messages": [user("hi")]}
    assert served.http.post("/guard/v1/chat/completions", json=body).json()["model"] == "m"


def test_an_event_that_never_ends_is_not_kept(proxied):
    answer = streamed(proxied, b"data: " + b"x" * 9_000_000)
    assert chunks(answer)[-1]["error"]["code"] == "upstream_too_large"


# ---- what a client sends


def test_fields_without_text_pass_and_fields_with_text_are_named(proxied):
    up, served = proxied
    history = {"role": "assistant", "content": "hello", "annotations": [], "provider_specific_fields": {}, "images": [],
               "prefix": False, "score": 0.5}  # fmt: skip
    content(chat(served, user("hi"), history, user([{"type": "text", "text": "and?", "image_url": None}]), top_k=5))
    assert up.seen[0]["messages"][1] == history
    assert up.seen[0]["top_k"] == 5
    for message in ({**history, "mood": "good"}, {**history, "annotations": [], "notes": ["x"]}):
        error = chat(served, user("hi"), message, user("more")).json()["error"]
        assert error["code"] == "unjudgeable"
        assert "messages[1]." in error["message"]
        assert message.keys() & {"mood", "notes"} & set(error["message"].replace(".", " ").split())


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [user("hi"), {"role": "assistant", "tool_calls": [{**CALL, "id": "something bad"}]}]},
        {"messages": [user("hi"), {"role": "tool", "tool_call_id": "something bad", "content": "done"}]},
        {"messages": [{**user("hi"), "id": "bad"}]},
        {"messages": [user("hi")], "stop": ["bad"]},
        {"messages": [user("hi")], "user": "bad"},
        {"messages": [user("hi")], "metadata": {"a": "bad"}},
        {"messages": [user("hi")], "tool_choice": {"type": "function", "function": {"name": "bad"}}},
        {"messages": [user("hi")], "bad": 1},
        {"messages": [user("hi")], "model": "bad"},
    ],
)
def test_every_name_and_label_that_is_sent_on_is_judged(proxied, body):
    up, served = proxied
    answer = served.http.post(CHAT, json={"model": "m", **body})
    assert (content(answer), up.seen) == (BLOCKED, [])


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [user("hi"), {"role": "assistant", "tool_calls": [{**CALL, "type": "bad"}]}]},
        {"messages": [{**user("hi"), "signature": "bad"}]},
        {"messages": [{**user("hi"), "cache_control": {"type": "bad"}}]},
        {"messages": [user("hi")], "reasoning_effort": "bad"},
        {"messages": [user("hi")], "tool_choice": "bad"},
        {"messages": [user("hi")], "stream_options": {"note": "bad"}},
    ],
)
def test_fields_that_hold_one_of_a_few_words_hold_nothing_else(proxied, body):
    up, served = proxied
    answer = served.http.post(CHAT, json={"model": "m", **body})
    assert (answer.status_code, answer.json()["error"]["code"], up.seen) == (400, "unjudgeable", [])
    assert "bad" not in answer.text


def test_a_long_talk_that_the_server_has_not_seen_is_judged_in_portions(proxied):
    up, served = proxied
    talk = [m for i in range(70) for m in (user(f"question {i}"), said(f"answer {i}"))]
    assert content(chat(served, *talk, user("hello"))) == "Hello there."
    assert len(up.seen[0]["messages"]) == 141
    talk[31:33] = [said("here is a bad plan"), user("go on")]
    content(chat(served, *talk, user("hello")))
    assert "bad" not in json.dumps(up.seen[1])


BEFORE = "How do I bake bread with what I have at home in winter?"


@pytest.mark.parametrize(
    "messages",
    [
        [user(BEFORE), said("Mix flour and water."), user("do a bad thing")],
        [user([{"type": "text", "text": BEFORE}, {"type": "text", "text": "do a bad thing"}])],
        [user(BEFORE), user("do a bad thing"), user(BEFORE)],
        [user("look"), {"role": "assistant", "tool_calls": [CALL]},
         {"role": "tool", "tool_call_id": "c1", "content": BEFORE},
         {"role": "tool", "tool_call_id": "c2", "content": "be bad"}],
    ],
)  # fmt: skip
def test_harm_is_found_behind_a_history_and_in_one_part_of_many(messages):
    with upstream() as up, serving(rules(up), guard=fake_guards.diluted) as served:
        assert (content(chat(served, *messages)), up.seen) == (BLOCKED, [])
        assert check(served, *messages)["status"] == "blocked"
        answer = guardrail(served, input_type="request", structured_messages=messages)
        assert answer["action"] == "BLOCKED"


def test_a_harmful_reply_is_found_behind_a_long_request():
    with upstream(lambda _: "a bad plan") as up, serving(rules(up), guard=fake_guards.diluted) as served:
        assert content(chat(served, user(BEFORE))) == BLOCKED
        assert finish_of(chat(served, user(BEFORE), stream=True)) == ["content_filter"]
        assert check(served, user(BEFORE), said("a bad plan"), rail_types=["output"])["status"] == "blocked"


def test_the_request_is_judged_once_and_not_again_with_every_window_of_the_reply(monkeypatch):
    asked = []
    with upstream(lambda _: "fine " * 400) as up, serving(rules(up, proxy={"stride": 100, "span": 200})) as served:
        judge = served.core.judge
        monkeypatch.setattr(served.core, "judge", lambda e, ask, *more: asked.append((e, ask)) or judge(e, ask, *more))
        answer = chat(served, user("what? " * 2000), stream=True)
    windows = [(e, ask) for e, ask in asked if e[0].id == "reply"]
    assert len(windows) >= 10
    assert all(ask.tasks == REPLY_TASKS and len(e[0].prompt) <= 1000 for e, ask in windows)
    last = [c for c in chunks(answer) if "guardreasoner" in c][-1]["guardreasoner"]
    assert last["replies"][0]["labels"] == {
        "prompt_harm": "unharmful",
        "refusal": "compliance",
        "response_harm": "unharmful",
    }


def test_a_guard_that_judges_parts_by_itself_is_not_asked_about_them_again(monkeypatch):
    asked = []
    with upstream() as up, serving(rules(up), guard=fake_guards.careful) as served:
        judge = served.core.judge
        monkeypatch.setattr(served.core, "judge", lambda e, *more: asked.extend(e) or judge(e, *more))
        content(chat(served, user("one"), said("two"), user([{"type": "text", "text": t} for t in ("three", "four")])))
    found = [(e.prompt, e.response, len(e.context)) for e in asked]
    assert found == [
        ("one", "two", 0), ("three\nfour", None, 2), ("three", None, 0), ("four", None, 0), ("threefour", None, 0),
        ("three\nfour", "Hello there.", 2),
    ]  # fmt: skip


# ---- numbers that are no numbers


@pytest.mark.parametrize("text", ["NAN", "INFINITE"])
def test_a_guard_of_somebodys_own_whose_numbers_are_none_judges_nothing_on_any_wire(proxied, text):
    up, served = proxied
    verdict = served.http.post("/v1/judge", json={"prompt": text}).json()
    assert (verdict["status"], verdict["flagged"], verdict["scores"]["prompt_harm"]) == ("unparsed", True, None)
    assert served.http.post("/v1/moderations", json={"input": text}).json()["results"][0]["flagged"]
    assert guardrail(served, input_type="request", texts=[text])["action"] == "BLOCKED"
    assert check(served, user(text))["status"] == "blocked"
    assert chat(served, user(text)).headers["x-guardreasoner"] == "blocked"
    assert up.seen == []
    (inside,) = InProcess(fake_guards.words(), Rules()).judge([Exchange("1", text)])
    assert (inside.status, blocks(inside)) == ("unparsed", True)


# ---- text that the guard cannot read


@pytest.mark.parametrize(("unsupported", "word"), [("flag", "unjudged"), ("pass", "unjudged"), ("block", "blocked")])
def test_text_that_was_not_read_goes_the_way_the_policy_says_and_never_as_passed(unsupported, word):
    policy = {"languages": {"unsupported": unsupported}}
    with upstream() as up, serving(policy | rules(up)) as served:
        for talk in ([user("FOREIGN")], [user("FOREIGN"), said("hello"), user("again, FOREIGN")]):
            answer = chat(served, *talk)
            assert answer.headers["x-guardreasoner"] == word
        assert len(up.seen) == (0 if word == "blocked" else 2)
        up.reply = lambda body: "FOREIGN words"
        assert chat(served, user("hello")).headers["x-guardreasoner"] == word
        judged = served.http.post("/v1/judge", json={"prompt": "FOREIGN"}).json()
        assert (judged["status"], judged["flagged"]) == ("unread", unsupported != "pass")
        moderated = served.http.post("/v1/moderations", json={"input": ["FOREIGN", "hi"]}).json()["results"]
        assert [r["flagged"] for r in moderated] == [unsupported != "pass", False]
        assert check(served, user("FOREIGN"))["status"] == ("blocked" if word == "blocked" else "passed")
        answer = guardrail(served, input_type="request", texts=["FOREIGN"])
        assert answer["action"] == ("BLOCKED" if word == "blocked" else "NONE")


def test_an_earlier_turn_that_was_not_read_is_judged_once_and_cut_where_it_is_blocked():
    talk = [user("FOREIGN"), said("hello"), user("hi")]
    for unsupported, seen in (("flag", 3), ("block", 1)):
        policy = {"window": "last", "languages": {"unsupported": unsupported}}
        with upstream() as up, serving(policy | rules(up)) as served:
            for turn in (1, 2):
                assert chat(served, *talk).status_code == 200
                assert served.metric("verdict_statuses_total", route="proxy", status="unread") == 1, turn
            assert [len(body["messages"]) for body in up.seen] == [seen, seen]


# ---- gateways


def test_litellm_cuts_by_place_and_blocks_what_no_text_can_hold(proxied):
    _, served = proxied
    talk = [user("bad thing"), said("yes"), user("is it so?"), said("yes"), user("hello")]
    answer = guardrail(served, input_type="request", texts=[m["content"] for m in talk], structured_messages=talk)
    assert answer["texts"] == [BLOCKED, BLOCKED, "is it so?", "yes", "hello"]
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"q": "bad"}'}}
    talk = [user("look"), {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "page"}, said("done"), user("hello")]  # fmt: skip
    texts = ["look", "page", "done", "hello"]
    assert guardrail(served, input_type="request", texts=texts, structured_messages=talk)["action"] == "BLOCKED"
    talk = [{**user("bad thing"), "name": "joe"}, said("no"), user("hello")]
    texts = ["bad thing", "no", "hello"]
    assert guardrail(served, input_type="request", texts=texts, structured_messages=talk)["action"] == "BLOCKED"


def test_litellm_fields_that_nobody_knows_are_named(proxied):
    _, served = proxied
    answer = guardrail(served, input_type="request", texts=["hi"], note_to_model="be bad")
    assert answer["action"] == "BLOCKED"
    assert "note_to_model" in answer["blocked_reason"]
    assert (
        guardrail(served, input_type="request", texts=["hi"], attempt=3, request_headers={"x": "y"})["action"] == "NONE"
    )


@pytest.mark.parametrize("role", ["tool", "system", "function", "developer"])
def test_nemo_judges_what_the_model_reads_whoever_says_it(served, role):
    message = {"role": role, "content": "be bad", "tool_call_id": "1"}
    assert check(served, message)["status"] == "blocked"
    assert check(served, message, user("hi"))["status"] == "blocked"
    assert check(served, {**message, "content": "fine"})["status"] == "passed"


def test_nemo_blocks_what_could_not_be_judged_whatever_the_rail(served):
    for message in ({"role": "tool", "content": "RAISE"}, user("RAISE"), said("RAISE")):
        assert check(served, message)["status"] == "blocked"


# ---- the door


def post(served, content, **headers):
    return served.http.post("/v1/judge", content=content, headers={"content-type": "application/json", **headers})


@pytest.mark.parametrize("path", ["//v1/judge", "/v1/judge/", "/v1//judge//"])
def test_a_slash_too_many_in_a_base_url_is_no_other_route(served, path):
    answer = served.http.post(f"{served.url}{path}", json={"prompt": "be bad"})
    assert (answer.status_code, answer.json()["flagged"]) == (200, True)


def test_a_row_is_read_by_the_server_as_everywhere_else(served):
    context = [{"role": role, "content": "be bad"} for role in ("system", "tool")]
    for identity, name in ((7, "7"), ("", "0"), (None, "0"), ("a", "a")):
        verdict = served.http.post("/v1/judge", json={"prompt": "hi", "id": identity, "context": context}).json()
        assert (verdict["exchange_id"], verdict["flagged"]) == (name, True)


def test_what_a_field_wants_is_said_in_plain_words(served):
    for body, said_ in (
        ({"prompt": 5}, "prompt: must be text"),
        ({"prompt": "x", "mode": "Fast"}, "mode: must be 'instant', 'short', 'full' or 'auto'"),
        ({"exchanges": []}, "exchanges must not be empty"),
        ([], "must be a mapping"),
    ):
        answer = served.http.post("/v1/judge", json=body)
        assert (answer.status_code, said_ in answer.json()["error"]["message"]) == (400, True), answer.text


def test_a_key_that_stands_twice_is_refused_because_the_next_reader_may_take_the_other(served):
    answer = post(served, b'{"prompt": "be bad", "prompt": "hi"}')
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "key_twice")


def test_java_may_offer_http_2_and_windows_a_byte_order_mark(served):
    offer = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAMAAABkAAQAAP__"}
    for body in (b'{"prompt": "bad"}', b'{"prompt": "bad", "response": "' + b"x" * 300_000 + b'"}'):
        assert post(served, body, **offer).json()["flagged"] is True
    assert post(served, b'\xef\xbb\xbf{"prompt": "bad"}').json()["flagged"] is True
    assert post(served, b"{}", **{"content-encoding": "gzip"}).status_code == 415


def test_probes_may_call_by_any_name_and_without_a_body(served):
    keys = read_keys({"GUARDREASONER_API_KEYS": "one=0123456789abcdef"})
    with serving(names=names_for("0.0.0.0", ("guard.example.org",)), keys=keys) as named:
        pod = {"host": "10.244.0.5:8080"}
        for path in ("/healthz", "/readyz"):
            assert named.http.get(path, headers=pod).status_code == 200
        key = {"authorization": "Bearer 0123456789abcdef"}
        assert named.http.get("/metrics", headers={**pod, **key}).status_code == 200
        assert named.http.get("/metrics", headers=pod).status_code == 401
        assert named.http.post("/v1/judge", json={"prompt": "x"}, headers={**pod, **key}).status_code == 400
    for path in ("/healthz", "/readyz", "/"):
        answer = served.http.head(path)
        assert (answer.status_code, answer.content) == (200, b"")


def test_models_are_those_of_the_upstream_or_the_guard(served, proxied):
    assert [m["id"] for m in served.http.get("/v1/models").json()["data"]] == ["words"]
    assert proxied[1].http.get("/v1/models").status_code == 502  # this upstream has no list


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages", "/v1/completions"])
def test_other_ways_to_chat_are_told_the_way(served, path):
    answer = served.http.post(path, json={"model": "m", "input": "hi"})
    assert (answer.status_code, "/v1/chat/completions" in answer.json()["error"]["message"]) == (404, True)
    answer = served.http.post("/v1/chat/completions", json={"model": "m", "messages": [user("hi")]})
    assert (answer.status_code, "--upstream URL" in answer.json()["error"]["message"]) == (404, True)


def test_the_upstreams_key_may_end_with_a_line_end():
    assert read_upstream_key({"GUARDREASONER_UPSTREAM_KEY": "sk-test\r\n"}) == "sk-test"
    assert read_upstream_key({"GUARDREASONER_UPSTREAM_KEY": " \n"}) is None


def test_an_empty_text_among_several_is_named(served):
    answer = served.http.post("/v1/moderations", json={"input": ["hello", "", "bad"]})
    assert (answer.status_code, "input[1]" in answer.json()["error"]["message"]) == (400, True)


def test_a_head_without_end_and_a_body_of_many_values_are_refused_before_they_cost_memory(served):
    with socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE) as sock:
        sock.sendall(b"POST /v1/judge HTTP/1.1\r\nhost: localhost\r\n" + b"x1:\r\n" * 40_000)
        assert b" 431 " in sock.recv(100)
    for body in (
        '{"exchanges": [' + "{}," * 500_000 + "{}]}",
        '{"input": [' + '"",' * 500_000 + '""]}',
        "[" + "1," * 900_000 + "1]",
    ):
        answer = post(served, body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_many_values")
    assert post(served, json.dumps({"prompt": "a, b, c, " * 20_000})).status_code == 200


def test_a_caller_cannot_buy_an_open_door(tmp_path):
    with serving({"fail_mode": "open"}) as served:
        body = {"prompt": f"bad HOLD:{tmp_path}"}
        hurried = served.http.post("/v1/judge", json=body, headers={"x-deadline-ms": "1"}).json()
        (tmp_path / "go").touch()
        assert (hurried["status"], hurried["flagged"], hurried["fail_mode"]) == ("timeout", True, "closed")
        own = served.http.post("/v1/judge", json={"prompt": "RAISE", "mode": "full"}).json()
        assert (own["status"], own["flagged"]) == ("unavailable", True)
        assert served.http.post("/v1/judge", json={"prompt": "RAISE"}).json()["flagged"] is False


def test_a_guard_that_is_killed_comes_back_and_is_counted():
    with serving() as served:
        for number in (1, 2):
            pid = served.core.worker.pid
            os.kill(pid, signal.SIGKILL)
            until(lambda killed=pid: served.core.worker.pid != killed and served.core.ready)
            assert served.http.post("/v1/judge", json={"prompt": "bad"}).json()["flagged"] is True
            assert served.metric("guard_restarts_total") == number


def test_a_guard_that_cannot_be_started_for_a_while_is_started_later(monkeypatch):
    with serving() as served:
        worker, tried, start = served.core.worker, threading.Event(), served.core.worker._start

        async def fails(frames):
            if tried.is_set():
                return await start(frames)
            tried.set()
            raise OSError(24, "too many open files")

        monkeypatch.setattr(worker, "_start", fails)
        os.kill(worker.pid, signal.SIGKILL)
        assert tried.wait(PATIENCE)
        until(lambda: worker.ready)
        assert served.http.post("/v1/judge", json={"prompt": "bad"}).json()["flagged"] is True
        assert served.metric("guard_restarts_total") == 1


def test_the_guards_process_does_not_get_the_servers_keys(monkeypatch):
    monkeypatch.setenv("GUARDREASONER_API_KEYS", "one=0123456789abcdef")
    monkeypatch.setenv("GUARDREASONER_UPSTREAM_KEY", "sk-planted")
    with serving() as served, open(f"/proc/{served.core.worker.pid}/environ") as environment:
        found = environment.read()
    assert "GUARDREASONER_API_KEYS" not in found
    assert "sk-planted" not in found


def test_several_reasoning_passes_are_paid_all_or_none(served):
    with serving({"budget": {"per_key": 3, "seconds": 1000}}) as paying:
        body = {"exchanges": [{"prompt": "x"}] * 4, "mode": "full"}
        assert paying.http.post("/v1/judge", json=body).status_code == 429
        body["exchanges"].pop()
        assert paying.http.post("/v1/judge", json=body).status_code == 200


def test_judged_text_is_logged_on_every_wire_where_the_policy_asks_for_it(caplog):
    from guardreasoner.serve.access.log import log

    log.propagate = True
    with (
        upstream(lambda _: "planted reply") as up,
        serving(rules(up, log_text=True)) as served,
        caplog.at_level("INFO"),
    ):
        chat(served, user("planted request"))
    assert "planted request" in caplog.text
    assert "planted reply" in caplog.text


def test_somebody_in_a_crisis_gets_the_operators_text_through_the_proxy():
    policy = {"support": "Call 555 0100.", "kinds": [{"match": "self-harm", "action": "support"}]}
    with upstream() as up, serving(rules(up, **policy), guard=fake_guards.kind) as served:
        answer = chat(served, user("I want to hurt myself"))
        assert (content(answer), up.seen) == ("Call 555 0100.", [])
        assert answer.json()["choices"][0]["finish_reason"] == "stop"
        assert answer.headers["x-guardreasoner"] == "supported"
        streamed = chat(served, user("I want to hurt myself"), stream=True)
        assert (text_of(streamed), finish_of(streamed)) == ("Call 555 0100.", ["stop"])
        assert check(served, user("I want to hurt myself"))["content"] == "Call 555 0100."
        reason = guardrail(served, input_type="request", texts=["I want to hurt myself"])["blocked_reason"]
        assert reason == "Call 555 0100."
        assert content(chat(served, user("a bad thing"))) == BLOCKED
        assert served.metric("actions_total", route="proxy", action="support") >= 2
