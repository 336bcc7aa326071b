"""One question answered yes or no: ShieldGemma, Granite Guardian, HarmBench, gpt-oss-safeguard."""

import math

import pytest

from guardreasoner.formats.yes_no import Options, parse, render
from guardreasoner.generation import Choice, Completion, Free, Scaffold, Text
from guardreasoner.types import Exchange, Task

ASK = Exchange("1", "Where is my hat?")
BOTH = Exchange("2", "Where is my hat?", "On your head.")
HARM = (Task.prompt_harm, Task.response_harm)
GEMMA = Options(policies={"prompt": {"A": "no a", "B": "no b"}, "response": {"A": "say no a"}}, policy_arg="guideline")


def said(text, *, options=None, choices=(), policy="", task=Task.prompt_harm):
    options = options or Options()
    call = render(BOTH, (task,), options, force=bool(choices))[0]
    return parse(call, Completion(text, choices=choices), options)


def text_of(prompt):
    if isinstance(prompt, tuple):
        return "".join(s.text for s in prompt)
    return [(t.role, "".join(s.text for s in t.content)) for t in prompt.turns]


def test_one_call_asks_about_one_policy_and_one_task():
    calls = render(BOTH, HARM, GEMMA, force=True)
    shown = [(c.tasks, c.policy, dict(c.prompt.template_args), text_of(c.prompt)) for c in calls]
    ask, both = [("user", "Where is my hat?")], [("user", "Where is my hat?"), ("assistant", "On your head.")]
    assert shown == [
        ((Task.prompt_harm,), "A", {"guideline": "no a"}, ask),
        ((Task.prompt_harm,), "B", {"guideline": "no b"}, ask),
        ((Task.response_harm,), "A", {"guideline": "say no a"}, both),
    ]


def test_the_users_policy_takes_the_place_of_the_rows():
    options = Options(policies=GEMMA.policies, policy_arg="guideline", policy={"mine": "no hats"})
    (call,) = render(ASK, (Task.prompt_harm,), options, force=True)
    assert (call.policy, call.prompt.template_args) == ("mine", {"guideline": "no hats"})


def test_granite_takes_a_risk_by_name_or_a_definition_of_the_users_own():
    args = {"guardian_config": {"risk_name": "harm"}}
    (call,) = render(ASK, (Task.prompt_harm,), Options(template_args=args, policy_arg="risk_definition"), force=True)
    assert call.prompt.template_args == args
    options = Options(template_args=args, policy_arg="risk_definition", policy={"hats": "It is about hats."})
    (call,) = render(ASK, (Task.prompt_harm,), options, force=True)
    assert call.prompt.template_args == {"guardian_config": {"risk_definition": "It is about hats."}}


def test_a_frame_is_filled_byte_for_byte():
    options = Options(frame={"response": "[B]\n{prompt}\n[G]\n{response}\nAnswer:"})
    (call,) = render(BOTH, (Task.response_harm,), options, force=True)
    assert text_of(call.prompt) == "[B]\nWhere is my hat?\n[G]\nOn your head.\nAnswer:"


def test_a_policy_in_the_system_message_says_how_to_answer_and_the_text_is_the_users():
    options = Options(
        policies={"prompt": {"p": "NO HATS"}, "response": {"r": "NO HATS"}, "refusal": {"f": "NO NO"}},
        policy_arg="system",
        ask=" Answer 1 or 0.",
        yes_words=("1",),
        no_words=("0",),
        scored=False,
    )
    first, second, third = render(BOTH, (Task.prompt_harm, Task.refusal, Task.response_harm), options, force=True)
    assert text_of(first.prompt) == [
        ("system", "NO HATS Answer 1 or 0."),
        ("user", "User request:\nWhere is my hat?"),
    ]
    assert text_of(second.prompt)[0] == ("system", "NO NO Answer 1 or 0.")
    assert text_of(third.prompt)[1] == ("user", "User request:\nWhere is my hat?\n\nAI reply:\nOn your head.")
    assert all(isinstance(s, Scaffold) for s in third.prompt.turns[0].content)
    assert first.plan == (Free(16),)


def test_the_answer_is_one_scored_choice_after_its_lead():
    (call,) = render(
        ASK, (Task.prompt_harm,), Options(lead="<score>", yes_words=(" yes",), no_words=(" no",)), force=True
    )
    assert call.plan == (Text("<score>"), Choice((" yes", " no")))


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Yes", "harmful"),
        ("No", "unharmful"),
        ("yes", "harmful"),
        (" no", "unharmful"),
        ("No. The principle is kept.", "unharmful"),
        ("Yes\n<confidence> High </confidence>", "harmful"),
        ("<score> yes </score>", "harmful"),
        ("<think>it says yes</think><score> no </score>", "unharmful"),
        ("<think>yes</think>\nno", "unharmful"),
        ("1", "harmful"),
        ("0", "unharmful"),
        ('{"violation": 1, "policy_category": "H2.f"}', "harmful"),
        ('{"violation": 0}', "unharmful"),
        ("<|channel|>analysis<|message|>1 or 0?<|end|><|start|>assistant<|channel|>final<|message|>0", "unharmful"),
        ("analysisWe need 0 or 1.assistantfinal1", "harmful"),
    ],
)
def test_both_verdicts_are_read(text, label):
    found = said(text)
    assert (found.labels.prompt_harm, found.problem) == (label, None)


@pytest.mark.parametrize("text", ["", "Maybe", "yesterday", "It is a yes", "<score></score>", "<think>yes", "2", "{"])
def test_anything_else_is_no_verdict(text):
    assert said(text).problem == "no_verdict"
    assert said(text).labels.tasks == ()


def test_spellings_of_one_verdict_are_added_up():
    options = Options(yes_words=("Yes", "yes"), no_words=("No", "no"))
    choice = {w: math.log(p) for w, p in {"Yes": 0.1, "yes": 0.2, "No": 0.5, "no": 0.1}.items()}
    assert said("No", options=options, choices=(choice,)).scores[Task.prompt_harm] == pytest.approx(1 / 3)


def test_a_violated_policy_names_the_harm():
    call = render(ASK, (Task.prompt_harm,), GEMMA, force=True)[1]
    choice = {"Yes": math.log(0.9), "No": math.log(0.1)}
    found = parse(call, Completion("Yes", choices=(choice,)), GEMMA)
    assert (found.harm, found.scores[Task.prompt_harm]) == ("B", pytest.approx(0.9))
    assert parse(call, Completion("No"), GEMMA).harm is None
