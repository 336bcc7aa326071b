"""What decides a purchase: the first table, operating points, stability."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from guardreasoner.report.at_a_glance import MISSES, ORDINARY, Glance
from guardreasoner.report.blocks import (
    Block,
    Fold,
    Grid,
    Head,
    Items,
    Line,
    Number,
    Paragraph,
    Section,
    plain,
)
from guardreasoner.report.findings import Report, TaskPoints
from guardreasoner.report.sections.numbers import TASK_NAMES, fixed, interval, p_value

POINT_NAMES = {
    "tpr_at_fpr1": "TPR at 1% FPR",
    "tpr_at_fpr5": "TPR at 5% FPR",
    "fpr_at_tpr90": "FPR at 90% TPR",
    "partial_auroc": "area to 5% FPR",
    "full_auroc": "AUROC",
}
AREAS = ("partial_auroc", "full_auroc")


def glance(report: Report) -> Iterator[Section]:
    if not report.glances:
        return
    ordinary = max((g.ordinary for g in report.glances), default=0)
    asked = max((g.ordinary_attacks for g in report.glances), default=0)
    heads: list[str | Head] = ["guard", Head("missed per 100 attacks", "of the benchmarks")]
    if ordinary:
        heads += [
            Head("missed per 100", f"of {asked:,} harmful everyday requests"),
            Head("false alarms per 1,000", f"on {ordinary:,} ordinary requests"),
            Head("false alarms per 1,000", f"every cut moved to {MISSES} misses in 100"),
        ]
    heads += ["ms per request", "cost per 1,000", Head("% changed", "verdicts when asked again")]
    lines = [Line(_glance_cells(report, g, bool(ordinary)), "ours" if g.guard != "constant" else "constant")
             for g in report.glances]  # fmt: skip
    yield Section(
        "At a glance", "glance", [Grid(heads, lines), *_equal(report.glances), Items(_reading(report), soft=True)]
    )


def _glance_cells(report: Report, g: Glance, everyday: bool) -> list[str | Number]:
    limited = {c.label for c in report.samples}
    name = f"{g.guard} (sample)" if g.guard in limited else g.guard
    cells: list[str | Number] = [name, _attacks(g, _most(other.attacks for other in report.glances))]
    if everyday:
        cells += [interval(g.ordinary_missed), interval(g.false_alarms), interval(g.equal.get(str(MISSES)))]
    paid = "for tokens" if g.by_tokens else "for the machine"
    money = "–" if g.per_1000 is None else Number(f"${g.per_1000:,.4f}", paid)
    return [*cells, fixed(g.ms, 1), money, interval(g.changed)]


def _attacks(g: Glance, most: int) -> str | Number:
    """Attacks missed; of how many where another run was asked more, so that nobody compares the two."""
    shown = interval(g.missed)
    if isinstance(shown, str) or g.attacks == most:
        return shown
    return replace(shown, small=f"{shown.small}, only {g.attacks:,} attacks")


def _equal(found: Sequence[Glance]) -> Iterator[Block]:
    """False alarms at the misses of each guard that has no cut to move."""
    levels = list(dict.fromkeys(level for g in found for level in g.equal if level != str(MISSES)))
    if not levels:
        return
    by_name = {g.guard: g for g in found}
    heads: list[str | Head] = ["guard"]
    for level in levels:
        own = by_name[level].ordinary_missed
        heads.append(Head(f"at the misses of {level}", f"{fixed(own.value if own else None, 1)} in 100"))
    lines = []
    for g in found:
        cells = [interval(g.false_alarms if g.guard == level else g.equal.get(level)) for level in levels]
        if any(c != "–" for c in cells):
            lines.append(Line([g.guard, *cells], "ours"))
    yield Fold("False alarms per 1,000 ordinary requests at the misses of a guard without scores", [Grid(heads, lines)])


def _reading(report: Report) -> list[str]:
    most = _most(g.attacks for g in report.glances)
    attacks = f"{most:,} at most; runs that were asked fewer do not compare" if most else "no run here judged any"
    said = [
        f"Attacks are the harmful requests of the benchmarks ({attacks}), ordinary requests the harmless ones of "
        f"{ORDINARY}; below each number is its 95% interval. What could not be judged counts as missed, or as a false "
        "alarm.",
        f"The fourth column moves every guard's cut until it misses at most {MISSES} of 100 harmful everyday requests: "
        "only there do false alarms compare. A guard without scores has no cut to move.",
        "Time is the median of single calls where `bench` measured it (`--speed FILE`), else the mean of the run "
        "itself, in batches as evaluated, on whatever machine it ran and however busy that was: the part on cost says "
        "which.",
    ]
    if report.per_hour is None:
        said.append("What a machine costs needs its price (`--per-hour PRICE`), what an API costs those of its tokens "
                    "(`--prices FILE`); unknown stays unknown.")  # fmt: skip
    else:
        said.append(f"For the machine: that time at ${report.per_hour:g} an hour, a price given to this report.")
    said += [
        f"For tokens: {guard} at ${p.input:g} per million read and ${p.output:g} written ({p.source}, {p.date}), "
        "without discounts for caches or batches."
        for guard, p in report.prices.items()
    ]
    said.append("Changed: of the kinds of repeat (`evaluate --repeat N`), the one that moved most; the table is below.")
    return said


def _most(values: Iterable[int]) -> int:
    return max(values, default=0)


def points(report: Report) -> Iterator[Section]:
    if not report.points:
        return
    blocks: list[Block] = [
        Paragraph(
            "What guards with scores catch at a false-alarm rate that one can live with. One threshold for all cells "
            "of a task, the best that keeps the promise on these rows; a row without a score counts as wrong at every "
            "threshold. A rate of 1% wants 100 negative rows, one of 5% twenty."
        )
    ]
    for found in report.points:
        heads = ["guard", *POINT_NAMES.values(), "positive rows", "negative rows"]
        lines = [
            Line([guard, *[interval(getattr(p, n), 3 if n in AREAS else 1) for n in POINT_NAMES],
                  f"{p.positives:,}", f"{p.negatives:,}"], "ours")
            for guard, p in found.guards.items()
        ]  # fmt: skip
        over = f"{TASK_NAMES[found.task]}: {', '.join(found.benchmarks)}"
        blocks += [Paragraph(over), Grid(heads, lines), *_differences(found)]
    yield Section("Operating points", "points", blocks)


def _differences(found: TaskPoints) -> Iterator[Block]:
    if not found.differences:
        return
    heads = ("guard", "against", "point", "difference", "95%", "p")
    rows = [
        [d.a, d.b, POINT_NAMES[d.point], _signed(d.difference, d.point),
         f"{_signed(d.low, d.point)} to {_signed(d.high, d.point)}", p_value(d.p)]
        for d in found.differences
    ]  # fmt: skip
    note = (
        f"On the same rows, prompts resampled in pairs. {len(rows)} differences are looked at: exploratory, p "
        "corrected by Holm over all of them; each interval is of its difference alone."
    )
    yield Fold("Differences between guards at these points", [Paragraph(note, soft=True), plain(heads, rows, left=3)])


def _signed(value: float, point: str) -> str:
    return f"{value:+.3f}" if point in AREAS else f"{value:+.1f}"


def stability(report: Report) -> Iterator[Section]:
    if not report.stability:
        return
    heads = ("guard", "what changed", "task", "exchanges", "repeats", "% of repeated verdicts that differ",
             "% of exchanges that ever change")  # fmt: skip
    lines = [
        Line([guard, s.kind, TASK_NAMES[s.task], f"{s.rows:,}", f"{s.repeats:.1f}", interval(s.each), interval(s.ever)],
             "ours")
        for guard, found in report.stability.items()
        for s in found
    ]  # fmt: skip
    said = (
        "The same exchanges judged again: sampled = the reasoning drawn anew at a temperature; layout = the same words "
        "wrapped, quoted, fenced, indented, as a list, with blank lines; batch = in another order and batch size; "
        "judged twice = exchanges that occur more than once in the run. LeanGuard (arXiv 2606.26686) says that about "
        "5% of a reasoning guard's verdicts change when its chain is sampled again."
    )
    yield Section("Stability", "stability", [Paragraph(said), Grid(heads, lines, 3)])


def twins(report: Report) -> Iterator[Section]:
    """Does reasoning pay? Each model that reasons beside its label-only twin, with the paired test."""
    if not report.twins:
        return
    heads = ("recipe", "with reasoning", "labels alone", "task", "rows", "F1 points for reasoning", "95%", "p")
    rows = [
        [t.recipe, t.reasoning, t.labels_only, TASK_NAMES[c.task], f"{c.rows:,}", f"{c.difference:+.2f}",
         f"{c.low:+.1f} to {c.high:+.1f}", p_value(c.p)]
        for t in report.twins
        for c in t.comparisons
    ]  # fmt: skip
    said = (
        "The same base and rows learned twice: with reasoning, and on labels alone (`reproduce --variant "
        "baseline-mix`, the paper's Baseline_mix). Weighted mean F1 of the cells that both have, paired, prompts "
        "resampled."
    )
    ranked = [
        [t.recipe, t.reasoning, t.labels_only, f"{TASK_NAMES[task]}: {', '.join(over)}", f"{d.rows:,}",
         _signed(d.difference, d.point), f"{_signed(d.low, d.point)} to {_signed(d.high, d.point)}", p_value(d.p)]
        for t in report.twins
        for task, over, d in t.areas
    ]  # fmt: skip
    blocks: list[Block] = [Paragraph(said), plain(heads, rows, left=4)]
    if ranked:
        areas = ("recipe", "with reasoning", "labels alone", "cells", "rows", "AUROC for reasoning", "95%", "p")
        note = "Where both give scores, the difference that does not depend on where either cuts:"
        blocks += [Paragraph(note), plain(areas, ranked, left=4)]
    sentences = [c.sentence for t in report.twins for c in t.comparisons]
    yield Section("With and without reasoning", "twins", [*blocks, Items(sentences)])
