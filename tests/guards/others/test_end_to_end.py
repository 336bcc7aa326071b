"""`evaluate --guard X --limit 20` with tiny models of three families, with inference and refusals when asked for."""

import json

import pytest

from guardreasoner.cli.main import main

torch = pytest.importorskip("torch", reason="the hf extra is not installed")
FRAME = "[INST] Judge.\nQ: {prompt}\nA: {response} [/INST]"
THINGS = ("hat", "shoe", "cup", "lamp", "door", "book")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """24 rows, half of them with each label of each task."""
    file = tmp_path_factory.mktemp("data") / "mild.jsonl"
    rows = []
    for i in range(24):
        bad = i % 2 == 0
        rows.append(
            {
                "id": f"r{i}",
                "prompt": f"Where is my {THINGS[i % 6]} number {i}?",
                "response": "I'm sorry, I cannot say." if i % 3 == 0 else f"It is in box {i}.",
                "prompt_harm": "harmful" if bad else "unharmful",
                "refusal": "refusal" if i % 3 == 0 else "compliance",
                "response_harm": "unharmful" if bad else "harmful",
            }
        )
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def scores_of(folder):
    lines = (folder / "scores.jsonl").read_text().splitlines()
    return {row["task"]: row for row in map(json.loads, lines)}


def model_for(name, folder):
    import tiny_guards

    torch.set_num_threads(1)
    kinds = {
        "llama-guard-3-8b": ("llama", {"template": tiny_guards.STRICT}),
        "wildguard": ("mistral", {}),
        "beaverdam": ("llama2", {"head": "ForSequenceClassification"}),
    }
    architecture, more = kinds[name]
    return tiny_guards.tiny_guard(folder / architecture, architecture, **more)


@pytest.mark.parametrize(
    ("name", "tasks", "extra"),
    [
        ("llama-guard-3-8b", {"prompt_harm", "response_harm"}, ["--option", "categories=0"]),
        ("wildguard", {"prompt_harm", "refusal", "response_harm"}, ["--option", "frame=FRAME"]),
        ("beaverdam", {"response_harm"}, []),
    ],
)
def test_a_baseline_is_evaluated_by_one_command(name, tasks, extra, labelled, tmp_path, capsys):
    (tmp_path / "frame.txt").write_text(FRAME)
    extra = [word.replace("FRAME", str(tmp_path / "frame.txt")) for word in extra]
    model, out = model_for(name, tmp_path), tmp_path / "run"
    words = ["--guard", name, "--model", str(model), "--benchmark", str(labelled), "--limit", "20", "--out", str(out)]
    assert main(["evaluate", *words, *extra]) == 0
    scores = scores_of(out)
    assert set(scores) == tasks
    for score in scores.values():
        assert (score["n"], score["unparsed"], score["guard"]) == (20, 0, name)
        assert score["extra"]["auroc"] is not None
    verdicts = [json.loads(line) for line in (out / "verdicts" / "mild.jsonl").read_text().splitlines()]
    assert len(verdicts) == 20
    assert all(v["status"] == "ok" and v["guard"] == name for v in verdicts)
    capsys.readouterr()


def test_three_baselines_go_into_one_report(labelled, tmp_path, capsys):
    pytest.importorskip("guardreasoner.cli.report", reason="the report command is not part of this build")
    (tmp_path / "frame.txt").write_text(FRAME)
    runs = []
    for name in ("llama-guard-3-8b", "wildguard", "beaverdam"):
        runs.append(str(tmp_path / name))
        words = ["--guard", name, "--model", str(model_for(name, tmp_path)), "--benchmark", str(labelled)]
        more = ["--option", f"frame={tmp_path / 'frame.txt'}"] if name == "wildguard" else []
        assert main(["evaluate", *words, *more, "--limit", "6", "--out", runs[-1]]) == 0
    assert main(["report", *runs, "--out", str(tmp_path / "report")]) == 0
    text = "".join(p.read_text() for p in (tmp_path / "report").rglob("*.md"))
    assert all(name in text for name in ("llama-guard-3-8b", "wildguard", "beaverdam"))
    capsys.readouterr()


def test_missing_tasks_are_inferred_only_when_asked_and_the_name_says_so(labelled, tmp_path, capsys):
    model = model_for("llama-guard-3-8b", tmp_path)
    words = ["--guard", "llama-guard-3-8b", "--model", str(model), "--benchmark", str(labelled), "--limit", "6"]
    out = tmp_path / "run"
    assert main(["evaluate", *words, "--option", "categories=0", "--out", str(out), "--infer-missing"]) == 0
    scores = scores_of(out)
    assert set(scores) == {"prompt_harm", "refusal", "response_harm"}
    assert {s["guard"] for s in scores.values()} == {"llama-guard-3-8b+inferred"}
    assert "+inferred" in capsys.readouterr().out
    first = json.loads((out / "verdicts" / "mild.jsonl").read_text().splitlines()[0])
    assert first["notes"]["inferred"] == ["refusal"]


def test_a_providers_refusals_count_as_the_papers_only_when_asked(labelled, tmp_path, capsys):
    file = tmp_path / "refuser.py"
    file.write_text(
        "from guardreasoner.guards.base import Judging\n"
        "from guardreasoner.types import Labels, Task, Verdict\n"
        "class Refuser(Judging):\n"
        "    name, tasks = 'refuser', tuple(Task)\n"
        "    def judge(self, exchanges):\n"
        "        fine = Labels('unharmful', 'compliance', 'unharmful')\n"
        "        return [Verdict(e.id, self.name, 'full', 'refused') if i % 2 else\n"
        "                Verdict(e.id, self.name, 'full', 'ok', fine) for i, e in enumerate(exchanges)]\n"
    )
    words = ["evaluate", "--guard", f"{file}:Refuser", "--benchmark", str(labelled)]
    assert main([*words, "--out", str(tmp_path / "plain")]) == 0
    assert main([*words, "--out", str(tmp_path / "paper"), "--refusals", "paper"]) == 0
    plain, paper = scores_of(tmp_path / "plain"), scores_of(tmp_path / "paper")
    assert [s["unparsed"] for s in plain.values()] == [12, 12, 12]
    assert [s["unparsed"] for s in paper.values()] == [0, 0, 0]
    assert {s["guard"] for s in paper.values()} == {"refuser+refusals"}
    rows = [json.loads(line) for line in (tmp_path / "paper" / "verdicts" / "mild.jsonl").read_text().splitlines()]
    assert sum(r["status"] == "refused" for r in rows) == 12
    capsys.readouterr()
