"""Do the printed averages and differences follow from the printed cells? Recomputed one by one, to 0.01.

`checks()` gives one line per printed number that can be derived from others. What does not agree is either explained by
a note of `published.yaml` or is a finding; the test of this module accepts only explained ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from guardreasoner.data.published import PrintedCell, Table, find_table, tables

TOLERANCE = 0.0101
"""0.01, and a little for binary fractions."""


@dataclass(frozen=True, slots=True)
class Check:
    """One printed number beside what the other printed numbers make it."""

    cell: PrintedCell
    rule: str
    """How it was recomputed."""
    recomputed: float

    @property
    def agrees(self) -> bool:
        """Within 0.01."""
        return self.cell.value is not None and abs(self.cell.value - self.recomputed) <= TOLERANCE

    @property
    def sentence(self) -> str:
        """The finding in words, with the reason where one is known."""
        what = f"{self.cell.source}: {self.cell.row} {self.cell.variant} {self.cell.column}".replace("  ", " ")
        why = "; ".join(self.cell.notes) or "no reason is known"
        end = "agrees" if self.agrees else why
        return f"{what} prints {self.cell.value:g}, {self.rule} gives {self.recomputed:.2f}: {end}"


def checks() -> list[Check]:
    """Every printed number that follows from others."""
    return [
        *(check for table in tables().values() for check in _means(table)),
        *_copies(),
        *_corpus(),
        *_improvements(),
        *_headlines(),
        *_best_of_modes(),
        *_copied_originals(),
    ]


def _means(table: Table) -> Iterator[Check]:
    """Weighted means (column `mean`) and plain ones (column `macro`)."""
    for (_, variant), row in table.rows().items():
        parts = [row[c].value for c in table.columns if c not in ("mean", "macro")]
        values = [v for v in parts if v is not None]
        if variant == "improvement" or len(values) < len(parts):
            continue
        if "mean" in row and table.weights:
            total = sum(v * w for v, w in zip(values, table.weights, strict=True))
            yield Check(row["mean"], "the weighted mean of its cells", total / sum(table.weights))
        if "macro" in row:
            yield Check(row["macro"], "the plain mean of its cells", sum(values) / len(values))


def _copies() -> Iterator[Check]:
    """Table 6 repeats the means of Tables 2, 4 and 10."""
    for (guard, _), row in find_table("6").rows().items():
        for name, task in (("2", "prompt_harm"), ("4", "response_harm"), ("10", "refusal")):
            there = find_table(name).find(guard, "mean").value
            if there is not None:
                yield Check(row[task], f"the mean of Table {name}", there)


def _copied_originals() -> Iterator[Check]:
    """Rows with original labels in Tables 7 and 11-13 repeat Tables 6, 2, 4 and 10."""
    for name, first in (("7", "6"), ("11", "2"), ("12", "4"), ("13", "10")):
        for (guard, variant), row in find_table(name).rows().items():
            for column, cell in row.items() if variant == "original" else ():
                there = find_table(first).find(guard, column).value
                if there is not None:
                    yield Check(cell, f"the same cell of Table {first}", there)
    for name, task in (("11", "prompt_harm"), ("12", "response_harm"), ("13", "refusal")):
        there = find_table(name).find("guardreasoner-8b", "mean", "corrected").value
        if there is not None:
            cell = find_table("7").find("guardreasoner-8b", task, "corrected")
            yield Check(cell, f"the corrected mean of Table {name}", there)


def _corpus() -> Iterator[Check]:
    """Table 1: steps per sample, and the totals of the synthesised sets."""
    table = find_table("1").rows()
    parts = [cells for (row, _), cells in table.items() if row.endswith("-R")]
    total = table["GuardReasonerTrain", ""]
    for cells in [*parts, total]:
        steps, samples = cells["steps"].value or 0.0, cells["samples"].value or 1.0
        yield Check(cells["steps_per_sample"], "steps over samples", steps / samples)
    for column in ("samples", "steps"):
        yield Check(total[column], "the sum of the four sets", sum(p[column].value or 0.0 for p in parts))
    letters = sum((p["steps"].value or 0.0) * (p["characters_per_step"].value or 0.0) for p in parts)
    mean = letters / sum(p["steps"].value or 0.0 for p in parts)
    yield Check(total["characters_per_step"], "the mean of the four sets by steps", mean)


def _improvements() -> Iterator[Check]:
    """Table 7: relative percent of corrected over original."""
    table = find_table("7")
    for column in table.columns:
        before = table.find("guardreasoner-8b", column, "original").value or 1.0
        after = table.find("guardreasoner-8b", column, "corrected").value or 0.0
        cell = table.find("guardreasoner-8b", column, "improvement")
        yield Check(cell, "corrected over original, in percent", 100 * (after / before - 1))


def _headlines() -> Iterator[Check]:
    claims, averages = find_table("claims"), find_table("6")
    ours = averages.find("guardreasoner-8b", "mean").value or 0.0
    for other in ("gpt-4o-cot", "llama-guard-3-8b"):
        theirs = averages.find(other, "mean").value or 0.0
        yield Check(claims.find(f"f1_over_{other}", "value"), "the difference of the means of Table 6", ours - theirs)
    yield Check(claims.find("benchmarks", "value"), "the rows of Table 8", float(len(find_table("8").rows())))
    corpus = find_table("1")
    for column in ("samples", "steps"):
        exact = corpus.find("GuardReasonerTrain", column).value or 0.0
        yield Check(claims.find(column, "value"), "Table 1 in whole thousands", exact // 1000 * 1000)


def _best_of_modes() -> Iterator[Check]:
    """Qwen3Guard's means take the better of strict and loose benchmark by benchmark; cells have one decimal."""
    for task, name in (("prompt_harm", "qwen3guard-prompt"), ("response_harm", "qwen3guard-response")):
        rows = find_table(name).rows()
        for guard, _ in find_table("qwen3guard-means").rows():
            pairs = [(rows[guard, ""][c].value, rows[f"{guard}-loose", ""][c].value) for c in find_table(name).columns]
            best = [max(a or 0.0, b or 0.0) for a, b in pairs]
            cell = find_table("qwen3guard-means").find(guard, task)
            yield Check(cell, "the mean of the better mode, to one decimal", round(sum(best) / len(best), 1))
