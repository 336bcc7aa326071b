"""Disagreements, the stratified review, corrected F1, and how far reviewers agree."""

import json

import numpy as np
import pytest

from guardreasoner.cli.main import main
from guardreasoner.errors import DataError
from guardreasoner.evaluate.contestants import Contestant, contestants
from guardreasoner.evaluate.corrections import agreements, latest, settle
from guardreasoner.evaluate.finished_runs import Run, open_run
from guardreasoner.evaluate.statistics import Outcomes, counts, rates
from guardreasoner.records import read_jsonl, write_jsonl
from guardreasoner.review.corrected import corrected_f1, flips
from guardreasoner.review.disagreements import Sealed, contested, draw, read_sealed, write_review
from guardreasoner.types import Labels, Review, Task
from scripted import scripted_runs

P = Task.prompt_harm


GOLD = ["harmful", "unharmful", "harmful", "unharmful", "harmful", "unharmful"]
SURE = [0.9, 0.95, 0.1, 0.2, 0.8, 0.3]  # contradicts gold on rows 1 (0.95) and 2 (0.9)
CALM = [0.9, 0.6, 0.7, 0.2, 0.45, 0.3]  # contradicts gold on rows 1 (0.6) and 4 (0.55)


@pytest.fixture
def runs(tmp_path):
    return scripted_runs(tmp_path, GOLD, sure=SURE, calm=CALM)


def review(i, who, label, at="2026-01-01T00:00:00+00:00"):
    return Review(f"own-{i}", who, Labels(prompt_harm=label), "", at)


def test_rows_are_ranked_by_how_many_guards_contradict_gold_and_how_surely(runs):
    found = contested(contestants([open_run(r) for r in runs]))
    assert [c.case.id for c in found if c.against] == ["own-1", "own-2", "own-4"]
    assert found[0].against == ("sure", "calm")
    assert found[0].confidence == pytest.approx((0.95 + 0.6) / 2)
    assert found[1].confidence == pytest.approx(0.9)
    assert sum(not c.against for c in found) == 3


def test_the_draw_takes_the_most_contested_and_random_others_of_every_stratum(runs):
    rows = contested(contestants([open_run(r) for r in runs]))
    drawn = draw(rows, confident=1, doubtful=1, agreeing=2, seed=3)
    assert [(d.stratum, d.population, d.sample) for d in drawn] == [
        ("confident", 1, 1), ("doubtful", 2, 1), ("agreeing", 3, 2), ("agreeing", 3, 2),
    ]  # fmt: skip
    assert drawn[0].row.case.id == "own-1"
    assert draw(rows, confident=1, doubtful=1, agreeing=2, seed=3) == drawn


def test_reviewers_see_neither_gold_nor_verdicts_nor_strata(runs, tmp_path):
    drawn = draw(contested(contestants([open_run(r) for r in runs])))
    assert write_review(drawn, tmp_path / "review") == 6
    items = [row for _, row in read_jsonl(tmp_path / "review" / "items.jsonl")]
    assert {frozenset(item) for item in items} == {frozenset({"id", "tasks", "prompt", "response"})}
    assert {item["tasks"][0] for item in items} == {"prompt_harm"}
    sealed = read_sealed(tmp_path / "review")
    assert {s.id: s.gold for s in sealed} == {f"own-{i}": g for i, g in enumerate(GOLD)}
    assert sealed[0].answers == {"sure": "harmful", "calm": "harmful"}


def test_rows_without_text_and_repeated_ids_are_named(runs, tmp_path):
    (tmp_path / "own.jsonl").unlink()
    drawn = draw(contested(contestants([open_run(r) for r in runs])))
    with pytest.raises(DataError, match="give --data DIR"):
        write_review(drawn, tmp_path / "review")
    (tmp_path / "sealed.jsonl").write_text('{"id": "x"}\n')
    with pytest.raises(DataError, match="line 1: not a line of a sealed review"):
        read_sealed(tmp_path)


def test_the_majority_decides_and_a_tie_changes_nothing(tmp_path):
    late = "2026-02-01T00:00:00+00:00"
    reviews = [
        review(0, "a", "harmful"), review(0, "b", "harmful"), review(0, "c", "unharmful"),
        review(1, "a", "harmful"), review(1, "b", "unharmful"),
        review(2, "a", "harmful"), review(2, "a", "unharmful", at=late),
    ]  # fmt: skip
    write_jsonl(tmp_path / "r.jsonl", reviews)
    said = settle(latest([tmp_path / "r.jsonl"]))
    assert [said[f"own-{i}"].prompt_harm for i in range(3)] == ["harmful", None, "unharmful"]


def test_kappa_is_cohens():
    pairs = [("harmful", "harmful")] * 20 + [("harmful", "unharmful")] * 5
    pairs += [("unharmful", "harmful")] * 10 + [("unharmful", "unharmful")] * 15
    reviews = [review(i, who, pair[k]) for i, pair in enumerate(pairs) for k, who in enumerate("ab")]
    (found,) = agreements(reviews)
    assert (found.rows, found.same) == (50, 35)
    assert found.kappa == pytest.approx(0.4)  # the worked example of Cohen's kappa: (0.7 - 0.5) / (1 - 0.5)
    (alike,) = agreements([review(0, "a", "harmful"), review(0, "b", "harmful")])
    assert alike.kappa is None


