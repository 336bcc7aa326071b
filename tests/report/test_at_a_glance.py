"""The report's first table, worked by hand; samples under a banner and out of the ranking."""

from dataclasses import replace

import numpy as np
import pytest

from guardreasoner.errors import DataError
from guardreasoner.evaluate.contestants import Contestant
from guardreasoner.evaluate.finished_runs import Run, open_run
from guardreasoner.evaluate.run_benchmarks import evaluate
from guardreasoner.evaluate.speed import Speed, as_row
from guardreasoner.evaluate.statistics import Outcomes
from guardreasoner.guards.base import Judging
from guardreasoner.records import write_jsonl
from guardreasoner.report.at_a_glance import glances
from guardreasoner.report.build import _points, build
from guardreasoner.report.content import document
from guardreasoner.report.cost import Cost, Price, cost_of, read_prices, read_speeds
from guardreasoner.report.markdown import render_markdown
from guardreasoner.types import TASKS, Example, Exchange, Labels, Task, Verdict

P = Task.prompt_harm


def cell(benchmark, gold, said, scores=None):
    ids = tuple(f"{benchmark}:{i}" for i in range(len(gold)))
    given = None if scores is None else np.array(scores, float)
    return Outcomes(benchmark, P, "g", ids, np.array(gold, bool), np.array(said, bool), ids, given)


def entrant(name, *cells):
    return Contestant(name, Run(name, None, name, "", (), {}), {(P, c.benchmark): c for c in cells}, {}, {}, None)


def test_misses_false_alarms_time_and_money_worked_by_hand():
    attacks = cell("Attacks", [True] * 40 + [False] * 10, [True] * 30 + [False] * 10 + [True] * 10)
    gold = [True] * 20 + [False] * 200
    scores = [0.9] * 18 + [0.3, 0.1] + [0.95] * 4 + [0.3] * 16 + [0.2] * 180
    everyday = cell("everyday", gold, [s >= 0.5 for s in scores], scores)
    words = cell("everyday", gold, [True] * 10 + [False] * 10 + [True] * 6 + [False] * 194)
    costs = {"ours": Cost("ours", 18.0, None, None, None, None, None, "")}
    ours, keywords = glances([entrant("ours", attacks, everyday), entrant("words", words)], costs, {}, per_hour=0.1)
    assert (ours.missed.value, ours.attacks) == (25, 40)
    assert (ours.ordinary_missed.value, ours.ordinary_attacks) == (10, 20)
    assert (ours.false_alarms.value, ours.ordinary) == (20, 200)  # 4 of 200
    assert ours.equal["10"].value == 20  # 18 of 20 are caught at 0.9, where the four at 0.95 are flagged
    assert (ours.ms, ours.per_1000) == (18.0, pytest.approx(0.0005))
    assert (keywords.missed, keywords.ms, keywords.per_1000) == (None, None, None)
    assert keywords.false_alarms.value == 30
    assert keywords.equal == {}
    assert "words" in ours.equal  # at its 10 misses in 20


def test_runs_of_everyday_alone_and_samples_take_no_operating_points_from_the_others():
    def judged(name, *benchmarks, n=40, **config):
        gold, scores = [True] * n + [False] * n, list(np.linspace(0.9, 0.1, 2 * n))
        made = entrant(name, *(cell(b, gold, [s >= 0.5 for s in scores], scores) for b in benchmarks))
        return replace(made, run=replace(made.run, manifest={"config": config}))

    whole = [judged("a", "ToxicChat", "everyday"), judged("b", "ToxicChat", "everyday"), judged("c", "everyday")]
    sample = judged("sample", "ToxicChat", "everyday", n=4, limit=8)
    found = {p.benchmarks: (list(p.guards), len(p.differences)) for p in _points([*whole, sample], P)}
    assert found.keys() == {("ToxicChat",), ("everyday",)}
    assert found["ToxicChat",][0] == ["a", "b"]
    assert found["everyday",][0] == ["a", "b", "c"]
    assert [p.benchmarks for p in _points([sample], P)] == [("ToxicChat",), ("everyday",)]


