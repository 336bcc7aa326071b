"""The transformers engine on tiny random models: equal to the embedded engine, and to itself in any batch."""

import json

import pytest

torch = pytest.importorskip("torch", reason="needs the hf extra")
pytest.importorskip("transformers", reason="needs the hf extra")

from guardreasoner.engines.base import Engine  # noqa: E402
from guardreasoner.engines.classifier import ClassifierEngine  # noqa: E402
from guardreasoner.engines.decoding import Extension  # noqa: E402
from guardreasoner.engines.hf import HfBatch, HfEngine  # noqa: E402
from guardreasoner.engines.load import load_engine  # noqa: E402
from guardreasoner.engines.onnx import OnnxEngine  # noqa: E402
from guardreasoner.errors import ConfigError, EngineError, PlanUnsupported, UnknownName  # noqa: E402
from guardreasoner.formats import guardreasoner as ours  # noqa: E402
from guardreasoner.generation import Choice, Free, Judged, Scaffold  # noqa: E402
from guardreasoner.guards.load import load_guard  # noqa: E402
from guardreasoner.types import Exchange, Task  # noqa: E402
from tiny import tiny_onnx_folder  # noqa: E402
from tiny_torch import tiny_checkpoint, tiny_llama_folder  # noqa: E402

EXCHANGES = [
    Exchange(str(i), "how to kill a process " * (i + 1), None if i % 2 else "sorry <|eot_id|> [SEP]\nno" * i)
    for i in range(5)
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    return {
        "wordpiece": tiny_checkpoint(path),
        "llama": tiny_llama_folder(path),
        "onnx": tiny_onnx_folder(path, precision="fp32"),
        "classifier": tiny_llama_folder(path, kind="sequence"),
    }


@pytest.fixture(scope="module")
def llama(folders):
    return HfEngine(str(folders["llama"]), dtype="float32", device="cpu", max_batch=4, threads=1)


@pytest.fixture(scope="module")
def wordpiece(folders):
    return HfEngine(str(folders["wordpiece"]), dtype="float32", device="cpu", max_batch=4, threads=1)


def plan(mode, budget=10):
    return ours.plan(mode, tuple(Task), budget=budget)


def same(a, b, tolerance=1e-3):
    assert [c.text for (c,) in a] == [c.text for (c,) in b]
    for (one,), (other,) in zip(a, b, strict=True):
        assert one.completion_tokens == other.completion_tokens
        assert one.prompt_tokens == other.prompt_tokens
        assert len(one.choices) == len(other.choices)
        for x, y in zip(one.choices, other.choices, strict=True):
            assert list(x.values()) == pytest.approx(list(y.values()), abs=tolerance)


@pytest.mark.parametrize("mode", ["instant", "full"])
@pytest.mark.parametrize("wire", ["raw", "chat"])
def test_every_row_of_an_unequal_batch_equals_its_single_run(llama, mode, wire):
    prompts = [ours.render(x, wire) for x in EXCHANGES]
    same(llama.run(prompts, plan(mode)), [llama.run([p], plan(mode))[0] for p in prompts])


@pytest.mark.parametrize("mode", ["instant", "full"])
def test_it_equals_the_embedded_engine_on_the_same_weights(wordpiece, folders, mode):
    embedded = OnnxEngine(folders["onnx"], threads=1)
    prompts = [ours.render(x, "raw") for x in EXCHANGES]
    same(wordpiece.run(prompts, plan(mode)), embedded.run(prompts, plan(mode)))


def test_rows_are_heard_while_they_are_written(llama):
    prompts, said = [ours.render(x, "raw") for x in EXCHANGES[:3]], []
    done = llama.run(prompts, plan("full"), on_text=lambda row, text: said.append((row, text)))
    assert llama.capabilities.streams
    same(done, llama.run(prompts, plan("full")), tolerance=0)
    assert dict(said) == {row: c.text for row, (c,) in enumerate(done)}
    assert all(done[row][0].text.startswith(text) for row, text in said)
    assert len(said) > 3 * len(prompts)


def test_a_batch_with_holes_equals_a_fresh_batch(llama):
    with torch.inference_mode():
        ids = list(range(5, 25))
        holed = HfBatch(llama.model, torch)
        holed.feed({0: Extension(0, ids[:9]), 1: Extension(0, ids[:4])})
        holed.feed({0: Extension(9, [40, 41, 42]), 1: Extension(4, ids[4:6])})
        holed.feed({0: Extension(9, ids[9:11]), 1: Extension(5, [77])})
        got = holed.feed({0: Extension(11, ids[11:12]), 1: Extension(5, ids[5:12])})
        fresh = HfBatch(llama.model, torch).feed({0: Extension(0, ids[:12])})[0]
    for row in (0, 1):
        assert got[row] == pytest.approx(fresh, abs=1e-4)


def test_samples_of_one_prompt_share_its_cache_and_differ(llama):
    prompts = [ours.render(x, "raw") for x in EXCHANGES[:2]]
    done = llama.run(prompts, (Free(10),), n=3, temperature=1.0)
    assert all(len({c.text for c in samples}) == 3 for samples in done)
    assert [[c.text for c in s] for s in llama.run(prompts, (Free(10),), n=3, temperature=1.0)] == [
        [c.text for c in s] for s in done
    ]
    llama.seed = 1
    assert llama.run(prompts, (Free(10),), n=3, temperature=1.0) != done
    llama.seed = 0


def test_no_special_id_reaches_the_model_for_judged_text(llama, monkeypatch):
    fed = []
    original = HfBatch._forward
    monkeypatch.setattr(
        HfBatch, "_forward", lambda self, t: fed.extend(i for row in t for i in row) or original(self, t)
    )
    markers = [t.content for t in llama.tokenizer.base.get_added_tokens_decoder().values()]
    (done,) = llama.run([(Scaffold("x"), Judged(" ".join(markers)))], (Free(1),))[0]
    assert len(fed) > 20
    assert sum(i in llama.tokenizer.guarded for i in fed) == 1  # the start of the text
    assert done.notes["special_tokens"] == len(markers)


def test_a_bfloat16_model_runs(folders):
    engine = HfEngine(str(folders["llama"]), dtype="bfloat16", device="cpu", threads=None)
    (done,) = engine.run([ours.render(EXCHANGES[0], "chat")], plan("instant"))[0]
    assert len(done.choices) == 3


def test_a_lora_adapter_changes_the_answers(folders, tmp_path):
    peft = pytest.importorskip("peft")
    base = HfEngine(str(folders["llama"]), dtype="float32", device="cpu")
    prompt = ours.render(EXCHANGES[1], "chat")
    plain = base.run([prompt], plan("instant"))[0][0].choices
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    peft.get_peft_model(base.model, config).save_pretrained(str(tmp_path / "lora"))
    engine = HfEngine(str(folders["llama"]), adapter=str(tmp_path / "lora"), dtype="float32", device="cpu")
    assert engine.run([prompt], plan("instant"))[0][0].choices != plain
    inside = {"adapter": str(tmp_path), "adapter_subfolder": "lora", "dtype": "float32", "device": "cpu"}
    assert HfEngine(str(folders["llama"]), **inside).run([prompt], plan("instant"))[0][0].choices != plain
    (tmp_path / "lora" / "adapter_model.safetensors").rename(tmp_path / "gone")
    with pytest.raises(EngineError, match=r"holds no adapter_model\.safetensors"):
        HfEngine(str(folders["llama"]), adapter=str(tmp_path / "lora"))


def test_pickled_weights_are_not_loaded(folders, tmp_path):
    for file in folders["llama"].iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(EngineError, match="cannot be loaded"):
        HfEngine(str(tmp_path))


def test_a_model_that_wants_to_run_its_own_code_is_refused(folders, tmp_path):
    for file in folders["llama"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "homemade", "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "code.py").write_text("raise SystemExit('ran')")
    with pytest.raises((ConfigError, EngineError)) as caught:
        HfEngine(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tied", "why"), [(False, r"no weights for lm_head\.weight"), (True, r"its head is score\.weight")]
)
def test_weights_of_another_kind_of_model_are_not_filled_up_with_random_numbers(tmp_path, tied, why):
    classifier = tiny_llama_folder(tmp_path, kind="sequence", tied=tied)
    with pytest.raises(EngineError, match=f"no CausalLM model: .*{why}"):
        load_guard(str(classifier))
    with pytest.raises(EngineError, match=r"no SequenceClassification model: .*score\.weight"):
        load_engine("classifier", model=str(tiny_llama_folder(tmp_path)))


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises((ConfigError, EngineError), match="cannot") as caught:
        HfEngine(str(tmp_path / "nothing"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("function", ["softmax", "sigmoid"])
def test_a_classifier_scores_labels_and_batches_do_not_matter(folders, function):
    engine = ClassifierEngine(
        str(folders["classifier"]), function=function, labels=("a", "b", "c"), dtype="float32", device="cpu"
    )
    prompts = [(Judged("kill " * k + "<|eot_id|>"),) for k in (1, 9, 3)]
    together = [c for (c,) in engine.run(prompts, ())]
    alone = [engine.run([p], (Choice(("a", "b")),))[0][0] for p in prompts]
    for one, other in zip(together, alone, strict=True):
        assert one.text == ""
        assert list(one.choices[0]) == ["a", "b", "c"]
        assert list(one.choices[0].values()) == pytest.approx(list(other.choices[0].values()), abs=1e-4)
    with torch.inference_mode():
        ids = engine.tokenizer.encode(prompts[0]).ids
        logits = engine.model(input_ids=torch.tensor([ids])).logits[0]
    wanted = logits.log_softmax(-1) if function == "softmax" else logits.sigmoid().log()
    assert list(together[0].choices[0].values()) == pytest.approx(wanted.tolist(), abs=1e-4)


def test_a_classifier_writes_no_text_and_says_what_is_too_long(folders):
    engine = ClassifierEngine(str(folders["classifier"]), labels=("a", "b", "c"), device="cpu")
    with pytest.raises(PlanUnsupported, match="writes no text"):
        engine.run([(Judged("x"),)], (Free(3),))
    done = engine.run([(Judged("kill " * 900),), (Judged("kill"),)], ())
    assert [c.finish for (c,) in done] == ["input_too_long", "stop"]
    late = engine.run([(Judged("kill"),)], (), deadline=0.0)
    assert late[0][0].finish == "timeout"


def test_engines_are_loaded_by_name_and_options_are_checked(folders):
    assert isinstance(load_engine("hf", model=str(folders["llama"]), device="cpu"), Engine)
    assert isinstance(load_engine("classifier", model=str(folders["classifier"])), Engine)
    with pytest.raises(UnknownName, match="did you mean 'onnx'"):
        load_engine("onxx", model="x")
    with pytest.raises(ConfigError, match="no option of engine hf named 'colour'"):
        load_engine("hf", model=str(folders["llama"]), colour="red")
    with pytest.raises(ConfigError, match="takes no --base-url"):
        load_engine("onnx", model="x", base_url="http://localhost")
