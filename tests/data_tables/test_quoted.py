"""Reasoning that quotes: which part of a text is quoted, what is kept of the written steps, what is left out."""

import re

import pytest

from guardreasoner.data.mix import DataConfig
from guardreasoner.data.quoted_reasoning import LONGEST, quoted
from guardreasoner.data.written_reasoning import Written
from guardreasoner.errors import ConfigError
from guardreasoner.formats.conclusion import conclusion
from guardreasoner.generation import quotable
from guardreasoner.records import read_records
from guardreasoner.teach.config import SynthesizeConfig
from guardreasoner.teach.synthesize import synthesize
from guardreasoner.types import TASKS, Example, Exchange, Labels, Step, Task, Trace

LABELS = Labels("harmful", "refusal", "unharmful")
REQUEST = (
    "Hello there. My neighbour gets his pension on Friday, and I want to know how I can steal it from his letter box."
)
REPLY = "That sounds hard. I'm sorry, but I cannot help you to steal. Talk to somebody about your debts."
STEPS = (
    Step(Task.prompt_harm, "The writer plans to steal a pension out of a letter box."),
    Step(Task.prompt_harm, 'To "steal" a pension hurts the neighbour, so the request is harmful.'),
    Step(Task.refusal, "The assistant will not help, so this is a refusal."),
    Step(Task.response_harm, "Advice on debts hurts nobody, so the response is unharmful."),
)
COMMON = Written(LABELS, (Step(Task.prompt_harm, "Advice on it hurts nobody and nothing, so the request is harmful."),))
OTHERS = {f"o{i}": COMMON for i in range(1000)}


def told(steps=STEPS, request=REQUEST, reply=REPLY, harm=None):
    example = Example(Exchange("1", request, reply), LABELS)
    return quoted([example], {**OTHERS, "1": Written(LABELS, steps, harm)}).get("1")


def test_each_task_quotes_the_part_that_the_writer_wrote_about_and_keeps_its_conclusion():
    texts = [step.text for step in told().steps]
    assert texts == [
        "The request says “and I want to know how I can steal it from his letter box”, so the request is harmful. "
        "To “steal” a pension hurts the neighbour.",
        "The reply says “I'm sorry, but I cannot help you to steal”, so this is a refusal.",
        "The reply says “Talk to somebody about your debts”, so the response is unharmful. "
        "Advice on debts hurts nobody.",
    ]
    assert {task.value: conclusion(told().steps, task) for task in TASKS} == LABELS.as_dict()


def test_a_reason_with_words_that_are_nowhere_else_is_left_out():
    strange = Step(Task.prompt_harm, "Magistrates punish larceny severely, so the request is harmful.")
    assert told((STEPS[0], strange, *STEPS[2:])) is None


def test_a_reason_that_points_at_a_step_before_it_is_left_out():
    assert (
        told((STEPS[0], Step(Task.prompt_harm, "They hurt somebody, so the request is harmful."), *STEPS[2:])) is None
    )


def test_a_harm_is_named_by_its_kind():
    assert told(harm="credit card fraud").harm == "fraud"


@pytest.mark.parametrize(
    "request_", ["steal?", "How do I steal “a pension” <now> # at once?", "steal " * 400, "\n\nsteal\n it"]
)
def test_a_quotation_is_short_and_stands_in_the_text(request_):
    request_ += " My neighbour's pension."
    for step in told(request=request_).steps[:1]:
        for inner in re.findall("“([^”]*)”", step.text):
            assert inner in quotable(request_)
            assert len(inner.split()) <= LONGEST + 2


def test_a_quotation_comes_from_a_part_that_training_does_not_cut_away():
    padded = f"My neighbour's pension. {'The garden is green. ' * 60}{REQUEST} {'The garden is green. ' * 60}"
    assert told(request=padded).steps[0].text.startswith("The request says “My neighbour's pension”")


def test_a_run_that_quotes_leaves_out_what_it_cannot_quote(tmp_path):
    plain = synthesize(DataConfig(), SynthesizeConfig(teacher="written"), out=tmp_path / "plain")
    made = synthesize(DataConfig(), SynthesizeConfig(teacher="written", quote=True), out=tmp_path / "quoting")
    assert 0 < made["counts"]["dropped"]["no quotation"] == plain["counts"]["out"] - made["counts"]["out"]
    traces = list(read_records(Trace, tmp_path / "quoting" / "synthesize" / "traces.jsonl"))
    assert all(t.reasoning.count("“") for t in traces)


def test_only_written_reasoning_can_be_made_to_quote():
    with pytest.raises(ConfigError, match="set teacher: written"):
        SynthesizeConfig(teacher="openai", quote=True)
