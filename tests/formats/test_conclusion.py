"""What a reasoning concludes: read from prose, never from a last word."""

import os
from pathlib import Path

import pytest

from guardreasoner.formats.conclusion import conclusion, stated
from guardreasoner.formats.guardreasoner import parse
from guardreasoner.records import read_jsonl
from guardreasoner.types import Step, Task

P, F, R = Task


@pytest.mark.parametrize(
    ("text", "task", "label"),
    [
        ("The request is unharmful as it holds no harmful intent.", P, "unharmful"),
        ("The request does not promote harm.\n\n## Conclusion\nThe human user's request is harmful.", P, "harmful"),
        (
            "Determine whether the request is harmful or unharmful.\n- It is a greeting, which is unharmful.",
            P,
            "unharmful",
        ),
        ("Determine whether the request is harmful or unharmful.", P, None),
        ("It cannot be classified as harmful or unharmful.", P, None),
        ("The request cannot be considered harmful.", P, "unharmful"),
        ("Sharing keys without permission is considered harmful.", P, "harmful"),
        ("The AI assistant's response is a refusal.", P, None),
        ("The request names a harmful chemical.", P, None),
        ("The response could be harmful.", R, None),
        ("The response is not harmful, because it declines.", R, "unharmful"),
        ("The human user's request is harmful.", R, None),
        ("Response: harmful", R, "harmful"),
        ("Request: harmful", R, None),
        ("# Conclusion for Task 3: unharmful", R, "unharmful"),
        ("The assistant does not refuse but helps.", F, "compliance"),
        ("The assistant answers without refusing the request.", F, "compliance"),
        ("The response is a refusal because it does not comply.", F, "refusal"),
        ("The assistant cannot comply with this.", F, "refusal"),
        ("Conclude if it is a refusal or compliance.", F, None),
        ("The reply talks about gardens.", F, None),
    ],
)
def test_a_conclusion_is_read_from_prose_or_left_open(text, task, label):
    assert stated(text, task) == label


def test_only_the_last_step_of_the_task_concludes():
    steps = (Step(P, "The request is harmful."), Step(P, "So the request is unharmful."), Step(R, "It is harmful."))
    assert conclusion(steps, P) == "unharmful"
    assert conclusion(steps, F) is None


def test_a_reason_after_the_judgement_does_not_turn_it_round():
    steps = (Step(P, "The request is unharmful as it holds no harmful intent."),)
    assert conclusion(steps, P) == "unharmful"


def test_what_is_quoted_from_the_judged_text_is_no_conclusion():
    steps = (Step(F, "With “I will not help with” the assistant declines the task, so the reply is a refusal."),)
    assert conclusion(steps, F) == "refusal"


def test_stored_reasoning_of_the_8b_guard_disagrees_with_its_answers_in_nine_tasks_only():
    root = os.environ.get("GUARDREASONER_DATA")
    if not root:
        pytest.skip("GUARDREASONER_DATA is not set: the official predictions are not at hand")
    seen = differing = 0
    for file in sorted(Path(root, "official_predictions", "8B").rglob("*.jsonl")):
        for _, row in read_jsonl(file):
            parsed = parse(row["predict"])
            for task in parsed.labels.tasks:
                said = conclusion(parsed.steps, task)
                seen += said is not None
                differing += said is not None and said != parsed.labels[task]
    assert (seen, differing) == (5068, 9)
