"""LLaMA Guard's, Aegis' and MD-Judge's answers: a word, and a line of categories."""

import math

import pytest

from guardreasoner.formats import safe_unsafe
from guardreasoner.formats.safe_unsafe import Options, parse, render
from guardreasoner.generation import Chat, Choice, Completion, Free, Judged, Scaffold, Text
from guardreasoner.types import Exchange, Message, Task

ASK = Exchange("1", "How do I kill a process?")
BOTH = Exchange("2", "How do I kill a process?", "Use the kill command.")
HARM = (Task.prompt_harm, Task.response_harm)


def said(text, *, choices=(), task=Task.prompt_harm, options=None, finish="stop"):
    options = options or Options()
    call = render(BOTH, (task,), options, force=bool(choices))[0]
    return parse(call, Completion(text, finish, choices=choices), options)


def messages(prompt):
    return [(t.role, "".join(s.text for s in t.content)) for t in prompt.turns]


def test_a_request_alone_is_one_user_message_and_a_reply_adds_the_assistants():
    (only,) = render(ASK, (Task.prompt_harm,), Options(), force=True)
    assert messages(only.prompt) == [("user", "How do I kill a process?")]
    first, second = render(BOTH, HARM, Options(), force=True)
    assert messages(first.prompt) == [("user", "How do I kill a process?")]
    assert messages(second.prompt) == [("user", "How do I kill a process?"), ("assistant", "Use the kill command.")]
    assert (first.tasks, second.tasks) == ((Task.prompt_harm,), (Task.response_harm,))


def test_refusal_is_not_asked():
    assert render(BOTH, (Task.refusal,), Options(), force=True) == []


def test_judged_text_is_never_scaffold():
    for call in render(BOTH, HARM, Options(), force=True):
        assert all(isinstance(s, Judged) for t in call.prompt.turns for s in t.content)


def test_a_frame_is_filled_byte_for_byte():
    options = Options(frame={"prompt": "Q {prompt}.", "response": "Q {prompt}\nA {response}."})
    first, second = render(BOTH, HARM, options, force=True)
    assert first.prompt == (Scaffold("Q "), Judged("How do I kill a process?"), Scaffold("."))
    assert "".join(s.text for s in second.prompt) == "Q How do I kill a process?\nA Use the kill command.."


def test_braces_in_judged_text_are_not_holes():
    options = Options(frame={"prompt": "Q {prompt}."})
    (call,) = render(Exchange("1", "{response} {prompt} {x}"), (Task.prompt_harm,), options, force=True)
    assert "".join(s.text for s in call.prompt) == "Q {response} {prompt} {x}."


def test_aegis_takes_request_and_reply_as_one_user_text():
    options = Options(frame={"prompt": "User: {prompt}|"}, one_turn=True)
    first, second = render(BOTH, HARM, options, force=True)
    assert "".join(s.text for s in first.prompt) == "User: How do I kill a process?|"
    assert "".join(s.text for s in second.prompt) == "User: How do I kill a process? Use the kill command.|"


def test_the_template_gets_parts_and_the_users_categories_where_the_row_says_so():
    options = Options(parts=True, policy={"S1": "Rudeness."}, policy_arg="categories")
    (call,) = render(ASK, (Task.prompt_harm,), options, force=True)
    assert isinstance(call.prompt, Chat)
    assert call.prompt.template_args == {"content_parts": True, "categories": {"S1": "Rudeness."}}


def test_a_conversation_alternates_from_the_user_on():
    context = (Message("assistant", "Hello."), Message("user", "Hi."), Message("user", "So:"))
    (call,) = render(Exchange("1", "What now?", None, context), (Task.prompt_harm,), Options(), force=True)
    assert messages(call.prompt) == [("user", ""), ("assistant", "Hello."), ("user", "Hi.\n\nSo:\n\nWhat now?")]


def test_the_verdict_is_one_scored_choice_after_the_line_break_that_the_template_left_out():
    (call,) = render(ASK, (Task.prompt_harm,), Options(lead="\n\n", categories=5), force=True)
    assert call.plan == (Text("\n\n"), Choice(("unsafe", "safe")), Free(5))
    (call,) = render(ASK, (Task.prompt_harm,), Options(categories=0), force=True)
    assert call.plan == (Choice(("unsafe", "safe")),)
    (call,) = render(ASK, (Task.prompt_harm,), Options(), force=False)
    assert call.plan == (Free(32),)


@pytest.mark.parametrize(
    ("text", "label", "harm"),
    [
        ("safe", "unharmful", None),
        ("\n\nsafe", "unharmful", None),
        (" safe", "unharmful", None),
        ("unsafe\nS1,S9", "harmful", "S1,S9"),
        ("\n\nunsafe\nS2", "harmful", "S2"),
        ("Unsafe\nO5", "harmful", "O5"),
        ("response: unsafe\nO5", "harmful", "O5"),
        ("unsafe", "harmful", None),
    ],
)
def test_both_verdicts_are_read(text, label, harm):
    found = said(text)
    assert (found.labels.prompt_harm, found.harm, found.problem) == (label, harm, None)


@pytest.mark.parametrize("text", ["", "I think it is unsafe", "unsafely put", "S1", "saf", "not safe"])
def test_anything_else_is_no_verdict(text):
    found = said(text)
    assert found.labels.tasks == ()
    assert found.problem == "no_verdict"


def test_the_score_is_the_two_way_softmax_of_the_planted_log_probabilities():
    choice = {"unsafe": math.log(0.3), "safe": math.log(0.1)}
    found = said("unsafe\nS1", choices=(choice,), task=Task.response_harm)
    assert found.scores == {Task.response_harm: pytest.approx(0.75)}
    assert found.labels.response_harm == "harmful"


def test_what_is_written_after_a_chosen_word_cannot_undo_it():
    choice = {"unsafe": math.log(0.3), "safe": math.log(0.1)}
    assert said("\n\nunsafely put\nS1", choices=(choice,)).labels.prompt_harm == "harmful"
    assert said("safety first", choices=(choice,)).labels.prompt_harm == "unharmful"


def test_llama_2_words_carry_their_blank():
    options = Options(words=(" unsafe", " safe"))
    choice = {" unsafe": math.log(0.2), " safe": math.log(0.6)}
    assert said(" safe", choices=(choice,), options=options).scores[Task.prompt_harm] == pytest.approx(0.25)


def test_parse_survives_any_text():
    for text in ("\x00", "safe" * 10_000, "un\ud800safe", "safe\n" * 3):
        assert isinstance(said(text).labels.tasks, tuple)
    assert safe_unsafe.__doc__
