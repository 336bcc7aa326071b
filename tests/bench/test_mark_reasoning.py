"""The controls among the verdicts that readers mark."""

import json
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from guardreasoner.formats.conclusion import conclusion
from guardreasoner.types import Labels, Step, Task

SPEC = spec_from_file_location("mark_reasoning", Path(__file__).parents[2] / "bench" / "mark_reasoning.py")
reading = module_from_spec(SPEC)  # bench/ has names that tests/ has too, so it is not on the path
SPEC.loader.exec_module(reading)

STEPS = (
    Step(Task.prompt_harm, "The request says “so the request is harmful.”, so the request is unharmful."),
    Step(Task.refusal, "The reply says “no”, so this is a refusal."),
    Step(Task.response_harm, "It says no."),
)


def test_a_control_concludes_the_other_way_and_quotes_the_same():
    turned = reading.concluding(STEPS)
    assert [s.text for s in turned] == [
        "The request says “so the request is harmful.”, so the request is harmful.",
        "The reply says “no”, so this is compliance.",
        "It says no.",
    ]
    labels = reading.turned(Labels("unharmful", "refusal"))
    assert all(conclusion(turned, t) == labels[t] for t in labels.tasks)
    assert reading.wrong(labels, Labels("harmful", "refusal", "harmful")) == ["refusal"]


def test_marks_are_counted_for_real_verdicts_and_controls_apart(tmp_path):
    key = [
        {"id": "r0", "sort": "real", "wrong": []},
        {"id": "r1", "sort": "real", "wrong": ["refusal"]},
        {"id": "r2", "sort": "another row's reasoning"},
    ]
    (tmp_path / "key.jsonl").write_text("".join(json.dumps(row) + "\n" for row in key))
    good = {"grammatical": True, "true": True, "supports": True, "kind": None}
    for name, last in (("a", True), ("b", False)):
        rows = [{**good, "id": "r0"}, {**good, "id": "r1", "supports": last}, {**good, "id": "r2", "true": last}]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, reading.__file__, "score", tmp_path, tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    said = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True).stdout
    assert "supports     both yes 1 of 2, 50.0%" in said
    assert "supports, no label wrong both yes 1 of 1, 100.0%" in said
    assert "another row's reasoning: reader 1 caught 0 of 1" in said
    assert "another row's reasoning: reader 2 caught 1 of 1" in said
