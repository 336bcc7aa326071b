"""Operating points against hand-worked numbers, scikit-learn and simulation."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from guardreasoner.errors import DataError
from guardreasoner.evaluate.operating_points import POINTS, at_misses, compare_points, operating_points
from guardreasoner.evaluate.statistics import Outcomes
from guardreasoner.types import Task


def cell(scores, gold, *, guard="g", clusters=None, benchmark="B"):
    n = len(gold)
    gold = np.array(gold, bool)
    scores = None if scores is None else np.array(scores, float)
    said = np.zeros(n, bool) if scores is None else np.nan_to_num(scores) >= 0.5
    ids = tuple(f"{benchmark}:{i}" for i in range(n))
    return Outcomes(benchmark, Task.prompt_harm, guard, ids, gold, said, tuple(clusters or ids), scores)


NEGATIVES = [i / 100 for i in range(100)]
POSITIVES = [0.995] * 10 + [0.985] * 10 + [0.5] * 10
HAND = cell(NEGATIVES + POSITIVES, [False] * 100 + [True] * 30)


def test_the_points_of_a_curve_worked_by_hand():
    found = operating_points([HAND], resamples=50)
    # one negative (0.99) may be flagged at 1%: the threshold 0.985 catches 20 of 30; at 5% it is still those 20
    assert found.tpr_at_fpr1.value == pytest.approx(100 * 20 / 30)
    assert found.tpr_at_fpr5.value == pytest.approx(100 * 20 / 30)
    # 27 of 30 need the threshold 0.5, which flags the negatives 0.50 to 0.99: 50 of 100
    assert found.fpr_at_tpr90.value == pytest.approx(50)
    # area to 5%: 0.01 * 1/3 + 0.04 * 2/3 = 0.03; scaled (0.03 - 0.00125) / (0.05 - 0.00125) -> 0.794872
    assert found.partial_auroc.value == pytest.approx(0.7948718, abs=1e-6)
    assert (found.positives, found.negatives) == (30, 100)
    assert all(i.low <= i.value <= i.high for name in POINTS if (i := getattr(found, name)))


def test_a_row_without_a_score_is_wrong_at_every_threshold():
    scores, gold = list(HAND.scores), list(HAND.gold)
    scores[0] = np.nan  # a negative: now two negatives come before everything else
    scores[100] = np.nan  # a positive that would have come first
    found = operating_points([cell(scores, gold)], resamples=20)
    # the unscored negative is flagged by every threshold; at 1% nothing else may be: 9 positives of 30
    assert found.tpr_at_fpr1.value == pytest.approx(100 * 9 / 30)
    # 27 of the 29 scored positives: threshold 0.5, which flags 50 and the unscored one
    assert found.fpr_at_tpr90.value == pytest.approx(51)


def test_partial_area_equals_scikit_learns_on_random_ties():
    rng = np.random.default_rng(3)
    for _ in range(20):
        gold = rng.random(200) < 0.4
        scores = np.round(np.clip(rng.normal(0.4 + 0.2 * gold, 0.2), 0, 1), 2)
        found = operating_points([cell(scores, gold)], resamples=5)
        assert found.partial_auroc.value == pytest.approx(roc_auc_score(gold, scores, max_fpr=0.05))
        assert found.full_auroc.value == pytest.approx(roc_auc_score(gold, scores))
        fpr, tpr, _ = roc_curve(gold, scores, drop_intermediate=False)
        assert found.tpr_at_fpr5.value == pytest.approx(
            100 * max(t for f, t in zip(fpr, tpr, strict=True) if f <= 0.05)
        )
        assert found.fpr_at_tpr90.value == pytest.approx(
            100 * min(f for f, t in zip(fpr, tpr, strict=True) if t >= 0.9)
        )


def test_a_rate_of_one_percent_is_not_spoken_of_on_few_negatives():
    found = operating_points([cell([0.1] * 99 + [0.9] * 10, [False] * 99 + [True] * 10)], resamples=5)
    assert found.tpr_at_fpr1 is None
    assert found.tpr_at_fpr5 is not None
    found = operating_points([cell([0.9] * 9 + [0.1] * 200, [True] * 9 + [False] * 200)], resamples=5)
    assert found.as_dict() == dict.fromkeys(POINTS)
    assert operating_points([cell([0.9] * 20, [True] * 20)], resamples=5).as_dict() == dict.fromkeys(POINTS)


def test_a_guard_without_scores_has_no_points():
    assert operating_points([cell(None, [True, False])]) is None
    assert operating_points([]) is None
    assert compare_points([cell(None, [True])], [cell([0.5], [True])]) == []


def test_cells_are_pooled_under_one_threshold():
    low = cell([0.1] * 100 + [0.4] * 20, [False] * 100 + [True] * 20, benchmark="low")
    high = cell([0.6] * 100 + [0.9] * 20, [False] * 100 + [True] * 20, benchmark="high")
    # each by itself is perfect; under one threshold the 20 positives at 0.4 lie below 100 negatives at 0.6
    assert operating_points([low], resamples=5).tpr_at_fpr1.value == 100
    assert operating_points([low, high], resamples=5).tpr_at_fpr1.value == pytest.approx(50)


def test_a_guard_differs_from_itself_by_nothing_and_from_a_worse_one_by_the_difference_of_the_points():
    worse = cell([*NEGATIVES, *[0.995] * 10, *[0.5] * 20], HAND.gold, guard="worse")
    same = compare_points([HAND], [HAND], resamples=50)
    assert {(d.difference, d.low, d.high, d.p) for d in same} == {(0, 0, 0, 1)}
    found = {d.point: d for d in compare_points([HAND], [worse], resamples=200)}
    assert found["tpr_at_fpr1"].difference == pytest.approx(100 * 10 / 30)
    assert found["tpr_at_fpr5"].low > 0
    turned = found["full_auroc"].seen_from("worse", "g")
    assert (turned.difference, turned.low) == (-found["full_auroc"].difference, -found["full_auroc"].high)
    assert turned.seen_from("g", "other") is None
    assert found["tpr_at_fpr5"].p < 0.05
    assert set(found) == set(POINTS)


def test_other_rows_are_not_compared():
    with pytest.raises(DataError, match="not scored on the same rows"):
        compare_points([HAND], [cell(HAND.scores, HAND.gold, benchmark="C", guard="h")])


def test_false_alarms_at_equal_misses():
    assert at_misses(HAND, 34, resamples=20).value == pytest.approx(1)  # 20 of 30 are enough: threshold 0.985
    assert at_misses(HAND, 10, resamples=20).value == pytest.approx(50)
    assert at_misses(cell(None, [True, False]), 10) is None
    assert at_misses(cell([0.9] * 20, [True] * 20), 10) is None


def test_a_rate_that_never_varies_has_wilsons_interval_not_one_of_no_width():
    perfect = cell([0.1] * 100 + [0.9] * 20, [False] * 100 + [True] * 20)
    found = operating_points([perfect], resamples=20)
    assert found.tpr_at_fpr1 == pytest.approx((100, 83.887, 100), abs=0.01)  # Wilson, 20 of 20
    assert at_misses(perfect, 10, resamples=20) == pytest.approx((0, 0, 3.699), abs=0.01)  # Wilson, 0 of 100


def test_prompts_are_drawn_whole():
    """200 rows over 20 prompts vary as 20 do: the interval is much wider than that of 200 prompts."""
    rng = np.random.default_rng(0)
    gold = np.repeat(rng.random(40) < 0.5, 10)
    scores = np.repeat(rng.normal(0.4 + 0.1 * gold[::10], 0.2), 10)
    together = operating_points([cell(scores, gold, clusters=[str(i // 10) for i in range(400)])], resamples=400)
    apart = operating_points([cell(scores, gold)], resamples=400)
    width = [i.fpr_at_tpr90.high - i.fpr_at_tpr90.low for i in (together, apart)]
    assert width[0] > 1.8 * width[1]


@pytest.mark.slow
def test_a_draw_without_positives_or_negatives_says_nothing():
    """Twelve positives of two prompts are missing from one draw in seven; such a draw is no false-alarm rate of 0."""
    positives = cell(
        NEGATIVES + [0.3] * 12, [False] * 100 + [True] * 12, clusters=[*map(str, range(100)), *"xxxxxxyyyyyy"]
    )
    assert operating_points([positives]).fpr_at_tpr90 == pytest.approx((70, 59.8, 79.0), abs=1.5)
    negatives = cell(
        [0.1] * 10 + [0.2] * 10 + POSITIVES,
        [False] * 20 + [True] * 30,
        clusters=["x"] * 10 + ["y"] * 10 + [f"p{i}" for i in range(30)],
    )
    assert operating_points([negatives]).full_auroc == pytest.approx((1, 1, 1))


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    """Two normal curves 1.5 apart: TPR at 5% is P(z > 1.645 - 1.5) = 44.2%, FPR at 90% TPR is P(z > 0.218) = 41.4%."""
    from scipy.stats import norm

    truth = {"tpr_at_fpr5": 100 * norm.sf(norm.isf(0.05) - 1.5), "fpr_at_tpr90": 100 * norm.sf(1.5 + norm.isf(0.9))}
    rng = np.random.default_rng(7)
    covered = dict.fromkeys(truth, 0)
    times = 300
    for _ in range(times):
        gold = np.arange(800) < 300
        scores = norm.cdf(rng.normal(1.5 * gold, 1))
        found = operating_points([cell(scores, gold)], resamples=400)
        for name, value in truth.items():
            at = getattr(found, name)
            covered[name] += at.low <= value <= at.high
    assert all(0.90 <= n / times <= 0.99 for n in covered.values()), covered
