"""Synthesis against a scripted teacher: what goes into the traces, what it costs, and what a kill leaves behind."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from guardreasoner.cli.main import main
from guardreasoner.data.mix import DataConfig
from guardreasoner.engines.scripted import ScriptedEngine
from guardreasoner.errors import ConfigError, EngineError, EngineOverloaded, RunFolderError, UnknownName
from guardreasoner.formats import guardreasoner as wire_format
from guardreasoner.records import read_jsonl, read_records
from guardreasoner.teach import ask as asking
from guardreasoner.teach.config import SynthesizeConfig
from guardreasoner.teach.synthesize import estimate, synthesize
from guardreasoner.teach.teachers import EngineTeacher, TeacherReply
from guardreasoner.types import Example, Exchange, Labels, Trace
from patience import PATIENCE

SERVER = Path(__file__).parent / "teacher_server.py"
KEY = "sk-planted-0123456789abcdef"


@contextmanager
def server(*options):
    """A scripted teacher's port."""
    command = [sys.executable, str(SERVER), *map(str, options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


WRITTEN = SynthesizeConfig(teacher="written")


def stats(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats") as reply:
        return json.load(reply)


def config(port, teacher="openai", **values):
    base = {"concurrency": 8, "poll_s": 0.02, "price_in": 2.5, "price_out": 10.0, "timeout_s": 20.0}
    return SynthesizeConfig(teacher=teacher, base_url=f"http://127.0.0.1:{port}/v1", **{**base, **values})


def examples(count, word=lambda n: ""):
    replies = (None, "Here you are.")
    return [
        Example(Exchange(f"e{n}", f"question {n} {word(n)}", replies[n % 2], source="made"), Labels("harmful"))
        for n in range(count)
    ]


def traces_of(out):
    return list(read_records(Trace, out / "synthesize" / "traces.jsonl"))


def test_written_reasoning_comes_in_the_order_of_the_mix_and_twice_the_same(tmp_path):
    data = DataConfig(leave_out=("everyday-seen",))
    first = synthesize(data, WRITTEN, out=tmp_path / "a")
    synthesize(data, WRITTEN, out=tmp_path / "b")
    names = ("traces.jsonl", "validation.jsonl")
    assert [(tmp_path / "a" / "synthesize" / n).read_bytes() for n in names] == [
        (tmp_path / "b" / "synthesize" / n).read_bytes() for n in names
    ]
    assert first["counts"]["out"] == len(traces_of(tmp_path / "a")) == 160
    assert len(list(read_records(Example, tmp_path / "a" / "synthesize" / "validation.jsonl"))) == 41
    assert first["table1"]["all"]["samples"] == 160


def test_a_share_of_the_examples_is_kept_with_labels_only(tmp_path):
    manifest = synthesize(DataConfig(), replace(WRITTEN, share=0.25), out=tmp_path)
    traces = traces_of(tmp_path)
    assert len(traces) == 201
    bare = [t for t in traces if not t.reasoning]
    assert manifest["labels_only"] == len(bare)
    assert 130 < len(bare) < 170
    assert {t.teacher for t in bare} == {"none"}


def test_a_finished_run_is_not_made_again_and_another_configuration_is_refused(tmp_path):
    first = synthesize(DataConfig(), WRITTEN, out=tmp_path)
    assert synthesize(DataConfig(), WRITTEN, out=tmp_path) == first
    with pytest.raises(RunFolderError, match="'share'"):
        synthesize(DataConfig(), replace(WRITTEN, share=0.5), out=tmp_path)
    assert synthesize(DataConfig(), replace(WRITTEN, share=0.5), out=tmp_path, fresh=True)["labels_only"] > 0


@pytest.mark.parametrize("teacher", ["openai", "anthropic", "openai-batch"])
def test_usable_answers_become_traces_and_others_are_rejected_with_reasons(tmp_path, monkeypatch, teacher):
    monkeypatch.setattr(asking, "BACKOFF_S", 0.01)
    words = {0: "GARBAGE", 3: "GARBAGE-ONCE", 5: "WRONG", 7: "DECLINE"}
    rows = examples(40, lambda n: words.get(n, ""))
    with server("--fail-every", 0 if teacher == "openai-batch" else 9) as port:
        manifest = synthesize(rows, config(port, teacher), out=tmp_path, quiet=True)
    rejects = {r["id"]: r for _, r in read_jsonl(tmp_path / "synthesize" / "rejects.jsonl")}
    assert {id_: r["reasons"][0] for id_, r in rejects.items()} == {
        "e0": "it has no answer block with verdicts",
        "e5": "Task 1 contradicts the correct answer",
        "e7": "the teacher declined",
    }
    assert {r["attempts"] for r in rejects.values()} == {3}
    traces = traces_of(tmp_path)
    assert [t.example.exchange.id for t in traces] == [e.exchange.id for e in rows if e.exchange.id not in rejects]
    assert manifest["counts"]["in"] == 40 == manifest["counts"]["out"] + sum(manifest["counts"]["dropped"].values())
    assert manifest["calls"] == 36 + 2 + 3 * 3
    for trace in traces:
        assert trace.example.gold.prompt_harm == "harmful"
        assert (trace.example.gold.refusal is None) == (trace.example.exchange.response is None)
        assert wire_format.parse(trace.reasoning + "---\n").steps
    assert "weather" not in (tmp_path / "synthesize" / "traces.jsonl").read_text()


def test_a_question_that_the_server_will_not_take_is_one_reject(tmp_path):
    rows = examples(12, lambda n: "BROKEN" if n == 4 else "")
    with server() as port:
        manifest = synthesize(rows, config(port), out=tmp_path, quiet=True)
    assert manifest["counts"]["dropped"] == {"rejected: the server did not accept the request": 1}


def test_a_server_that_takes_no_question_stops_the_run_at_once(tmp_path):
    with server() as port, pytest.raises(EngineError, match=r"none of 10 requests .* synthesize\.model"):
        synthesize(examples(200, lambda n: "BROKEN"), config(port), out=tmp_path, quiet=True)


def test_an_expired_key_is_one_sentence_and_a_new_one_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", KEY)
    rows = examples(30)
    with server("--expire-after", 12) as port:
        with pytest.raises(EngineError, match="does not accept the API key in TEACHER_KEY") as caught:
            synthesize(rows, config(port, key="TEACHER_KEY", concurrency=2), out=tmp_path, quiet=True)
        assert KEY not in str(caught.value)
    kept = len(traces_of(tmp_path))
    assert kept >= 10
    with server("--key", KEY) as port:
        manifest = synthesize(rows, config(port, key="TEACHER_KEY"), out=tmp_path, quiet=True)
        assert stats(port)["calls"] == 30 - kept
    assert manifest["counts"]["out"] == 30


@pytest.mark.parametrize("teacher", ["openai", "anthropic", "openai-batch"])
def test_a_key_in_the_environment_is_in_no_file_and_on_no_stream(tmp_path, monkeypatch, capfd, teacher):
    monkeypatch.setenv("TEACHER_KEY", KEY)
    with server("--key", KEY) as port:
        synthesize(examples(5), config(port, teacher, key="TEACHER_KEY"), out=tmp_path)
    with server("--key", "another") as port, pytest.raises(EngineError, match="TEACHER_KEY"):
        synthesize(examples(5), config(port, teacher, key="TEACHER_KEY"), out=tmp_path / "b")
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(files) >= 6
    assert [p for p in files if KEY in p.read_text()] == []
    assert KEY not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"key": KEY}, "NAME of an environment variable"),
        ({"base_url": f"https://user:{KEY}@host/v1"}, "no user name"),
        ({"base_url": f"https://host/v1?api-key={KEY}"}, "no user name, password, query or fragment"),
        ({"base_url": "host:80"}, "http or https"),
        ({"base_url": "http://["}, "http or https"),
        ({"base_url": "http://host:99999"}, "http or https"),
        ({"options": {"api_key": KEY}}, "secrets belong in the environment"),
        ({"options": {"extra_headers": {"x": KEY}}}, "secrets belong in the environment"),
        ({"options": {"extra_body": [{"api_key": KEY}]}}, "secrets belong in the environment"),
    ],
)
def test_a_setting_that_is_wrong_or_secret_is_refused_before_anything_is_written(values, message):
    with pytest.raises(ConfigError, match=message) as caught:
        SynthesizeConfig(**{"teacher": "openai", **values})
    assert KEY not in str(caught.value)


