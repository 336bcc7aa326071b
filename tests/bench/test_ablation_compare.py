"""What an ablation can have seen, what it saw, and that it never says there is nothing where it only saw nothing."""

import re

import numpy as np
import pytest
from ablation_compare import (
    CONTESTANTS,
    MEAN,
    STEPS,
    Difference,
    detectable,
    detectable_effect,
    difference,
    differences,
    floor,
    measures,
    over_prompts,
    over_seeds,
    score,
    uncertainty,
    weights,
)
from ablation_page import as_data, as_markdown, sentence

from guardreasoner.errors import DataError
from guardreasoner.evaluate.compare import compare
from guardreasoner.evaluate.statistics import Outcomes
from guardreasoner.types import TASKS, Task

DENIAL = re.compile(r"no (?:\w+ )?difference(?! seen)", re.I)


def cell(task, gold, predicted, name="bench"):
    ids = tuple(f"{name}:{i}" for i in range(len(gold)))
    return Outcomes(name, task, "g", ids, np.asarray(gold, bool), np.asarray(predicted, bool), ids)


def seed(rng, quality, *, rows=60):
    """Five models over four cells; `quality` maps a model to its share of right answers."""
    gold = {name: np.random.default_rng(i).random(rows) < 0.5 for i, name in enumerate("abcd")}
    tasks = dict(zip("abcd", (Task.prompt_harm, Task.prompt_harm, Task.refusal, Task.response_harm), strict=True))
    return {
        row.key: [
            cell(tasks[n], gold[n], np.where(rng.random(rows) < quality[row.key], gold[n], ~gold[n]), n) for n in "abcd"
        ]
        for row in CONTESTANTS
    }


def several(number, **better):
    quality = {row.key: 0.7 for row in CONTESTANTS} | {k.replace("_", "-"): v for k, v in better.items()}
    return {n: {"own": seed(np.random.default_rng(n), quality), "instant": seed(np.random.default_rng(90 + n), quality)}
            for n in range(1, number + 1)}  # fmt: skip


def test_the_detectable_effect_needs_as_many_pairs_as_the_published_tables_say():
    """G*Power, paired t test, two-sided 5%, power 80%: dz 0.2, 0.5, 0.8, 1.0 need 199, 34, 15, 10 pairs."""
    for effect, pairs in ((0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)):
        assert detectable_effect(pairs) <= effect < detectable_effect(pairs - 1)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_a_true_difference_of_the_detectable_size_is_found_four_times_out_of_five(seeds):
    from scipy import stats

    drawn = np.random.default_rng(0).normal(detectable_effect(seeds), 1.0, (40_000, seeds))
    tests = stats.ttest_1samp(drawn, 0.0, axis=1)
    assert ((tests.pvalue < 0.05) & (tests.statistic > 0)).mean() == pytest.approx(0.8, abs=0.01)


def test_what_can_be_seen_is_the_spread_times_the_effect():
    assert detectable([1.0, 2.0, 3.0]) == pytest.approx(detectable_effect(3))
    assert detectable([10.0, 20.0, 30.0]) == pytest.approx(10 * detectable_effect(3))
    assert uncertainty(3) == pytest.approx((2 / 0.0506356) ** 0.5, rel=1e-4)  # chi-square, 2 degrees, 2.5%


def test_the_interval_over_seeds_is_students():
    low, high = over_seeds([1.0, 2.0, 3.0])
    assert (low, high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-5)


@pytest.mark.parametrize("values", [[1.5], [2.0, 2.0, 2.0]])
def test_without_a_spread_over_seeds_there_is_no_interval_and_nothing_detectable(values):
    assert over_seeds(values) is None
    assert detectable(values) is None


def test_the_mean_gives_each_task_the_same_weight_and_a_task_each_row():
    cells = [
        cell(Task.prompt_harm, [1] * 10, [1] * 10, "a"),
        cell(Task.prompt_harm, [1] * 30, [0] * 30, "b"),
        cell(Task.refusal, [1, 0], [1, 0], "c"),
    ]
    assert weights(cells, MEAN) == pytest.approx([0.125, 0.375, 0.5])
    assert weights(cells, "prompt_harm") == pytest.approx([0.25, 0.75, 0])
    assert score(cells, "prompt_harm") == pytest.approx(25.0)
    assert score(cells, MEAN) == pytest.approx((25.0 + 100.0) / 2)
    assert floor(cells, MEAN) == pytest.approx((100.0 + 100 * 2 / 3) / 2)
    assert measures({"sft": cells}) == ("prompt_harm", "refusal", "mean")


