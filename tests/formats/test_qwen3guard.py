"""Qwen3Guard-Gen: three levels, a refusal line, strict and loose."""

import math

import pytest

from guardreasoner.formats.qwen3guard import Options, parse, render
from guardreasoner.generation import Choice, Completion, Free, Text
from guardreasoner.types import Exchange, Task

ASK = Exchange("1", "Where is my hat?")
BOTH = Exchange("2", "Where is my hat?", "On your head.")
LEVELS = Choice((" Unsafe", " Controversial", " Safe"))
STRICT, LOOSE = Options(), Options(level="loose")


def said(text, exchange=BOTH, *, options=STRICT, choices=()):
    call = render(exchange, exchange.tasks, options, force=bool(choices))[-1]
    return parse(call, Completion(text, choices=choices), options)


def test_a_request_is_one_call_and_a_reply_a_second_one_with_both_turns():
    (only,) = render(ASK, ASK.tasks, STRICT, force=True)
    assert [t.role for t in only.prompt.turns] == ["user"]
    assert only.plan == (Text("Safety:"), LEVELS, Text("\nCategories:"), Free(32, ("\n",)))
    first, second = render(BOTH, BOTH.tasks, STRICT, force=True)
    assert first.prompt == only.prompt
    assert [(t.role, t.content[0].text) for t in second.prompt.turns] == [
        ("user", "Where is my hat?"),
        ("assistant", "On your head."),
    ]
    assert second.tasks == (Task.refusal, Task.response_harm)
    assert second.plan == (*only.plan, Text("\nRefusal:"), Choice((" Yes", " No")))
    assert second.prompt.template_args == {}


def test_only_what_is_asked_is_called():
    (call,) = render(BOTH, (Task.response_harm,), STRICT, force=True)
    assert (call.tasks, call.plan[-1]) == ((Task.response_harm,), Free(32, ("\n",)))
    assert render(ASK, (), STRICT, force=True) == []


@pytest.mark.parametrize(
    ("level", "strict", "loose"),
    [("Safe", "unharmful", "unharmful"), ("Unsafe", "harmful", "harmful"), ("Controversial", "harmful", "unharmful")],
)
def test_strict_counts_controversial_and_loose_does_not(level, strict, loose):
    text = f"Safety: {level}\nCategories: Violent\nRefusal: No"
    assert said(text).labels.response_harm == strict
    assert said(text, options=LOOSE).labels.response_harm == loose
    assert said(text).labels.refusal == "compliance"
    assert said(text).notes == ({"controversial": True} if level == "Controversial" else {})


def test_a_refusal_and_its_categories_are_read():
    found = said("Safety: Safe\nCategories: None\nRefusal: Yes")
    assert (found.labels.refusal, found.harm, found.problem) == ("refusal", None, None)
    assert said("Safety: Unsafe\nCategories: Violent, PII\nRefusal: No").harm == "Violent, PII"


def test_broken_answers_say_what_is_wrong():
    assert said("Safety: Unsafe\nCategories: Vio").problem == "no_verdict"
    assert said("Safety: Unsafe\nCategories: Vio").labels.response_harm == "harmful"
    assert said("I am a guard.").problem == "no_block"
    assert said("Safety: Fine", ASK).problem == "no_block"


def test_scores_add_up_the_levels_that_count():
    level = {" Unsafe": math.log(0.2), " Controversial": math.log(0.3), " Safe": math.log(0.5)}
    refusal = {" Yes": math.log(0.6), " No": math.log(0.2)}
    text = "Safety: Safe\nCategories: None\nRefusal: Yes"
    strict, loose = (said(text, options=o, choices=(level, refusal)).scores for o in (STRICT, LOOSE))
    assert strict == {Task.response_harm: pytest.approx(0.5), Task.refusal: pytest.approx(0.75)}
    assert loose[Task.response_harm] == pytest.approx(0.2)
    assert said("Safety: Safe", ASK, choices=(level,)).scores == {Task.prompt_harm: pytest.approx(0.5)}
