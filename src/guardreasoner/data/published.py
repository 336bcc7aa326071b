"""What papers print, as data: every cell of the paper's Tables 1-8 and 10-13, its headline claims, and newer guards.

`published.yaml` holds the numbers as printed. A known error is not corrected: it carries a note, and
`PrintedCell.wrong` is true. `tests/published_checks.py` recomputes every printed mean and difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from guardreasoner.errors import UnknownName
from guardreasoner.types import Task
from guardreasoner.yaml_files import packaged


@dataclass(frozen=True, slots=True)
class PrintedCell:
    """One printed number."""

    table: str
    row: str
    """Guard (or data set, benchmark, claim)."""
    variant: str
    """What tells rows of one guard apart: `original`, `corrected`, `r-sft`, a task ...; empty = there is one row."""
    column: str
    """Benchmark, task, or what is counted; `mean` is the printed average."""
    value: float | None
    """None = the paper prints a dash."""
    source: str
    notes: tuple[str, ...] = ()
    """What a reader must know."""
    wrong: bool = False
    """Known not to be what the column says it is."""


@dataclass(frozen=True, slots=True)
class Table:
    """One printed table."""

    name: str
    """The paper's number, or a name for tables of other papers."""
    about: str
    source: str
    unit: str
    task: Task | None
    """The task of all its cells, if there is one."""
    columns: tuple[str, ...]
    weights: tuple[float, ...]
    """Weights that reproduce the column `mean`, in the order of the other columns; empty = no such column."""
    cells: tuple[PrintedCell, ...]
    protocol: str = ""
    """How it was measured where that is not the paper's way; such a table enters no average of ours."""
    confirmed: bool = True
    """Whether it was read where its authors publish it."""

    def find(self, row: str, column: str, variant: str = "") -> PrintedCell:
        """One cell."""
        for cell in self.cells:
            if (cell.row, cell.variant, cell.column) == (row, variant, column):
                return cell
        raise UnknownName(
            "cell", f"{row}/{variant}, {column}", (f"{c.row}/{c.variant}, {c.column}" for c in self.cells)
        )

    def rows(self) -> dict[tuple[str, str], dict[str, PrintedCell]]:
        """(row, variant) to column to cell, in printed order."""
        found: dict[tuple[str, str], dict[str, PrintedCell]] = {}
        for cell in self.cells:
            found.setdefault((cell.row, cell.variant), {})[cell.column] = cell
        return found


@cache
def tables() -> Mapping[str, Table]:
    """All tables by name."""
    content = packaged("data/published.yaml")
    return {name: _table(name, raw, content["sources"], content["notes"]) for name, raw in content["tables"].items()}


def find_table(name: str) -> Table:
    """One table by the paper's number or by name."""
    if name not in tables():
        raise UnknownName("published table", name, tables())
    return tables()[name]


def f1_rows(task: Task) -> dict[str, dict[str, PrintedCell]]:
    """Guard, as in the guard table, to benchmark to its published F1 on one task, on original labels.

    The first table that has a row wins: the paper's own over later copies of it. Tables of another protocol are left
    out: `elsewhere` has them.
    """
    found: dict[str, dict[str, PrintedCell]] = {}
    for table in tables().values():
        if table.task != task or table.name in ("11", "12", "13") or table.name.startswith("wildguard"):
            continue
        for (row, _), columns in table.rows().items():
            found.setdefault(row, columns)
    return found


def elsewhere() -> list[Table]:
    """The tables that were measured in another way than the paper's: to be shown, each by itself, never averaged."""
    return [table for table in tables().values() if table.protocol]


def _table(name: str, raw: Mapping[str, Any], sources: Mapping[str, str], notes: Sequence[Mapping[str, Any]]) -> Table:
    number = f"Table {name}" if name.isdigit() else str(raw["about"])
    source = f"{sources[raw['source']]}; {number}"
    columns = tuple(raw["columns"])
    found = []
    for key, values in raw["rows"].items():
        row, _, variant = key.partition("/")
        for column, value in zip(columns, values, strict=True):
            said = [n for n in notes if _about(n, name, key, column)]
            found.append(
                PrintedCell(
                    table=name,
                    row=row,
                    variant=variant,
                    column=column,
                    value=None if value is None else float(value),
                    source=source,
                    notes=tuple(n["note"] for n in said),
                    wrong=any(n.get("wrong", False) for n in said),
                )
            )
    return Table(
        name=name,
        about=raw["about"],
        source=source,
        unit=raw.get("unit", "F1 in percent"),
        task=Task(raw["task"]) if "task" in raw else None,
        columns=columns,
        weights=tuple(float(w) for w in raw.get("weights", ())),
        cells=tuple(found),
        protocol=" ".join(str(raw.get("protocol", "")).split()),
        confirmed=bool(raw.get("confirmed", True)),
    )


def _about(note: Mapping[str, Any], table: str, row: str, column: str) -> bool:
    return table in note["tables"] and row in note["rows"] and column in note.get("columns", [column])
