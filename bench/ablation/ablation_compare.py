"""Five models compared step by step, paired by seed: means, intervals, and what could not have been seen.

Two questions are kept apart. *Would it come out again with another seed?* A t interval over the paired differences of
the seeds (`scipy.stats.ttest_1samp`). *Would it come out again on other rows?* A bootstrap that draws prompts with
replacement, the same for both models and all seeds. The smallest difference that the seeds could show follows from
their spread alone (noncentral t), and is stated before any result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from guardreasoner.errors import DataError, need
from guardreasoner.evaluate.compare import check_pairs
from guardreasoner.evaluate.finished_runs import open_run
from guardreasoner.evaluate.statistics import Floats, Outcomes, constant_f1, counts, mean_f1, resample, shares
from guardreasoner.evaluate.statistics import outcomes as outcomes_of
from guardreasoner.types import TASKS, Task

POWER = 0.8
ALPHA = 0.05
MEAN = "mean"
"""The mean of the three tasks, as the paper's column "Avg."."""
Measure = str
"""`prompt_harm`, `refusal`, `response_harm` or `mean`."""
Reading = Literal["own", "instant"]
"""own = each model as it was trained to answer; instant = all of them on labels at once."""


class Contestant(NamedTuple):
    """One row of the table."""

    key: str
    """A variant of the recipe, `sft`, or `dpo-` and how its hard samples were found."""
    title: str
    mode: Literal["instant", "full"]
    """How it was trained to answer."""


CONTESTANTS = (
    Contestant("baseline", "Baseline", "instant"),
    Contestant("baseline-mix", "Baseline_mix", "instant"),
    Contestant("sft", "R-SFT", "full"),
    Contestant("dpo-self", "R-SFT + HS-DPO_self", "full"),
    Contestant("dpo-ensemble", "R-SFT + HS-DPO_ensemble", "full"),
)
"""The rows of the paper's Table 3, in its order."""
STEPS = (
    ("baseline", "baseline-mix"),
    ("baseline-mix", "sft"),
    ("sft", "dpo-self"),
    ("sft", "dpo-ensemble"),
    ("dpo-self", "dpo-ensemble"),
)
"""What is compared: the second minus the first."""
TITLES: Mapping[str, str] = {row.key: row.title for row in CONTESTANTS}

Cells = Sequence[Outcomes]
"""The cells of one model, one per benchmark and task."""
Seed = Mapping[str, Cells]
"""Key of a model -> its cells."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One step of the chain on one measure, in points of F1; `after` minus `before`."""

    before: str
    after: str
    measure: Measure
    by_seed: tuple[float, ...]
    mean: float
    over_seeds: tuple[float, float] | None
    """95% t interval; None with one seed, or where the seeds do not differ at all."""
    over_prompts: tuple[float, float] | None
    """95% bootstrap interval of the seeds' mean over other draws of prompts; None where the rows leave no spread."""
    prompts_by_seed: tuple[tuple[float, float] | None, ...]
    """The same within each seed."""
    detectable: float | None
    """The true difference that so many seeds with this spread show in 80% of cases (two-sided, 5%)."""


def read_seed(folder: str | Path, reading: Reading) -> dict[str, list[Outcomes]]:
    """The cells of all five models of one seed.

    Args:
        folder: holds `evaluate/<model>-<mode>`.
        reading: in which mode they answered.

    Raises:
        DataError: an evaluation is missing.
    """
    found = {}
    for row in CONTESTANTS:
        mode = row.mode if reading == "own" else "instant"
        run = open_run(Path(folder) / "evaluate" / f"{row.key}-{mode}")
        found[row.key] = [outcomes_of(one, task) for one in run.benchmarks for task in one.tasks]
    return found


def measures(seed: Seed) -> tuple[Measure, ...]:
    """The tasks that the rows ask, and their mean where there is more than one."""
    asked = {cell.task for cell in next(iter(seed.values()))}
    tasks = tuple(task.value for task in TASKS if task in asked)
    return (*tasks, MEAN) if len(tasks) > 1 else tasks


def weights(cells: Cells, measure: Measure) -> Floats:
    """The weight of each cell in a measure, summing to 1: its rows within a task, each task the same in the mean."""
    tasks = [Task(measure)] if measure != MEAN else [task for task in TASKS if any(c.task == task for c in cells)]
    found = np.zeros(len(cells))
    for task in tasks:
        at = [i for i, cell in enumerate(cells) if cell.task == task]
        found[at] = shares([cells[i] for i in at], None) / len(tasks)
    return found


