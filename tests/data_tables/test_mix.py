"""The training mix: licences, caps, left-out sources, copies, and where every row went."""

import json
import random
from collections import Counter

import pytest

from guardreasoner.data import seeds
from guardreasoner.data.everyday import TEST_DOMAINS
from guardreasoner.data.mix import DataConfig, load_mix
from guardreasoner.errors import ConfigError, DataError, UnknownName
from guardreasoner.records import write_jsonl
from guardreasoner.types import Example, Exchange, Labels


def row(source, number, **values):
    base = {
        "id": f"{source}-{number}",
        "source": source,
        "prompt": f"question {number} of {source}",
        "response": None,
        "prompt_harm": "unharmful",
        "refusal": None,
        "response_harm": None,
        "category": None,
        "licence": "MIT",
        "use": "permissive",
    }
    return base | values


@pytest.fixture
def folder(tmp_path):
    refused = {"response": "no", "refusal": "refusal", "response_harm": "unharmful", "prompt_harm": "harmful"}
    answered = {"response": "yes", "refusal": "compliance", "response_harm": "unharmful"}
    rows = {
        "ask": [row("ask", n) for n in range(40)],
        "refused": [row("refused", n, **refused) for n in range(20)],
        "answered": [row("answered", n, **answered) for n in range(20)],
        "bad": [row("bad", n, response="do it", refusal="compliance", response_harm="harmful") for n in range(10)],
        "paid": [row("paid", n, use="noncommercial", licence="CC-BY-NC-4.0") for n in range(10)],
        "held": [row("held", n) for n in range(30)],
        "blank": [row("blank", n, prompt_harm=None) for n in range(3)],
    }
    (tmp_path / "train").mkdir()
    for name, values in rows.items():
        lines = [json.dumps(v) + "\n" for v in values]
        random.Random(name).shuffle(lines)
        (tmp_path / "train" / f"{name}.jsonl").write_text("".join(lines))
    return tmp_path


def test_every_row_goes_somewhere_and_is_counted_by_reason(folder):
    config = DataConfig("train", caps={"ask": 15}, leave_out=("held",), leave_out_cap=12, drop=("bad",))
    train, validation, counts = load_mix(config, folder)
    told = counts.as_dict()
    assert told["in"] == 133
    assert told["out"] == len(train) == 55
    assert told["dropped"] == {
        "cap": 25,
        "left_out": 18,
        "licence": 10,
        "source": 10,
        "unlabelled": 3,
        "validation": 12,
    }
    assert len(validation) == 12
    assert told["licences"] == {"MIT": 55}
    assert told["sources"] == {"ask": 15, "refused": 20, "answered": 20}


def test_left_out_sources_never_train_and_nothing_else_validates(folder):
    train, validation, _ = load_mix(DataConfig("train", leave_out=("held",)), folder)
    assert {e.exchange.source for e in validation} == {"held"}
    assert "held" not in {e.exchange.source for e in train}


def test_only_named_sources_train_and_left_out_ones_still_validate(folder):
    train, validation, _ = load_mix(DataConfig("train", only=("ask",), leave_out=("held",)), folder)
    assert {e.exchange.source for e in train} == {"ask"}
    assert len(validation) == 30


def test_validation_may_take_licences_that_training_does_not(folder):
    config = DataConfig("train", leave_out=("paid",), validation_use=("permissive", "noncommercial"))
    assert len(load_mix(config, folder)[1]) == 10
    assert len(load_mix(DataConfig("train", leave_out=("paid",)), folder)[1]) == 0


def test_the_order_of_lines_and_files_changes_nothing_and_the_seed_does(folder):
    config = DataConfig("train", caps={"ask": 15})
    first = load_mix(config, folder)[0]
    for path in (folder / "train").glob("*.jsonl"):
        path.write_text("".join(sorted(path.read_text().splitlines(keepends=True))))
    assert load_mix(config, folder)[0] == first
    other = load_mix(DataConfig("train", caps={"ask": 15}, seed=1), folder)[0]
    assert {e.exchange.id for e in other} != {e.exchange.id for e in first}


def test_the_limit_is_counted(folder):
    train, _, counts = load_mix(DataConfig("train", limit=7), folder)
    assert len(train) == 7
    assert counts.as_dict()["dropped"]["limit"] == 113


