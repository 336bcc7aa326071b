"""The bundled nano behind every wire, in a conversation of twenty turns: harm in any turn or tool result is stopped."""

import json

import pytest

from integrations.long_talk import ANSWERS, CASES, HARM, REPLY, SMALL_TALK
from serve import fake_guards
from serve.running import serving, upstream
from serve.test_serve_proxy import chat
from serve.test_serve_wires import check, guard_says, guardrail


@pytest.fixture(scope="module")
def nano():
    with (
        upstream() as up,
        serving({"proxy": {"upstream": up.url}, "deadline_s": 120}, guard=fake_guards.nano) as served,
    ):
        yield up, served


@pytest.mark.parametrize("case", CASES)
def test_the_proxy_keeps_harm_from_the_model(nano, case):
    up, served = nano
    harmful, talk = CASES[case]
    up.seen.clear()
    chat(served, *talk)
    if harmful:  # the turn is blocked, or cut out of what is sent on
        assert not up.seen or HARM not in json.dumps(up.seen[-1])
    else:
        assert up.seen[-1]["messages"] == talk


@pytest.mark.parametrize("case", CASES)
def test_the_litellm_guardrail_keeps_harm_from_the_model(nano, case):
    harmful, talk = CASES[case]
    texts = [m["content"] for m in talk if m["content"]]
    answer = guardrail(nano[1], input_type="request", texts=texts, structured_messages=talk)
    assert (answer["action"] == "NONE") == (not harmful)
    assert not harmful or answer["action"] == "BLOCKED" or HARM not in json.dumps(answer["texts"])


@pytest.mark.parametrize("case", CASES)
def test_the_nemo_check_stops_harm(nano, case):
    harmful, talk = CASES[case]
    assert check(nano[1], *talk)["status"] == ("blocked" if harmful else "passed")


@pytest.mark.parametrize(("reply", "harmful"), [(ANSWERS[2], False), (REPLY, True)])
def test_as_nemos_content_safety_model_it_judges_the_reply_to_a_long_conversation(nano, reply, harmful):
    talk = "\n".join(f"{m['role']}: {m['content']}" for m in SMALL_TALK)
    prompt, response = guard_says(nano[1], json.dumps({"prompt": talk, "response": reply}))
    assert prompt == "Prompt harm: unharmful"
    assert response == f"Response Harm: {'harmful' if harmful else 'unharmful'}"
