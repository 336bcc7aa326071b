"""Published answers stay as released, byte for byte, on the whole road: import, show, R-SFT rows, mining."""

import json
import os
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="the train extra is not installed")

from guardreasoner.cli import show
from guardreasoner.cli.main import main
from guardreasoner.formats import guardreasoner as wire_format
from guardreasoner.records import dumps, read_records, write_jsonl
from guardreasoner.teach.imported import import_traces
from guardreasoner.train.mine import MineConfig, run_mine
from guardreasoner.train.models import load_base
from guardreasoner.train.recipe import load_recipe
from guardreasoner.train.rows import NO_LABEL, RowMaker
from guardreasoner.train.settings import ModelConfig
from guardreasoner.types import Example, Exchange, Labels, Preference, Trace

ALONE = "Human user:\nA soup, please.\n\nAI assistant:\nNone\n\n"
TASK_1 = "# Task 1\n\n## Reasoning Step 1\nIt asks for a recipe.\n\n"
WILDGUARD = {
    "input": ALONE,
    "output": TASK_1 + "# Task 2\n\n## Reasoning Step 1\nNothing was written, which is a refusal.\n\n# Task 3\n\n"
    "## Reasoning Step 1\nNothing is unharmful.\n\n---\n\nAnswers: \nRequest: unharmful\nCompletion: refusal\n"
    "Response: unharmful",
}
"""The shape of the WildGuard rows: no reply, and verdicts on it all the same."""
NO_RULE = {
    "input": ALONE,
    "output": TASK_1 + "## Conclusion\nThere is no reply.\n\nAnswers: \nRequest: unharmful\nCompletion: None\n"
    "Response: None",
}
REPLIED = {
    "input": "Human user:\nA soup, please.\n\nAI assistant:\nBoil water.\n\n",
    "output": TASK_1 + "---\n\nAnswers: \nRequest: unharmful\nCompletion: compliance\nResponse: unharmful",
}
MILD = [{"instruction": wire_format.INSTRUCTION, **row} for row in (WILDGUARD, NO_RULE, REPLIED)]


def released_rows():
    file = Path(os.environ.get("GUARDREASONER_DATA", "/nowhere")) / "guardreasonertrain_5rows.json"
    return json.loads(file.read_text()) if file.exists() else None


@pytest.fixture(params=["mild", "released"])
def rows(request):
    found = MILD if request.param == "mild" else released_rows()
    if found is None:
        pytest.skip("set GUARDREASONER_DATA to a folder with guardreasonertrain_5rows.json")
    assert len(found) == (3 if request.param == "mild" else 5)
    return found


@pytest.fixture
def run(rows, tmp_path):
    (tmp_path / "WildGuardTrainR.json").write_text(json.dumps(rows))
    import_traces(str(tmp_path / "WildGuardTrainR.json"), out=tmp_path / "run")
    return tmp_path / "run"


def traces_of(run):
    return list(read_records(Trace, run / "synthesize" / "traces.jsonl"))


def test_an_imported_answer_is_the_released_one(run, rows):
    assert [wire_format.learned(t) for t in traces_of(run)] == [row["output"] for row in rows]


def test_gold_is_what_there_was_to_judge(run, rows):
    for trace, row in zip(traces_of(run), rows, strict=True):
        said = wire_format.parse(row["output"]).labels
        alone = row["input"].endswith("AI assistant:\nNone\n\n")
        assert trace.example.gold == (Labels(said.prompt_harm) if alone else said)


def test_show_prints_the_released_answer(run, rows, monkeypatch):
    monkeypatch.setattr(show, "WIDEST", 10**6)
    for row, one in zip(traces_of(run), rows, strict=True):
        panel = show.panel(json.loads(dumps(row)))
        assert one["output"] in panel.renderable.plain


@pytest.mark.parametrize("wire", ["raw", "chat"])
def test_a_row_of_the_papers_recipe_learns_the_released_answer_and_nothing_else(run, rows, wire):
    tokenizer = load_base(ModelConfig(base="tiny", wire=wire))[1]
    config = load_recipe("1b").sft
    maker = RowMaker(tokenizer, wire, 4096, mask_unannotated=config.mask_unannotated)
    for trace, one in zip(traces_of(run), rows, strict=True):
        row = maker.row(trace.example, trace.reasoning, trace.block)
        learned = [token for token in row.labels if token != NO_LABEL]
        assert learned[-1] == tokenizer.eos_token_id
        assert maker.prompt_tokenizer.decode(learned[:-1]) == one["output"]
        assert row.input_ids[-len(learned) :] == learned
        assert [mark for mark in row.verdict if mark] == [
            n for n, t in enumerate(trace.example.gold.as_dict(), 1) if trace.example.gold[t]
        ]


def test_with_unannotated_verdicts_masked_the_bytes_stay_and_only_verdicts_without_gold_are_not_learned(run, rows):
    tokenizer = load_base(ModelConfig(base="tiny", wire="raw"))[1]
    maker = RowMaker(tokenizer, "raw", 4096)
    for trace, one in zip(traces_of(run), rows, strict=True):
        row = maker.row(trace.example, trace.reasoning, trace.block)
        answer = len(maker.prompt(trace.example.exchange))
        assert maker.prompt_tokenizer.decode(row.input_ids[answer:-1]) == one["output"]
        hidden = [i for i in range(answer, len(row.labels)) if row.labels[i] == NO_LABEL]
        words = maker.prompt_tokenizer.decode([row.input_ids[i] for i in hidden]).split()
        said = wire_format.parse(one["output"]).labels
        assert words == [said[t] for t in said.tasks if not trace.example.gold[t]]


