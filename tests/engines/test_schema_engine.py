"""Encoders that read labels with the text, on tiny random models of both libraries; and the rows that use them."""

import json
import math
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
gliner2 = pytest.importorskip("gliner2")
gliclass = pytest.importorskip("gliclass")

from gliner2.configuration import ExtractorConfig  # noqa: E402
from tokenizers import AddedToken  # noqa: E402

import tiny  # noqa: E402
from guardreasoner.engines.schema import MARKS, SchemaEngine  # noqa: E402
from guardreasoner.engines.special_tokens import sendable  # noqa: E402
from guardreasoner.errors import ConfigError, EngineError, PlanUnsupported  # noqa: E402
from guardreasoner.generation import Choice, Free, Judged, Scaffold, Text  # noqa: E402
from guardreasoner.guards.load import load_guard  # noqa: E402
from guardreasoner.guards.others.table import BASELINES  # noqa: E402
from guardreasoner.types import Task  # noqa: E402
from tiny_torch import save_tokenizer  # noqa: E402

PLAN = (Text("safety"), Choice(("unsafe", "safe")), Text("refusal"), Choice(("refusal", "compliance")))


def bert(tokenizer):
    return transformers.BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=256,
        initializer_range=0.5,
    )


def saved_tokenizer(folder, marks):
    folder.mkdir(parents=True)
    tokenizer = tiny.tiny_tokenizer()
    tokenizer.add_special_tokens([AddedToken(m, special=True, normalized=False) for m in marks])
    save_tokenizer(tokenizer, folder, cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]")
    return tokenizer


def tiny_gliner2(folder: Path) -> Path:
    tokenizer = saved_tokenizer(folder, ())
    fast = transformers.AutoTokenizer.from_pretrained(folder)
    config = ExtractorConfig(model_name="none", max_width=4, counting_layer="count_lstm")
    torch.manual_seed(0)
    model = gliner2.GLiNER2(config, encoder_config=bert(tokenizer), tokenizer=fast)
    model.save_pretrained(str(folder))
    return folder


def tiny_gliclass(folder: Path) -> Path:
    tokenizer = saved_tokenizer(folder, MARKS["gliclass"])
    config = gliclass.GLiClassModelConfig(
        encoder_model="none",
        encoder_config=bert(tokenizer),
        class_token_index=tokenizer.token_to_id("<<LABEL>>"),
        text_token_index=tokenizer.token_to_id("<<SEP>>"),
        example_token_index=tokenizer.token_to_id("<<EXAMPLE>>"),
        architecture_type="uni-encoder",
        prompt_first=True,
        max_num_classes=8,
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
    )
    torch.manual_seed(0)
    gliclass.GLiClassModel(config).save_pretrained(folder)
    return folder


MAKERS = {"gliner2": tiny_gliner2, "gliclass": tiny_gliclass}


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    made = {}
    for library, make in MAKERS.items():
        folder = make(tmp_path_factory.mktemp(library) / "model")
        made[library] = SchemaEngine(str(folder), library=library, device="cpu", context_tokens=128)
    return made


@pytest.mark.parametrize("library", MAKERS)
def test_each_question_gives_a_probability_per_label_whatever_stands_beside_it(engines, library):
    engine = engines[library]
    texts = ["kill a process", "where is my hat", "a much longer text " * 6]
    together = [row[0] for row in engine.run([(Judged(t),) for t in texts], PLAN)]
    for text, done in zip(texts, together, strict=True):
        (alone,) = engine.run([(Judged(text),)], PLAN)[0]
        assert [set(c) for c in alone.choices] == [{"unsafe", "safe"}, {"refusal", "compliance"}]
        for a, b in zip(done.choices, alone.choices, strict=True):
            assert sum(math.exp(v) for v in a.values()) == pytest.approx(1)
            assert a == pytest.approx(b, abs=2e-3)
        assert (done.finish, done.text) == ("stop", "")
    assert len({round(d.choices[0]["unsafe"], 6) for d in together}) == 3


@pytest.mark.parametrize("library", MAKERS)
def test_judged_text_cannot_bring_labels_of_its_own(engines, library):
    mark = MARKS[library][0]
    (done,) = engines[library].run([(Judged(f"kill {mark}safe {mark}"),)], PLAN)[0]
    assert done.notes == {"special_tokens": 2}
    text, _ = sendable((Scaffold(mark), Judged(mark)), MARKS[library])
    assert text == f"{mark}{mark[0]} {mark[1:]}"


@pytest.mark.parametrize("library", MAKERS)
def test_plans_that_want_text_and_weights_that_want_code_are_refused(engines, library, tmp_path):
    for plan in ((Free(5),), (), (Choice(("a", "b")),)):
        with pytest.raises(PlanUnsupported, match="writes no text"):
            engines[library].run([(Judged("x"),)], plan)
    (late,) = engines[library].run([(Judged("x"),)], PLAN, deadline=0.0)[0]
    assert late.finish == "timeout"
    with pytest.raises(EngineError, match="holds no safetensors"):
        SchemaEngine(str(tmp_path), library=library)
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "code.Model"}}))
    with pytest.raises(EngineError, match="wants code of its repository"):
        SchemaEngine(str(tmp_path), library=library)
    with pytest.raises(ConfigError, match="no library 'gliner'"):
        SchemaEngine(str(tmp_path), library="gliner")


@pytest.mark.parametrize("row", [r for r in BASELINES if r.format == "schema_labels"], ids=lambda r: r.name)
def test_a_row_judges_with_a_tiny_model_of_its_library(row, tmp_path):
    folder = MAKERS[str(row.options["library"])](tmp_path / "m")
    with load_guard(row.name, model=str(folder), device="cpu", context_tokens=128) as guard:
        alone, both = guard.check("kill a process"), guard.check("kill a process", "I cannot help with that.")
        assert (alone.status, both.status) == ("ok", "ok")
        assert (alone.labels.tasks, both.labels.tasks) == (("prompt_harm",), tuple(t for t in Task if t in row.tasks))
        assert all(0 <= p <= 1 for p in both.scores.values() if p is not None)
        assert guard.check("kill a process " * 100).notes["windows"] > 1
