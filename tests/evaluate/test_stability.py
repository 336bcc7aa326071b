"""Verdicts that change when asked again: counted by hand, kept on disk, drawn at a temperature where a guard writes."""

import json
from dataclasses import replace

import pytest

from guardreasoner.cli.main import main
from guardreasoner.errors import ConfigError, DataError
from guardreasoner.evaluate.finished_runs import open_run
from guardreasoner.evaluate.run_benchmarks import evaluate
from guardreasoner.evaluate.stability import LAYOUTS, read_stability, repeat
from guardreasoner.guards.base import Judging
from guardreasoner.guards.load import load_guard
from guardreasoner.records import read_jsonl, write_jsonl
from guardreasoner.types import Example, Exchange, Labels, Task, Verdict


class Touchy(Judging):
    """Flags what is quoted, and counts how it was asked."""

    name, tasks = "touchy", (Task.prompt_harm,)

    def __init__(self):
        self.calls = []

    def judge(self, exchanges):
        self.calls.append([e.id for e in exchanges])
        said = ["harmful" if e.prompt.startswith("> ") else "unharmful" for e in exchanges]
        return [
            Verdict(e.id, self.name, "instant", "ok", Labels(prompt_harm=s))
            for e, s in zip(exchanges, said, strict=True)
        ]


ROWS = [
    Example(Exchange(f"r{i}", f"a question about cake {i}\nand tea"), Labels(prompt_harm="unharmful")) for i in range(8)
]


def test_layouts_change_no_word():
    text = "First line, " + "word " * 30 + "\n\n- a list\n\tand a tab: 1 < 2"
    for name, change in LAYOUTS.items():
        changed = change(text)
        marks = {"quoted": ">", "list": "-", "fenced": "```"}.get(name, "")
        assert changed != text, name
        assert [w for w in changed.split() if w != marks] == [w for w in text.split() if w != marks], name


def test_changed_verdicts_are_counted_by_repeat_and_by_exchange(tmp_path):
    guard = Touchy()
    evaluate(guard, {"own": ROWS}, tmp_path)
    repeat(guard, {"own": ROWS}, tmp_path, times=4)
    found = {s.kind: s for s in read_stability(open_run(tmp_path))}
    # of the layouts wrapped, quoted, blank lines, list only the second is flagged: 8 of 32 repeats, all 8 exchanges
    assert (found["layout"].each.value, found["layout"].ever.value) == (25, 100)
    assert (found["layout"].rows, found["layout"].repeats) == (8, 4)
    assert (found["batch"].each.value, found["batch"].ever.value) == (0, 0)
    assert 0 < found["batch"].ever.high < 40  # eight exchanges that never changed still leave room for some that would
    assert set(found) == {"layout", "batch"}


def test_repeats_go_on_where_they_stopped_and_shuffle_their_batches(tmp_path):
    guard = Touchy()
    evaluate(guard, {"own": ROWS}, tmp_path)
    repeat(guard, {"own": ROWS}, tmp_path, times=1, kinds=["batch"])
    asked = guard.calls[1:]
    assert [len(c) for c in asked] == [7, 1]
    assert [i for call in asked for i in call] != [e.exchange.id for e in ROWS]
    repeat(guard, {"own": ROWS}, tmp_path, times=2, kinds=["batch"])
    assert [len(c) for c in guard.calls[3:]] == [1] * 8
    lines = [row for _, row in read_jsonl(tmp_path / "repeats" / "batch" / "own.jsonl")]
    assert len({(r["exchange_id"], r["repeat"]) for r in lines}) == len(lines) == 16
    assert "cake" not in json.dumps(lines)


def test_what_failed_for_a_passing_reason_is_no_change_and_is_asked_again(tmp_path):
    class Away(Touchy):
        def judge(self, exchanges):
            if any(e.id == "r3" for e in exchanges):
                raise OSError("away")  # takes no other row with it
            found = super().judge(exchanges)
            return [replace(v, status="timeout", labels=Labels()) if v.exchange_id == "r5" else v for v in found]

    evaluate(Touchy(), {"own": ROWS}, tmp_path)
    repeat(Away(), {"own": ROWS}, tmp_path, times=1, kinds=["batch"])
    (found,) = read_stability(open_run(tmp_path))
    assert (found.rows, found.each.value) == (6, 0)
    guard = Touchy()
    repeat(guard, {"own": ROWS}, tmp_path, times=1, kinds=["batch"])
    assert sorted(i for call in guard.calls for i in call) == ["r3", "r5"]
    lines = [row for _, row in read_jsonl(tmp_path / "repeats" / "batch" / "own.jsonl")]
    assert sorted(r["exchange_id"] for r in lines) == [f"r{i}" for i in range(8)]
    assert {r["status"] for r in lines} == {"ok"}


