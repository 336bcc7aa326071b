"""The benchmark that comes with the package."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from guardreasoner.cli.main import main
from guardreasoner.data.benchmarks import load_benchmark, title
from guardreasoner.data.everyday import TEST_DOMAINS, shipped
from guardreasoner.data.harm_kinds import kind_of


def test_everyday_is_read_as_a_guard_meets_it():
    examples = load_benchmark(shipped("Everyday"))
    assert title(shipped("everyday")) == "everyday"
    requests = [e for e in examples if e.exchange.response is None]
    replies = [e for e in examples if e.exchange.response is not None]
    assert (len(requests), len(replies)) == (370, 294)
    assert all(e.gold.tasks == ("prompt_harm",) for e in requests)
    assert all(e.gold.refusal and e.gold.response_harm and not e.gold.prompt_harm for e in replies)
    assert {e.exchange.source for e in examples} == {"everyday"}
    assert any(m.role == "tool" for e in examples for m in e.exchange.context)
    assert len({e.exchange.id for e in examples}) == len(examples)


def test_every_harmful_row_has_a_kind():
    harmful = [
        e for e in load_benchmark(shipped("everyday")) if "harmful" in (e.gold.prompt_harm, e.gold.response_harm)
    ]
    kinds = Counter(kind_of(e.category) for e in harmful)
    print(kinds)
    assert kinds[None] <= 2
    assert len(kinds) >= 12


def test_only_the_test_domains_are_shipped_and_nothing_else_of_them_is_trained_on():
    data = Path(os.environ.get("GUARDREASONER_DATA") or ".")
    shipped_rows = [json.loads(line) for line in Path(shipped("everyday")).read_text(encoding="utf-8").splitlines()]
    assert {row["domain"] for row in shipped_rows} == set(TEST_DOMAINS)
    if not (data / "everyday").is_dir():
        pytest.skip("GUARDREASONER_DATA is unset, or holds no everyday rows")
    from guardreasoner.train.encoder_mix import load_rows
    from guardreasoner.train.encoder_settings import EncoderData

    rows, _ = load_rows(data, EncoderData(joined=0, worn=0, default_cap=0))
    texts = {row["prompt"] for row in shipped_rows if not row.get("context")}
    assert len(rows) > 4000
    assert not texts & {row.prompt for row in rows}


def test_evaluate_runs_on_everyday_without_any_data(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("GUARDREASONER_DATA", raising=False)
    code = main(
        ["evaluate", "--guard", "constant", "--benchmark", "everyday", "--out", str(tmp_path / "run"), "--json"]
    )
    assert code == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["task"]: row["n"] for row in rows} == {"prompt_harm": 370, "refusal": 294, "response_harm": 294}