def test_a_guard_with_a_price_for_tokens_costs_that_and_one_whose_tokens_are_unknown_stays_unknown(tmp_path):
    file = tmp_path / "prices.yaml"
    file.write_text("api: {input: 2.5, output: 10, source: the provider's page, date: 2026-11-01}\n")
    prices = read_prices(file)
    assert prices == {"api": Price(2.5, 10.0, "the provider's page", "2026-11-01")}
    used = Cost("api", 900.0, 40.0, None, None, None, 10, "", prompt_tokens=600.0)
    assert used.per_1000(prices["api"], 0.1) == pytest.approx(1.9)  # 600,000 at $2.50 and 40,000 at $10 a million
    assert used.per_1000(None, 0.1) == pytest.approx(0.025)
    assert Cost("api", 900.0, 40.0, None, None, None, 10, "").per_1000(prices["api"], 0.1) is None
    attacks = cell("Attacks", [True, False], [True, False])
    (found,) = glances([entrant("api", attacks)], {"api": used}, {}, per_hour=0.1, prices=prices)
    assert (found.per_1000, found.by_tokens, found.ms) == (pytest.approx(1.9), True, 900.0)


def test_times_of_bench_stand_in_place_of_those_of_the_run(tmp_path):
    rows = [Example(Exchange(f"r{i}", f"text {i}"), Labels(prompt_harm="harmful")) for i in range(2)]
    evaluate(Half(), {"own": rows}, tmp_path / "run", config={"mode": "instant"})
    run = open_run(tmp_path / "run")
    assert cost_of(run, "half") is None  # its verdicts say no time
    speed = Speed("instant", 7.5, 9.0, 7.0, None, 200.0, 4.0, 32, 3.0, 41.0, 64, 64)
    file = tmp_path / "speed.jsonl"
    write_jsonl(file, [as_row("half", speed, memory_mb=120.0, load_s=0.1), as_row("half", replace(speed, mode="full",
                p50_ms=90.0), memory_mb=120.0, load_s=0.1)])  # fmt: skip
    found = cost_of(run, "half (mine)", read_speeds([file]))
    assert (found.guard, found.ms_per_query, found.p95_ms, found.prompt_tokens) == ("half (mine)", 7.5, 9.0, 41.0)
    assert cost_of(replace(run, mode="auto"), "half", read_speeds([file])) is None  # two modes, neither is the run's
    file.write_text('{"guard": "half"}\n')
    with pytest.raises(DataError, match="bench --json"):
        read_speeds([file])


@pytest.mark.parametrize("text", ["api: 3", "- api", "api: {input: 1, output: 2}", "{", "api: {input: -1, output: 2, "
                                  "source: x, date: y}"])  # fmt: skip
def test_a_price_without_its_source_and_date_is_refused(tmp_path, text):
    file = tmp_path / "prices.yaml"
    file.write_text(text)
    with pytest.raises(DataError, match="price"):
        read_prices(file)


class Half(Judging):
    name, tasks = "half", (P,)

    def judge(self, exchanges):
        said = ["harmful" if int(e.id[1:]) % 2 else "unharmful" for e in exchanges]
        scores = [{t.value: (0.9 if s == "harmful" else 0.2) if t is P else None for t in TASKS} for s in said]
        return [
            Verdict(e.id, self.name, "instant", "ok", Labels(prompt_harm=s), p)
            for e, s, p in zip(exchanges, said, scores, strict=True)
        ]


def test_a_sample_carries_a_banner_its_rows_and_no_place(tmp_path):
    rows = [
        Example(Exchange(f"r{i}", f"text {i}"), Labels(prompt_harm="harmful" if i % 2 else "unharmful"))
        for i in range(60)
    ]
    evaluate(Half(), {"own": rows}, tmp_path / "whole", config={"mode": "full"})
    evaluate(Half(), {"own": rows}, tmp_path / "part", config={"mode": "instant"}, limit=30)
    report = build([tmp_path / "whole", tmp_path / "part"])
    whole, part = report.standings.tables[0].ours()
    assert (whole.entries["own"].mark, part.entries["own"].mark) == ("best", "")
    assert (whole.entries["own"].rows, part.entries["own"].rows) == (None, 30)
    said = document(report)
    assert "Samples, not whole benchmarks: half instant (30 rows per task of a benchmark)" in said.warnings[0]
    text = render_markdown(said)
    assert "half instant \\(sample\\)" in text
    assert "n 30" in text
    assert document(build([tmp_path / "whole"])).warnings == []