def bench(rng, n, *, noise, skill):
    """True labels, gold with some of them flipped, and a guard that follows the truth with some skill."""
    truth = rng.random(n) < 0.4
    gold = np.where(rng.random(n) < noise, ~truth, truth)
    return truth, gold, [np.where(rng.random(n) < s, truth, ~truth) for s in skill]


def entrant(name, gold, predicted):
    ids = tuple(f"own-{i}" for i in range(len(gold)))
    cell = Outcomes("own", P, name, ids, gold, predicted, ids)
    run = Run(name, None, name, "", (), {})
    return Contestant(name, run, {(P, "own"): cell}, {}, {(P, "own"): float(len(gold))}, None)


def word(positive):
    return "harmful" if positive else "unharmful"


def sealed_row(identity, gold, stratum, population, sample, answers):
    verdicts = [{"guard": guard, "label": label, "score": None, "reasoning": ""} for guard, label in answers.items()]
    return Sealed(identity, "own", P, gold, stratum, population, sample, (), 0.0, verdicts)


def designed(rng, gold, guards, *, agreeing):
    """The review's design over all rows that a guard contradicts and a sample of the rest."""
    against = np.any([g != gold for g in guards], axis=0)
    quiet = np.flatnonzero(~against)
    groups = {"confident": np.flatnonzero(against), "agreeing": rng.permutation(quiet)[:agreeing]}
    sizes = {"confident": int(against.sum()), "agreeing": len(quiet)}
    return [
        sealed_row(
            f"own-{i}",
            word(gold[i]),
            name,
            sizes[name],
            len(index),
            {f"g{k}": word(g[i]) for k, g in enumerate(guards)},
        )
        for name, index in groups.items()
        for i in index
    ]


def test_the_stratified_estimate_finds_the_f1_that_true_labels_would_give():
    rng = np.random.default_rng(4)
    misses, inside = [], 0
    for _ in range(40):
        truth, gold, guards = bench(rng, 600, noise=0.1, skill=(0.9, 0.75))
        sealed = designed(rng, gold, guards, agreeing=100)
        said = {s.id: Labels(prompt_harm=word(truth[int(s.id[4:])])) for s in sealed}
        entrants = [entrant(f"g{k}", gold, g) for k, g in enumerate(guards)]
        for found, guard in zip(corrected_f1(entrants, sealed, said, resamples=300), guards, strict=True):
            true = rates(counts(entrant("x", truth, guard).cells[P, "own"]).sum(-1))[0]
            misses.append(found.corrected.value - true)
            inside += found.corrected.low <= true <= found.corrected.high
    assert abs(np.mean(misses)) < 0.5
    assert inside / len(misses) > 0.85


def test_reviewing_one_guards_disagreements_only_raises_that_guard():
    rng = np.random.default_rng(5)
    truth, gold, (ours, theirs) = bench(rng, 3000, noise=0.1, skill=(0.9, 0.9))
    rows = np.flatnonzero(ours != gold)
    answers = [{"ours": word(ours[i]), "theirs": word(theirs[i])} for i in rows]
    sealed = [
        sealed_row(f"own-{i}", word(gold[i]), "confident", len(rows), len(rows), said)
        for i, said in zip(rows, answers, strict=True)
    ]
    said = {s.id: Labels(prompt_harm=word(truth[int(s.id[4:])])) for s in sealed}
    a, b = corrected_f1([entrant("ours", gold, ours), entrant("theirs", gold, theirs)], sealed, said)
    assert a.favouring == a.flips > 100  # every flip goes to the guard that chose the rows
    assert a.corrected.value - a.original > b.corrected.value - b.original + 1


def test_flips_are_counted_per_stratum_and_unreviewed_strata_show():
    sealed = [
        sealed_row("own-0", "harmful", "confident", 1, 1, {}),
        sealed_row("own-1", "harmful", "agreeing", 5, 1, {}),
    ]
    found = flips(sealed, {"own-0": Labels(prompt_harm="unharmful")})
    assert [(f.stratum, f.reviewed, f.flipped) for f in found] == [("confident", 1, 1), ("agreeing", 0, 0)]


def test_the_command_lists_writes_a_review_and_scores_it(runs, tmp_path, capsys):
    folders = [str(r) for r in runs]
    assert main(["disagreements", *folders, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["id"] for row in lines] == ["own-1", "own-2", "own-4"]
    out = tmp_path / "review"
    assert main(["disagreements", *folders, "--out", str(out)]) == 0
    assert "6 rows to review" in capsys.readouterr().err
    labels = ["harmful", "harmful", *GOLD[2:]]  # own-1 was wrong
    write_jsonl(tmp_path / "a.jsonl", [review(i, "a", label) for i, label in enumerate(labels)])
    assert main(["disagreements", *folders, "--out", str(out), "--reviews", str(tmp_path / "a.jsonl"), "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    by_guard = {row["guard"]: row for row in found if row["kind"] == "corrected"}
    assert by_guard["sure"]["original"] == pytest.approx(100 * 2 * 2 / (2 * 2 + 1 + 1))
    assert by_guard["sure"]["corrected"][0] == pytest.approx(100 * 2 * 3 / (2 * 3 + 0 + 1))
    assert by_guard["sure"]["flips"] == by_guard["sure"]["favouring"] == 1
    assert main(["disagreements", *folders, "--out", str(out), "--reviews", str(tmp_path / "a.jsonl")]) == 0
    assert "original and corrected" in capsys.readouterr().out
    assert main(["disagreements", *folders, "--reviews", str(tmp_path / "a.jsonl")]) == 1
    assert "--reviews needs --out" in capsys.readouterr().err
