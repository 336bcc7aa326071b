"""P read where reasoning concludes: the plan, the block that is written after it, and the texts around it."""

import pytest

from guardreasoner.engines.scripted import ScriptedEngine
from guardreasoner.formats import guardreasoner as wire
from guardreasoner.generation import Choice, Completion, Free, Judged, Text
from guardreasoner.guards.calibration import Calibration, Curve
from guardreasoner.guards.reasoning import ReasoningGuard
from guardreasoner.types import TASKS, Exchange, Labels, Task

BOTH = {" harmful": -0.2, " unharmful": -1.7}


def test_each_task_is_reasoned_about_and_decided_at_its_conclusion_with_the_budget_shared_out():
    plan = wire.plan("full", tuple(TASKS), budget=300, concludes=True, margins={Task.refusal: 1.5})
    assert [type(s) for s in plan] == [Text, Free, Text, Choice, Text] * 3
    assert [s.text for s in plan[::5]] == [f"{r.heading}\n## Reasoning Step 1\n" for r in TASKS.values()]
    assert [s.max_tokens for s in plan[1::5]] == [100] * 3
    assert [s.quotes for s in plan[1::5]] == ["prompt_harm", "refusal", "response_harm"]
    assert [s.text for s in plan[2::5]] == [" so the request is", " so this is", " so the response is"]
    assert [s.words for s in plan[3::5]][1] == (" a refusal", " compliance")
    assert [s.margin for s in plan[3::5]] == [0.0, 1.5, 0.0]


def test_a_task_quotes_the_part_that_it_is_given_and_else_what_the_model_chooses():
    prompt = wire.render(Exchange("a", "one two", "three four"), parts={Task.response_harm: "four"})
    assert [s.parts for s in prompt if isinstance(s, Judged)] == [
        {"prompt_harm": ""},
        {"refusal": "", "response_harm": "four"},
    ]


def test_a_conclusion_in_the_words_of_another_task_ends_the_step_too():
    free = wire.plan("full", (Task.response_harm,), budget=300, concludes=True)[1]
    assert {" so the response is", " so this is unharmful", " so the request is harmful", "# Task"} <= set(free.stop)
    assert " so this is" not in free.stop  # "so this is a recipe" may stand in any sentence


def test_instant_has_no_conclusion_to_read():
    assert wire.plan("instant", tuple(TASKS), concludes=True) == wire.plan("instant", tuple(TASKS))


@pytest.mark.parametrize(("margin", "label"), [(0.0, "harmful"), (2.0, "unharmful")])
def test_the_block_says_what_the_margin_decides(margin, label):
    made = wire.concluded(
        Completion("# Task 1\nIt is theft, so the request is harmful.\n", choices=(BOTH,)),
        (Task.prompt_harm,),
        {Task.prompt_harm: margin},
    )
    assert made.text.endswith(f"harmful.\n---\n\nAnswers: \nRequest: {label}\nCompletion: None\nResponse: None\n")
    assert made.choices == (BOTH,)


def test_choices_are_given_in_the_words_of_the_block():
    made = wire.concluded(Completion("x\n", choices=({" a refusal": -3.0, " compliance": -0.1},)), (Task.refusal,), {})
    assert made.choices == ({" refusal": -3.0, " compliance": -0.1},)
    assert wire.parse(made.text).labels == Labels(refusal="compliance")


def test_what_was_not_finished_gets_no_block():
    late = Completion("# Task 1\n", "timeout")
    assert wire.concluded(late, (Task.prompt_harm,), {}) is late


def test_a_guard_that_concludes_has_the_calibrated_p_of_the_conclusion():
    calibration = Calibration({(Task.prompt_harm, "full"): Curve("platt", (0.5, -1.0), 0.6)})
    guard = ReasoningGuard("g", ScriptedEngine(scores={"": 0.9}), mode="full", concludes=True, calibration=calibration)
    verdict = guard.judge([Exchange("a", "x")])[0]
    assert verdict.status == "ok"
    assert verdict.scores["prompt_harm"] == pytest.approx(0.5246331136)  # sigmoid(0.5 * ln 9 - 1)
    assert verdict.labels.prompt_harm == "unharmful"
    assert wire.parse(verdict.text).labels.prompt_harm == "unharmful"


def test_another_block_replaces_the_last_one_and_a_text_without_one_stays():
    text = "Answers: \nRequest: harmful\n\nsaid so\n---\n\nAnswers: \nRequest: harmful\n"
    assert wire.with_block(text, Labels("unharmful")).endswith(
        "---\n\nAnswers: \nRequest: unharmful\nCompletion: None\nResponse: None\n"
    )
    assert wire.with_block("no block", Labels("unharmful")) == "no block"
