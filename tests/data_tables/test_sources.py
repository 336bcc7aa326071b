"""Reading published rows: the hub and GitHub (faked), frames."""

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
from guardreasoner.data.sources import Source, input_block, load_rows, read_input_block
from guardreasoner.errors import DataError, MissingDependency

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
