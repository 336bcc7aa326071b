"""A guard over a file: every row answered in its place, whatever happens in between."""

from __future__ import annotations

import csv
import gzip
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from guardreasoner.batch import BatchCounts, files, run_batch, run_on_ray
from guardreasoner.batch.files import portions, rows_of
from guardreasoner.cli.main import main
from guardreasoner.data import tables
from guardreasoner.errors import ConfigError, DataError, EngineError, RunFolderError
from guardreasoner.guards.base import Judging
from guardreasoner.types import TASKS, Exchange, Labels, Verdict

TESTS = Path(__file__).parent
CONFIG = {"guard": "words"}


class Words(Judging):
    """Finds the word `bad`; `STOP` breaks it, `LATE` is a timeout."""

    name = "words"
    tasks = tuple(TASKS)

    def __init__(self, broken: bool = False, pause_s: float = 0.0) -> None:
        self.broken, self.pause_s = broken, pause_s

    def judge(self, exchanges):
        if self.broken and any("STOP" in e.prompt for e in exchanges):
            raise EngineError("the engine broke; start it again")
        time.sleep(self.pause_s)
        return [self.one(e) for e in exchanges]

    def one(self, exchange: Exchange) -> Verdict:
        if "LATE" in exchange.prompt:
            return Verdict(
                exchange.id, self.name, "full", "timeout", fail_mode="closed", flagged=True, error="too late"
            )
        bad = "bad" in exchange.prompt
        labels = Labels("harmful" if bad else "unharmful")
        return Verdict(exchange.id, self.name, "full", "ok", labels, flagged=bad, notes={"words": len(exchange.prompt)})


class SlowWords(Words):
    """For killing: the command line loads it by name."""

    def __init__(self) -> None:
        super().__init__(pause_s=0.02)


def rows(number: int) -> list[dict]:
    return [{"id": f"r{i}", "prompt": f"{'bad' if i % 3 == 0 else 'good'} {i}", "source": i} for i in range(number)]


def write(path: Path, content: list) -> Path:
    path.write_text("".join((c if isinstance(c, str) else json.dumps(c)) + "\n" for c in content))
    return path


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def judge(source: Path, out: Path, **more):
    return run_batch(source, out, more.pop("opener", Words), config=more.pop("config", CONFIG), **more)


def test_every_row_has_its_verdict_in_its_place(tmp_path):
    source = write(tmp_path / "in.jsonl", rows(500))
    manifest = judge(source, tmp_path / "out.jsonl")
    found = read(tmp_path / "out.jsonl")
    assert [r["exchange_id"] for r in found] == [f"r{i}" for i in range(500)]
    assert all(r["flagged"] == (i % 3 == 0) and r["source"] == i for i, r in enumerate(found))
    assert manifest["counts"] == {"in": 500, "out": 500, "dropped": {}}
    assert manifest["verdicts"] == {"flagged": 167, "unjudged": {}, "unjudged_closed": 0}


def test_what_was_judged_is_repeated_only_where_asked_for(tmp_path):
    content = [{"prompt": "good", "response": "x", "team": 1}, {"messages": [{"role": "user", "content": "bad"}]}]
    source = write(tmp_path / "in.jsonl", content)
    judge(source, tmp_path / "bare.jsonl")
    assert not [name for row in read(tmp_path / "bare.jsonl") for name in ("prompt", "messages") if name in row]
    judge(source, tmp_path / "out.jsonl", texts=True)
    found = read(tmp_path / "out.jsonl")
    assert [{k: v for k, v in row.items() if k in content[i]} for i, row in enumerate(found)] == content
    assert [row["flagged"] for row in found] == [False, True]


def test_rows_that_cannot_be_read_are_errors_in_their_place_and_the_rest_is_judged(tmp_path):
    content = [
        {"prompt": "good"},
        "not json",
        {"prompt": 3},
        "",
        {"prompt": "", "response": None},
        {"prompt": "bad", "context": 1},
        {"prompt": "", "response": "bad"},
        [1],
        {"prompt": "LATE"},
        {"prompt": "x", "context": [{"role": "user", "content": "y"}]},
    ]
    manifest = judge(write(tmp_path / "in.jsonl", content), tmp_path / "out.jsonl")
    found = read(tmp_path / "out.jsonl")
    assert [r.get("line") for r in found] == [None, 2, 3, 5, 6, None, 8, None, None]
    assert [r["exchange_id"] for r in found if "error" not in r or "status" in r] == ["1", "7", "9", "10"]
    assert manifest["counts"] == {"in": 9, "out": 4, "dropped": {"unreadable": 5}}
    assert manifest["verdicts"]["unjudged"] == {"timeout": 1}


