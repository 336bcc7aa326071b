"""Intervals, paired tests, marks and the gate: against hand-worked numbers, scikit-learn, and simulation."""

import time

import numpy as np
import pytest

from guardreasoner.errors import DataError
from guardreasoner.evaluate.compare import compare, compare_cells, corrected, marks, randomised
from guardreasoner.evaluate.regression_gate import gate
from guardreasoner.evaluate.statistics import (
    Outcomes,
    constant_f1,
    counts,
    estimates,
    holm,
    rates,
    two_sided,
    weighted_f1,
)
from guardreasoner.types import Task

SIZES = (2853, 1680, 359, 100, 239, 1725, 602, 2000, 3021, 446, 1725, 449, 1725)
"""Rows of the 13 cells, WildGuardTest with those of its published file."""


def outcomes(gold, predicted, *, clusters=None, name="bench", guard="a", task=Task.prompt_harm):
    gold, predicted = np.asarray(gold, bool), np.asarray(predicted, bool)
    ids = tuple(f"{name}:{i}" for i in range(len(gold)))
    return Outcomes(name, task, guard, ids, gold, predicted, tuple(map(str, ids if clusters is None else clusters)))


def drawn(rng, n, *, recall=0.85, fpr=0.08, base=0.4, clusters=None, **more):
    gold = rng.random(n) < base
    return outcomes(gold, rng.random(n) < np.where(gold, recall, fpr), clusters=clusters, **more)


def clustered(rng, prompts, **more):
    """Rows that share a prompt share how likely it is to be judged right, as SafeRLHF's do."""
    size = rng.integers(1, 9, prompts)
    code = np.repeat(np.arange(prompts), size)
    gold = rng.random(code.size) < np.repeat(rng.beta(1, 1, prompts), size)
    right = np.repeat(rng.beta(4, 1, prompts), size), np.repeat(rng.beta(1, 6, prompts), size)
    return outcomes(gold, rng.random(code.size) < np.where(gold, *right), clusters=code, **more)


def test_columns_of_unequal_length_are_no_outcomes():
    with pytest.raises(AssertionError, match="for each row"):
        outcomes(np.array([True, False]), np.array([True]))


def test_the_four_rates_equal_scikit_learn():
    from sklearn.metrics import precision_recall_fscore_support

    cell = drawn(np.random.default_rng(3), 500)
    precision, recall, f1, _ = precision_recall_fscore_support(cell.gold, cell.predicted, average="binary")
    fpr = (cell.predicted & ~cell.gold).sum() / (~cell.gold).sum()
    assert rates(counts(cell).sum(-1)) == pytest.approx(100 * np.array([f1, precision, recall, fpr]))


def test_the_constant_is_the_harmonic_mean_of_the_base_rate_and_one():
    assert constant_f1(outcomes([1, 1, 0, 0], [0, 0, 0, 0])) == pytest.approx(100 * 2 * 0.5 / 1.5)
    assert constant_f1(outcomes([0, 0], [1, 1])) == 0.0


def test_rows_that_share_a_prompt_widen_the_interval():
    rng = np.random.default_rng(5)
    cell = clustered(rng, 80)
    apart = outcomes(cell.gold, cell.predicted)
    together, alone = estimates(cell).recall, estimates(apart).recall
    assert together.value == alone.value
    assert together.high - together.low > 1.2 * (alone.high - alone.low)


def test_a_perfect_cell_still_has_an_interval_of_some_width():
    for cell in (outcomes([1] * 50, [1] * 50), outcomes([1] * 30 + [0] * 30, [1] * 30 + [0] * 30)):
        f1 = estimates(cell).f1
        assert f1.value == f1.high == 100
        assert 85 < f1.low < 99
    only = weighted_f1([outcomes([1] * 50, [1] * 50)])
    assert only.low < 99


def test_an_all_positive_cell_has_wilsons_interval_of_recall():
    found = estimates(outcomes([1] * 100, [1] * 90 + [0] * 10))
    assert found.recall.low == pytest.approx(82.56, abs=0.01)  # Wilson 1927, 90 of 100
    assert found.recall.high == pytest.approx(94.48, abs=0.01)
    assert found.f1.low == pytest.approx(100 * 2 * 0.8256 / 1.8256, abs=0.01)


