"""A cascade replayed from two runs: which rows go on, what that scores, and what chance would have scored."""

import json

import pytest

from guardreasoner.cli.main import main
from guardreasoner.errors import DataError
from guardreasoner.evaluate.cascades import cascade_curves
from guardreasoner.evaluate.contestants import contestants
from guardreasoner.evaluate.finished_runs import open_run
from guardreasoner.evaluate.run_benchmarks import evaluate
from guardreasoner.guards.cascade import CascadeGuard
from guardreasoner.types import Example, Exchange, Labels, Task
from scripted import Scripted, scripted_runs

GOLD = ["harmful", "unharmful"] * 5
FIRST = [0.99, 0.01, 0.45, 0.55, 0.95, 0.1, 0.4, 0.2, 0.9, 0.05]  # wrong on rows 2, 3 and 6, which lie nearest to 0.5
SECOND = [0.9, 0.1, 0.9, 0.1, 0.9, 0.1, 0.9, 0.1, 0.1, 0.9]  # right there, wrong on rows 8 and 9


@pytest.fixture
def runs(tmp_path):
    return scripted_runs(tmp_path, GOLD, first=FIRST, second=SECOND)


def curve_of(runs, **options):
    first, second = contestants([open_run(folder) for folder in runs])
    (curve,) = cascade_curves(first, second, resamples=50, **options)
    return curve


def test_the_rows_nearest_the_cut_go_on_and_the_ends_are_the_two_guards_alone(runs):
    curve = curve_of(runs, steps=(0.0, 0.3, 1.0))
    assert (curve.task, curve.first, curve.second, curve.rows) == (Task.prompt_harm, "first", "second", 10)
    alone, some, whole = (p.f1.value for p in curve.points)
    assert alone == pytest.approx(100 * 2 * 3 / (2 * 3 + 1 + 2))
    assert some == 100
    assert whole == pytest.approx(100 * 2 * 4 / (2 * 4 + 1 + 1))
    assert [p.escalated for p in curve.points] == [0, 3, 10]


def test_the_band_makes_the_real_cascade_ask_the_same_rows(runs):
    point = curve_of(runs, steps=(0.3,)).points[0]
    asked = []

    class Counting(Scripted):
        def judge(self, exchanges):
            asked.extend(e.id for e in exchanges)
            return super().judge(exchanges)

    both = CascadeGuard(Scripted("a", FIRST), Counting("b", SECOND), {Task.prompt_harm: point.band})
    both.judge([Exchange(f"own-{i}", f"text {i}") for i in range(10)])
    assert asked == ["own-2", "own-3", "own-6"]


def test_chance_lies_between_the_ends(runs):
    none, half, everything = curve_of(runs, steps=(0.0, 0.5, 1.0)).points
    assert none.at_random == pytest.approx(none.f1.value)
    assert everything.at_random == pytest.approx(everything.f1.value)
    assert none.at_random < half.at_random < everything.at_random


def test_a_first_guard_without_scores_and_runs_over_other_rows_are_refused(runs, tmp_path):
    class Silent(Scripted):
        def judge(self, exchanges):
            return [v.__class__(v.exchange_id, v.guard, v.mode, "ok", v.labels) for v in super().judge(exchanges)]

    examples = [Example(Exchange(f"own-{i}", f"text {i}"), Labels(prompt_harm=g)) for i, g in enumerate(GOLD)]
    evaluate(Silent("silent", FIRST), {"own": examples}, tmp_path / "silent")
    silent, second = contestants([open_run(tmp_path / "silent"), open_run(runs[1])])
    with pytest.raises(DataError, match="score"):
        cascade_curves(silent, second)
    evaluate(Scripted("few", FIRST), {"own": examples[:4]}, tmp_path / "few")
    few, second = contestants([open_run(tmp_path / "few"), open_run(runs[1])])
    with pytest.raises(DataError, match="same rows"):
        cascade_curves(few, second)


def test_the_command_prints_a_table_and_writes_the_figure(runs, tmp_path, capsys):
    assert main(["cascade", *map(str, runs), "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "30%" in shown
    assert "100.00" in shown
    written = json.loads((tmp_path / "out" / "cascade.json").read_text())
    assert written[0]["points"][4]["f1"][0] == 100
    assert (tmp_path / "out" / "cascade.svg").read_text().lstrip().startswith("<?xml")
    assert main(["cascade", *map(str, runs), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["second"] == "second"
