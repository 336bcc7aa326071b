"""Encoder guards on tiny random models of their architectures: whose score is whose, and what is no task of ours."""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import tiny  # noqa: E402
from guardreasoner.guards.load import find_row, load_guard  # noqa: E402
from guardreasoner.guards.others.readiness import missing  # noqa: E402
from tiny_torch import save_tokenizer  # noqa: E402

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
         "max_position_embeddings": 600, "initializer_range": 0.5}  # fmt: skip


def tiny_classifier(folder, family, labels):
    folder.mkdir(parents=True)
    tokenizer = tiny.tiny_tokenizer()
    pad = tokenizer.token_to_id("[PAD]")
    config = getattr(transformers, f"{family}Config")(
        vocab_size=tokenizer.get_vocab_size(), num_labels=labels, pad_token_id=pad, **SIZES
    )
    torch.manual_seed(1)
    getattr(transformers, f"{family}ForSequenceClassification")(config).save_pretrained(folder)
    save_tokenizer(tokenizer, folder, cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]")
    return folder


def logits(folder, text):
    """What the model itself gives, through transformers alone."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        return model(torch.tensor([tokenizer(text, add_special_tokens=True)["input_ids"]])).logits[0].float()


@pytest.mark.parametrize("name", ["toxic-prompt-roberta", "granite-guardian-hap-38m"])
def test_a_toxicity_head_scores_each_text_by_itself(name, tmp_path):
    folder = tiny_classifier(tmp_path / "m", "Roberta", 2)
    guard = load_guard(name, model=str(folder), device="cpu")
    verdict = guard.check("kill a process", "where is my hat")
    assert verdict.labels.refusal is None
    for task, text in (("prompt_harm", "kill a process"), ("response_harm", "where is my hat")):
        assert verdict.scores[task] == pytest.approx(float(logits(folder, text).softmax(-1)[1]), abs=1e-5)
        assert (verdict.labels[task] == "harmful") == (verdict.scores[task] > 0.5)


def test_prompt_guard_finds_attacks_and_answers_none_of_the_three_tasks(tmp_path):
    folder = tiny_classifier(tmp_path / "m", "DebertaV2", 2)
    guard = load_guard("prompt-guard-2-86m", model=str(folder), device="cpu")
    assert guard.tasks == ()
    verdict = guard.check("kill a process")
    assert verdict.status == "ok"
    assert verdict.labels.tasks == ()
    assert verdict.attack == pytest.approx(float(logits(folder, "kill a process").softmax(-1)[1]), abs=1e-5)
    assert not verdict.flagged
    assert find_row("prompt-guard-2-86m").note.startswith("finds prompt attacks, not harm")


def test_a_head_per_task_is_read_in_one_pass(tmp_path):
    folder = tiny_classifier(tmp_path / "m", "ModernBert", 3)
    heads = ("prompt_harm", "refusal", "response_harm")
    guard = load_guard("leanguard", model=str(folder), device="cpu", labels=heads)
    verdict = guard.check("kill a process", "where is my hat")
    wanted = logits(folder, "Human user:\nkill a process\n\nAI assistant:\nwhere is my hat\n\n").sigmoid()
    assert [verdict.scores[h] for h in heads] == pytest.approx(wanted.tolist(), abs=1e-4)
    assert verdict.usage.passes == 1
    assert guard.check("kill a process").labels.tasks == ("prompt_harm",)


def test_weights_that_are_not_out_are_named_as_such():
    assert missing(find_row("leanguard"))[0].startswith("weights: not out yet")
