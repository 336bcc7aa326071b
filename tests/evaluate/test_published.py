"""The printed numbers: complete, equal to the reference tables, and every mean and difference recomputed."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from guardreasoner.data.benchmarks import BENCHMARKS
from guardreasoner.data.published import elsewhere, f1_rows, find_table, tables
from guardreasoner.errors import UnknownName
from guardreasoner.types import TASKS, Task
from published_checks import checks


def test_every_printed_mean_and_difference_follows_from_its_cells_or_is_listed():
    found = checks()
    off = [c for c in found if not c.agrees]
    unexplained = [c.sentence for c in off if not (c.cell.wrong or any("rounding" in n for n in c.cell.notes))]
    assert len(found) > 300
    assert not unexplained, "\n".join(unexplained)
    assert {(c.cell.table, c.cell.row, c.cell.variant, c.cell.column) for c in off} == {
        ("3", "guardreasoner-1b", "baseline-mix", "mean"),
        ("7", "guardreasoner-8b", "improvement", "prompt_harm"),
        ("7", "guardreasoner-8b", "improvement", "refusal"),
        ("11", "guardreasoner-1b", "corrected", "mean"),
        ("11", "guardreasoner-3b", "corrected", "mean"),
        ("claims", "f1_over_gpt-4o-cot", "", "value"),
        ("colaguard-prompt", "colaguard-8b", "", "mean"),
    }
    assert all(c.sentence for c in off)


def test_interchanging_the_corrected_rows_of_table_11_makes_both_means_right():
    rows = find_table("11").rows()
    for cells_of, mean_of in (("1b", "3b"), ("3b", "1b")):
        cells_row = rows[f"guardreasoner-{cells_of}", "corrected"]
        values = [cells_row[c].value for c in find_table("11").columns if c != "mean"]
        weights = find_table("11").weights
        mean = sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)
        assert mean == pytest.approx(rows[f"guardreasoner-{mean_of}", "corrected"]["mean"].value, abs=0.01)


def test_the_six_copied_refusal_cells_equal_the_response_column_and_are_marked_wrong():
    copied = [
        row
        for (row, _), columns in find_table("10").rows().items()
        if columns["XSTestResponseRefusal"].wrong
        and columns["XSTestResponseRefusal"].value == find_table("4").find(row, "XSTestResponseHarmful").value
    ]
    assert len(copied) == 6


def test_all_the_papers_tables_are_there_with_their_rows_and_a_source_in_each_cell():
    rows = {name: len(table.rows()) for name, table in tables().items() if name.isdigit()}
    papers = {"1": 9, "2": 21, "3": 15, "4": 25, "5": 12, "6": 20, "7": 3, "8": 13, "10": 20, "11": 10}
    assert rows == papers | {"12": 10, "13": 10}
    everything = [cell for table in tables().values() for cell in table.cells]
    assert len(everything) > 900
    assert all(cell.source for cell in everything)
    keys = Counter((c.table, c.row, c.variant, c.column) for c in everything)
    assert max(keys.values()) == 1


def test_every_note_is_about_a_cell_that_exists():
    import yaml

    from guardreasoner.data import published

    raw = yaml.safe_load((Path(published.__file__).parent / "published.yaml").read_text())
    everything = [cell for table in tables().values() for cell in table.cells]
    keys = {(c.table, f"{c.row}/{c.variant}" if c.variant else c.row, c.column) for c in everything}
    seen = 0
    for note in raw["notes"]:
        rows = {(t, r) for t in note["tables"] for r in note["rows"]}
        assert rows & {(t, r) for t, r, _ in keys}, note["note"]
        for row in note["rows"]:
            assert any((t, row) in {(a, b) for a, b, _ in keys} for t in note["tables"]), row
        for column in note.get("columns", []):
            assert any((t, r, column) in keys for t, r in rows), column
        seen += 1
    assert seen >= 15


def test_columns_of_f1_tables_are_benchmarks_of_ours():
    known = {(b.name, cell.task) for b in BENCHMARKS.values() for cell in b.cells}
    foreign = {"mean", "macro", "Aegis2.0", "Think"}
    seen = 0
    for table in tables().values():
        if table.task:
            assert {(c, table.task) for c in table.columns if c not in foreign} <= known
            seen += 1
    assert seen >= 10


def test_f1_rows_give_the_paper_first_and_keep_modes_apart():
    prompt = f1_rows(Task.prompt_harm)
    assert prompt["guardreasoner-8b"]["ToxicChat"].value == 78.79
    assert prompt["llama-guard-3-8b"]["AegisSafetyTest"].value == 71.39  # not CoLaGuard's slip
    assert prompt["qwen3guard-gen-0-6b"]["ToxicChat"].value == 65.1
    assert f1_rows(Task.refusal)["qwen3guard-gen-8b"]["XSTestResponseRefusal"].value == 92.6
    assert prompt["qwen3guard-gen-0-6b-loose"]["ToxicChat"].value == 77.7
    assert all(len(f1_rows(task)) >= 20 for task in TASKS)


def test_published_rows_have_the_names_of_the_guard_table():
    from guardreasoner.guards.load import rows

    names = set(rows()) | {"colaguard-8b"}
    published = {row for task in TASKS for row in f1_rows(task)}
    assert len(published) > 30
    assert published <= names


def test_an_unknown_table_or_cell_names_the_nearest():
    with pytest.raises(UnknownName, match="colaguard-prompt"):
        find_table("colaguard-promt")
    with pytest.raises(UnknownName, match="nobody"):
        find_table("2").find("nobody", "ToxicChat")


def test_the_f1_tables_equal_the_reference_transcription():
    folder = os.environ.get("GUARDREASONER_REFERENCE")
    path = Path(folder or ".").parent / "paper" / "tables.json"
    if not folder or not path.exists():
        pytest.skip("GUARDREASONER_REFERENCE is unset, or the paper's tables are not beside it")
    seen = 0
    for key, name in (("prompt", "2"), ("response", "4"), ("refusal", "10")):
        there = json.loads(path.read_text())[key]
        table = find_table(name)
        assert list(table.weights) == there["weights_reproducing_paper_average"]
        ours = sorted(
            [row[b].value for b in there["benchmarks"]] + [row["mean"].value]
            for row in table.rows().values()
            if row["mean"].value is not None
        )
        theirs = sorted(
            [r["f1"][b] for b in there["benchmarks"]] + [r["paper_weighted_avg"]] for r in there["rows"].values()
        )
        assert ours == theirs
        seen += len(ours)
    assert seen == 64


def test_numbers_of_other_protocols_have_source_and_protocol_and_enter_no_table_of_ours():
    found = elsewhere()
    assert {"leanguard", "gliguard-prompt", "opir", "tinysafe", "gpt-oss-safeguard", "guardreasoner-omni"} <= {
        t.name for t in found
    }
    for table in found:
        assert table.task is None
        assert len(table.protocol) > 20
        assert all(cell.source for cell in table.cells)
    assert not {"leanguard", "gliguard", "opir-edge", "tinysafe-2"} & {row for task in TASKS for row in f1_rows(task)}
    assert [t.name for t in found if not t.confirmed] == [
        "toxic-prompt-roberta", "guardreasoner-omni", "gliner-guard",
    ]  # fmt: skip


def test_averages_of_other_protocols_follow_from_their_cells_or_carry_a_note():
    leanguard, averages = find_table("leanguard"), find_table("6")
    for guard in (
        "guardreasoner-3b",
        "wildguard",
    ):  # copied from GuardReasoner's Table 6, one resting on a wrong column
        assert leanguard.find(guard, "mean").value == averages.find(guard, "mean").value
    assert leanguard.find("guardreasoner-1b", "mean").value not in (81.75, 81.98)
    assert leanguard.find("guardreasoner-1b", "mean").notes
    cells = {c.column: c.value for c in find_table("gliguard-prompt").cells}
    missing = 5 * cells.pop("average") - sum(cells.values())
    assert missing == pytest.approx(97.8)  # SimpleSafetyTests, which could not be read
    assert "97.8" in find_table("gliguard-prompt").protocol
    guard = {c.column: c.value for c in find_table("gliner-guard").cells}
    assert sum(v for k, v in guard.items() if k != "average") / 3 == pytest.approx(83.87, abs=0.005)
    assert "83.87" in find_table("gliner-guard").find("gliner-guard", "average").notes[0]