def score(cells: Cells, measure: Measure) -> float:
    """F1 in percent, strict: what was not answered is wrong."""
    return float(mean_f1([counts(cell).sum(-1) for cell in cells], weights(cells, measure))[0])


def floor(cells: Cells, measure: Measure) -> float:
    """F1 of answering "harmful" (or "refusal") always."""
    return float(np.dot(weights(cells, measure), [constant_f1(cell) for cell in cells]))


def differences(seeds: Sequence[Seed]) -> list[Difference]:
    """Every step of the chain on every measure.

    Raises:
        DataError: there is no seed, or two models (or seeds) did not answer the same rows.
    """
    if not seeds:
        raise DataError("no seed is finished yet")
    for seed in seeds:
        for key, cells in seed.items():
            _check(seeds[0][key], cells)
            _check(next(iter(seed.values())), cells)
    return [difference(seeds, before, after, m) for before, after in STEPS for m in measures(seeds[0])]


def _check(a: Cells, b: Cells) -> None:
    if len(a) != len(b):
        raise DataError("the models were not evaluated on the same cells; start the ablation over with --fresh")
    for x, y in zip(a, b, strict=True):
        check_pairs(x, y)


def difference(seeds: Sequence[Seed], before: str, after: str, measure: Measure) -> Difference:
    """One step on one measure."""
    by_seed = tuple(score(seed[after], measure) - score(seed[before], measure) for seed in seeds)
    pairs = [(seed[before], seed[after]) for seed in seeds]
    within = tuple(over_prompts([pair], measure) for pair in pairs)
    return Difference(
        before=before,
        after=after,
        measure=measure,
        by_seed=by_seed,
        mean=float(np.mean(by_seed)),
        over_seeds=over_seeds(by_seed),
        over_prompts=over_prompts(pairs, measure) if len(pairs) > 1 else within[0],
        prompts_by_seed=within,
        detectable=detectable(by_seed),
    )


def over_seeds(values: Sequence[float]) -> tuple[float, float] | None:
    """95% t interval of the mean of paired differences; None where there is nothing to take a spread from."""
    if len(values) < 2 or np.ptp(values) < 1e-9:
        return None
    interval = need("scipy.stats", "eval").ttest_1samp(values, 0.0).confidence_interval(1 - ALPHA)
    return float(interval.low), float(interval.high)


def detectable(values: Sequence[float]) -> float | None:
    """The smallest true mean that a two-sided t test on so many values of this spread finds with a power of 80%.

    None where there is nothing to take a spread from. It is as uncertain as the spread itself; see `uncertainty`.
    """
    if over_seeds(values) is None:
        return None
    return float(np.std(values, ddof=1)) * detectable_effect(len(values))


def detectable_effect(seeds: int) -> float:
    """The same in standard deviations of the difference, for two seeds or more."""
    stats, optimize = need("scipy.stats", "eval"), need("scipy.optimize", "eval")
    cut = stats.t.ppf(1 - ALPHA / 2, seeds - 1)

    def lack(shift: float) -> float:
        return float(stats.nct.sf(cut, seeds - 1, shift)) - POWER  # found, and on the right side

    return float(optimize.brentq(lack, 1.0, 3 * cut)) / float(np.sqrt(seeds))


def uncertainty(seeds: int) -> float:
    """How many times as large as measured the spread of so many seeds may well be: upper end of its 95% interval."""
    return float(np.sqrt((seeds - 1) / need("scipy.stats", "eval").chi2.ppf(ALPHA / 2, seeds - 1)))


def over_prompts(pairs: Sequence[tuple[Cells, Cells]], measure: Measure) -> tuple[float, float] | None:
    """95% interval of the mean difference of some pairs of models, prompts drawn with replacement in each cell.

    A draw holds for all models and seeds at once. Cells are drawn apart, also where one prompt is in two of them.
    """
    w = weights(pairs[0][0], measure)
    used = [i for i, share in enumerate(w) if share > 0]
    samples = [np.concatenate([counts(c[i]) for pair in pairs for c in pair]) for i in used]

    def statistic(summed: Sequence[Floats]) -> Floats:
        each = [mean_f1([s[k : k + 4] for s in summed], w[used]) for k in range(0, 8 * len(pairs), 4)]
        total: Floats = sum(each[1::2]) - sum(each[::2])  # type: ignore[assignment]
        return total / len(pairs)

    _, low, high, _ = resample(samples, statistic, method="percentile")
    return (float(low[0]), float(high[0])) if low[0] < high[0] else None
