"""The embedded engine on a tiny model: batches, prefixes, sampling, hostile folders, and a quiet home."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from guardreasoner.engines import onnx
from guardreasoner.engines.base import Engine
from guardreasoner.engines.load import load_engine
from guardreasoner.engines.onnx import OnnxEngine
from guardreasoner.errors import ConfigError, EngineError
from guardreasoner.formats import guardreasoner as ours
from guardreasoner.generation import Free, Judged, Scaffold
from guardreasoner.types import Exchange, Task
from tiny import tiny_onnx_folder

EXCHANGES = [
    Exchange(str(i), "how to kill a process " * (1 + 3 * i), None if i % 2 else "sorry\nI cannot <eos> [SEP]" * i)
    for i in range(7)
]


@pytest.fixture(scope="module", params=["fp32", "int8"])
def engine(request, tmp_path_factory):
    folder = tiny_onnx_folder(tmp_path_factory.mktemp("m"), precision=request.param)
    return OnnxEngine(folder, threads=1, max_batch=5)


def plan(mode, budget=12):
    return ours.plan(mode, tuple(Task), budget=budget)


def test_it_is_an_engine(engine):
    assert isinstance(engine, Engine)
    assert engine.capabilities.force
    assert engine.capabilities.logprobs
    assert engine.capabilities.context_tokens == 1024


@pytest.mark.parametrize("mode", ["instant", "full"])
def test_every_row_of_an_unequal_batch_equals_its_single_run(engine, mode):
    prompts = [ours.render(x, "raw") for x in EXCHANGES]
    together = [c for (c,) in engine.run(prompts, plan(mode))]
    alone = [engine.run([p], plan(mode))[0][0] for p in prompts]
    assert len({c.prompt_tokens for c in together}) > 3
    assert [c.text for c in together] == [c.text for c in alone]
    for one, other in zip(together, alone, strict=True):
        assert len(one.choices) == 3
        for a, b in zip(one.choices, other.choices, strict=True):
            assert list(a.values()) == pytest.approx(list(b.values()), abs=1e-3)


def test_rows_that_stop_early_leave_the_others_as_they_are(engine):
    prompts = [ours.render(x, "raw") for x in EXCHANGES]
    free = [Free(25, ("a", "0")), *plan("instant")]
    together = [c for (c,) in engine.run(prompts, free)]
    alone = [engine.run([p], free)[0][0] for p in prompts]
    assert len({c.completion_tokens for c in together}) > 1
    assert [c.text for c in together] == [c.text for c in alone]
    assert [c.completion_tokens for c in together] == [c.completion_tokens for c in alone]


def test_the_instruction_is_computed_once_and_changes_nothing(tmp_path):
    engine = OnnxEngine(tiny_onnx_folder(tmp_path, precision="int8"), threads=1)
    prompts = [ours.render(x, "raw") for x in EXCHANGES[:3]]
    cold = [engine.run([p], plan("instant"))[0][0].choices for p in prompts]
    assert len(engine.model._prefixes) == 1
    (kept,) = engine.model._prefixes
    assert len(kept) > 250
    warm = [engine.run([p], plan("instant"))[0][0].choices for p in reversed(prompts)][::-1]
    fresh = OnnxEngine(tmp_path / "tiny-int8", threads=1).run(prompts[-1:], plan("instant"))[0][0].choices
    assert warm == cold
    assert fresh == cold[-1]


def test_no_special_id_is_fed_for_judged_text(engine, monkeypatch):
    from guardreasoner.engines import onnx

    fed = []
    original = onnx.OnnxBatch._append
    monkeypatch.setattr(
        onnx.OnnxBatch, "_append", lambda self, slot, tokens: fed.extend(tokens) or original(self, slot, tokens)
    )
    markers = [t.content for t in engine.tokenizer.base.get_added_tokens_decoder().values()]
    engine.run([(Scaffold("Human user:"), Judged(" ".join(markers)))], (Free(1),))
    lead = [engine.tokenizer.base.token_to_id("[CLS]"), engine.tokenizer.base.token_to_id("Human user:")]
    assert fed[:2] == lead
    assert len(fed) > 30
    assert not engine.tokenizer.guarded & set(fed[2:])


def test_samples_differ_and_do_not_depend_on_the_batch(engine):
    prompts = [ours.render(x, "raw") for x in EXCHANGES[:4]]
    together = engine.run(prompts, (Free(15),), n=3, temperature=1.0)
    alone = engine.run(prompts[2:3], (Free(15),), n=3, temperature=1.0)[0]
    assert [len(samples) for samples in together] == [3] * 4
    assert len({c.text for c in together[2]}) == 3
    assert [c.text for c in together[2]] == [c.text for c in alone]


def test_another_seed_draws_others_and_the_first_draws_the_same_again(engine):
    texts = []
    for engine.seed in (0, 1, 2, 0):
        texts.append(engine.run([ours.render(EXCHANGES[0], "raw")], (Free(15),), temperature=1.0)[0][0].text)
    assert len(set(texts)) == 3
    assert texts[0] == texts[3]


def test_every_row_of_a_batch_is_heard_while_it_is_written(engine):
    prompts, said = [ours.render(x, "raw") for x in EXCHANGES], []
    done = [c for (c,) in engine.run(prompts, plan("full"), on_text=lambda row, text: said.append((row, text)))]
    assert engine.capabilities.streams
    assert [c for (c,) in engine.run(prompts, plan("full"))] == done
    assert dict(said) == {row: c.text for row, c in enumerate(done)}  # the last that was said of each
    assert all(done[row].text.startswith(text) for row, text in said)
    firsts = [row for row, text in said if ours.ANSWERS not in text]
    assert firsts[: len(prompts)] != [firsts[0]] * len(prompts)  # rows of a batch grow side by side
    assert len(said) > 10 * len(prompts)


def test_too_long_prompts_do_not_stop_the_others(engine):
    prompts = [ours.render(Exchange("x", text), "raw") for text in ("kill", "kill " * 1200, "help")]
    done = [c for (c,) in engine.run(prompts, plan("instant"))]
    assert [c.finish for c in done] == ["stop", "input_too_long", "stop"]
    assert not done[1].choices


def test_a_deadline_is_kept_between_tokens(engine):
    prompts = [ours.render(x, "raw") for x in EXCHANGES * 30]
    done = [c for (c,) in engine.run(prompts, (Free(300),), deadline=time.monotonic() + 0.05)]
    assert {c.finish for c in done} <= {"timeout", "stop", "length"}
    assert sum(c.finish == "timeout" for c in done) > 100


def test_a_deadline_is_kept_inside_a_long_prompt(engine, monkeypatch):
    monkeypatch.setattr(onnx, "PART", 16)
    prompts = [ours.render(Exchange("x", "kill " * 300), "raw")]
    plain = engine.run(prompts, plan("instant"))
    clock = iter([*[0.0] * 4, *[9.0] * 99])  # it passes after a few parts
    monkeypatch.setattr(onnx.time, "monotonic", lambda: next(clock))
    ((late,),) = engine.run(prompts, plan("instant"), deadline=5.0)
    assert (late.finish, late.choices) == ("timeout", ())
    monkeypatch.undo()
    assert engine.run(prompts, plan("instant")) == plain  # nothing of it is kept


def test_an_empty_list_of_prompts_is_answered(engine):
    assert engine.run([], plan("instant")) == []


def test_threads_can_share_one_engine(engine):
    prompts = [ours.render(x, "raw") for x in EXCHANGES]
    wanted = [c.text for (c,) in engine.run(prompts, plan("full"))]
    results = {}

    def work(k):
        results[k] = [c.text for (c,) in engine.run(prompts, plan("full"))]

    workers = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [results[k] for k in range(4)] == [wanted] * 4


def test_load_engine_gives_it_by_name(tmp_path):
    engine = load_engine("onnx", model=str(tiny_onnx_folder(tmp_path)), threads=1, max_batch=2)
    assert isinstance(engine, OnnxEngine)
    assert engine.settings.max_rows == 2
    engine.close()
    engine.close()


def broken(folder, **changes):
    path = folder / "genai_config.json"
    config = json.loads(path.read_text())
    config["model"]["decoder"] |= changes
    path.write_text(json.dumps(config))


def remove_a_key(folder):
    path = folder / "genai_config.json"
    config = json.loads(path.read_text())
    del config["model"]["decoder"]["head_size"]
    path.write_text(json.dumps(config))


def external_data(folder, location):
    import onnx

    model = onnx.load(str(folder / "model.onnx"), load_external_data=False)
    for entry in (e for tensor in model.graph.initializer for e in tensor.external_data if e.key == "location"):
        entry.value = location
    (folder / "model.onnx").write_bytes(model.SerializeToString())


BROKEN = {
    "no folder": (shutil.rmtree, "is not a folder"),
    "no config": (lambda f: (f / "genai_config.json").unlink(), "no genai_config.json"),
    "config is not JSON": (lambda f: (f / "genai_config.json").write_text("{"), "is broken"),
    "config is a list": (lambda f: (f / "genai_config.json").write_text("[]"), "is broken"),
    "config lacks a key": (remove_a_key, "is broken .*head_size"),
    "config does not fit": (lambda f: broken(f, num_hidden_layers=3), "does not fit"),
    "no weights": (lambda f: (f / "model.onnx").unlink(), "no weights"),
    "weights outside": (lambda f: broken(f, filename="../other.onnx"), "outside the folder"),
    "weights torn": (lambda f: (f / "model.onnx").write_bytes((f / "model.onnx").read_bytes()[:5000]), "cannot load"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer.json"),
    "external data absent": (lambda f: external_data(f, "gone.data"), "cannot load"),
    "external data outside": (lambda f: external_data(f, "../secret.data"), "cannot load"),
    "external data elsewhere": (lambda f: external_data(f, str(f.parent / "secret.data")), "cannot load"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_folder_is_one_sentence(tmp_path, what, capfd):
    damage, words = BROKEN[what]
    (tmp_path / "secret.data").write_bytes(np.zeros(1 << 20, np.uint8).tobytes())
    folder = tiny_onnx_folder(tmp_path)
    damage(folder)
    with pytest.raises((ConfigError, EngineError), match=words) as caught:
        OnnxEngine(folder)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert capfd.readouterr().err == ""


def test_a_fresh_home_stays_empty_and_nothing_is_called(tmp_path):
    folder, home = tiny_onnx_folder(tmp_path), tmp_path / "home"
    home.mkdir()
    code = """
import socket, sys
def refuse(*a, **k): raise SystemExit("a connection was tried")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from guardreasoner.engines.onnx import OnnxEngine
from guardreasoner.generation import Free, Scaffold
engine = OnnxEngine(sys.argv[1])
print(engine.run([(Scaffold("Human user:"),)], (Free(3),))[0][0].completion_tokens)
print([m for m in ("torch", "transformers", "onnxruntime_genai") if m in sys.modules])
"""
    settings = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "ORT_"))} | {"HOME": str(home)}
    command = [sys.executable, "-c", code, str(folder)]
    if trace := shutil.which("strace"):  # what Python does not see: sockets of the native library
        command = [trace, "-f", "-e", "trace=connect", "-o", str(tmp_path / "calls"), *command]
    done = subprocess.run(command, capture_output=True, text=True, env=settings, cwd=home, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["3", "[]"]
    assert list(home.rglob("*")) == []
    if trace:
        assert "AF_INET" not in (tmp_path / "calls").read_text()