def test_a_run_that_broke_goes_on_behind_its_last_line(tmp_path):
    content = rows(400)
    content[300]["prompt"] = "STOP bad"
    source, out = write(tmp_path / "in.jsonl", content), tmp_path / "out.jsonl"
    with pytest.raises(EngineError):
        judge(source, out, opener=partial(Words, broken=True))
    begun = read(out)
    assert 0 < len(begun) <= 300
    with open(out, "a") as stream:
        stream.write('{"torn": ')
    judge(source, out)
    assert read(out)[: len(begun)] == begun
    assert [r["exchange_id"] for r in read(out)] == [f"r{i}" for i in range(400)]


def test_a_finished_output_is_not_made_again(tmp_path):
    source, out = write(tmp_path / "in.jsonl", rows(10)), tmp_path / "out.jsonl"
    first = judge(source, out)
    before = out.stat().st_mtime_ns
    assert judge(source, out, opener=partial(pytest.fail, "loaded a guard for nothing")) == first
    assert out.stat().st_mtime_ns == before
    judge(source, out, fresh=True)
    assert out.stat().st_mtime_ns > before


def test_an_output_of_another_input_or_configuration_is_refused(tmp_path):
    source, out = write(tmp_path / "in.jsonl", rows(10)), tmp_path / "out.jsonl"
    judge(source, out)
    with pytest.raises(RunFolderError, match="guard"):
        judge(source, out, config={"guard": "other"})
    write(source, rows(11))
    with pytest.raises(RunFolderError, match="input"):
        judge(source, out)
    other = write(tmp_path / "other.jsonl", rows(10))
    with pytest.raises(RunFolderError, match="input"):
        judge(other, out)
    mine = write(tmp_path / "mine.jsonl", ["precious"])
    with pytest.raises(ConfigError, match="no output of a batch"):
        judge(source, mine)
    assert mine.read_text() == "precious\n"
    with pytest.raises(DataError, match="no such file"):
        judge(tmp_path / "nowhere.jsonl", tmp_path / "x.jsonl")


