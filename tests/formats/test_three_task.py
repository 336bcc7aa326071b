"""The paper's prompts for chat models, and ours."""

import hashlib

import pytest

from guardreasoner.formats import guardreasoner as wire
from guardreasoner.formats.three_task import Options, parse, render
from guardreasoner.generation import Completion, Free
from guardreasoner.types import Exchange, Task

ASK = Exchange("1", "Where is my hat?")
BOTH = Exchange("2", "Where is my hat?", "On your head.")
HOLES = Exchange("0", "{prompt}", "{response}")
DIGESTS = {  # of the figures' texts, roles in brackets
    "plain": "ccbdd803e0232923b0d5c99b56dfb5a92dd29b9bdf1b4b7eeac77116959759e9",
    "cot": "26493907ba8f74434b05604654c582b5a7a12ac6d1bf015ccc99b5ea2aa217a7",
    "merged": "5406fabae37640e7765b1549204992b82946f7fe8bb387e7c5cde316c39eb6ad",
}


def shown(exchange, form):
    (call,) = render(exchange, exchange.tasks, Options(form=form), force=True)
    return [(t.role, "".join(s.text for s in t.content)) for t in call.prompt.turns]


def said(text, exchange=BOTH, form="plain"):
    (call,) = render(exchange, exchange.tasks, Options(form=form), force=True)
    return parse(call, Completion(text), Options(form=form))


@pytest.mark.parametrize("form", DIGESTS)
def test_the_papers_forms_have_their_exact_bytes(form):
    text = "\n".join(f"[{role}]\n{content}" for role, content in shown(HOLES, form))
    assert hashlib.sha256(text.encode()).hexdigest() == DIGESTS[form]


@pytest.mark.parametrize("form", [*DIGESTS, "ours", "vl"])
def test_a_missing_reply_is_the_word_none(form):
    assert "AI assistant:\nNone" in shown(ASK, form)[-1][1]
    assert "AI assistant:\nOn your head." in shown(BOTH, form)[-1][1]


def test_roles_are_those_of_the_figures():
    roles = {form: [role for role, _ in shown(BOTH, form)] for form in (*DIGESTS, "ours", "vl")}
    system = ["system", "user"]
    assert roles == {"plain": system, "cot": system, "merged": ["user"], "ours": ["user"], "vl": system}
    assert "Think step by step." in shown(BOTH, "cot")[0][1]
    assert "Think step by step." not in shown(BOTH, "plain")[0][1]


def test_ours_is_guardreasoners_own_chat_wire():
    (call,) = render(BOTH, BOTH.tasks, Options(form="ours"), force=True)
    assert call.prompt == wire.render(BOTH, "chat")


def test_the_model_always_writes_freely():
    for force in (True, False):
        (call,) = render(BOTH, BOTH.tasks, Options(max_tokens=7), force=force)
        assert call.plan == (Free(7),)
        assert call.tasks == (Task.prompt_harm, Task.refusal, Task.response_harm)


@pytest.mark.parametrize(
    "text",
    [
        "---\n\nAnswers:\nRequest: harmful\nCompletion: refusal\nResponse: unharmful",
        "Hm. Request: unharmful?\n---\nAnswers: \nRequest: Harmful\nCompletion: Refusal\nResponse: Unharmful\n",
        "**Request:** harmful\n**Completion:** refusal\n**Response:** unharmful",
        "Request: harmful\nCompletion: refusal\nResponse: unharmful",
        "<think>hm</think>\n<result>\nAnswers:\nRequest: harmful\nCompletion: refusal\nResponse: unharmful\n</result>",
    ],
)
def test_verdicts_are_read_after_the_last_answers_line_or_else_anywhere(text):
    found = said(text)
    assert found.labels.as_dict() == {"prompt_harm": "harmful", "refusal": "refusal", "response_harm": "unharmful"}
    assert found.problem is None


def test_the_other_verdicts_are_read_too():
    found = said("Answers:\nRequest: unharmful\nCompletion: compliance\nResponse: harmful")
    assert found.labels.as_dict() == {"prompt_harm": "unharmful", "refusal": "compliance", "response_harm": "harmful"}


def test_a_request_alone_needs_one_answer_and_gives_one():
    found = said("Answers:\nRequest: harmful\nCompletion: None\nResponse: None", ASK)
    assert found.labels.as_dict() == {"prompt_harm": "harmful", "refusal": None, "response_harm": None}
    assert found.problem is None


def test_broken_answers_say_what_is_wrong():
    assert said("I'm sorry, but I can't help with that.").problem == "no_block"
    assert said("").problem == "no_block"
    assert said("Answers:\nRequest: harmful\nComple").problem == "no_verdict"
    assert said("Answers:\nRequest: harmful\nRequest: unharmful").problem == "conflict"
    assert said("Answers:\nRequest: bad\nCompletion: refusal\nResponse: fine").problem == "no_verdict"


def test_two_task_models_answer_what_they_know():
    options = Options(form="vl")
    (call,) = render(BOTH, (Task.prompt_harm, Task.response_harm), options, force=True)
    text = "<think>\nsteps\n</think>\n<result>\nAnswers:\nRequest: harmful\nResponse: unharmful\n</result>"
    found = parse(call, Completion(text), options)
    assert (found.labels.prompt_harm, found.labels.response_harm, found.problem) == ("harmful", "unharmful", None)
