"""Stacks of two guards: fitted on both log-odds, kept only where they rank better on sources left out."""

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the eval extra is not installed")

from guardreasoner.errors import DataError
from guardreasoner.evaluate.fit_stack import as_file, fit_files, fit_stack, main
from guardreasoner.guards.cascade import read_stacks
from guardreasoner.types import Task


def rows(rng, n, useful):
    y = rng.random(n) < 0.5
    first = np.where(y, 1.0, -1.0) + rng.normal(0, 1.5, n)
    second = np.where(y, 1.0, -1.0) * useful + rng.normal(0, 1.5, n)
    return np.column_stack([first, second]), y, [f"source-{i % 4}" for i in range(n)]


def fitted(useful):
    x, y, sources = rows(np.random.default_rng(0), 400, useful)
    return fit_stack(x, y, sources, task=Task.refusal, budget=0.2, threshold=0.5)


def test_a_second_guard_that_knows_more_gets_a_stack_and_a_band_of_the_budget():
    fit = fitted(1.0)
    assert fit.pays
    assert fit.both > fit.first + 0.05
    assert fit.stack.first > 0
    assert fit.stack.second > 0
    assert fit.band is not None
    assert fit.band[0] < 0.5 < fit.band[1]
    assert set(as_file([fit])["stacks"]) == {"refusal"}


def test_a_second_guard_that_knows_nothing_decides_nothing():
    fit = fitted(0.0)
    assert not fit.pays
    made = as_file([fit])
    assert made["stacks"] == made["bands"] == {}
    assert made["fits"][0]["pays"] is False


def test_one_source_is_too_few():
    x, y, _ = rows(np.random.default_rng(0), 60, 1.0)
    with pytest.raises(DataError, match="a stack of refusal needs two left-out sources with both labels"):
        fit_stack(x, y, ["alone"] * 60, task=Task.refusal, budget=0.2, threshold=0.5)


def test_auto_has_a_band_only_where_the_stack_mends_more_than_it_spoils():
    fit = fitted(1.0)
    assert fit.sent == pytest.approx(0.2 * fit.rows, abs=2)
    assert fit.fixed > fit.broken
    assert set(as_file([fit])["bands"]) == {"refusal"}
    spoilt = as_file([replace(fit, broken=fit.fixed)])
    assert (set(spoilt["stacks"]), spoilt["bands"]) == ({"refusal"}, {})
    assert spoilt["fits"][0]["pays_in_auto"] is False


def write(path, scores, gold):
    lines = [
        {
            "exchange_id": str(i),
            "source": f"source-{i % 3}",
            "scores": {"prompt_harm": float(p), "refusal": None, "response_harm": None},
            "gold": {"prompt_harm": "harmful" if y else "unharmful"},
        }
        for i, (p, y) in enumerate(zip(scores, gold, strict=True))
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_two_files_of_verdicts_become_a_file_that_a_cascade_reads(tmp_path, capsys):
    x, y, _ = rows(np.random.default_rng(1), 200, 1.0)
    for name, column in (("one", x[:, 0]), ("two", x[:, 1])):
        write(tmp_path / name, 1 / (1 + np.exp(-column)), y)
    out = tmp_path / "stacks.json"
    assert main([str(tmp_path / "one"), str(tmp_path / "two"), "--budget", "0.3", "--out", str(out)]) == 0
    assert "both decide" in capsys.readouterr().out
    bands, stacks = read_stacks(out)
    assert bands.keys() == stacks.keys() == {Task.prompt_harm}


def test_rows_that_only_one_guard_judged_are_no_basis(tmp_path):
    write(tmp_path / "one", [0.5] * 30, [True, False] * 15)
    (tmp_path / "two").write_text("")
    with pytest.raises(DataError, match="that both guards scored"):
        fit_files(tmp_path / "one", tmp_path / "two", budget=0.2, thresholds={})
