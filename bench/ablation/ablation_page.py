"""The result of an ablation as Markdown and as data: what could have been seen first, then what was.

A difference that was not seen is never written as one that is not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from ablation_compare import (
    CONTESTANTS,
    MEAN,
    TITLES,
    Difference,
    Reading,
    Seed,
    differences,
    floor,
    measures,
    score,
    uncertainty,
)

NAMES: Mapping[str, str] = {"prompt_harm": "prompt", "refusal": "refusal", "response_harm": "response", MEAN: "mean"}
CANNOT = (
    "It cannot confirm or refute the paper: the base is small and the rows are few. "
    "The paper's row stays open until the 1B recipe runs."
)
HEADS: Mapping[Reading, str] = {
    "own": "Each model as it was trained to answer",
    "instant": "All models in `instant`: labels at once, no reasoning",
}
INSTANT_NOTE = "R-SFT and HS-DPO were never trained to answer so; this shows what their weights hold without the steps."


def as_data(seeds: Mapping[int, Mapping[Reading, Seed]], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Everything as plain values.

    Args:
        seeds: number of the seed -> reading -> its models.
        facts: what a reader should know besides, by name.
    """
    numbers = sorted(seeds)
    data: dict[str, Any] = {"what": "Table 3's design at a small size", "cannot": CANNOT, "seeds": numbers, **facts}
    for reading in HEADS:
        own = [seeds[n][reading] for n in numbers]
        found = differences(own)
        first = own[0]["baseline"]
        data[reading] = {
            "detectable": {f"{d.before} -> {d.after}, {d.measure}": d.detectable for d in found},
            "floor": {m: floor(first, m) for m in measures(own[0])},
            "rows": {m: sum(c.n for c in first if m in (MEAN, c.task.value)) for m in measures(own[0])},
            "unread": {row.key: [sum(c.unparsed for c in seed[row.key]) for seed in own] for row in CONTESTANTS},
            "f1": {
                row.key: {m: [score(seed[row.key], m) for seed in own] for m in measures(own[0])} for row in CONTESTANTS
            },
            "differences": [{**asdict(d), "says": sentence(d)} for d in found],
        }
    return data


def sentence(d: Difference) -> str:
    """What one difference means, in words."""
    figures = f"{d.mean:+.1f}"
    if d.over_seeds is None:
        return f"{figures}: {_no_seed_interval(d)}"
    over_seeds = _span(d.over_seeds)
    if _excludes_zero(d.over_seeds) and _excludes_zero(d.over_prompts):
        return f"seen: {figures} ({over_seeds})"
    if _excludes_zero(d.over_seeds):
        prompts = f"over prompts {_span(d.over_prompts)}" if d.over_prompts else "they leave no interval over prompts"
        return f"seen on these rows only: {figures} ({over_seeds}); other rows might not show it ({prompts})"
    return (
        f"no difference seen: {figures} ({over_seeds}); "
        f"a difference of less than {d.detectable:.1f} could not have been seen reliably"
    )


def _no_seed_interval(d: Difference) -> str:
    prompts = f"; on these rows, over prompts, {_span(d.over_prompts)}" if d.over_prompts else ""
    if len(d.by_seed) == 1:
        return f"one seed, no interval over seeds{prompts}; whether another seed would show it is not known"
    return f"the seeds do not differ among themselves, no interval over seeds{prompts}"


def _excludes_zero(interval: tuple[float, float] | None) -> bool:
    return interval is not None and (interval[0] > 0 or interval[1] < 0)


def _span(interval: tuple[float, float] | None) -> str:
    return "none" if interval is None else f"{interval[0]:.1f} to {interval[1]:.1f}"


def as_markdown(data: Mapping[str, Any]) -> str:
    """The same as a page."""
    return "\n".join(_lines(data)) + "\n"


