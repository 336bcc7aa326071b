"""NemoGuard's JSON ratings."""

import math

import pytest

from guardreasoner.formats.json_ratings import Options, parse, render
from guardreasoner.generation import Choice, Completion, Free, Text
from guardreasoner.types import Exchange, Task

ASK = Exchange("1", "Where is my hat?")
BOTH = Exchange("2", "Where is my hat?", "On your head.")
OPTIONS = Options(frame={"prompt": "user: {prompt}\n", "response": "user: {prompt}\n\nresponse: agent: {response}\n"})
WORDS = Choice(("unsafe", "safe"))


def said(text, exchange=BOTH, choices=()):
    (call,) = render(exchange, exchange.tasks, OPTIONS, force=bool(choices))
    return parse(call, Completion(text, choices=choices), OPTIONS)


def user_text(exchange):
    (call,) = render(exchange, exchange.tasks, OPTIONS, force=True)
    ((role, content),) = [(t.role, "".join(s.text for s in t.content)) for t in call.prompt.turns]
    assert role == "user"
    return content


def test_request_and_reply_are_one_user_message_with_a_frame_each():
    assert user_text(ASK) == "user: Where is my hat?\n"
    assert user_text(BOTH) == "user: Where is my hat?\n\nresponse: agent: On your head.\n"


def test_both_ratings_are_scored_in_one_call():
    (call,) = render(BOTH, BOTH.tasks, OPTIONS, force=True)
    assert call.tasks == (Task.prompt_harm, Task.response_harm)
    first, second = Text('{"User Safety": "'), Text('", "Response Safety": "')
    assert call.plan == (first, WORDS, second, WORDS, Text('"'), Free(40))
    (call,) = render(ASK, ASK.tasks, Options(frame=OPTIONS.frame, categories=0), force=True)
    assert call.plan == (first, WORDS, Text('"}'))
    assert render(BOTH, (Task.refusal,), OPTIONS, force=True) == []


@pytest.mark.parametrize(
    "text",
    [
        '{"User Safety": "unsafe", "Response Safety": "safe", "Safety Categories": "Violence, Threat"}',
        'Here it is: {"User Safety":"Unsafe","Response Safety":"Safe","Safety Categories":"Violence, Threat"} done',
        '{"User Safety": unsafe, "Response Safety": safe, "Safety Categories": "Violence, Threat',
        'User Safety: unsafe\nResponse Safety: safe\n"Safety Categories": "Violence, Threat"',
    ],
)
def test_ratings_are_read_from_json_and_from_what_is_left_of_it(text):
    found = said(text)
    assert (found.labels.prompt_harm, found.labels.response_harm) == ("harmful", "unharmful")
    assert (found.harm, found.problem) == ("Violence, Threat", None)


def test_both_labels_of_a_request_are_read():
    assert said('{"User Safety": "safe"}', ASK).labels.prompt_harm == "unharmful"
    assert said('{"User Safety": "unsafe"}', ASK).labels.prompt_harm == "harmful"


def test_a_missing_rating_of_the_reply_is_no_verdict():
    found = said('{"User Safety": "unsafe", "Safety Cat')
    assert (found.labels.prompt_harm, found.labels.response_harm, found.problem) == ("harmful", None, "no_verdict")


@pytest.mark.parametrize("text", ["", "I cannot.", "[]", "{" * 5000, '{"User Safety": 1', "null"])
def test_anything_else_is_no_block(text):
    assert said(text).problem == "no_block"


def test_a_rating_that_is_neither_word_is_no_verdict():
    assert said('{"User Safety": "dubious"}', ASK).problem == "no_verdict"


def test_scores_come_from_the_value_of_each_key():
    choices = tuple({"unsafe": math.log(p), "safe": math.log(1 - p)} for p in (0.8, 0.3))
    found = said('{"User Safety": "unsafe", "Response Safety": "safe"}', choices=choices)
    assert found.scores == {Task.prompt_harm: pytest.approx(0.8), Task.response_harm: pytest.approx(0.3)}
