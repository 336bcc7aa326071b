"""Our attention for short rows computes what torch's does, forward and backward, whatever may be seen."""

import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed")
pytest.importorskip("transformers", reason="the train extra is not installed")

from guardreasoner.train.attention import (  # noqa: E402
    NAME,
    attend,
    best_attention,
    register,
)

MASKS = ("causal", "padded", "two documents", "all")


def mask_of(kind, batch, length):
    causal = torch.ones(length, length, dtype=torch.bool).tril().expand(batch, 1, length, length).clone()
    if kind == "all":
        return None
    if kind == "padded":
        causal[1, :, :, 9:] = False
    if kind == "two documents":
        causal[:, :, 7:, :7] = False
    return causal


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("shared", [1, 2])
def test_it_agrees_with_torch(kind, shared):
    torch.manual_seed(0)
    query = torch.randn(2, 4, 13, 8, requires_grad=True)
    key, value = (torch.randn(2, 4 // shared, 13, 8, requires_grad=True) for _ in range(2))
    mask = mask_of(kind, 2, 13)
    ours, weights = attend(torch.nn.Identity(), query, key, value, mask)
    found = torch.autograd.grad(ours.square().sum(), (query, key, value))
    theirs = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=shared > 1)
    wanted = torch.autograd.grad(theirs.square().sum(), (query, key, value))
    assert weights is None
    assert torch.allclose(ours.transpose(1, 2), theirs, atol=1e-6)
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_under_autocast_it_computes_in_the_lower_type():
    parts = [torch.randn(1, 2, 5, 8) for _ in range(3)]
    with torch.autocast("cpu", torch.bfloat16):
        made, _ = attend(torch.nn.Identity(), *parts, mask_of("causal", 1, 5))
    assert made.dtype == torch.bfloat16


@pytest.mark.parametrize("padded", [False, True])
def test_a_model_with_it_agrees_with_sdpa_and_sees_no_later_token(padded):
    from transformers import BertConfig, BertLMHeadModel

    config = BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        is_decoder=True, attn_implementation=register(),
    )  # fmt: skip
    model = BertLMHeadModel(config).eval()
    ids, mask = torch.randint(5, 50, (3, 11)), torch.ones(3, 11, dtype=torch.long)
    if padded:
        mask[1, 6:] = 0
    with torch.inference_mode():
        ours = model(ids, attention_mask=mask).logits
        alone = model(ids[:, :5]).logits
        model.set_attn_implementation("sdpa")
        theirs = model(ids, attention_mask=mask).logits
    assert torch.allclose(ours[mask > 0], theirs[mask > 0], atol=1e-5)
    assert torch.allclose(ours[:, :5], alone, atol=1e-5)


def test_it_is_what_training_takes_on_a_cpu():
    if torch.cuda.is_available():
        pytest.skip("a GPU has better")
    assert best_attention() == NAME
