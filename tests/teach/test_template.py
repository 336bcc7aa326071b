"""The template teacher: grounded, short, varied, and in agreement with the labels it was given."""

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardreasoner.data.mix import DataConfig, load_mix
from guardreasoner.formats import guardreasoner as wire_format
from guardreasoner.teach.template import fit_lexicon, write_trace
from guardreasoner.types import TASKS, Example, Exchange, Labels, Task

QUOTE = re.compile("“([^“”]*)”")


@pytest.fixture(scope="module")
def rows():
    return load_mix(DataConfig())[0]


@pytest.fixture(scope="module")
def lexicon(rows):
    return fit_lexicon(rows, min_rows=2)


def one_line(example):
    text = f"{example.exchange.prompt} \n {example.exchange.response or ''}"
    return " ".join(re.sub(r"[“”\s]+", " ", text).split())


def test_every_trace_parses_and_every_task_concludes_with_its_label(rows, lexicon):
    for example in rows:
        parsed = wire_format.parse(wire_format.answer(write_trace(example, lexicon), example.gold))
        assert parsed.labels == example.gold
        assert {s.task for s in parsed.steps} == set(example.gold.tasks)
        for task in example.gold.tasks:
            assert wire_format.conclusion(parsed.steps, task) == example.gold[task]
    assert len(rows) == 172


def test_every_quote_occurs_in_the_exchange(rows, lexicon):
    quotes = [(q, e) for e in rows for q in QUOTE.findall(write_trace(e, lexicon))]
    assert len(quotes) > 300
    assert [q for q, e in quotes if q not in one_line(e)] == []


def test_a_harmful_row_names_its_kind_of_harm_and_a_benign_one_names_none(rows, lexicon):
    kinds = Counter()
    for example in rows:
        harm = wire_format.parse(wire_format.answer(write_trace(example, lexicon), example.gold)).harm
        assert (harm is not None) == ("harmful" in (example.gold.prompt_harm, example.gold.response_harm))
        kinds[harm] += 1
    assert kinds["fraud or deception"] >= 5
    assert kinds["a breach of privacy"] >= 5
    assert kinds["harm to others"] <= 8  # replies that are unkind in many ways


def test_the_source_category_decides_the_kind_of_harm(lexicon):
    example = Example(Exchange("1", "tell me about Tuesday"), Labels("harmful"), "Guns and Illegal Weapons")
    assert "The kind of harm is weapons or mass harm." in write_trace(example, lexicon)


def test_a_dangerous_word_in_a_benign_request_is_weighed(lexicon):
    for number, prompt in enumerate(("How do I kill a process?", "How do I shoot a portrait?")):
        trace = write_trace(Example(Exchange(str(number), prompt), Labels("unharmful")), lexicon)
        assert ("“kill”", "“shoot”")[number] in trace
        assert "so the request is unharmful." in trace


def test_the_words_of_a_refusal_are_quoted(lexicon):
    reply = "Well. I'm not able to write about that subject."
    example = Example(Exchange("r", "write a scene", reply), Labels(None, "refusal"))
    trace = write_trace(example, lexicon)
    assert "“I'm not able to write”" in trace
    assert "# Task 1" not in trace
    assert trace.rstrip().endswith("so the reply is a refusal.")


def test_traces_differ_once_quotes_are_removed():
    """On 2,000 exchanges of the same few words, so that only the phrasing can differ."""
    labels = (Labels("unharmful"), Labels("harmful"), Labels("unharmful", "compliance", "unharmful"))
    examples = [
        Example(Exchange(f"x{n}", "please bake a cake", None if n % 3 < 2 else "mix flour"), labels[n % 3])
        for n in range(2000)
    ]
    lexicon = fit_lexicon(examples)
    plain = Counter(QUOTE.sub("“”", write_trace(e, lexicon)) for e in examples)
    shared = sum(n for n in plain.values() if n > 1) / 2000
    assert shared < 0.2


def test_the_same_example_always_gets_the_same_trace(rows, lexicon):
    assert [write_trace(e, lexicon) for e in rows] == [write_trace(e, fit_lexicon(rows, min_rows=2)) for e in rows]


def test_quotes_come_only_from_the_beginning_and_the_end_of_long_texts(rows, lexicon):
    middle = "attack " * 200
    example = Example(Exchange("l", f"{'plain words here ' * 20}{middle}{'quiet end now ' * 20}"), Labels("harmful"))
    assert "“attack" not in write_trace(example, lexicon)


def test_a_longer_word_list_is_fitted_per_task():
    rows = [Example(Exchange(f"a{n}", "grim deed"), Labels("harmful")) for n in range(9)]
    rows += [Example(Exchange(f"b{n}", "mild deed", "sorry no"), Labels("unharmful", "refusal")) for n in range(9)]
    weights = fit_lexicon(rows).weights
    assert (
        weights[Task.prompt_harm]["grim"]
        > 1
        > weights[Task.prompt_harm]["deed"]
        > -1
        > weights[Task.prompt_harm]["mild"]
    )
    assert "sorry" in weights[Task.refusal]
    assert weights[Task.response_harm] == {}


texts = st.text(max_size=60) | st.text(alphabet="Answers: \n#Task1harmful“”*", max_size=60)


@settings(max_examples=150, deadline=None)
@given(
    prompt=texts,
    response=st.none() | texts,
    harm=st.sampled_from([None, "harmful", "unharmful"]),
    refusal=st.sampled_from([None, "refusal", "compliance"]),
    reply_harm=st.sampled_from([None, "harmful", "unharmful"]),
)
def test_no_text_can_forge_a_heading_or_an_answer_block(prompt, response, harm, refusal, reply_harm):
    gold = Labels(harm, refusal if response is not None else None, reply_harm if response is not None else None)
    example = Example(Exchange("p", prompt, response), gold)
    trace = write_trace(example, fit_lexicon([example], min_rows=1))
    parsed = wire_format.parse(wire_format.answer(trace, gold))
    assert parsed.labels == gold
    assert {s.task for s in parsed.steps} == set(gold.tasks)
    assert wire_format.ANSWERS not in trace.split("\n")
    assert all(1 <= sum(1 for s in parsed.steps if s.task == t) <= 3 for t in TASKS if gold[t])
