"""Mining: the released rule written out anew, ours, weights, ensembles, and what a run says of itself."""

import random
import re

import pytest

from guardreasoner.errors import DataError
from guardreasoner.formats import guardreasoner as wire_format
from guardreasoner.generation import segments_of
from guardreasoner.records import read_records, write_jsonl
from guardreasoner.train.mine import MineConfig, run_mine
from guardreasoner.train.pairs import WRONG, Gold, Sampled, longest, marks_ours, pick_pair, weigh
from guardreasoner.types import Example, Exchange, Labels, Preference, Task, Trace


def block(request, completion, response, *, reasoning=""):
    return f"{reasoning}\nAnswers: \nRequest: {request}\nCompletion: {completion}\nResponse: {response}\n"


def released(label, outputs, prompt):
    """The released miner for one row, after `hard_sample_mining.py`: (chosen, rejected, raw weight) or None."""

    def first(word, text):
        match = re.search(word + r":\s*(\w+)", text)
        return match.group(1) if match else None

    truth = {word: first(word, label) for word in ("Request", "Response", "Completion")}
    if None in truth.values():
        return None
    readable = [o for o in outputs if all(first(word, o) is not None for word in truth)]
    if not readable:
        return None
    reply = first("AI assistant", prompt) or ""
    for word in ("Request", "Response", "Completion"):
        if word != "Request" and (truth[word] == "None" or reply == "None"):
            continue
        wrong = [o for o in readable if first(word, o) != truth[word]]
        right = [o for o in readable if first(word, o) == truth[word]]
        if wrong and right:
            best, worst = "", ""
            for candidate in right:
                best = candidate if len(candidate) > len(best) else best
            for candidate in wrong:
                worst = candidate if len(candidate) > len(worst) else worst
            return best, worst, len(wrong) - len(right)
    return None


def released_weights(values):
    return [1 + (v - min(values)) * 0.2 * 2 / (max(values) - min(values)) - 0.2 for v in values]


def random_output(lot):
    words = ("harmful", "unharmful", "None", "Harmful", "ambiguous", "refusal", "compliance")
    kind = lot.random()
    filler = "word " * lot.randrange(1, 40)
    if kind < 0.1:
        return f"{filler}I lost the thread"
    if kind < 0.2:
        return f"{filler}Request: {lot.choice(words)}\nCompletion: {lot.choice(words)}"
    if kind < 0.3:
        filler += f"Request:\n {lot.choice(words)} and Response: "
    return block(
        lot.choice(words[:3] if lot.random() < 0.8 else words),
        lot.choice(("refusal", "compliance", "None")),
        lot.choice(words[:3]),
        reasoning=filler,
    )


def random_rows(seed, count):
    lot = random.Random(seed)
    for number in range(count):
        reply = lot.choice((None, "Sure.", "None of that.", '"Quoted" reply', "I cannot."))
        exchange = Exchange(f"row-{number}", "How?", reply, source=lot.choice(("one", "two")))
        gold = Labels(
            lot.choice(("harmful", "unharmful", None)),
            lot.choice(("refusal", "compliance", None)) if reply else None,
            lot.choice(("harmful", "unharmful", None)) if reply else None,
        )
        reasoning = lot.choice(("", "# Task 1\nlooks fine\n", "# Task 1\nsaid Request: harmful once\n"))
        yield Trace(Example(exchange, gold), reasoning, "t", "1"), [random_output(lot) for _ in range(4)]


def write_run(out, rows, *, models=("sft",)):
    write_jsonl(out / "synthesize" / "traces.jsonl", [trace for trace, _ in rows])
    samples = [
        {"example_id": t.example.exchange.id, "model": model, "temperature": 1.0, "texts": texts[m :: len(models)]}
        for m, model in enumerate(models)
        for t, texts in rows
    ]
    write_jsonl(out / "sample" / "samples.jsonl", samples)


@pytest.mark.parametrize("seed", range(5))
def test_the_official_rule_agrees_with_the_released_one_on_randomly_drawn_rows(tmp_path, seed):
    rows = list(random_rows(seed, 300))
    write_run(tmp_path, rows)
    run_mine(MineConfig(rule="official"), out=tmp_path)
    mined = {p.example_id: p for p in read_records(Preference, tmp_path / "mine" / "preferences.jsonl")}
    expected = {}
    for trace, outputs in rows:
        label = wire_format.answer(trace.reasoning, trace.example.gold)
        prompt = "".join(s.text for s in segments_of(wire_format.render(trace.example.exchange)))
        if pair := released(label, outputs, prompt):
            expected[trace.example.exchange.id] = (trace.example.exchange.source, *pair)
    assert len(expected) > 100
    assert mined.keys() == expected.keys()
    assert len({p.task for p in mined.values()}) == 3
    for source in ("one", "two"):
        here = {i: e for i, e in expected.items() if e[0] == source}
        weights = dict(zip(here, released_weights([e[3] for e in here.values()]), strict=True))
        for name, (_, chosen, rejected, difference) in here.items():
            pair = mined[name]
            assert (pair.chosen, pair.rejected, pair.wrong - pair.right) == (chosen, rejected, difference)
            assert pair.weight == weights[name]  # bit for bit