def test_the_bundled_set_needs_no_data_folder_and_covers_every_kind_of_exchange():
    train, validation, counts = load_mix(DataConfig(leave_out=("everyday-seen",)))
    assert (len(train), len(validation)) == (160, 41)
    for part in (train, validation):
        kinds = {(e.gold.prompt_harm, e.gold.refusal, e.gold.response_harm) for e in part}
        assert kinds == {
            ("unharmful", None, None),
            ("harmful", None, None),
            ("unharmful", "compliance", "unharmful"),
            ("unharmful", "refusal", "unharmful"),
            ("harmful", "refusal", "unharmful"),
            ("harmful", "compliance", "harmful"),
            ("unharmful", "compliance", "harmful"),
        }
    assert counts.as_dict()["licences"] == {"Apache-2.0": 160}
    domains = {e.exchange.source.removeprefix("everyday-") for e in train + validation}
    assert not domains & set(TEST_DOMAINS)
    texts, again = ([(e.exchange.prompt, e.exchange.response) for e in part] for part in (train, validation))
    assert len(set(texts)) == len(texts)
    assert set(again) < set(texts)  # a model of random weights ranks nothing but what it has learned by heart


def test_a_misspelt_source_names_the_nearest_one(folder):
    with pytest.raises(UnknownName, match="did you mean 'refused'"):
        load_mix(DataConfig("train", caps={"refusd": 3}), folder)


def test_a_misspelt_licence_class_is_refused_before_anything_is_read():
    with pytest.raises(UnknownName, match="did you mean 'permissive'"):
        DataConfig(use=("permisive",))


def test_a_missing_data_folder_says_which_flag_to_give(tmp_path):
    with pytest.raises(ConfigError, match="--data"):
        load_mix(DataConfig("train"))
    with pytest.raises(ConfigError, match=r"holds no \.jsonl file"):
        load_mix(DataConfig("train"), tmp_path)


def test_nothing_left_to_train_on_is_an_error_with_the_counts(folder):
    with pytest.raises(ConfigError, match="'licence': 10"):
        load_mix(DataConfig("train", only=("paid",)), folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prompt_harm": "maybe"}, "prompt_harm must be"),
        ({"prompt": "", "response": None}, "both `prompt` and `response` are empty"),
        ({"refusal": "refusal"}, "label of the reply without a reply"),
        ({"use": "free"}, "`use` is one of"),
        ({"prompt": 3}, "are texts"),
        ({"id": "ask-1"}, "second time"),
    ],
)
def test_a_wrong_row_is_named_by_file_and_line(folder, values, message):
    path = folder / "train" / "held.jsonl"
    path.write_text(json.dumps(row("held", 0)) + "\n" + json.dumps(row("held", 1, **values)) + "\n")
    with pytest.raises(DataError, match=message) as caught:
        load_mix(DataConfig("train"), folder)
    assert caught.value.line == 2
    assert caught.value.file == str(path)


def test_a_cap_also_holds_for_a_left_out_source(tmp_path):
    rows = [{"prompt": f"q{n}", "prompt_harm": "harmful", "use": "permissive"} for n in range(40)]
    for source in ("a", "b", "c"):
        named = [{**row, "id": f"{source}-{n}", "source": source} for n, row in enumerate(rows)]
        write_jsonl(tmp_path / "train" / f"{source}.jsonl", named)
    config = DataConfig(folder="train", leave_out=("b", "c"), leave_out_cap=10, caps={"a": 30, "b": 35})
    train, validation, _ = load_mix(config, tmp_path)
    assert len(train) == 30
    assert Counter(e.exchange.source for e in validation) == {"b": 35, "c": 10}


def test_seed_sets_train_by_name_with_their_licences_and_their_skipped_rows_counted(monkeypatch):
    def fake(name):
        rows = [Example(Exchange(f"{name}:{n}", f"q{n}", source=name), Labels("harmful")) for n in range(4)]
        return rows, Counter({"no label": 2})

    monkeypatch.setattr(seeds, "load_seed", fake)
    both = DataConfig(seeds=("WildGuardTrain", "BeaverTailsTrain"), use=("permissive", "noncommercial"))
    train, _, counts = load_mix(both)
    assert counts.as_dict()["in"] == 12
    assert counts.as_dict()["dropped"] == {"no label": 4}
    assert counts.as_dict()["licences"] == {"CC-BY-NC-4.0": 4, "ODC-BY-1.0": 4}
    assert {e.exchange.source for e in train} == {"WildGuardTrain", "BeaverTailsTrain"}
    train, _, counts = load_mix(DataConfig(seeds=("WildGuardTrain", "BeaverTailsTrain")))
    assert counts.as_dict()["dropped"] == {"licence": 4, "no label": 4}
    with pytest.raises(UnknownName, match="did you mean 'AegisTrain'"):
        load_mix(DataConfig(seeds=("AegisTrian",)))
