"""The seed table: 5 sets, of which the recipes use 4, with the label rules of the released script."""

import pytest

from guardreasoner.data import seeds
from guardreasoner.data.seeds import SEEDS, find_seed, load_seed
from guardreasoner.data.sources import SkippedRow
from guardreasoner.errors import UnknownName


def gold(name, row):
    taken = SEEDS[name].row(row)
    if isinstance(taken, SkippedRow):
        return taken.reason
    return [{k: v for k, v in example.gold.as_dict().items() if v} for example in taken]


def test_five_sets_are_listed_and_four_are_used_with_the_papers_totals():
    assert len(SEEDS) == 5
    used = [s for s in SEEDS.values() if s.used]
    assert sum(s.paper_n or 0 for s in used) == 127_544
    assert sum(s.paper_steps or 0 for s in used) == 460_659
    assert [s.name for s in SEEDS.values() if not s.used] == ["SafeRLHFTrain"]


def test_aegis_takes_the_plurality_and_the_first_seen_of_a_tie():
    row = {"text": "a", "num_annotations": 5, "labels_0": "Safe", "labels_1": "Violence", "labels_2": "Safe",
           "labels_3": "Hate", "labels_4": "Needs Caution"}  # fmt: skip
    assert gold("AegisTrain", row) == [{"prompt_harm": "unharmful"}]
    tie = row | {"num_annotations": 2, "labels_0": "Violence", "labels_1": "Safe"}
    assert gold("AegisTrain", tie) == [{"prompt_harm": "harmful"}]
    assert gold("AegisTrain", row | {"num_annotations": 0}) == "no label"


def test_wildguard_keeps_null_labels_as_not_annotated_and_an_absent_reply_as_none():
    row = {"prompt": "a", "response": None, "prompt_harm_label": "harmful", "response_refusal_label": None,
           "response_harm_label": "None", "adversarial": False, "subcategory": "fraud"}  # fmt: skip
    assert gold("WildGuardTrain", row) == [{"prompt_harm": "harmful"}]
    (example,) = SEEDS["WildGuardTrain"].row(row)
    assert (example.exchange.response, example.category) == (None, "fraud")


def test_replies_are_labelled_by_is_safe():
    row = {"prompt": "a", "response": "b", "is_safe": False, "category": {"theft": True, "hate": False}}
    assert gold("BeaverTailsTrain", row) == [{"response_harm": "harmful"}]
    pair = {
        "prompt": "a",
        "response_0": "b",
        "response_1": "c",
        "is_response_0_safe": True,
        "is_response_1_safe": False,
    }
    assert gold("SafeRLHFTrain", pair) == [{"response_harm": "unharmful"}, {"response_harm": "harmful"}]


def test_toxic_chat_keeps_human_annotated_rows():
    row = {"user_input": "a", "toxicity": 1, "human_annotation": False}
    assert gold("ToxicChatTrain", row) == "no human annotation"
    assert gold("ToxicChatTrain", row | {"human_annotation": True}) == [{"prompt_harm": "harmful"}]


def test_loading_numbers_the_examples_and_counts_what_is_left_out(monkeypatch):
    rows = [{"user_input": str(i), "toxicity": 0, "human_annotation": i % 2 == 0} for i in range(5)]
    monkeypatch.setattr(seeds, "load_rows", lambda source, name: rows)
    examples, dropped = load_seed("toxicchattrain")
    assert [e.exchange.id for e in examples] == ["ToxicChatTrain:0", "ToxicChatTrain:1", "ToxicChatTrain:2"]
    assert dropped == {"no human annotation": 2}


def test_an_unknown_set_is_told_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'AegisTrain'"):
        find_seed("aegis-train")