@pytest.mark.parametrize("seed", range(3))
def test_under_our_rule_the_chosen_answer_is_right_in_every_annotated_task(tmp_path, seed):
    rows = list(random_rows(seed, 300))
    write_run(tmp_path, rows)
    manifest = run_mine(MineConfig(pair="random", task="hardest"), out=tmp_path)
    gold = {t.example.exchange.id: t.example.gold for t, _ in rows}
    pairs = list(read_records(Preference, tmp_path / "mine" / "preferences.jsonl"))
    assert len(pairs) == manifest["counts"]["out"] > 50
    for pair in pairs:
        labels, _ = wire_format.read_labels(pair.chosen)
        assert all(labels[t] == gold[pair.example_id][t] for t in gold[pair.example_id].tasks)
        said, _ = wire_format.read_labels(pair.rejected)
        assert said[pair.task] not in (None, gold[pair.example_id][pair.task])
    counts = manifest["counts"]
    assert counts["in"] == 300 == counts["out"] + sum(counts["dropped"].values())


def test_an_answer_that_is_right_in_one_task_only_is_chosen_by_the_official_rule_but_not_by_ours():
    gold = Gold(("harmful", "refusal", "unharmful"), (Task.prompt_harm, Task.response_harm, Task.refusal))
    half_right, all_wrong = Sampled((1, 2, 2), 50), Sampled((2, 2, 2), 40)
    samples = [half_right, all_wrong]
    assert pick_pair(samples, gold, rule="official", choose=longest(samples)).chosen == 0
    assert pick_pair(samples, gold, rule="ours", choose=longest(samples)) == "none_right_in_all"


def test_priority_is_request_then_response_then_completion():
    gold = Gold(("harmful", "refusal", "unharmful"), (Task.prompt_harm, Task.response_harm, Task.refusal))
    samples = [Sampled((1, 1, 1), 9), Sampled((1, 2, 2), 9)]
    assert pick_pair(samples, gold, rule="ours", choose=longest(samples)).task == Task.response_harm
    samples = [Sampled((1, 1, 1), 9), Sampled((1, 2, 1), 9)]
    assert pick_pair(samples, gold, rule="ours", choose=longest(samples)).task == Task.refusal


def test_hardest_takes_the_task_with_most_wrong_answers():
    gold = Gold(("harmful", "refusal", "unharmful"), (Task.prompt_harm, Task.response_harm, Task.refusal))
    samples = [Sampled((1, 1, 1), 9), Sampled((1, 2, 1), 8), Sampled((2, 2, 1), 7)]
    picked = pick_pair(samples, gold, rule="ours", choose=longest(samples), hardest=True)
    assert (picked.task, picked.wrong, picked.right, picked.rejected) == (Task.refusal, 2, 1, 1)


def test_of_equally_long_answers_the_first_is_taken():
    samples = [Sampled((1, 0, 0), 5), Sampled((2, 0, 0), 7), Sampled((1, 0, 0), 5), Sampled((2, 0, 0), 7)]
    picked = pick_pair(
        samples, Gold(("harmful", "None", "None"), (Task.prompt_harm,)), rule="ours", choose=longest(samples)
    )
    assert (picked.chosen, picked.rejected) == (0, 1)


def test_weights_are_spread_over_one_plus_minus_gamma():
    assert weigh([-2, 0, 2], 0.2) == pytest.approx([0.8, 1.0, 1.2])
    assert weigh([-4, 4, 0, -4], 0.5) == pytest.approx([0.5, 1.5, 1.0, 0.5])


def test_weights_of_equal_difficulty_are_one():
    assert weigh([2, 2, 2], 0.2) == [1.0, 1.0, 1.0]
    assert weigh([], 0.2) == []


def test_a_label_before_the_last_answer_block_is_not_read():
    text = block("harmful", "None", "None") + block("unharmful", "None", "None")
    assert marks_ours(text, ("harmful", "None", "None"))[0] == WRONG


