"""`guardreasoner bench` and what it measures."""

import json
import time

import pytest

from guardreasoner.cli.main import main
from guardreasoner.errors import ConfigError
from guardreasoner.evaluate.speed import measure
from guardreasoner.metrics import quantile
from guardreasoner.types import Exchange, Usage, Verdict
from tiny import tiny_onnx_folder


@pytest.fixture
def folder(tmp_path):
    made = tiny_onnx_folder(tmp_path)
    (made / "guard.json").write_text('{"wire": "raw", "budgets": {"short": 6, "full": 9}}')
    return made


def judge(exchanges):
    time.sleep(0.002 * len(exchanges))
    return [Verdict(x.id, "g", "full", "ok", usage=Usage(40 + 30 * int(x.id), 7)) for x in exchanges]


def test_measuring_counts_every_exchange_once_alone_and_once_in_a_batch():
    seen = []
    exchanges = [Exchange(str(i), "p") for i in range(5)]
    speed = measure(lambda xs: seen.append(len(xs)) or judge(xs), exchanges, mode="full", batch=2)
    assert seen == [3, 1, 1, 1, 1, 1, 2, 2, 1]
    assert (speed.n, speed.ok, speed.batch, speed.tokens, speed.prompt_tokens) == (5, 5, 2, 7, 100)
    assert 2 <= speed.p50_ms <= speed.p95_ms < 500
    assert speed.short_p50_ms is not None
    assert 0 < speed.per_second <= 500
    assert measure(judge, exchanges[1:], mode="full").short_p50_ms is None
    with pytest.raises(ConfigError, match="nothing to measure"):
        measure(judge, [], mode="full")


def test_quantiles_are_values_that_were_measured():
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile(list(range(1, 101)), 0.95) == 95
    assert quantile([4.0], 0.95) == 4.0


def test_it_prints_a_line_per_mode(folder, capsys):
    assert main(["bench", "--guard", str(folder), "--limit", "3", "--batch", "2", "--threads", "1", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["mode"] for row in rows] == ["instant", "short", "full", "auto"]
    assert all(row["n"] == 3 and row["p50_ms"] > 0 and row["memory_mb"] > 30 for row in rows)
    assert rows[0]["tokens"] <= 3 < rows[2]["tokens"] <= 12


def test_it_prints_a_table_of_ratios(folder, capsys):
    assert main(["bench", "--guard", str(folder), "--limit", "2", "--modes", "instant"]) == 0
    printed = capsys.readouterr().out
    assert "p95 ms" in printed
    assert "1.00" in printed
    assert "2 exchanges one by one" in printed


def test_exchanges_of_a_file_are_used(folder, tmp_path, capsys):
    file = tmp_path / "x.jsonl"
    file.write_text('{"prompt": "kill a process"}\n{"prompt": "", "response": "no", "id": "b"}\n')
    assert main(["bench", "--guard", str(folder), "--file", str(file), "--modes", "instant", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 2


def test_the_guard_that_comes_with_the_package_is_measured_in_its_one_mode(capsys):
    assert main(["bench", "--guard", "nano", "--limit", "2", "--json"]) == 0
    (row,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (row["guard"], row["mode"], row["ok"]) == ("nano", "instant", 2)


def test_a_guard_without_modes_is_measured_as_it_is(capsys):
    assert main(["bench", "--guard", "constant", "--limit", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["ok"] == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--modes", "telepathy"], "has no mode telepathy"),
        (["--limit", "0"], "at least 1"),
        (["--against", "nowhere", "--limit", "1", "--modes", "instant"], "a contestant failed"),
    ],
)
def test_what_is_wrong_is_one_sentence(folder, capsys, arguments, words):
    assert main(["bench", "--guard", str(folder), *arguments]) == 1
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_the_same_weights_under_hf_stand_beside_it(folder, tmp_path, capsys):
    pytest.importorskip("torch")
    from tiny_torch import tiny_checkpoint

    checkpoint = tiny_checkpoint(tmp_path)
    (checkpoint / "guard.json").write_text('{"wire": "raw"}')
    arguments = ["--against", str(checkpoint), "--limit", "2", "--modes", "instant", "--threads", "1", "--json"]
    assert main(["bench", "--guard", str(folder), *arguments]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["guard"].split()[1:] for row in rows] == [[], ["hf", "float32"], ["hf", "bfloat16"]]
    assert rows[1]["memory_mb"] > rows[0]["memory_mb"]
