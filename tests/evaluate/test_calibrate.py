"""Calibration recovers what the margins mean, and thresholds meet what they were asked for."""

import numpy as np
import pytest

from guardreasoner.engines.scripted import ScriptedEngine
from guardreasoner.errors import ConfigError, DataError
from guardreasoner.evaluate.calibrate import Target, at_threshold, band, choose_threshold, fit, fit_verdicts
from guardreasoner.guards.reasoning import ReasoningGuard
from guardreasoner.types import Example, Exchange, Labels, Task


def drawn(n=4000, slope=0.5, shift=-1.0, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 4, n)
    return x, rng.random(n) < 1 / (1 + np.exp(-(slope * x + shift)))


def test_the_fit_recovers_slope_and_shift_and_lowers_the_calibration_error():
    x, y = drawn()
    found = fit(x, y, task=Task.prompt_harm, mode="instant", target=Target("f1"))
    assert found.curve.params == pytest.approx((0.5, -1.0), abs=0.1)
    assert found.ece < 0.03 < found.ece_before
    low, high = found.interval
    assert low <= found.curve.threshold <= high


@pytest.mark.parametrize(("text", "bound"), [("fpr=0.05", 0.05), ("precision=0.9", 0.9), ("recall=0.9", 0.9)])
def test_a_threshold_meets_its_bound_and_gives_nothing_away(text, bound):
    x, y = drawn()
    found = fit(x, y, task=Task.prompt_harm, mode="instant", target=Target.parse(text)).attained
    if text.startswith("fpr"):
        assert found["fpr"] <= bound < found["fpr"] + 0.01
    elif text.startswith("precision"):
        assert found["precision"] >= bound
        assert found["recall"] > 0.1
    else:
        assert found["recall"] >= bound > found["recall"] - 0.01


def test_the_best_f1_threshold_is_the_best_of_all_thresholds():
    p, y = np.array([0.9, 0.8, 0.7, 0.4, 0.3, 0.2]), np.array([True, True, False, True, False, False])
    assert choose_threshold(p, y, Target("f1")) == pytest.approx(0.35)


def test_tied_scores_are_called_together():
    p, y = np.array([0.9, 0.5, 0.5, 0.1]), np.array([True, True, False, False])
    threshold = choose_threshold(p, y, Target("fpr", 0.1))
    assert 0.5 < threshold < 0.9


def test_the_band_holds_the_budgeted_share():
    p = np.linspace(0.01, 0.99, 1000)
    low, high = band(p, 0.5, 0.2)
    assert np.mean((p > low) & (p < high)) == pytest.approx(0.2, abs=0.01)
    assert band(p, 0.5, 0.0) is None


def test_scores_that_rank_backwards_are_refused():
    x, y = drawn()
    with pytest.raises(DataError, match="rank negatives above positives"):
        fit(-x, y, task=Task.refusal, mode="full", target=Target("f1"))


@pytest.mark.parametrize("text", ["fpr", "fpr=2", "auc=0.5", "fpr=x", ""])
def test_a_wrong_target_is_one_sentence(text):
    with pytest.raises(ConfigError, match="none of: f1, expected-f1, fpr=X"):
        Target.parse(text)


def test_a_guard_is_fitted_on_the_tasks_that_have_rows_of_both_labels():
    engine = ScriptedEngine(scores={"bad 1": 0.9, "bad": 0.6, "good 1": 0.55, "good": 0.2})
    rows = [
        Example(Exchange(f"{kind}{i}", f"{kind} {i % 3}"), Labels("harmful" if kind == "bad" else "unharmful"))
        for kind in ("bad", "good")
        for i in range(30)
    ]
    verdicts = ReasoningGuard("g", engine, mode="instant").judge([row.exchange for row in rows])
    fits = fit_verdicts(verdicts, rows, mode="instant", target=Target("f1"))
    assert [f.task for f in fits] == [Task.prompt_harm]
    assert fits[0].attained["f1"] == 1.0
    with pytest.raises(DataError, match="no task has 10 rows"):
        fit_verdicts(verdicts[:30], rows[:30], mode="instant", target=Target("f1"))


def test_a_task_is_fitted_on_the_sources_that_are_named_for_it():
    engine = ScriptedEngine(scores={"bad 1": 0.9, "bad": 0.6, "good 1": 0.55, "good": 0.2})
    rows = [
        Example(Exchange(f"{kind}{i}", f"{kind} {i % 3}", source=source), Labels(label))
        for kind, label, source in (
            ("bad", "harmful", "asked"),
            ("good", "unharmful", "asked"),
            ("bad", "unharmful", "other"),
        )
        for i in range(30)
    ]
    verdicts = ReasoningGuard("g", engine, mode="instant").judge([row.exchange for row in rows])
    (asked,) = fit_verdicts(verdicts, rows, mode="instant", target=Target("f1"), sources={"prompt_harm": ("asked",)})
    assert (asked.n, asked.positives, asked.auroc) == (60, 30, 1.0)
    (every,) = fit_verdicts(verdicts, rows, mode="instant", target=Target("f1"), sources={"refusal": ("asked",)})
    assert every.n == 90


def test_expected_f1_cuts_at_half_the_best_f1_and_wanders_less_than_the_best_cut_does():
    rng = np.random.default_rng(0)
    cuts = {"f1": [], "expected-f1": []}
    for _ in range(60):
        p = rng.beta(0.4, 1.2, 400)
        y = rng.random(400) < p
        for kind, found in cuts.items():
            found.append(choose_threshold(p, y, Target(kind)))
        best = at_threshold(p, y, cuts["f1"][-1])["f1"]
        assert cuts["expected-f1"][-1] == pytest.approx(best / 2)
    assert np.std(cuts["expected-f1"]) < np.std(cuts["f1"]) / 2
    assert Target.parse("expected-f1") == Target("expected-f1")