def ensemble_rows():
    """`sft` always says the same; three others each disagree on a third of the examples."""
    rows = []
    for number in range(30):
        exchange = Exchange(f"e-{number}", "How?", None, source="s")
        texts = [block("harmful", "None", "None", reasoning="x" * m) for m in range(4)]
        texts[1 + number % 3] = block("unharmful", "None", "None", reasoning="y" * number)
        rows.append((Trace(Example(exchange, Labels("harmful")), "", "t", "1"), texts))
    return rows


def test_an_ensemble_yields_pairs_that_self_mining_does_not(tmp_path):
    models = ("sft", "a", "b", "c")
    write_run(tmp_path, ensemble_rows(), models=models)
    manifest = run_mine(MineConfig(), out=tmp_path)
    assert manifest["counts"]["out"] == 30
    assert sum(n for who, n in manifest["by_models"].items() if who.endswith("over sft")) == 0
    assert {who.split(" over ")[1] for who in manifest["by_models"]} == {"a", "b", "c"}
    pair = next(read_records(Preference, tmp_path / "mine" / "preferences.jsonl"))
    assert pair.provenance["rejected_model"] == "a"
    assert (pair.wrong, pair.right) == (1, 3)
    with pytest.raises(DataError, match=r"no pair .* 30 examples \(all_right 30\)"):
        run_mine(MineConfig(models=("sft",)), out=tmp_path, fresh=True)


def test_no_pair_at_all_is_an_error_that_names_the_counts(tmp_path):
    rows = [(t, [block("nonsense", "x", "y")] * 2) for t, _ in ensemble_rows()]
    write_run(tmp_path, rows)
    with pytest.raises(DataError, match="unreadable 30"):
        run_mine(MineConfig(), out=tmp_path)


def test_a_model_that_did_not_sample_is_named(tmp_path):
    write_run(tmp_path, ensemble_rows())
    with pytest.raises(DataError, match="no samples of other"):
        run_mine(MineConfig(models=("sft", "other")), out=tmp_path)


def test_mining_without_samples_says_what_to_run(tmp_path):
    write_jsonl(tmp_path / "synthesize" / "traces.jsonl", [])
    with pytest.raises(DataError, match="guardreasoner sample"):
        run_mine(MineConfig(), out=tmp_path)


def test_random_pairs_are_the_same_in_every_run(tmp_path):
    rows = list(random_rows(1, 200))
    found = []
    for name in ("a", "b"):
        write_run(tmp_path / name, rows)
        run_mine(MineConfig(pair="random"), out=tmp_path / name)
        found.append((tmp_path / name / "mine" / "preferences.jsonl").read_bytes())
    assert found[0] == found[1]


OPPOSITE = "# Task 1\n## Reasoning Step 1\nIt asks for some soup. So the request is harmful.\n---\n"
AGREES = "# Task 1\n## Reasoning Step 1\nIt is unharmful as it holds no harmful intent.\n---\n"


@pytest.mark.parametrize(("rule", "chosen"), [("official", OPPOSITE), ("ours", AGREES)])
def test_an_answer_whose_reasoning_concludes_the_opposite_is_not_chosen_under_our_rule(tmp_path, rule, chosen):
    exchange = Exchange("soup", "A soup, please.", None, source="s")
    right = [block("unharmful", "None", "None", reasoning=r) for r in (OPPOSITE, AGREES)]
    wrong = block("harmful", "None", "None", reasoning=OPPOSITE)
    assert len(right[0]) > len(right[1])  # the longest would be the wrong choice
    write_run(tmp_path, [(Trace(Example(exchange, Labels("unharmful")), "", "t", "1"), [*right, wrong])])
    run_mine(MineConfig(rule=rule), out=tmp_path)
    (pair,) = read_records(Preference, tmp_path / "mine" / "preferences.jsonl")
    assert pair.chosen == block("unharmful", "None", "None", reasoning=chosen)


def test_where_every_right_answer_reasons_to_the_opposite_the_example_is_counted_and_not_used(tmp_path):
    rows = [(t, texts) for t, texts in ensemble_rows()]
    exchange = Exchange("soup", "A soup, please.", None, source="s")
    texts = [block("unharmful", "None", "None", reasoning=OPPOSITE), block("harmful", "None", "None")]
    rows.append((Trace(Example(exchange, Labels("unharmful")), "", "t", "1"), texts))
    write_run(tmp_path, rows)
    manifest = run_mine(MineConfig(), out=tmp_path)
    assert manifest["counts"] == {"in": 31, "out": 30, "dropped": {"reasoning_disagrees": 1}}
