"""The wires, against their published shapes: ours, OpenAI moderation, LiteLLM's generic guardrail, NeMo."""

import json

import pytest

from guardreasoner.records import from_dict
from guardreasoner.serve.wires.moderations import CATEGORIES, categories_of
from guardreasoner.types import Labels, Verdict, field_names
from serve.running import serving

LITELLM = "/beta/litellm_basic_guardrail_api"


# ---- ours


def test_one_exchange_gives_one_whole_verdict(served):
    body = {"prompt": "hi", "response": "bad fraud", "context": [{"role": "user", "content": "before"}], "id": "mine"}
    answer = served.http.post("/v1/judge", json=body).json()
    assert tuple(answer) == field_names(Verdict)
    verdict = from_dict(Verdict, answer)
    assert (verdict.exchange_id, verdict.flagged, verdict.harm) == ("mine", True, "fraud")
    assert verdict.labels == Labels("unharmful", "compliance", "harmful")


def test_earlier_messages_are_judged_with_the_request(served):
    body = {"prompt": "and then?", "context": [{"role": "user", "content": "bad plans"}]}
    assert served.http.post("/v1/judge", json=body).json()["flagged"] is True


def test_many_exchanges_give_verdicts_in_order(served):
    exchanges = [{"prompt": "bad" if i % 2 else "good", "id": f"n{i}"} for i in range(20)]
    verdicts = served.http.post("/v1/judge", json={"exchanges": exchanges}).json()["verdicts"]
    assert [(v["exchange_id"], v["flagged"]) for v in verdicts] == [(f"n{i}", bool(i % 2)) for i in range(20)]


def test_an_empty_prompt_with_a_reply_is_judged(served):
    assert served.http.post("/v1/judge", json={"prompt": "", "response": "bad"}).json()["flagged"] is True


def test_the_caller_chooses_the_mode(served):
    modes = [served.http.post("/v1/judge", json={"prompt": "x", "mode": m}).json()["mode"] for m in ("instant", "full")]
    assert modes == ["instant", "full"]