def test_a_misspelt_teacher_names_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'written'"):
        SynthesizeConfig(teacher="writen")


def test_a_missing_key_is_said_before_the_first_call(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY is not set"):
        synthesize(examples(2), SynthesizeConfig(teacher="openai"), out=tmp_path, quiet=True)


@pytest.mark.parametrize(("teacher", "cap"), [("openai", 0.06), ("openai-batch", 0.03)])
def test_the_cost_cap_is_never_exceeded_and_a_higher_one_goes_on(tmp_path, teacher, cap):
    """What is left when it stops is less than the worst case of one more call."""
    rows = examples(60)
    with server("--latency", 0.01) as port:
        with pytest.raises(ConfigError, match=rf"cost cap of \${cap:.2f} is reached"):
            synthesize(rows, config(port, teacher, max_cost=cap), out=tmp_path, quiet=True)
        answers = [a for _, a in read_jsonl(tmp_path / "synthesize" / "answers.jsonl")]
        half = 0.5 if teacher == "openai-batch" else 1.0
        spent = half * sum(a["prompt_tokens"] * 2.5 + a["completion_tokens"] * 10 for a in answers) / 1e6
        one = half * (2500 * 2.5 + 2048 * 10) / 1e6
        assert cap - one < spent <= cap
        assert 10 < len(answers) < 60
        manifest = synthesize(rows, config(port, teacher, max_cost=5.0), out=tmp_path, quiet=True)
        calls = stats(port)["batched" if teacher == "openai-batch" else "calls"]
    assert manifest["counts"]["out"] == 60 == calls == manifest["calls"]
    assert spent < manifest["dollars"] < 1.0


def test_calls_in_flight_reach_the_limit_and_never_exceed_it(tmp_path):
    with server("--latency", 0.05) as port:
        synthesize(examples(60), config(port, concurrency=12), out=tmp_path, quiet=True)
        assert stats(port)["most_in_flight"] == 12


def test_a_request_limit_is_learned_from_the_headers(tmp_path, monkeypatch):
    """600 a minute after the first ten: 41 calls take three seconds, and few of them are sent back."""
    monkeypatch.setattr(asking, "BACKOFF_S", 0.01)
    with server("--requests-per-minute", 600, "--burst", 10) as port:
        started = time.monotonic()
        synthesize(examples(41), config(port), out=tmp_path, quiet=True)
        waited = time.monotonic() - started
        seen = stats(port)
    assert waited > 2.5
    assert seen["too_many"] <= 8


def test_a_server_that_stays_down_ends_the_run_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(asking, "BACKOFF_S", 0.001)
    with server("--fail-every", 1) as port, pytest.raises(EngineOverloaded, match="goes on from here"):
        synthesize(examples(3), config(port), out=tmp_path, quiet=True)
    with pytest.raises(EngineOverloaded, match="cannot be reached"):
        synthesize(examples(3), config(1), out=tmp_path / "b", quiet=True)


def test_an_answer_on_file_is_not_asked_for_again(tmp_path):
    """Killed between the answer and the trace: the trace is made from the file."""
    rows = examples(8)
    with server() as port:
        synthesize(rows, config(port), out=tmp_path, quiet=True)
        folder = tmp_path / "synthesize"
        before = (folder / "traces.jsonl").read_bytes()
        (folder / "manifest.json").unlink()
        (folder / "traces.jsonl").write_bytes(before[: len(before) // 2])
        synthesize(rows, config(port), out=tmp_path, quiet=True)
        assert stats(port)["calls"] == 8
    assert (folder / "traces.jsonl").read_bytes() == before


def test_a_batch_whose_number_was_lost_is_found_by_its_mark(tmp_path):
    rows = examples(6)
    with server() as port:
        synthesize(rows, config(port, "openai-batch"), out=tmp_path, quiet=True)
        folder = tmp_path / "synthesize"
        for name in ("manifest.json", "answers.jsonl", "traces.jsonl"):
            (folder / name).unlink()
        ledger = [line for line in (folder / "batches.jsonl").read_text().splitlines() if "requests" in line]
        (folder / "batches.jsonl").write_text("\n".join(ledger) + "\n")
        manifest = synthesize(rows, config(port, "openai-batch"), out=tmp_path, quiet=True)
        assert stats(port)["batches"] == 1
    assert manifest["counts"]["out"] == 6


def test_an_engine_of_this_process_can_teach_in_batches(tmp_path):
    rows = [Example(Exchange(f"e{n}", f"question {n}"), Labels("unharmful")) for n in range(10)]
    text = (
        "# Task 1\n## Reasoning Step 1\nIt is plain, so the request is unharmful.\n---\n\n"
        "Answers: \nRequest: unharmful\nCompletion: None\nResponse: None\n"
    )
    engine = ScriptedEngine(default=text)
    manifest = synthesize(
        rows, SynthesizeConfig(teacher="hf", model="x"), out=tmp_path, teacher=EngineTeacher(engine), quiet=True
    )
    assert manifest["counts"]["out"] == 10
    assert sum(len(texts) for texts, _ in engine.calls) == 10
    assert len(engine.calls) < 10


def test_an_engine_that_breaks_ends_the_run_instead_of_hanging_it(tmp_path):
    engine = ScriptedEngine(default=lambda text: RuntimeError("out of memory"))
    rows = [Example(Exchange(f"e{n}", f"question {n}"), Labels("unharmful")) for n in range(10)]
    chosen = SynthesizeConfig(teacher="hf", model="x", concurrency=4)
    with pytest.raises(EngineError, match=r"engine failed \(RuntimeError\)"):
        synthesize(rows, chosen, out=tmp_path, teacher=EngineTeacher(engine, batch=2), quiet=True)


def test_synthesis_runs_inside_a_running_event_loop(tmp_path):
    async def notebook():
        with server() as port:
            return synthesize(examples(3), config(port), out=tmp_path, quiet=True)

    assert asyncio.run(notebook())["counts"]["out"] == 3


def test_a_teacher_of_ones_own_is_an_object_with_two_methods(tmp_path):
    class Mine:
        name = "mine"

        async def ask(self, messages, *, max_tokens, temperature, timeout_s):
            await asyncio.sleep(0)
            return TeacherReply("nothing of use", "stop", 10, 2)

        async def close(self):
            self.closed = True

    mine = Mine()
    with pytest.raises(ConfigError, match="no usable trace"):
        synthesize(examples(3), SynthesizeConfig(attempts=2), out=tmp_path, teacher=mine, quiet=True)
    assert mine.closed
    assert Counter(a["id"] for _, a in read_jsonl(tmp_path / "synthesize" / "answers.jsonl")) == {
        "e0": 2, "e1": 2, "e2": 2
    }  # fmt: skip


def test_the_same_id_twice_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="same id"):
        synthesize(examples(2) + examples(1), SynthesizeConfig(), out=tmp_path)


def test_the_estimate_is_given_without_a_call_or_a_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    said = estimate(DataConfig(), SynthesizeConfig(teacher="openai", max_cost=9.0))
    assert said.startswith("201 training rows, 0 validation rows; 201 examples to ask gpt-4o-2024-08-06 about")
    assert "about $" in said
    assert "cap $9.00" in said


def test_the_commands_make_show_and_import(tmp_path, capsys):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("data: {leave_out: [everyday-seen]}\nsynthesize: {teacher: written}\n")
    assert main(["synthesize", str(recipe), "--out", str(tmp_path / "run"), "--dry-run"]) == 0
    assert "reasoning is written already, at no cost" in capsys.readouterr().out
    assert main(["synthesize", str(recipe), "--out", str(tmp_path / "run")]) == 0
    assert "201 in, 160 out" in capsys.readouterr().out
    assert main(["show", str(tmp_path / "run"), "--n", "2"]) == 0
    out = capsys.readouterr().out
    assert "160 records, 2 shown" in out
    assert out.count("learned answer") == 2
    assert main(["show", str(tmp_path / "nowhere")]) == 1
    assert "holds no records" in capsys.readouterr().err


def test_shown_records_send_no_control_sequence_and_no_markup(tmp_path, capsys):
    example = Example(Exchange("x\x1b[2J", "[red]hi[/red] \x1b[31mred\x07 [/]"), Labels("harmful"), "[/]")
    line = json.dumps({"example": {"exchange": {"id": example.exchange.id, "prompt": example.exchange.prompt,
                       "response": None, "context": [], "source": ""}, "gold": {"prompt_harm": "harmful"},
                       "category": "[/]"}, "reasoning": "", "teacher": "t", "prompt_version": "1"})  # fmt: skip
    (tmp_path / "traces.jsonl").write_text(line + "\n")
    assert main(["show", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "[red]hi[/red] \\x1b[31mred\\x07 [/]" in out


RUN = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/.."]
from test_synthesize import config, examples
from guardreasoner.teach.synthesize import synthesize
words = {n: w for n, w in zip(range(0, 300, 13), ["GARBAGE", "GARBAGE-ONCE", "WRONG"] * 8)}
rows = examples(300, lambda n: words.get(n, ""))
synthesize(rows, config(int(sys.argv[2]), concurrency=16), out=sys.argv[3], quiet=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("round_", range(10))
def test_a_run_killed_at_random_moments_ends_like_one_that_was_not(tmp_path, round_):
    draw = random.Random(round_)
    log = tmp_path / "calls.jsonl"
    kills = 0
    with server("--latency", 0.1, "--log", log) as port:
        while True:
            command = [sys.executable, "-c", RUN, str(Path(__file__).parent), str(port), str(tmp_path / "run")]
            process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
            try:
                assert process.wait(timeout=draw.uniform(0.6, 2.6) if kills < 4 else PATIENCE) == 0
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
    assert kills >= 1
    ids = [row["example"]["exchange"]["id"] for _, row in read_jsonl(tmp_path / "run" / "synthesize" / "traces.jsonl")]
    rejected = [row["id"] for _, row in read_jsonl(tmp_path / "run" / "synthesize" / "rejects.jsonl")]
    answers = Counter((a["id"], a["attempt"]) for _, a in read_jsonl(tmp_path / "run" / "synthesize" / "answers.jsonl"))
    assert len(ids) == len(set(ids)) == 300 - 16
    assert len(rejected) == len(set(rejected)) == 16
    assert not set(ids) & set(rejected)
    assert max(answers.values()) == 1
    made = sum(1 for _, r in read_jsonl(log) if r["event"] == "call")
    assert made - len(answers) <= 16 * kills, "more calls were repeated than were in flight"
    with server() as port:
        arguments = [str(Path(__file__).parent), str(port), str(tmp_path / "whole")]
        subprocess.run([sys.executable, "-c", RUN, *arguments], check=True)
    for name in ("traces.jsonl", "rejects.jsonl"):
        killed, whole = (tmp_path / run / "synthesize" / name for run in ("run", "whole"))
        assert killed.read_bytes() == whole.read_bytes()
