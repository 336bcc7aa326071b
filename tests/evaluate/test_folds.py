"""bench/folds.py: folds of whole sources, and cuts that come from the other folds."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from guardreasoner.types import TASKS, Example, Exchange, Labels, Task

pytest.importorskip("sklearn")
pytest.importorskip("torch")  # the script trains

_SPEC = importlib.util.spec_from_file_location("bench_folds", Path(__file__).parents[2] / "bench" / "folds.py")
assert _SPEC is not None
assert _SPEC.loader is not None
folds = sys.modules["bench_folds"] = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(folds)


def rows_of(source, n, **labels):
    gold = Labels.of(labels)
    reply = "a reply" if "refusal" in labels else None
    return [Example(Exchange(f"{source}-{i}", f"request {i}", reply, source=source), gold) for i in range(n)]


def test_every_source_is_left_out_once_and_a_rare_label_is_in_every_fold():
    examples = [row for n in range(5) for row in rows_of(f"refuses{n}", 3, refusal="refusal")]
    for n in range(20):
        label = "harmful" if n % 2 else "unharmful"
        examples += rows_of(f"asks{n}", 5 + 40 * n, prompt_harm=label)
    found = folds.assign(examples, 5, cap=100)
    assert set(found) == {e.exchange.source for e in examples}
    assert {found[f"refuses{n}"] for n in range(5)} == set(range(5))
    for label in ("harmful", "unharmful"):
        assert {found[f"asks{n}"] for n in range(20) if (n % 2 == 1) == (label == "harmful")} == set(range(5))


def test_the_assignment_does_not_depend_on_the_order_of_rows():
    examples = [row for n in range(12) for row in rows_of(f"s{n}", 10 + n, prompt_harm="harmful")]
    assert folds.assign(examples, 3, cap=15) == folds.assign(examples[::-1], 3, cap=15)


def written(folder, rng, *, shift=0.0, n=200):
    rows = []
    for i in range(n):
        positive = bool(rng.random() < 0.3)
        margin = float(rng.normal() + 2 * positive + shift)
        rows += [
            {"id": str(i), "source": f"s{i % 2}", "task": task.value, "margin": margin, "positive": positive}
            for task in TASKS
        ]
    folder.mkdir(parents=True)
    (folder / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folds.read_scores(folder)


def cells(lines, task, cut):
    return next(line.split(" | ") for line in lines if line.startswith(f"| {task} | {cut} |"))


def test_a_fold_whose_scores_are_shifted_loses_by_cuts_from_the_others_but_not_by_its_own(tmp_path):
    rng = np.random.default_rng(0)
    parts = [written(tmp_path / str(n), rng, shift=3.0 if n == 2 else 0.0) for n in range(3)]
    lines = list(folds.rule_lines(parts))
    carried = [float(x) for x in cells(lines, "refusal", "expected-f1")[2:5]]
    own = [float(x) for x in cells(lines, "refusal", "the fold's own best")[2:5]]
    assert own[2] - carried[2] > 10
    assert own[2] > 65
    assert all(b >= a for a, b in zip(carried, own, strict=True))


def test_the_cut_for_a_fold_does_not_look_at_its_gold(tmp_path):
    rng = np.random.default_rng(1)
    parts = [written(tmp_path / str(n), rng) for n in range(3)]
    before = cells(list(folds.rule_lines(parts)), "prompt_harm", "f1")
    here = parts[0][Task.prompt_harm]
    others = folds.joined([part[Task.prompt_harm] for part in parts[1:]])
    expected = folds.f1_at(here, folds.fit_of(others, Task.prompt_harm, "f1"))
    assert float(before[2]) == pytest.approx(100 * expected, abs=0.05)


def test_a_fold_with_too_few_rows_of_a_label_is_said_and_left_out_of_the_mean(tmp_path):
    rng = np.random.default_rng(2)
    parts = [written(tmp_path / "a", rng), written(tmp_path / "b", rng), written(tmp_path / "c", rng, n=20)]
    assert any("| refusal | 3 |" in line and "too few" in line for line in folds.fold_lines(parts))
    assert cells(list(folds.rule_lines(parts)), "refusal", "f1")[4] == ""


def test_best_f1_grows_with_the_share_of_positives_and_is_that_of_the_rows_at_their_own_share(tmp_path):
    parts = [written(tmp_path / "a", np.random.default_rng(3), n=400)]
    scores = parts[0][Task.refusal]
    own = float(scores.gold.mean())
    found = [
        float(x) for x in list(folds.balance_lines(parts, (own / 2, own, 2 * own)))[3].strip("| ").split(" | ")[1:]
    ]
    assert found == sorted(found)
    assert found[1] == pytest.approx(folds.f1_at(scores, folds.fit_of(scores, Task.refusal, "f1")), abs=0.001)