def test_a_guard_that_writes_is_sampled_at_the_temperature_and_left_as_it_was(tmp_path):
    class Engine:
        class capabilities:  # noqa: N801
            samples = True

        def __init__(self):
            self.heard, self.seed = [], 7

        def run(self, prompts, plan, **more):
            self.heard.append((more.get("temperature"), self.seed))
            return []

    class Writer(Touchy):
        mode = "full"

        def __init__(self):
            super().__init__()
            self.engine = Engine()

        def judge(self, exchanges):
            self.engine.run([], ())
            return super().judge(exchanges)

    guard = Writer()
    engine = guard.engine
    evaluate(guard, {"own": ROWS}, tmp_path)
    repeat(guard, {"own": ROWS}, tmp_path, times=1, temperature=0.9)
    usual = (None, 7)
    assert engine.heard == [usual, (0.9, 8), usual, usual, usual]  # the run, sampled, layout, two batches
    repeat(guard, {"own": ROWS}, tmp_path, times=3, kinds=["sampled"], temperature=0.9)
    assert engine.heard[5:] == [(0.9, 9), (0.9, 10)]  # another seed for each repeat: the same would draw the same again
    assert guard.engine is engine
    assert engine.seed == 7
    with pytest.raises(DataError, match=r"sampled at temperature 0\.9"):
        repeat(guard, {"own": ROWS}, tmp_path, times=4, kinds=["sampled"], temperature=0.5)


def test_exchanges_that_occur_twice_were_judged_twice(tmp_path):
    class Moody(Touchy):
        def judge(self, exchanges):
            said = ["harmful" if e.id.endswith("again1") else "unharmful" for e in exchanges]
            return [
                Verdict(e.id, "moody", "full", "ok", Labels(prompt_harm=s))
                for e, s in zip(exchanges, said, strict=True)
            ]

    again = [Example(Exchange(f"again{i}", e.exchange.prompt), e.gold) for i, e in enumerate(ROWS)]
    sets = {"own": ROWS, "more": again}
    files = []
    for name, examples in sets.items():
        files.append(tmp_path / f"{name}.jsonl")
        write_jsonl(
            files[-1], [{"id": e.exchange.id, "prompt": e.exchange.prompt, **e.gold.as_dict()} for e in examples]
        )
    evaluate(Moody(), sets, tmp_path / "run", inputs=files)
    (found,) = read_stability(open_run(tmp_path / "run"))
    assert (found.kind, found.rows, found.each.value) == ("judged twice", 8, 12.5)
    files[1].write_text("".join(  # the same words in another conversation are another exchange
        json.dumps({**json.loads(line), "context": [{"role": "user", "content": "before"}]}) + "\n"
        for line in files[1].read_text("utf-8").splitlines()
    ), "utf-8")  # fmt: skip
    assert read_stability(open_run(tmp_path / "run")) == []


def test_what_cannot_be_repeated_is_said(tmp_path, capsys):
    with pytest.raises(ConfigError, match="above 0"):
        repeat(Touchy(), {}, tmp_path, times=0)
    with pytest.raises(ConfigError, match="writes nothing that could be sampled"):
        repeat(Touchy(), {}, tmp_path, times=1, kinds=["sampled"])
    with load_guard("nano") as nano:  # scores texts and writes none: two kinds of repeats are left
        repeat(nano, {"own": ROWS[:1]}, tmp_path / "nano", times=1)
    assert sorted(p.name for p in (tmp_path / "nano" / "repeats").iterdir()) == ["batch", "layout"]
    assert main(["evaluate", "--guard", "constant", "--repeat-kind", "batch", "--out", str(tmp_path / "x")]) == 1
    assert "--repeat-kind goes with --repeat" in capsys.readouterr().err


def test_the_command_repeats_and_prints_what_changed(tmp_path, capsys):
    file = tmp_path / "own.jsonl"
    write_jsonl(file, [{"id": e.exchange.id, "prompt": e.exchange.prompt, **e.gold.as_dict()} for e in ROWS])
    run = ["evaluate", "--guard", "constant", "--benchmark", str(file), "--out", str(tmp_path / "run"), "--repeat", "2"]
    assert main(run) == 0
    printed = capsys.readouterr().out
    assert "verdicts that change when asked again" in printed
    assert "0.0 (0.0–32.4)" in printed  # Wilson: 0 of 8
