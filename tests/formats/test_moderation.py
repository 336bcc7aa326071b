"""One result of a moderation endpoint."""

import json

import pytest

from guardreasoner.formats.moderation import Options, parse, render
from guardreasoner.generation import Completion, Judged
from guardreasoner.types import Exchange, Task

BOTH = Exchange("2", "Where is my hat?", "On your head.")
RESULT = {
    "flagged": True,
    "categories": {"harassment": False, "violence": True, "hate": None},
    "category_scores": {"harassment": 0.2, "violence": 0.7, "hate": None},
}


def said(text):
    return parse(render(BOTH, (Task.prompt_harm,), Options(), force=False)[0], Completion(text), Options())


def test_request_and_reply_are_judged_apart():
    calls = render(BOTH, BOTH.tasks, Options(), force=False)
    assert [(c.tasks, c.prompt, c.plan) for c in calls] == [
        ((Task.prompt_harm,), (Judged("Where is my hat?"),), ()),
        ((Task.response_harm,), (Judged("On your head."),), ()),
    ]
    assert len(render(Exchange("1", "Hi"), (Task.prompt_harm,), Options(), force=False)) == 1


def test_flagged_decides_and_the_greatest_category_is_the_score():
    found = said(json.dumps(RESULT))
    assert (found.labels.prompt_harm, found.harm, found.problem) == ("harmful", "violence", None)
    assert found.scores == {Task.prompt_harm: pytest.approx(0.7)}
    found = said(json.dumps({**RESULT, "flagged": False}))
    assert (found.labels.prompt_harm, found.scores[Task.prompt_harm]) == ("unharmful", pytest.approx(0.7))


def test_a_result_without_scores_still_has_a_label():
    assert said('{"flagged": false}').labels.prompt_harm == "unharmful"
    assert said('{"flagged": false}').scores == {}


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"flagged": "yes"}', '{"flagged": 1}', '{"flagged": tr'])
def test_anything_else_is_no_verdict(text):
    assert said(text).problem == "no_verdict"


def test_categories_of_another_shape_do_not_break_it():
    assert said('{"flagged": true, "category_scores": {"a": "x"}}').problem == "no_verdict"
    assert said('{"flagged": true, "category_scores": [1]}').problem == "no_verdict"
    assert said('{"flagged": true, "categories": [1, 2]}').problem == "no_verdict"
