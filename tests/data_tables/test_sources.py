"""Reading rows: the hub (faked), files of the user's own, labels, frames."""

import gzip
import io
import json
import sys
import types
import urllib.error

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardreasoner.data import sources
from guardreasoner.data.sources import (
    Source,
    input_block,
    load_rows,
    parse_mapping,
    read_examples,
    read_input_block,
    read_label,
)
from guardreasoner.errors import ConfigError, DataError, MissingDependency, UnknownName
from guardreasoner.types import Task

GATED = Source("some/gated", "test", gated=True)


class DatasetNotFoundError(FileNotFoundError):
    pass


def hub(monkeypatch, answer):
    def load_dataset(*args, **kwargs):
        calls.append((args, kwargs))
        if isinstance(answer, Exception):
            raise answer
        return answer

    calls = []
    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    return calls


def test_hub_rows_come_by_pinned_revision_and_with_the_token_of_the_environment(monkeypatch):
    calls = hub(monkeypatch, [{"a": 1}])
    monkeypatch.setenv("HF_TOKEN", "planted")
    assert load_rows(Source("some/set", "test", "config", revision="abc"), "Some") == [{"a": 1}]
    assert calls == [(("some/set", "config"), {"split": "test", "revision": "abc", "token": "planted"})]


def test_a_gated_set_names_the_page_and_the_variable_and_never_the_token(monkeypatch):
    hub(monkeypatch, DatasetNotFoundError("gated, planted"))
    monkeypatch.setenv("HF_TOKEN", "planted")
    with pytest.raises(
        DataError, match=r"accept its terms at https://huggingface.co/datasets/some/gated.*HF_TOKEN"
    ) as e:
        load_rows(GATED, "Some")
    assert "planted" not in str(e.value)


def test_an_unreachable_hub_is_one_sentence(monkeypatch):
    hub(monkeypatch, ConnectionError("planted details"))
    with pytest.raises(DataError, match=r"could not be loaded .*ConnectionError.* give --data DIR"):
        load_rows(GATED, "Some")


def test_without_datasets_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependency, match=r"guardreasoner\[data\]"):
        load_rows(GATED, "Some")


@pytest.mark.parametrize(
    ("url", "content", "rows"),
    [
        ("https://host/a.csv", b'x,y\r\n1,"two\r\nlines"\r\n', [{"x": "1", "y": "two\r\nlines"}]),
        ("https://host/a.jsonl.gz", gzip.compress('{"x": "a\u2028b"}\n'.encode()), [{"x": "a\u2028b"}]),
        ("https://host/a.json", json.dumps({"k": [{"x": 1}], "l": [{"x": 2}]}).encode(), [{"x": 1}, {"x": 2}]),
    ],
)
def test_github_files_are_fetched_and_parsed(monkeypatch, url, content, rows):
    monkeypatch.setattr(sources.urllib.request, "urlopen", lambda u, timeout: io.BytesIO(content))
    assert load_rows(Source("owner/name", url=url), "Some") == rows


def test_a_github_file_that_cannot_be_fetched_is_one_sentence(monkeypatch):
    def fail(url, timeout):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(sources.urllib.request, "urlopen", fail)
    with pytest.raises(DataError, match="could not be fetched"):
        load_rows(Source("owner/name", url="https://host/a.csv"), "Some")


texts = st.text().filter(lambda t: "AI assistant:" not in t)


@given(texts, st.none() | texts.filter(lambda t: t != "None"))
def test_an_input_block_reads_back(prompt, response):
    assert read_input_block(input_block(prompt, response)) == (prompt, response)


def write(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_jsonl_file_of_ones_own_is_read_with_default_ids(tmp_path):
    path = write(
        tmp_path, "mine.jsonl", '{"prompt": "a", "prompt_harm": "unsafe"}\n\n{"prompt": "b", "prompt_harm": 0}\n'
    )
    examples = read_examples(path)
    assert [(e.exchange.id, e.gold.prompt_harm) for e in examples] == [("mine:0", "harmful"), ("mine:1", "unharmful")]
    assert examples[0].exchange.source == "mine"


def test_a_csv_file_is_read_with_a_mapping(tmp_path):
    path = write(tmp_path, "mine.csv", 'q,a,bad,no\n"one\ntwo",sure,1,false\nthree,,0,\n')
    mapping = parse_mapping("prompt=q, response=a, prompt_harm=bad, refusal=no")
    first, second = read_examples(path, mapping)
    assert (first.exchange.prompt, first.exchange.response) == ("one\ntwo", "sure")
    assert first.gold.as_dict() == {"prompt_harm": "harmful", "refusal": "compliance", "response_harm": None}
    assert (second.exchange.response, second.gold.refusal) == (None, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"prompt": "a"}\n{"prompt": "a", "prompt_harm": "very"}\n',
            r"line 2, field 'prompt_harm': not harmful/unharm",
        ),
        ('{"text": "a"}\n', r"line 1, field 'prompt': no such column; say which it is with --map prompt=COLUMN"),
        ('{"id": "x", "prompt": "a"}\n{"id": "x", "prompt": "b"}\n', r"line 2, field 'id': the id of line 1 again"),
        ('{"prompt": "", "response": ""}\n', "line 1, field 'prompt': neither request nor reply"),
        ('{"prompt": ["a"]}\n', "line 1, field 'prompt': a text is wanted"),
        ('{"prompt": \n', "line 1: not JSON"),
        ("", "no rows"),
    ],
)
def test_a_broken_row_is_named_by_file_line_and_field(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_examples(write(tmp_path, "mine.jsonl", text))


def test_judged_text_under_a_wrong_mapping_is_not_quoted(tmp_path):
    path = write(tmp_path, "mine.jsonl", '{"prompt": "a", "reply": "planted words"}\n')
    with pytest.raises(DataError) as error:
        read_examples(path, {"refusal": "reply"})
    assert "planted" not in str(error.value)


def test_a_csv_row_of_another_length_is_named(tmp_path):
    with pytest.raises(DataError, match="line 2: another number of cells"):
        read_examples(write(tmp_path, "mine.csv", "prompt,prompt_harm\na,1,2\n"))


def test_another_kind_of_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="own is a"):
        read_examples(write(tmp_path, "mine.txt", "a"))


def test_a_mapping_is_checked():
    with pytest.raises(UnknownName, match="did you mean 'prompt'"):
        parse_mapping("promt=a")
    with pytest.raises(ConfigError, match="FIELD=COLUMN"):
        parse_mapping("prompt")
    assert parse_mapping(None) == {}


@pytest.mark.parametrize(
    ("value", "task", "label"),
    [
        (True, Task.prompt_harm, "harmful"),
        (0, Task.response_harm, "unharmful"),
        (1.0, Task.refusal, "refusal"),
        ("Complied ", Task.refusal, "compliance"),
        (None, Task.refusal, None),
        ("NaN", Task.prompt_harm, None),
    ],
)
def test_labels_have_aliases(value, task, label):
    assert read_label(value, task) == label