def _lines(data: Mapping[str, Any]) -> Iterator[str]:
    seeds: Sequence[int] = data["seeds"]
    yield "# Ablation: Table 3's design at a small size"
    yield ""
    yield data["cannot"]
    yield ""
    yield f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}: {', '.join(map(str, seeds))}."
    yield ""
    yield from (f"- {name}: {value}" for name, value in data.items() if name not in _SHAPED)
    yield ""
    yield from _detectable(data["own"], len(seeds))
    for reading, head in HEADS.items():
        yield f"## {head}"
        yield ""
        if reading == "instant":
            yield INSTANT_NOTE
            yield ""
        yield from _scores(data[reading], reading)
        yield from _differences(data[reading])
    yield from _notes(data)


_SHAPED = {"what", "cannot", "seeds", *HEADS}


def _detectable(block: Mapping[str, Any], seeds: int) -> Iterator[str]:
    yield "## What could have been seen"
    yield ""
    if seeds == 1:
        yield (
            "One seed: there are no intervals over seeds, so what seeds could have shown cannot be stated. The "
            "intervals over prompts below speak of these five trained models alone."
        )
        yield ""
        return
    yield (
        f"The smallest true difference, in points of F1, that {seeds} paired seeds show in 80% of cases (two-sided, "
        f"5%). It rests on the spread of {seeds} differences, and the true spread may well be up to "
        f"{uncertainty(seeds):.1f} times as large."
    )
    yield ""
    yield from _steps_table(block, lambda d: "–" if d["detectable"] is None else f"{d['detectable']:.1f}")


def _steps_table(block: Mapping[str, Any], cell: Any) -> Iterator[str]:
    names = list(block["floor"])
    rows: dict[str, list[str]] = {}
    for d in block["differences"]:
        rows.setdefault(f"{TITLES[d['before']]} → {TITLES[d['after']]}", []).append(cell(d))
    yield from _table(["step", *[NAMES[n] for n in names]], [[step, *cells] for step, cells in rows.items()])


def _scores(block: Mapping[str, Any], reading: Reading) -> Iterator[str]:
    names = list(block["floor"])
    rows = []
    for row in CONTESTANTS:
        values = [block["f1"][row.key][name] for name in names]
        mode = row.mode if reading == "own" else "instant"
        rows.append(
            [row.title, mode, *[_mean_and_spread(v) for v in values], str(round(np.mean(block["unread"][row.key])))]
        )
    rows.append(["always positive", "–", *[f"{block['floor'][name]:.1f}" for name in names], "0"])
    seeds = len(block["f1"][CONTESTANTS[0].key][names[0]])
    head = "F1, mean over seeds (standard deviation over seeds)" if seeds > 1 else "F1 of one seed"
    yield f"{head}; `unread` answers count as wrong."
    yield ""
    yield from _table(["model", "mode", *[f"{NAMES[n]} ({block['rows'][n]} rows)" for n in names], "unread"], rows)


def _mean_and_spread(values: Sequence[float]) -> str:
    spread = f" ({np.std(values, ddof=1):.1f})" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{spread}"


def _differences(block: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        [
            f"{TITLES[d['before']]} → {TITLES[d['after']]}",
            NAMES[d["measure"]],
            f"{d['mean']:+.1f}",
            _span(d["over_seeds"]),
            _span(d["over_prompts"]),
            d["says"],
        ]
        for d in block["differences"]
    ]
    yield from _table(["step", "task", "difference", "95% over seeds", "95% over prompts", "in words"], rows)


def _notes(data: Mapping[str, Any]) -> Iterator[str]:
    looks = len(data["own"]["differences"])
    yield "## How to read it"
    yield ""
    yield (
        f"- {looks} differences are looked at without correction: one in twenty intervals misses by chance. The mean "
        "of the tasks is the one to look at first."
    )
    yield "- A seed draws the rows, their order, the samples and the hard pairs anew; all five models share its draw."
    yield "- The interval over seeds holds for these evaluation rows; the one over prompts for these trained models."
    yield "- No threshold was fitted: a verdict is the likelier word."
    yield "- A task is the mean of its cells by the rows judged here; the paper's averages go by the whole benchmarks."


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""