def test_portions_cover_the_file_and_none_is_larger_than_it_may_be(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PORTION_LINES", 7)
    monkeypatch.setattr(files, "PORTION_BYTES", 300)
    content = [r for row in rows(50) for r in (row, "")] + [{"prompt": "x" * 1000}, {"prompt": "end"}]
    source = write(tmp_path / "in.jsonl", content)
    found = list(portions(source))
    assert found[0].start == 0
    assert found[-1].end == source.stat().st_size
    assert all(a.end == b.start for a, b in pairwise(found))
    got = [(line, row) for portion in found for line, row in rows_of(portion)]
    assert [row for _, row in got] == [c for c in content if c]
    assert [line for line, _ in got] == [i for i, c in enumerate(content, 1) if c]
    assert [len(list(rows_of(p))) for p in found] == [p.rows for p in found]


def test_a_line_that_is_too_long_is_an_error_and_the_next_one_is_judged(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "LONGEST_LINE", 100)
    source = write(tmp_path / "in.jsonl", [{"prompt": "x" * 350}, {"prompt": "bad"}])
    judge(source, tmp_path / "out.jsonl")
    long, good = read(tmp_path / "out.jsonl")
    assert (long["line"], "more than 100 bytes" in long["error"], good["flagged"]) == (1, True, True)


def test_a_file_without_a_last_newline_is_read_whole(tmp_path):
    (tmp_path / "in.jsonl").write_text('{"prompt": "a"}\n{"prompt": "bad"}')
    judge(tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert [r["flagged"] for r in read(tmp_path / "out.jsonl")] == [False, True]


def test_parquet_in_and_out_hold_what_jsonl_holds(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    content = [{**r, "response": None, "context": [{"role": "user", "content": "y"}]} for r in rows(300)]
    content[5]["prompt"] = None
    parquet.write_table(arrow.Table.from_pylist(content), tmp_path / "in.parquet", row_group_size=70)
    lines = write(tmp_path / "in.jsonl", content)
    for source, out in (("in.parquet", "a.jsonl"), ("in.parquet", "b.parquet"), ("in.jsonl", "c.parquet")):
        judge(tmp_path / source, tmp_path / out)
    judge(lines, tmp_path / "d.jsonl")
    plain = [{**r, "error": None} if "line" in r else r for r in read(tmp_path / "d.jsonl")]
    assert [{**r, "error": None} if "line" in r else r for r in read(tmp_path / "a.jsonl")] == plain
    for out in ("b.parquet", "c.parquet"):
        table = parquet.read_table(tmp_path / out).to_pylist()
        assert len(table) == 300
        assert table[5]["line"] == 6
        for row, wanted in zip(table, plain, strict=True):
            if row["line"] is None:
                assert {k: row[k] for k in ("exchange_id", "labels", "scores", "flagged", "usage")} == {
                    k: wanted[k] for k in ("exchange_id", "labels", "scores", "flagged", "usage")
                }
                assert (json.loads(row["notes"]), json.loads(row["extra"])) == (
                    wanted["notes"],
                    {"source": wanted["source"]},
                )
    assert not list(tmp_path.glob(".*.part"))


def test_a_broken_parquet_file_is_told(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "in.parquet").write_text("no parquet")
    with pytest.raises(DataError, match="no Parquet file"):
        judge(tmp_path / "in.parquet", tmp_path / "out.jsonl")


def test_progress_goes_from_nothing_to_all(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PORTION_LINES", 20)
    told = []
    judge(write(tmp_path / "in.jsonl", rows(100)), tmp_path / "o.jsonl", progress=lambda s, n: told.append((s, n)))
    assert [n for _, n in told] == [20, 40, 60, 80, 100]
    assert told[-1][0] == 1.0
    assert told == sorted(told)


def test_a_tally_counts_what_is_not_ok():
    tally = BatchCounts()
    for row in (
        {"status": "ok", "flagged": True},
        {"status": "timeout", "fail_mode": "open"},
        {"line": 1, "error": "x"},
    ):
        tally.add(row)
    assert (tally.rows, tally.bad, tally.flagged, tally.closed, dict(tally.unjudged)) == (3, 1, 1, 0, {"timeout": 1})


def cli(source: Path, out: Path, *more: str) -> list[str]:
    return ["batch", str(source), str(out), "--guard", "test_batch:SlowWords", *more]


def test_the_command_judges_reports_and_exits_by_outcome(tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(TESTS))
    source = write(tmp_path / "in.jsonl", rows(10))
    assert main(cli(source, tmp_path / "a.jsonl")) == 0
    assert "10 rows, 4 flagged, unjudged: none, unreadable: 0" in capsys.readouterr().out
    assert main(cli(write(tmp_path / "b.jsonl", [{"prompt": "LATE"}]), tmp_path / "c.jsonl", "--json")) == 11
    assert json.loads(capsys.readouterr().out)["verdicts"]["unjudged_closed"] == 1
    assert main(cli(write(tmp_path / "d.jsonl", [{"prompt": "LATE"}, "x"]), tmp_path / "e.jsonl")) == 1
    assert main(cli(source, tmp_path / "c.jsonl")) == 1
    assert "another input" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_as_one_that_was_not(tmp_path):
    source = write(tmp_path / "in.jsonl", [*rows(3000), "not json"])
    judge(source, tmp_path / "whole.jsonl")
    command = [sys.executable, "-m", "guardreasoner", *cli(source, tmp_path / "out.jsonl")]
    env = {**os.environ, "PYTHONPATH": str(TESTS)}
    seen, kills = [0], 0
    out = tmp_path / "out.jsonl"
    while True:
        with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            goal = seen[-1] + random.Random(kills).randrange(100, 600)
            while process.poll() is None:
                if kills < 4 and out.exists() and out.read_bytes().count(b"\n") >= goal:
                    process.send_signal(signal.SIGKILL)
                    kills += 1
                    break
                time.sleep(0.01)
        seen.append(out.read_bytes().count(b"\n"))
        if process.returncode != -signal.SIGKILL:
            break
    assert process.returncode == 1  # the unreadable line
    assert kills >= 3
    assert seen == sorted(seen)
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path):
    peaks = []
    for number in (2_000, 100_000):
        source = tmp_path / f"in{number}.jsonl"
        with open(source, "w") as stream:
            for i in range(number):
                stream.write(json.dumps({"prompt": f"good {i} " + "x" * 500}) + "\n")
        code = (
            "import resource, sys; sys.path.insert(0, sys.argv[3]); import test_batch; from pathlib import Path;"
            "test_batch.judge(Path(sys.argv[1]), Path(sys.argv[2]));"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        command = [sys.executable, "-c", code, str(source), str(tmp_path / f"out{number}.jsonl"), str(TESTS)]
        peaks.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    assert peaks[1] - peaks[0] < 20_000  # kilobytes, for fifty times the rows


@pytest.mark.slow
def test_ray_gives_the_same_verdicts_and_resumes(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="ray is not installed")
    monkeypatch.setattr(files, "PORTION_LINES", 50)
    content = [*rows(500), "not json"]
    source = write(tmp_path / "in.jsonl", content)
    judge(source, tmp_path / "local.jsonl")
    wanted = (tmp_path / "local.jsonl").read_text()
    begun = wanted.splitlines(keepends=True)[:120]
    ray.init(
        num_cpus=2, log_to_driver=False, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": str(TESTS)}}
    )
    try:
        judge(source, tmp_path / "out.jsonl", runner=run_on_ray(2))
        assert {r.get("exchange_id"): r for r in read(tmp_path / "out.jsonl")} == {
            r.get("exchange_id"): r for r in map(json.loads, wanted.splitlines())
        }
        assert (tmp_path / "out.jsonl").read_text() == wanted
        resumed = tmp_path / "resumed.jsonl"
        _begin(source, resumed, begun)
        judge(source, resumed, runner=run_on_ray(2))
        assert resumed.read_text() == wanted
    finally:
        ray.shutdown()


def _begin(source: Path, out: Path, lines: list[str]) -> None:
    """An output that was killed after some lines."""
    with pytest.raises(KeyboardInterrupt):
        judge(source, out, progress=_stop)
    out.write_text("".join(lines))


def _stop(share: float, rows: int) -> None:
    raise KeyboardInterrupt


def kept(folder: Path, name: str = "mine.jsonl") -> Path:
    return write(folder / name, rows(3))


@pytest.mark.parametrize("fresh", [False, True])
def test_an_output_that_is_the_input_is_refused_by_any_path_and_nothing_is_deleted(tmp_path, fresh):
    source = kept(tmp_path)
    before = source.read_bytes()
    (tmp_path / "link.jsonl").symlink_to(source)
    os.link(source, tmp_path / "hard.jsonl")
    (tmp_path / "folder").symlink_to(tmp_path)
    for out in (source, tmp_path / "link.jsonl", tmp_path / "hard.jsonl", tmp_path / "folder" / "mine.jsonl"):
        with pytest.raises(ConfigError, match="is its own output"):
            judge(source, out, fresh=fresh)
    assert source.read_bytes() == before
    assert not list(tmp_path.glob("*.run"))


def test_fresh_empties_no_folder_that_holds_the_input_or_was_made_by_no_run(tmp_path):
    (tmp_path / "data").mkdir()
    source = kept(tmp_path / "data")
    (tmp_path / "out.jsonl.run").symlink_to(tmp_path / "data")
    with pytest.raises(ConfigError, match="lies in the output"):
        judge(source, tmp_path / "out.jsonl", fresh=True)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    (tmp_path / "b.jsonl.run").symlink_to(tmp_path / "photos")
    with pytest.raises(RunFolderError, match="holds files that no run made"):
        judge(source, tmp_path / "b.jsonl", fresh=True)
    assert source.exists()
    assert (tmp_path / "photos" / "cat.jpg").exists()


def test_fresh_leaves_what_a_link_in_the_run_folder_points_to(tmp_path):
    source, out = kept(tmp_path), tmp_path / "out.jsonl"
    judge(source, out)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "cat.jpg").touch()
    (tmp_path / "out.jsonl.run" / "link").symlink_to(tmp_path / "elsewhere")
    judge(source, out, fresh=True)
    assert (tmp_path / "elsewhere" / "cat.jpg").exists()
    assert not (tmp_path / "out.jsonl.run" / "link").exists()


@pytest.mark.parametrize(
    ("source", "out", "error"),
    [
        ("in.txt", "out.jsonl", "says no kind of table; known: .jsonl"),
        ("in.jsonl", "out.txt", "says no kind of table; known: .jsonl, .csv"),
        ("in.jsonl", "out", "says no kind of table"),
        ("in.jsonl", "out.json", "says no kind of table"),
        ("in.jsonl", "folder.jsonl", "is a folder; give a file as OUT"),
        ("folder.jsonl", "out.jsonl", "is no file; give one file"),
        ("broken.parquet", "out.jsonl", "is no Parquet file"),
        ("semicolons.csv", "out.jsonl", "no column is called prompt, response or messages; columns found: frage, id"),
        ("semicolons.csv", "out.jsonl", "try --map 'prompt=COLUMN,response=COLUMN'"),
        ("misspelt.csv", "out.jsonl", "columns found: promt, reponse; try --map 'prompt=promt,response=reponse'"),
        ("other.tsv", "out.jsonl", "columns found: Prompt, text; try --map 'prompt=Prompt'"),
    ],
)
def test_what_cannot_be_read_or_written_is_told_before_a_guard_is_loaded(tmp_path, source, out, error):
    for name in ("in.txt", "in.jsonl", "broken.parquet"):
        write(tmp_path / name, rows(1))
    (tmp_path / "semicolons.csv").write_text("frage;id\nhi;1\n")
    (tmp_path / "misspelt.csv").write_text("promt,reponse\nhi,you\n")
    (tmp_path / "other.tsv").write_text("Prompt\ttext\nhi\tyou\n")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises((ConfigError, DataError), match=error.replace(".", r"\.")):
        judge(tmp_path / source, tmp_path / out, opener=partial(pytest.fail, "loaded a guard for nothing"))
    assert not list(tmp_path.glob("*.run"))


def test_columns_of_other_names_are_mapped_and_the_map_is_part_of_the_run(tmp_path, capsys):
    source, out = tmp_path / "theirs.csv", tmp_path / "out.jsonl"
    source.write_text("question,answer,when\nhow,so,1\nWHY,THUS,2\n")
    command = [
        "batch",
        str(source),
        str(out),
        "--guard",
        f"{Path(__file__).parents[1] / 'examples'}/custom_guard.py:shouting",
    ]
    assert main(command) == 1
    assert "try --map 'prompt=question,response=answer'" in capsys.readouterr().err
    assert main([*command, "--map", "prompt=question,response=answers"]) == 1
    assert "there is no column 'answers'; columns found: question, answer, when" in capsys.readouterr().err
    assert main([*command, "--map", "prompt=question", "--map", "response=answer"]) == 0
    made = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["when"], row["labels"]["response_harm"]) for row in made] == [("1", "unharmful"), ("2", "harmful")]
    assert not {"question", "answer"} & set(made[0])
    assert main([*command, "--map", "prompt=answer"]) == 1
    assert "map" in capsys.readouterr().err
    assert main([*command, "--map", "refusal=answer"]) == 1
    assert "there is no field named 'refusal'" in capsys.readouterr().err


def test_tables_of_every_kind_give_the_same_verdicts(tmp_path):
    content = [{"id": r["id"], "prompt": r["prompt"]} for r in rows(150)]
    lines = write(tmp_path / "in.jsonl", content)
    table = "id,prompt\n" + "".join(f"{r['id']},{r['prompt']}\n" for r in content)
    (tmp_path / "IN.CSV").write_text("\ufeff" + table)
    (tmp_path / "in.csv.gz").write_bytes(gzip.compress(table.encode()))
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(lines.read_bytes()))
    (tmp_path / "in.json").write_text(json.dumps(content))
    judge(lines, tmp_path / "wanted.jsonl")
    for name in ("IN.CSV", "in.csv.gz", "in.jsonl.gz", "in.json"):
        told: list[tuple[float, int]] = []
        judge(tmp_path / name, tmp_path / f"{name}.jsonl", progress=lambda *done, told=told: told.append(done))
        assert read(tmp_path / f"{name}.jsonl") == read(tmp_path / "wanted.jsonl"), name
        assert told == [(64 / 150, 64), (128 / 150, 128), (1.0, 150)]
    judge(lines, tmp_path / "out.jsonl.gz")
    assert gzip.decompress((tmp_path / "out.jsonl.gz").read_bytes()) == (tmp_path / "wanted.jsonl").read_bytes()
    judge(lines, tmp_path / "out.csv")
    with open(tmp_path / "out.csv", newline="") as stream:
        cells = list(csv.DictReader(stream))
    assert [c["exchange_id"] for c in cells] == [f"r{i}" for i in range(150)]
    assert [c["labels.prompt_harm"] for c in cells[:3]] == ["harmful", "unharmful", "unharmful"]
    first = cells[0]
    assert (first["flagged"], first["labels.refusal"], json.loads(first["notes"])) == ("true", "", {"words": 5})
    assert not list(tmp_path.glob(".*.part"))


