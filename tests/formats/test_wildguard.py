"""Three lines of yes and no: WildGuard and PolyGuard."""

import math

import pytest

from guardreasoner.formats.wildguard import Options, parse, render
from guardreasoner.generation import Choice, Completion, Free, Text
from guardreasoner.types import Exchange, Task

ASK = Exchange("1", "Where is my hat?")
BOTH = Exchange("2", "Where is my hat?", "On your head.")
WORDS = Choice((" yes", " no"))
OPTIONS = Options(frame={"prompt": "U:\n{prompt}\n\nA:\n{response}\n---"})


def said(text, exchange=BOTH, choices=()):
    (call,) = render(exchange, exchange.tasks, OPTIONS, force=bool(choices))
    return parse(call, Completion(text, choices=choices), OPTIONS)


def test_a_request_alone_leaves_the_reply_empty():
    (call,) = render(ASK, ASK.tasks, OPTIONS, force=True)
    assert "".join(s.text for s in call.prompt) == "U:\nWhere is my hat?\n\nA:\n\n---"
    assert call.plan == (Text("Harmful request:"), WORDS)


def test_a_reply_asks_for_all_three_lines_in_one_call():
    (call,) = render(BOTH, BOTH.tasks, OPTIONS, force=True)
    assert "".join(s.text for s in call.prompt) == "U:\nWhere is my hat?\n\nA:\nOn your head.\n---"
    assert call.tasks == (Task.prompt_harm, Task.refusal, Task.response_harm)
    lines = (Text("Harmful request:"), Text("\nResponse refusal:"), Text("\nHarmful response:"))
    assert call.plan == (lines[0], WORDS, lines[1], WORDS, lines[2], WORDS)
    assert render(BOTH, BOTH.tasks, OPTIONS, force=False)[0].plan == (Free(128),)


def test_polyguard_is_a_system_and_a_user_message():
    options = Options(frame={"system": "Classify {prompt}.", "prompt": "U: {prompt} A: {response}"})
    (call,) = render(BOTH, BOTH.tasks, options, force=True)
    shown = [(t.role, "".join(s.text for s in t.content)) for t in call.prompt.turns]
    assert shown == [("system", "Classify {prompt}."), ("user", "U: Where is my hat? A: On your head.")]


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        (
            "Harmful request: yes\nResponse refusal: no\nHarmful response: yes",
            ("harmful", "compliance", "harmful"),
        ),
        (
            "Harmful request: no\nResponse refusal: yes\nHarmful response: no\n",
            ("unharmful", "refusal", "unharmful"),
        ),
        (
            " Harmful request: No\nResponse refusal: Yes\nHarmful response: No",
            ("unharmful", "refusal", "unharmful"),
        ),
    ],
)
def test_all_three_verdicts_are_read(text, labels):
    found = said(text)
    assert (found.labels.prompt_harm, found.labels.refusal, found.labels.response_harm) == labels
    assert found.problem is None


def test_a_request_alone_needs_its_own_line_only():
    found = said("Harmful request: yes\nResponse refusal: n/a\nHarmful response: n/a", ASK)
    assert found.labels.as_dict() == {"prompt_harm": "harmful", "refusal": None, "response_harm": None}
    assert found.problem is None


def test_not_applicable_is_no_verdict_where_there_is_a_reply():
    found = said("Harmful request: yes\nResponse refusal: n/a\nHarmful response: no")
    assert (found.labels.prompt_harm, found.labels.refusal, found.problem) == ("harmful", None, "no_verdict")


def test_a_strange_value_spoils_the_whole_answer():
    found = said("Harmful request: yes\nResponse refusal: perhaps\nHarmful response: no")
    assert (found.labels.tasks, found.problem) == ((), "no_verdict")


def test_a_truncated_answer_keeps_what_was_said_and_says_what_is_missing():
    found = said("Harmful request: yes\nResponse ref")
    assert (found.labels.prompt_harm, found.labels.response_harm, found.problem) == ("harmful", None, "no_verdict")


def test_two_values_for_one_key_are_a_conflict_and_prose_is_no_block():
    assert said("Harmful request: yes\nHarmful request: no").problem == "conflict"
    assert said("I would rather not say.").problem == "no_block"
    assert said("").problem == "no_block"


def test_polyguards_violations_name_the_harm():
    lines = "Harmful request: yes\nResponse refusal: no\nHarmful response: no\n"
    found = said(lines + "Request safety violations: S2, S9\nResponse safety violations: None")
    assert (found.harm, found.problem) == ("S2, S9", None)


def test_scores_come_from_the_value_of_each_line():
    choices = tuple({" yes": math.log(p), " no": math.log(1 - p)} for p in (0.9, 0.2, 0.4))
    found = said("Harmful request: yes\nResponse refusal: no\nHarmful response: no", choices=choices)
    expected = {Task.prompt_harm: 0.9, Task.refusal: 0.2, Task.response_harm: 0.4}
    assert found.scores == {t: pytest.approx(p) for t, p in expected.items()}