def test_differences_are_paired_by_seed():
    """R-SFT is two right answers of four better in each seed, however good the seed is."""
    gold = [1, 1, 1, 1]
    worse, better = ([0, 0, 0, 1], [0, 1, 1, 0]), ([0, 1, 1, 1], [1, 1, 1, 1])
    seeds = [
        {row.key: [cell(Task.refusal, gold, (better if row.key == "sft" else worse)[n])] for row in CONTESTANTS}
        for n in range(2)
    ]
    found = difference(seeds, "baseline-mix", "sft", "refusal")
    f1 = [100 * 2 * hits / (hits + 4) for hits in (1, 3, 2, 4)]
    assert found.by_seed == pytest.approx((f1[1] - f1[0], f1[3] - f1[2]))
    assert found.mean == pytest.approx(np.mean(found.by_seed))


def test_the_interval_over_prompts_of_one_seed_is_that_of_two_guards():
    models = several(1)[1]["own"]
    a, b = ([c for c in models[k] if c.task is Task.prompt_harm] for k in ("sft", "dpo-self"))
    one = compare(b, a)
    assert over_prompts([(models["sft"], models["dpo-self"])], "prompt_harm") == pytest.approx((one.low, one.high))


def test_more_seeds_narrow_the_interval_over_prompts_and_the_same_model_twice_has_none():
    seeds = [both["own"] for both in several(6).values()]
    pairs = [(s["baseline"], s["sft"]) for s in seeds]
    (low, high), (low_all, high_all) = over_prompts(pairs[:1], MEAN), over_prompts(pairs, MEAN)
    assert high_all - low_all < 0.7 * (high - low)
    assert over_prompts([(seeds[0]["sft"], seeds[0]["sft"])], MEAN) is None


def test_models_that_answered_other_rows_are_not_compared():
    seeds = [both["own"] for both in several(2).values()]
    seeds[1]["sft"] = [c.part(np.arange(c.n) < 50) for c in seeds[1]["sft"]]
    with pytest.raises(DataError, match="not run on the same rows"):
        differences(seeds)
    with pytest.raises(DataError, match="no seed is finished"):
        differences([])


def made(mean, over, prompts, *, seeds=3, least=2.5):
    each = tuple([mean] * seeds)
    return Difference("sft", "dpo-self", "mean", each, mean, over, prompts, (prompts,) * seeds, least if over else None)


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (made(1.2, (0.3, 2.1), (0.1, 2.4)), "seen: +1.2 (0.3 to 2.1)"),
        (made(-1.2, (-2.1, -0.3), (-2.4, -0.1)), "seen: -1.2 (-2.1 to -0.3)"),
        (made(1.2, (0.3, 2.1), (-0.4, 2.9)), "seen on these rows only: +1.2 (0.3 to 2.1); other rows might not show it "
                                             "(over prompts -0.4 to 2.9)"),
        (made(0.4, (-1.0, 1.8), (0.1, 0.9)), "no difference seen: +0.4 (-1.0 to 1.8); "
                                             "a difference of less than 2.5 could not have been seen reliably"),
        (made(3.0, None, (1.0, 5.0), seeds=1), "+3.0: one seed, no interval over seeds; on these rows, over prompts, "
                                               "1.0 to 5.0; whether another seed would show it is not known"),
        (made(0.0, None, None), "+0.0: the seeds do not differ among themselves, no interval over seeds"),
    ],
)  # fmt: skip
def test_each_kind_of_finding_has_its_sentence(found, says):
    assert sentence(found) == says
    assert not DENIAL.search(sentence(found))


def test_a_page_says_what_could_be_seen_before_it_says_what_was():
    data = as_data(several(4, sft=0.95), {"base": "minilm"})
    page = as_markdown(data)
    assert page.index("## What could have been seen") < page.index("F1, mean over seeds") < page.index("seen: +")
    assert page.index("cannot confirm or refute the paper") < page.index("## What could have been seen")
    assert not DENIAL.search(page)
    assert "no difference seen" in page
    assert page.count("| Baseline_mix → R-SFT |") == 1 + 2 * len(measures({"sft": several(1)[1]["own"]["sft"]}))
    assert len(data["own"]["differences"]) == len(STEPS) * (len(TASKS) + 1)
    assert data["own"]["rows"] == {"prompt_harm": 120, "refusal": 60, "response_harm": 60, "mean": 240}


def test_a_large_effect_is_seen_and_names_its_interval():
    found = {(d.before, d.after, d.measure): d for d in differences([s["own"] for s in several(4, sft=0.98).values()])}
    step = found["baseline-mix", "sft", MEAN]
    assert step.over_seeds[0] > 0
    assert sentence(step).startswith("seen: +")
    assert step.detectable < step.mean


def test_one_seed_has_no_interval_over_seeds_and_the_page_says_so():
    page = as_markdown(as_data(several(1, sft=0.95), {}))
    assert "One seed: there are no intervals over seeds" in page
    assert "seen: +" not in page.replace("no difference seen", "")
    assert "F1 of one seed" in page
    assert "standard deviation" not in page
    assert not DENIAL.search(page)