def test_a_csv_run_that_broke_goes_on_behind_its_last_row(tmp_path):
    table = "prompt\n" + "".join(f"{'STOP' if i == 100 else 'good'} {i}\n" for i in range(150))
    (tmp_path / "in.csv").write_text(table)
    with pytest.raises(EngineError):
        judge(tmp_path / "in.csv", tmp_path / "out.csv", opener=partial(Words, broken=True))
    assert not (tmp_path / "out.csv").exists()
    manifest = judge(tmp_path / "in.csv", tmp_path / "out.csv")
    assert manifest["counts"]["in"] == 150
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 151


def test_users_columns_come_out_beside_ours_in_every_kind_of_output(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    row = {"id": 0, "prompt": "good", "labels": ["cooking"], "text": "mine", "line": "L-17", "extra": {"k": 1}, "n": 2}
    source = write(tmp_path / "in.jsonl", [row, {"id": "\ud800", "prompt": "bad", "score": 1}])
    for name in ("out.jsonl", "out.parquet", "out.csv"):
        judge(source, tmp_path / name)
    first = read(tmp_path / "out.jsonl")[0]
    assert (first["exchange_id"], first["status"], first["text"]) == ("0", "ok", "")
    assert (first["input_labels"], first["input_text"], first["input_line"]) == (["cooking"], "mine", "L-17")
    assert (first["extra"], first["n"]) == ({"k": 1}, 2)
    table = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert json.loads(table[0]["extra"]) == {
        "input_labels": ["cooking"], "input_text": "mine", "input_line": "L-17", "extra": {"k": 1}, "n": 2
    }  # fmt: skip
    assert (table[0]["line"], table[1]["exchange_id"]) == (None, "\\ud800")


def test_a_run_that_judged_nothing_leaves_nothing_behind(tmp_path):
    source = write(tmp_path / "in.jsonl", rows(3))

    def broken():
        raise EngineError("there are no such weights")

    for out in ("out.jsonl", "out.csv"):
        with pytest.raises(EngineError):
            judge(source, tmp_path / out, opener=broken)
    assert [p.name for p in tmp_path.iterdir()] == ["in.jsonl"]
    judge(source, tmp_path / "out.jsonl", config={"guard": "another"})


class Fragile(Words):
    """Dies on one row, and gives another a score that is no number."""

    def judge(self, exchanges):
        if any("DIE" in e.prompt for e in exchanges):
            raise ZeroDivisionError("planted")
        made = super().judge(exchanges)
        return [
            replace(v, scores={"prompt_harm": float("nan")}) if "NAN" in e.prompt else v
            for v, e in zip(made, exchanges, strict=True)
        ]


def test_a_row_that_breaks_a_guard_costs_no_other_row_and_is_flagged(tmp_path):
    content = [{"prompt": text} for text in ("good", "DIE", "bad", "good NAN", "good")]
    manifest = judge(write(tmp_path / "in.jsonl", content), tmp_path / "out.jsonl", opener=Fragile)
    found = read(tmp_path / "out.jsonl")
    assert [r["status"] for r in found] == ["ok", "unavailable", "ok", "unparsed", "ok"]
    assert [r["flagged"] for r in found] == [False, True, True, True, False]
    assert found[1]["error"] == "the guard died (ZeroDivisionError)"
    assert found[3]["labels"] == {"prompt_harm": None, "refusal": None, "response_harm": None}
    assert manifest["verdicts"]["unjudged_closed"] == 2


def test_a_disk_that_is_full_is_one_sentence_and_the_run_goes_on_after(tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(TESTS))
    source, out = write(tmp_path / "in.jsonl", rows(400)), tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "guardreasoner", *cli(source, out)]
    env = {**os.environ, "PYTHONPATH": f"{TESTS}:{os.environ.get('PYTHONPATH', '')}"}
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (40_000, 40_000))
    full = subprocess.run(command, env=env, capture_output=True, text=True, preexec_fn=limit)
    assert full.returncode == 1
    assert full.stderr.splitlines()[-1].startswith("guardreasoner: ")
    assert "Traceback" not in full.stderr
    judge(source, tmp_path / "whole.jsonl")
    assert subprocess.run(command, env=env, capture_output=True).returncode == 0
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