@pytest.mark.parametrize("rule", ["ours", "official"])
def test_both_rules_find_a_pair_in_every_example_whose_answers_are_as_trained(run, rows, rule):
    """Of four answers one is wrong on the request; the others say what was trained."""
    samples = []
    for trace, one in zip(traces_of(run), rows, strict=True):
        said = trace.example.gold.prompt_harm
        wrong = one["output"].replace(
            f"Request: {said}", f"Request: {'harmful' if said == 'unharmful' else 'unharmful'}"
        )
        samples.append(
            {
                "example_id": trace.example.exchange.id,
                "model": "sft",
                "temperature": 0.7,
                "texts": [one["output"]] * 3 + [wrong],
            }
        )
    write_jsonl(run / "sample" / "samples.jsonl", samples)
    manifest = run_mine(MineConfig(rule=rule), out=run)
    assert manifest["counts"] == {"in": len(rows), "out": len(rows), "dropped": {}}
    for pair, one in zip(read_records(Preference, run / "mine" / "preferences.jsonl"), rows, strict=True):
        assert pair.chosen == one["output"]
        assert (pair.wrong, pair.right) == (1, 3)


@pytest.mark.parametrize("size", ["1b", "3b", "8b"])
def test_the_papers_recipes_hold_the_papers_values_where_our_defaults_differ(size):
    recipe = load_recipe(size)
    for config in (recipe.sft, *recipe.variants.values()):
        assert (config.mask_unannotated, config.group_by_length) == (False, False)
    assert recipe.mine.rule == "official"
    assert not recipe.dpo.group_by_length


def test_the_words_that_conclude_a_task_are_its_verdict_and_the_block_after_them_a_copy():
    _, tokenizer = load_base(ModelConfig(base="tiny", wire="raw"))
    maker = RowMaker(tokenizer, "raw", 4096)
    gold = Labels("harmful", "refusal", "unharmful")
    reasoning = (
        "# Task 1\n## Reasoning Step 1\nIt is theft, so the request is harmful. The kind of harm is theft.\n"
        "# Task 2\n## Reasoning Step 1\nIt declines, so this is a refusal.\n"
        "# Task 3\n## Reasoning Step 1\nNothing is given.\n"
    )
    row = maker.row(Example(Exchange("1", "how do I steal post", "no"), gold), reasoning)
    marked = [(i, number) for i, number in enumerate(row.verdict) if number]
    before = [tokenizer.decode(row.input_ids[:i])[-20:] for i, _ in marked]
    assert [number for _, number in marked] == [1, 2, 3]
    assert before[0].endswith("so the request is")
    assert before[1].endswith("so this is")
    assert before[2].endswith("Response:")  # no conclusion is written there


PAPERS = """
extends: 1b
model: {{base: {base}}}
traces: {traces}
sft: {{distributed: ddp, batch: 4, micro_batch: 2, max_steps: 2, precision: fp32, threads: 1}}
sample: {{engine: hf, forced: true, temperature: 1.0, max_tokens: 8}}
dpo: {{distributed: ddp, batch: 2, micro_batch: 1, max_steps: 2, precision: fp32, threads: 1}}
evaluate: {{engine: hf, mode: instant, benchmarks: [everyday], limit: 4}}
"""


def test_the_papers_recipe_goes_its_whole_road_on_a_tiny_llama(tmp_path, capsys):
    """From released rows (four sources, as published) to scores; the answers are forced: random weights write none."""
    model, tokenizer = load_base(ModelConfig(base="tiny", wire="chat"))
    tokenizer.chat_template = None  # as the paper's bases: the recipe brings it
    model.save_pretrained(tmp_path / "llama")
    tokenizer.save_pretrained(tmp_path / "llama")
    splits = ("WildGuardTrainR", "AegisTrainR", "BeaverTailsTrainR", "ToxicChatTrainR")
    rows = {split: [MILD[n % 3], MILD[(n + 1) % 3]] for n, split in enumerate(splits)}
    (tmp_path / "published.json").write_text(json.dumps(rows))
    recipe = tmp_path / "1b-tiny.yaml"
    recipe.write_text(PAPERS.format(base=tmp_path / "llama", traces=tmp_path / "published.json"))
    assert main(["reproduce", str(recipe), "--out", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    assert "sft: learning_rate 5e-05, epochs 3, batch 4 (paper 384)" in printed
    assert "dpo: learning_rate 5e-06, epochs 2, batch 2 (paper 256), beta 0.01, sft_weight 2" in printed
    assert "mine: gamma 0.2, rule official" in printed
    assert "sample: k 4, temperature 1 (paper 0.7)" in printed
    folders = {p.parent.name for p in (tmp_path / "run").glob("*/manifest.json")}
    trained = {"sft", "sft-diversity-1", "sft-diversity-2", "sft-diversity-3", "dpo"}
    assert folders == {"synthesize", *trained, "sample", "mine", "evaluate"}
    sampled = json.loads((tmp_path / "run" / "sample" / "manifest.json").read_text())
    assert sampled["models"] == {"sft": 8, "diversity-1": 6, "diversity-2": 6, "diversity-3": 6}
    manifest = json.loads((tmp_path / "run" / "sft" / "manifest.json").read_text())
    assert manifest["counts"] == {"in": 8, "out": 8, "dropped": {}}
