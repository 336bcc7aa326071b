"""The losses against numbers worked out by hand."""

import math

import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed")

from guardreasoner.train.losses import (  # noqa: E402
    TokenCounts,
    answer_logits,
    count_tokens,
    dpo_loss,
    head_of,
    sequence_logps,
    sft_loss,
    token_logps,
)


def t(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_sft_loss_without_a_verdict_weight_is_the_mean_over_tokens():
    counts = TokenCounts(torch.tensor(2), torch.tensor(1))
    assert sft_loss(t(1.0, 2.0, 6.0), torch.tensor([False, False, True]), counts, None).item() == 3.0


def test_sft_loss_weighs_the_mean_of_verdicts_against_the_mean_of_text():
    counts = TokenCounts(torch.tensor(2), torch.tensor(1))
    loss = sft_loss(t(1.0, 2.0, 6.0), torch.tensor([False, False, True]), counts, 4.0)
    assert loss.item() == pytest.approx((4 * 6.0 + 1.5) / 5)


def test_sft_losses_of_micro_batches_sum_to_that_of_the_whole_step():
    losses, verdict = t(1.0, 2.0, 6.0, 3.0, 5.0), torch.tensor([False, True, False, True, False])
    counts = TokenCounts(torch.tensor(3), torch.tensor(2))
    whole = sft_loss(losses, verdict, counts, 4.0)
    parts = sum(sft_loss(losses[s], verdict[s], counts, 4.0) for s in (slice(0, 2), slice(2, 3), slice(3, 5)))
    assert parts.item() == pytest.approx(whole.item())


def test_tokens_are_counted_where_they_are_predicted_and_have_a_label():
    labels = torch.tensor([[7, -100, 3, 4, -100], [-100, 2, 2, -100, -100]])
    verdict = torch.tensor([[0, 0, 0, 1, 0], [0, 0, 3, 0, 0]])
    assert count_tokens(labels, verdict).tolist() == [2, 2]  # the label at position 0 is never predicted


def hand(delta, *, beta, alpha):
    return alpha * math.log(1 + math.exp(-beta * delta))


def test_dpo_loss_equals_the_formula_worked_by_hand():
    made = dpo_loss(
        t(-10.0, -20.0),
        t(-14.0, -15.0),
        t(-11.0, -21.0),
        t(-13.0, -17.0),
        chosen_tokens=torch.tensor([5, 10]),
        weights=t(0.8, 1.2),
        beta=0.5,
        sft_weight=2.0,
    )
    deltas = (1.0 - -1.0, 1.0 - 2.0)
    preference = [hand(deltas[0], beta=0.5, alpha=0.8), hand(deltas[1], beta=0.5, alpha=1.2)]
    assert made.delta.tolist() == list(deltas)
    assert made.preference.tolist() == pytest.approx(preference)
    assert made.sft.tolist() == [2.0, 2.0]
    assert made.loss.item() == pytest.approx(sum(preference) / 2 + 2.0 * (2.0 + 2.0) / 2)


def test_weighting_the_sft_term_too_is_an_option():
    given = {"chosen_tokens": torch.tensor([2, 4]), "beta": 0.01, "sft_weight": 2.0, "weights": t(0.0, 2.0)}
    zero = t(0.0, 0.0)
    plain = dpo_loss(t(-2.0, -8.0), zero, zero, zero, **given)
    scaled = dpo_loss(t(-2.0, -8.0), zero, zero, zero, **given, weight_sft=True)
    assert (plain.loss - plain.preference.mean()).item() == pytest.approx(2.0 * (1.0 + 2.0) / 2)
    assert (scaled.loss - scaled.preference.mean()).item() == pytest.approx(2.0 * (0.0 + 4.0) / 2)


def test_weight_one_is_plain_dpo():
    lot = torch.Generator().manual_seed(1)
    values = [torch.randn(6, generator=lot, dtype=torch.float64) * 5 for _ in range(4)]
    made = dpo_loss(
        *values, chosen_tokens=torch.ones(6), weights=torch.ones(6, dtype=torch.float64), beta=0.1, sft_weight=0.0
    )
    logits = 0.1 * ((values[0] - values[1]) - (values[2] - values[3]))
    assert made.loss.item() == pytest.approx(-torch.nn.functional.logsigmoid(logits).mean().item())


def test_a_weight_of_zero_gives_no_preference_gradient():
    chosen = t(-3.0, -4.0).requires_grad_()
    zero = t(0.0, 0.0)
    made = dpo_loss(
        chosen, zero, zero, zero, chosen_tokens=torch.tensor([1, 1]), weights=t(0.0, 1.0), beta=1.0, sft_weight=0.0
    )
    made.loss.backward()
    assert chosen.grad[0].item() == 0.0
    assert chosen.grad[1].item() != 0.0


def test_sequence_logps_add_up_per_row_and_count_tokens():
    keep = torch.tensor([[True, False, True], [False, True, False]])
    sums, counts = sequence_logps(t(-1.0, -2.0, -4.0), keep)
    assert sums.tolist() == [-3.0, -4.0]
    assert counts.tolist() == [2, 1]


def test_only_answer_tokens_are_projected_and_their_logits_are_those_of_the_whole_pass():
    model = llama()
    lot = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 40, (3, 9), generator=lot)
    labels = ids.clone()
    labels[:, :4] = -100
    labels[1, 6] = -100
    with torch.no_grad():
        logits, targets, keep = answer_logits(
            model, head_of(model), labels, input_ids=ids, attention_mask=torch.ones_like(ids)
        )
        whole = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    assert logits.shape == (14, model.config.vocab_size)
    assert torch.equal(targets, labels[:, 1:][labels[:, 1:] != -100])
    assert torch.allclose(logits, whole[keep], atol=1e-5)
    expected = torch.log_softmax(whole[keep], -1).gather(-1, targets[:, None])[:, 0]
    assert torch.allclose(token_logps(logits, targets), expected, atol=1e-5)


def llama():
    from guardreasoner.train.tiny import load_tiny

    return load_tiny()[0].eval()


def test_rows_that_share_their_prefix_have_the_loss_and_the_gradient_of_rows_that_do_not():
    from guardreasoner.train.tiny import load_tiny

    model, _ = load_tiny()
    head = head_of(model)
    ids = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 9, 10, 11, 0]])
    labels = torch.full_like(ids, -100)
    labels[0, 5:], labels[1, 6:7] = ids[0, 5:], ids[1, 6:7]
    mask = torch.tensor([[1] * 8, [1] * 7 + [0]])
    found = []
    for share in (False, True):
        model.zero_grad()
        logits, targets, _ = answer_logits(model, head, labels, share=share, input_ids=ids, attention_mask=mask)
        loss = torch.nn.functional.cross_entropy(logits, targets)
        loss.backward()
        found.append((loss.item(), model.model.layers[0].self_attn.k_proj.weight.grad.clone()))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-6)
    assert found[0][1].abs().max() > 0
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-6, rtol=1e-4)


def test_frozen_layers_and_embeddings_get_no_gradient():
    from guardreasoner.train.tiny import load_tiny
    from guardreasoner.train.trainer import freeze

    model, _ = load_tiny()
    freeze(model, 1)
    model(input_ids=torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2, 3]])).loss.backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained
    assert all(name.startswith(("model.layers.1.", "model.norm.")) for name in trained)