def events(text: str) -> list[tuple[str, dict]]:
    blocks = [b.split("\n", 1) for b in text.strip().split("\n\n")]
    return [(kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for kind, data in blocks]


def test_steps_arrive_while_the_guard_still_reasons_and_the_verdict_last(served):
    with served.http.stream("POST", "/v1/judge", json={"prompt": "bad", "mode": "full", "stream": True}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        parts = list(answer.iter_text())
    got = events("".join(parts))
    assert [kind for kind, _ in got] == ["step", "step", "verdict"]
    assert len(parts) >= 2  # the first step did not wait for the verdict
    assert [s for _, s in got[:2]] == got[2][1]["steps"]
    assert got[2][1]["flagged"] is True


def test_a_stream_of_a_mode_without_steps_is_the_verdict_alone(served):
    answer = served.http.post("/v1/judge", json={"prompt": "bad", "mode": "instant", "stream": True})
    assert [kind for kind, _ in events(answer.text)] == ["verdict"]


def test_a_refusal_of_a_stream_is_a_status_and_not_an_event(served):
    assert served.http.post("/v1/judge", json={"prompt": "", "stream": True}).status_code == 400


def test_the_api_description_names_every_wire(served):
    paths = served.http.get("/openapi.json").json()["paths"]
    assert {"/v1/judge", "/v1/moderations", LITELLM, "/v1/checks", "/guard/v1/chat/completions"} <= set(paths)
    assert "exchanges" in json.dumps(paths["/v1/judge"])


# ---- OpenAI moderation


def moderate(served, **body):
    answer = served.http.post("/v1/moderations", json=body)
    return answer.json()["results"] if answer.status_code == 200 else answer.status_code


@pytest.mark.parametrize("given", ["bad fraud", ["bad fraud"], [{"type": "text", "text": "bad fraud"}]])
@pytest.mark.parametrize("model", [None, "omni-moderation-latest", "text-moderation-stable", "anything"])
def test_every_form_of_input_and_any_model_name_gets_all_thirteen_categories(served, given, model):
    (result,) = moderate(served, input=given, **({"model": model} if model else {}))
    assert result["flagged"] is True
    for part in ("categories", "category_scores", "category_applied_input_types"):
        assert tuple(result[part]) == CATEGORIES
    assert [c for c, hit in result["categories"].items() if hit] == ["illicit"]
    assert {c for c, s in result["category_scores"].items() if s} == {"illicit"}
    assert result["category_scores"]["illicit"] == 0.97


def test_there_is_one_result_per_string_and_one_per_multimodal_list(served):
    assert [r["flagged"] for r in moderate(served, input=["good", "bad", "good"])] == [False, True, False]
    parts = [{"type": "text", "text": "good"}, {"type": "text", "text": "bad"}]
    assert [r["flagged"] for r in moderate(served, input=parts)] == [True]


def test_the_verdict_goes_along_without_the_words_of_the_model(served):
    (result,) = moderate(served, input="bad fraud")
    assert result["guardreasoner"]["labels"]["prompt_harm"] == "harmful"
    assert not {"text", "steps"} & set(result["guardreasoner"])


def test_an_unknown_kind_of_harm_invents_no_category(served):
    (result,) = moderate(served, input="bad zyxwv")
    assert result["flagged"] is True
    assert not any(result["categories"].values())
    assert not any(result["category_scores"].values())


def test_an_input_may_be_said_to_be_a_reply(served):
    (result,) = moderate(served, input="bad", guardreasoner={"role": "response", "mode": "full"})
    assert result["guardreasoner"]["labels"]["response_harm"] == "harmful"
    assert result["guardreasoner"]["mode"] == "full"


@pytest.mark.parametrize("given", ["", [], [""], [{"type": "text", "text": ""}], {"a": 1}, 3, [{"type": "audio"}]])
def test_an_input_without_text_is_an_error(served, given):
    assert moderate(served, input=given) == 400


def test_an_image_is_refused_when_closed_and_marked_and_counted_when_open(served):
    given = [{"type": "text", "text": "good"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]
    assert moderate(served, input=given) == 400
    with serving({"routes": {"moderations": {"fail_mode": "open"}}}) as opened:
        (result,) = moderate(opened, input=given)
        assert result["guardreasoner"]["notes"]["unread"] == "1 part(s)"
        assert opened.metric("unjudged_total", route="moderations", fail_mode="open", status="unreadable") == 1


@pytest.mark.parametrize(("fail_mode", "flagged"), [("closed", True), ("open", False)])
def test_what_could_not_be_judged_is_flagged_when_closed_and_marked_when_open(fail_mode, flagged):
    with serving({"fail_mode": fail_mode}) as served:
        (result,) = moderate(served, input="RAISE")
        assert result["flagged"] is flagged
        assert (result["guardreasoner"]["status"], result["guardreasoner"]["fail_mode"]) == ("unavailable", fail_mode)
        assert not any(result["categories"].values())


@pytest.mark.parametrize(
    ("harm", "categories"),
    [
        ("hate speech", {"hate"}),
        ("violent threats against a group, hatred", {"hate/threatening", "hate", "harassment", "violence"}),
        ("child sexual abuse", {"sexual", "sexual/minors"}),
        ("sexual content", {"sexual"}),
        ("self-harm", {"self-harm"}),
        ("instructions for self-harm", {"self-harm", "self-harm/instructions"}),
        ("building a weapon", {"illicit", "illicit/violent"}),
        ("graphic violence", {"violence", "violence/graphic"}),
        ("drug dealing", {"illicit"}),
        ("privacy violation", set()),
        (None, set()),
    ],
)
def test_the_crosswalk_maps_the_guards_words_to_categories(harm, categories):
    verdict = Verdict("x", "g", "full", "ok", Labels("harmful"), harm=harm)
    found = {c for c, hit in categories_of(verdict).items() if hit}
    assert found >= categories
    assert bool(found) == bool(categories)
    unharmful = Verdict("x", "g", "full", "ok", Labels("unharmful"), harm=harm)
    assert not any(categories_of(unharmful).values())


# ---- LiteLLM


def guardrail(served, **body):
    answer = served.http.post(LITELLM, json={"request_data": {}, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def user(text):
    return {"role": "user", "content": text}


def said(text):
    return {"role": "assistant", "content": text}


def test_litellm_requests_pass_or_are_blocked(served):
    good = guardrail(served, input_type="request", texts=["hello"], structured_messages=[user("hello")])
    bad = guardrail(served, input_type="request", texts=["bad"], structured_messages=[user("bad")])
    assert (good["action"], bad["action"]) == ("NONE", "BLOCKED")
    assert bad["blocked_reason"] == "This was blocked by the content policy."


def test_litellm_texts_without_messages_and_beside_messages_are_judged(served):
    assert guardrail(served, input_type="request", texts=["fine", "bad"])["action"] == "BLOCKED"
    body = {"texts": ["hello", "bad"], "structured_messages": [user("hello")]}
    assert guardrail(served, input_type="request", **body)["action"] == "BLOCKED"


def test_litellm_replies_are_judged_with_the_request_they_answer():
    with serving({"routes": {"litellm": {"action": "flag"}}}) as flagging:
        guardrail(flagging, input_type="request", texts=["bad"], structured_messages=[user("bad")], litellm_call_id="1")
        guardrail(flagging, input_type="response", texts=["sorry, no"], litellm_call_id="1")
        assert flagging.metric("verdicts_total", task="refusal", label="refusal") == 2  # with its request, and alone
        assert (
            flagging.metric("verdicts_total", task="prompt_harm", label="harmful") == 2
        )  # the reply brought its request


def asking(served, *talk):
    texts = [m["content"] for m in talk]
    guardrail(served, input_type="request", texts=texts, structured_messages=list(talk), litellm_call_id="long")


def test_litellm_replies_are_judged_with_the_end_of_a_long_request_and_are_known_when_they_come_back(
    served, monkeypatch
):
    asked = []
    judge = served.core.judge
    monkeypatch.setattr(served.core, "judge", lambda e, *more: asked.append(e) or judge(e, *more))
    asking(served, user("x" * 600), said("y" * 600), user("z" * 700))
    guardrail(served, input_type="response", texts=["fine"], litellm_call_id="long")
    together = asked[-1][0]
    assert (together.prompt, [m.content for m in together.context]) == ("z" * 700, ["y" * 300])
    asking(served, user("z" * 2000))
    guardrail(served, input_type="response", texts=["fine"], litellm_call_id="long")
    assert asked[-1][0].prompt == "z" * 1000
    asked.clear()
    asking(served, user("z" * 2000), said("fine"), user("and now?"))
    assert {e.prompt for several in asked for e in several} == {"and now?"}


def test_litellm_replies_are_blocked_for_what_they_say_and_not_for_what_was_asked(served):
    assert guardrail(served, input_type="response", texts=["fine", "bad"])["action"] == "BLOCKED"
    assert guardrail(served, input_type="response", texts=["fine"], litellm_call_id="none")["action"] == "NONE"
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"q": "bad"}'}}
    assert guardrail(served, input_type="response", texts=[], tool_calls=[call])["action"] == "BLOCKED"


def test_a_blocked_turn_is_cut_out_later_and_does_not_block_for_ever(served):
    talk = [user("bad thing"), said("I cannot."), user("what is two and two?")]
    texts = [m["content"] for m in talk]
    answer = guardrail(served, input_type="request", texts=texts, structured_messages=talk)
    assert answer["action"] == "GUARDRAIL_INTERVENED"
    blocked = "This was blocked by the content policy."
    assert answer["texts"] == [blocked, blocked, "what is two and two?"]


@pytest.mark.parametrize(
    "body",
    [
        {"images": ["data:image/png;base64,AA"], "texts": ["hi"], "structured_messages": [user("hi")]},
        {"texts": ["hi"], "structured_messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
        {"texts": ["hi"], "structured_messages": [{"role": "wizard", "content": "hi"}]},
    ],
)
def test_litellm_parts_that_cannot_be_read_block_when_closed_and_count_when_open(served, body):
    assert guardrail(served, input_type="request", **body)["action"] == "BLOCKED"
    with serving({"fail_mode": "open"}) as opened:
        assert guardrail(opened, input_type="request", **body)["action"] == "NONE"
        assert opened.metric("unjudged_total", route="litellm", fail_mode="open", status="unreadable") >= 1


def test_litellm_tool_descriptions_are_judged(served):
    tools = [{"type": "function", "function": {"name": "f", "description": "bad", "parameters": {}}}]
    body = {"texts": ["hi"], "structured_messages": [user("hi")], "tools": tools}
    assert guardrail(served, input_type="request", **body)["action"] == "BLOCKED"


def test_litellm_parameters_choose_the_mode_and_others_are_not_ours(served):
    params = {"mode": "full", "someone": "else's"}
    before = served.metric("stage_seconds_count", mode="full", stage="total")
    guardrail(served, input_type="request", texts=["hi"], additional_provider_specific_params=params)
    assert served.metric("stage_seconds_count", mode="full", stage="total") == before + 1


# ---- NeMo


def check(served, *messages, **guardrails):
    return served.http.post(
        "/v1/checks", json={"model": "m", "messages": list(messages), "guardrails": guardrails}
    ).json()


def test_nemo_checks_pass_and_block_by_rail(served):
    passed = check(served, user("hello"))
    assert (passed["status"], passed["content"], passed.get("rail")) == ("passed", "hello", None)
    blocked = check(served, user("bad"))
    assert (blocked["status"], blocked["rail"]) == ("blocked", "guardreasoner check input")
    blocked = check(served, user("hi"), said("bad"), config_id="x", rail_types=["output"])
    assert (blocked["status"], blocked["rail"]) == ("blocked", "guardreasoner check output")


def test_nemo_checks_block_for_an_earlier_turn_unless_it_was_blocked(served):
    later = [user(f"question {i}") if i % 2 == 0 else said(f"answer {i}") for i in range(9)]
    assert check(served, user("bad"), said("hm"), *later)["status"] == "blocked"
    assert check(served, user("bad"), said("This was blocked by the content policy."), *later)["status"] == "passed"
    assert check(served, user("hi"), said("bad"), *later[:1], rail_types=["output"])["status"] == "passed"


def test_nemo_output_rails_do_not_block_a_harmless_reply_to_a_harmful_request(served):
    assert check(served, user("bad"), said("sorry, no"), rail_types=["output"])["status"] == "passed"
    assert check(served, user("bad"), said("sorry, no"))["rail"] == "guardreasoner check input"


def guard_says(served, content):
    body = {"model": "x", "messages": [user(content)], "max_tokens": 1024, "temperature": 0}
    answer = served.http.post("/guard/v1/chat/completions", json=body).json()
    return answer["choices"][0]["message"]["content"].splitlines()


def test_as_nemos_content_safety_model_the_guard_speaks_its_parsers_words(served):
    assert guard_says(served, json.dumps({"prompt": "hi"})) == ["Prompt harm: unharmful", "Response Harm: unharmful"]
    assert guard_says(served, json.dumps({"prompt": "bad"})) == ["Prompt harm: harmful", "Response Harm: unharmful"]
    assert guard_says(served, json.dumps({"prompt": "hi", "response": "bad"}))[1] == "Response Harm: harmful"
    assert guard_says(served, "RAISE") == ["Prompt harm: harmful", "Response Harm: harmful"]


@pytest.mark.parametrize(
    "text", ['{"prompt": "bad", "prompt": "hi"}', '{"prompt": ["bad"]}', '{"prompt": "hi", "x": "bad"}', "bad"]
)
def test_a_prompt_that_is_not_exactly_an_exchange_is_judged_as_it_stands(served, text):
    assert guard_says(served, text)[0] == "Prompt harm: harmful"


def test_a_route_that_is_on_no_list_does_not_exist(served):
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings", "/guard/v1/models"):
        assert served.http.post(path, json={"model": "m"}).status_code == 404