def test_cells_of_one_prompt_or_no_row_do_not_break_anything():
    one = outcomes([1, 0], [1, 1], clusters=["x", "x"])
    many = drawn(np.random.default_rng(1), 60, name="many")
    assert estimates(one).f1.value == pytest.approx(200 / 3)
    assert 0 < weighted_f1([one, many]).low < 100
    with pytest.raises(DataError, match="no cell"):
        weighted_f1([])


def test_thirteen_cells_with_2000_resamples_take_under_20_seconds():
    rng = np.random.default_rng(0)
    cells = [drawn(rng, n, clusters=rng.integers(0, 549, n) if n == 2000 else None) for n in SIZES]
    start = time.process_time()  # of this process alone: a busy machine does not count
    found = [estimates(cell, resamples=2000) for cell in cells]
    seconds = time.process_time() - start
    assert len(found) == 13
    assert seconds < 20


def test_the_same_seed_gives_the_same_interval():
    cell = drawn(np.random.default_rng(2), 200)
    assert estimates(cell, seed=4) == estimates(cell, seed=4)
    assert estimates(cell, seed=4) != estimates(cell, seed=5)


@pytest.mark.parametrize(
    ("runs", "low", "high"), [(150, 0.90, 0.99), pytest.param(1000, 0.93, 0.97, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("kind", ["unique prompts", "shared prompts", "mean of three cells"])
def test_intervals_cover_the_truth_as_often_as_they_say(kind, runs, low, high):
    rng = np.random.default_rng(11)

    def sample():
        if kind == "unique prompts":
            return [drawn(rng, 449, recall=0.93, fpr=0.03)]
        if kind == "shared prompts":
            return [clustered(rng, 150)]
        return [drawn(rng, 239, name="x"), clustered(rng, 100, name="y"), drawn(rng, 446, base=0.17, name="z")]

    weights = {"bench": 1.0, "x": 2.0, "y": 3.0, "z": 1.0}

    def value(cells):
        return np.average([rates(counts(c).sum(-1))[0] for c in cells], weights=[weights[c.benchmark] for c in cells])

    truth = np.mean([value(sample()) for _ in range(2000)])
    inside = 0
    for run in range(runs):
        found = weighted_f1(sample(), weights, resamples=500, seed=run)
        inside += found.low <= truth <= found.high
    assert low <= inside / runs <= high


def rerun(rng, cell, p, share):
    """The same guard again: a share of its answers is drawn anew from what it is likely to say."""
    anew = rng.random(cell.n) < p
    changed = rng.random(cell.n) < share
    return outcomes(cell.gold, np.where(changed, anew, cell.predicted), name=cell.benchmark, guard="b", task=cell.task)


def unchanged_pair(rng, *, share):
    """Two runs of one unchanged guard on four cells of three tasks."""
    plan = (
        ("p1", Task.prompt_harm, 359),
        ("p2", Task.prompt_harm, 239),
        ("r", Task.response_harm, 446),
        ("f", Task.refusal, 449),
    )
    first, second = [], []
    for name, task, n in plan:
        gold = rng.random(n) < 0.4
        p = np.where(gold, 0.85, 0.08)
        first.append(outcomes(gold, rng.random(n) < p, name=name, task=task))
        second.append(rerun(rng, first[-1], p, share))
    return first, second


@pytest.mark.parametrize(("runs", "allowed"), [(60, 7), pytest.param(1000, 50, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("share", "margin"), [(0.005, 1.0), (0.05, 1.0), (0.05, 3.0), (1.0, 3.0)])
def test_the_gate_seldom_cries_regression_when_nothing_changed(runs, allowed, share, margin):
    rng = np.random.default_rng(21)
    found = []
    for seed in range(runs):
        first, second = unchanged_pair(rng, share=share)
        found.append(gate(second, first, margin, resamples=400, seed=seed).outcome)
    assert found.count("fail") <= allowed  # 5%, in few runs with room for chance


def test_the_gate_passes_the_same_verdicts_and_fails_a_real_loss():
    rng = np.random.default_rng(8)
    first, _ = unchanged_pair(rng, share=0.0)
    assert gate(first, first, 1.0).passed
    worse = [
        outcomes(c.gold, c.predicted & (rng.random(c.n) > 0.3), name=c.benchmark, guard="b", task=c.task) for c in first
    ]
    lost = gate(worse, first, 1.0)
    assert lost.outcome == "fail"
    assert all("FAIL" in sentence for sentence in lost.sentences)
    assert len(lost.sentences) == 3


def test_the_gate_says_when_the_rows_cannot_decide_and_names_the_margin_they_can():
    rng = np.random.default_rng(9)
    gold = rng.random(80) < 0.5
    flips = [np.where(rng.random(80) < 0.1, ~gold, gold) for _ in range(2)]
    a, b = (outcomes(gold, f, guard=g) for f, g in zip(flips, "ab", strict=True))
    found = gate([a], [b], 1.0).tasks[0]
    assert found.outcome == "undecided"
    assert f"at least {found.supported:.1f}" in found.sentence
    assert gate([a], [b], found.supported + 5).outcome == "pass"


def test_the_gate_names_what_cannot_be_compared():
    a, b = outcomes([1, 0, 1], [1, 0, 1]), outcomes([1, 0, 0], [1, 0, 1])
    with pytest.raises(DataError, match="gold labels of 1 rows"):
        gate([a], [b], 1.0)
    with pytest.raises(DataError, match="same cells"):
        gate([a], [outcomes([1, 0, 1], [1, 0, 1], name="other")], 1.0)
    short = outcomes([1, 0], [1, 0])
    with pytest.raises(DataError, match="1 row ids"):
        gate([a], [short], 1.0)


def test_exchanging_answers_equals_the_sign_test_where_f1_counts_nothing_but_the_positives():
    gold = [1] * 12
    a = outcomes(gold, [1] * 10 + [0, 0])
    b = outcomes(gold, [0] * 9 + [1, 1, 0])
    assert randomised([a], [b]) == pytest.approx(2 * (1 + 10) / 2**10)  # 9 against 1 of 10 discordant rows, two-sided
    assert randomised([a], [a]) == 1.0
    drawn_swaps = [randomised([a], [b], draws=1000, seed=s) for s in range(20)]  # 2^10 exchanges are more than 1,000
    assert np.mean(drawn_swaps) == pytest.approx(2 * (1 + 10) / 2**10, rel=0.1)
    together = [outcomes(gold, [1] * 12, clusters=[0] * 12)], [outcomes(gold, [0] * 12, clusters=[0] * 12, guard="b")]
    assert randomised(*together) == 1.0  # rows of one prompt change places together: nothing is shown


def test_few_rows_show_no_more_than_the_exact_test_allows():
    found = compare([outcomes([1, 1, 1, 0], [1, 1, 1, 0])], [outcomes([1, 1, 1, 0], [0, 0, 0, 0], guard="b")])
    assert found.p == 0.25  # three prompts that could have changed places: 2 of 8 ways differ as much
    assert not found.significant


def test_rows_that_share_prompts_in_one_run_alone_are_refused():
    a, b = outcomes([1, 0, 1], [1, 0, 1], clusters=[0, 0, 1]), outcomes([1, 0, 1], [1, 0, 1], guard="b")
    with pytest.raises(DataError, match="3 rows of bench have another `prompt_hash` with a than with b"):
        compare([a], [b])


def test_one_prompt_shows_nothing_and_says_so():
    gold = [1, 0] * 20
    pair = [outcomes(gold, said, clusters=[0] * 40, guard=name) for name, said in (("a", gold), ("b", [1] * 40))]
    found = compare(pair[:1], pair[1:])
    assert (found.p, found.low, found.high) == (1.0, -100.0, 100.0)
    assert "cannot be told apart" in found.sentence
    assert compare(pair[:1], pair[:1]).difference == 0.0


@pytest.mark.parametrize(("runs", "allowed"), [(100, 0.13), pytest.param(1000, 0.07, marks=pytest.mark.slow)])
@pytest.mark.parametrize("rows", [100, 449])
def test_guards_of_equal_f1_at_other_thresholds_are_not_told_apart(rows, runs, allowed):
    """One finds 70% at 15% false alarms, the other 88.1% at 30%: the same F1, but not the same accuracy."""
    rng, found = np.random.default_rng(5), 0
    for run in range(runs):
        gold, luck = rng.random(rows) < 0.3, rng.random(rows)
        strict, lenient = (luck < np.where(gold, *at) for at in ((0.7, 0.15), (0.8815, 0.3)))
        pair = [outcomes(gold, strict)], [outcomes(gold, lenient, guard="b")]
        found += randomised(*pair, draws=500, seed=run) < 0.05
    assert found / runs <= allowed


def test_holm_multiplies_the_smallest_by_the_number_of_looks():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_more_pairs_looked_at_need_stronger_evidence_and_the_sentence_says_so():
    rng = np.random.default_rng(3)
    good = drawn(rng, 400, recall=0.9, name="x")
    poor = outcomes(good.gold, good.predicted & (rng.random(400) > 0.07), name="x", guard="b")
    alone = compare([good], [poor])
    together = corrected([alone] * 10)
    assert together[0].p == pytest.approx(min(1, 10 * alone.p))
    assert (together[0].low, together[0].looks) == (alone.low, 10)
    assert "by Holm over 10 pairs" in together[0].sentence
    assert "Holm" not in alone.sentence
    assert ("p < 0.001" in alone.sentence) == (alone.p < 0.001)  # resampling supports no more digits


def test_a_difference_that_no_draw_contradicts_has_a_p_that_survives_many_looks():
    draws = np.random.default_rng(0).normal(5.0, 1.0, 2000)
    assert two_sided(draws) == pytest.approx(5.7e-7, rel=0.5)  # two tails of a normal at 5 deviations
    assert two_sided(draws - 5.0) > 0.9
    assert two_sided(np.r_[draws, -1.0]) == pytest.approx(4 / 2002)  # one draw of 2,001 crosses 0: the count decides


def test_a_rate_of_a_few_errors_on_unique_prompts_has_wilsons_interval_and_shared_prompts_count_once():
    cell = outcomes([0] * 200 + [1] * 50, [1] * 2 + [0] * 198 + [1] * 50)
    assert estimates(cell).fpr == pytest.approx((1.0, 0.2746, 3.573), abs=0.001)  # Wilson 1927, 2 of 200
    shared = outcomes([0] * 200 + [1] * 50, [0] * 200 + [1] * 50, clusters=[i // 10 for i in range(250)])
    assert estimates(shared).fpr.high == pytest.approx(16.11, abs=0.01)  # 0 of 20 prompts, not of 200 rows


def test_a_comparison_says_in_words_what_it_found():
    rng = np.random.default_rng(6)
    good = drawn(rng, 600, recall=0.95, name="x")
    poor = outcomes(good.gold, good.predicted & (rng.random(600) > 0.25), name="x", guard="b")
    found = compare([good], [poor])
    assert found.significant
    assert found.low > 0
    assert "a scores" in found.sentence
    assert "more than chance" in found.sentence
    assert compare([poor], [good]).sentence.split(" (95%")[0] == found.sentence.split(" (95%")[0]
    same = compare([good], [outcomes(good.gold, good.predicted, name="x", guard="b")])
    assert same.p == 1.0
    assert "cannot be told apart" in same.sentence
    assert "no difference" not in same.sentence


def test_cells_are_exploratory_and_say_how_they_were_tested():
    rng = np.random.default_rng(7)
    a = [drawn(rng, 200, name="x"), clustered(rng, 40, name="y")]
    b = [outcomes(c.gold, c.gold, clusters=c.clusters, name=c.benchmark, guard="b") for c in a]
    found = compare_cells(a, b)
    assert all("randomisation test" in c.sentence for c in found)
    assert all(c.exploratory for c in found)
    assert "Holm over 2 cells" in found[0].sentence


def test_places_are_shared_by_guards_that_cannot_be_told_apart():
    p = {frozenset("ab"): 0.4, frozenset("ac"): 0.001, frozenset("cd"): 0.2, frozenset("ad"): 0.001}
    found = marks({"a": 90.0, "b": 89.0, "c": 80.0, "d": 79.0, "e": 79.0}, lambda x, y: p.get(frozenset((x, y))))
    assert found.best == {"a", "b"}
    assert found.runner_up == {"c", "d"}  # e has no rows to compare with c, and another score
    assert marks({}, lambda x, y: 1.0).best == frozenset()
