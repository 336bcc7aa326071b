"""One reader of rows: whatever a field holds, the row is judged or named, nothing raises, and nothing is lost."""

import base64
import gzip
import io
import json
from datetime import date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardreasoner.batch.run import run_batch
from guardreasoner.data.messages import as_exchange, read_turns
from guardreasoner.data.rows import READ, WRITTEN, ReadRow, exchange_of, line_of, plain, read_row, renamed
from guardreasoner.data.tables import (
    SUFFIXES,
    bounded_lines,
    columns_of,
    read_line,
    read_table,
    stem_of,
    strict,
    suffix_of,
)
from guardreasoner.errors import ConfigError, DataError
from guardreasoner.guards.constant import ConstantGuard
from guardreasoner.records import HugeNumber, dumps, to_dict
from guardreasoner.types import Exchange, Message, Verdict

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.characters(categories=["Cs"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
shaped = anything | st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "tool"]) | anything, "content": anything},
        optional={"tool_calls": anything, "name": anything, "reasoning": anything, "refusal": anything},
    ),
    max_size=3,
)
names = st.sampled_from([*READ, *WRITTEN, "input_text", "extra", "score"]) | st.text(max_size=8)


def texts_in(exchange: Exchange) -> str:
    return "\n".join([exchange.prompt, exchange.response or "", *(m.content for m in exchange.context)])


@given(st.dictionaries(names, shaped, max_size=5))
@settings(max_examples=120)
def test_any_value_in_any_field_is_judged_or_named_and_nothing_is_lost(row):
    read = read_row(row, file="rows.jsonl", line=7)
    if isinstance(read, DataError):
        assert (read.file, read.line) == ("rows.jsonl", 7)
        assert read.field
        return
    assert texts_in(read.exchange).strip("\n") or read.exchange.prompt or read.exchange.response
    for name in ("prompt", "response"):
        if isinstance(row.get(name), str):
            assert getattr(read.exchange, name) == row[name]
    line = line_of(read.passing, to_dict(Verdict(read.exchange.id, "g", "instant", "ok")))
    back = json.loads(dumps(line))
    assert back["status"] == "ok"
    assert back["exchange_id"] == json.loads(dumps(read.exchange.id))
    assert len(back) == len(WRITTEN) - 1 + len(read.passing)  # `line` is written for rows that cannot be read
    assert set(row) - set(READ) == set(read.passing) - set(READ)


@given(st.binary(max_size=60) | anything.map(lambda v: json.dumps(v).encode()))
def test_any_bytes_are_a_row_or_a_named_error(content):
    row = read_line(content, "rows.jsonl", 3)
    assert isinstance(read_row(row, file="rows.jsonl", line=3), ReadRow | DataError)


@given(st.lists(st.dictionaries(names, shaped, max_size=4) | anything, max_size=6))
@settings(max_examples=12, deadline=None)
def test_a_batch_over_any_rows_has_a_line_for_each(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("any")
    source = folder / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for out in ("out.jsonl", "out.csv", "out.parquet"):
        manifest = run_batch(source, folder / out, ConstantGuard, config={})
        assert manifest["counts"]["in"] == len(rows)
    lines = [json.loads(line) for line in (folder / "out.jsonl").read_bytes().split(b"\n") if line]
    assert len(lines) == len(rows)
    assert all(line.get("status") == "ok" or set(line) == {"line", "error"} for line in lines)


@pytest.mark.parametrize("name", ["messages", "context"])
def test_a_list_in_a_cell_of_a_table_is_read_from_its_json_text(name):
    said = [{"role": "user", "content": "one"}, {"role": "user", "content": "two"}]
    more = {} if name == "messages" else {"prompt": "three"}
    written, listed = ({**more, name: value} for value in (json.dumps(said), said))
    assert exchange_of(written, "1") == exchange_of(listed, "1")
    for text in ("[not JSON", "one"):
        assert isinstance(read_row({**more, name: text}, file="f", line=1), DataError)


def test_a_key_that_stands_twice_is_named_because_only_one_would_be_judged():
    row = read_line(b'{"prompt": "be bad", "prompt": "hi"}', "rows.jsonl", 3)
    assert isinstance(row, DataError)
    assert "a key stands twice" in str(row)


def test_numbers_that_json_cannot_hold_pass_through_as_text_and_nan_as_null():
    content = '{"prompt": "a", "big": %s, "huge": 1e999, "nan": NaN, "less": -Infinity}' % ("9" * 5000)
    read = read_row(read_line(content.encode(), "f", 1), file="f", line=1)
    assert isinstance(read, ReadRow)
    assert read.passing == {"big": "9" * 5000, "huge": "1e999", "nan": None, "less": "-inf"}


@pytest.mark.parametrize(
    ("value", "held"),
    [
        (datetime(2026, 1, 2, 3, 4), "2026-01-02T03:04:00"),
        (date(2026, 1, 2), "2026-01-02"),
        (timedelta(seconds=90), 90.0),
        (Decimal("1.10"), "1.10"),
        (b"\xff\x00", base64.b64encode(b"\xff\x00").decode()),
        ((1, {"a": (float("nan"),)}), [1, {"a": [None]}]),
        (HugeNumber("1e999"), "1e999"),
    ],
)
def test_what_a_parquet_cell_may_hold_is_put_as_json(value, held):
    assert plain(value, "x") == held


def test_a_field_that_is_too_deep_is_that_rows_error():
    deep: object = 1
    for _ in range(200):
        deep = [deep]
    read = read_row({"prompt": "a", "x": deep}, file="f", line=2)
    assert isinstance(read, DataError)
    assert str(read) == "f, line 2, field 'x': lists and objects more than 100 deep"
    assert isinstance(read_line(b'{"x": ' + b"[" * 100_000, "f", 1), DataError)


def test_users_fields_keep_their_values_beside_ours():
    row = {"prompt": "a", "labels": ["x"], "text": "mine", "error": "E42", "input_text": "older", "line": "L-17"}
    read = read_row(row, file="f", line=1)
    assert isinstance(read, ReadRow)
    line = line_of(read.passing, to_dict(Verdict("1", "g", "instant", "ok", text="ours")))
    assert (line["text"], line["input_text"], line["input_input_text"]) == ("ours", "mine", "older")
    assert (line["input_labels"], line["input_error"], line["input_line"]) == (["x"], "E42", "L-17")


@given(st.lists(names, unique=True))
def test_renaming_is_reversible(given_names):
    assert len(renamed(dict.fromkeys(given_names), WRITTEN)) == len(given_names)


@pytest.mark.parametrize(
    ("value", "name"),
    [(None, "7"), ("", "7"), (0, "0"), ("a", "a"), (1.5, "1.5"), (float("nan"), "7"), (HugeNumber("1e999"), "1e999")],
)
def test_ids_are_kept_and_a_row_without_one_has_its_line(value, name):
    assert exchange_of({"id": value, "prompt": "x"}, "7").id == name


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"prompt": 3}, "field 'prompt': a number where a text is wanted"),
        ({"prompt": {"a": 1}}, "field 'prompt': a JSON object where a text is wanted"),
        ({"prompt": "a", "id": [1]}, "field 'id': an id is a text or a number, not a list"),
        ({"prompt": "a", "id": True}, "field 'id': an id is a text or a number, not a true/false"),
        ({"prompt": [{"type": "image_url"}]}, r"field 'prompt\[0\]': a part of type 'image_url' has no text"),
        ({"prompt": "a", "context": "b"}, "field 'context': want a list of .* not a text"),
        ({"prompt": "a", "context": [{"role": "bot"}]}, r"field 'context\[0\].role': a message's role is one of"),
        ({"messages": [], "id": "x"}, "both prompt and response are empty"),
        ({"messages": [{"role": "user", "content": "a"}], "context": []}, "give messages, or prompt"),
        ({"text": "a"}, "the row has no prompt, no response and no messages$"),
        ({"n": 1, "promt": "a"}, r"no messages; is 'promt' meant to be 'prompt'\?$"),
        ({"prompt": float("nan")}, "the row has no prompt"),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_named(row, error):
    read = read_row(row, file="f", line=1)
    assert isinstance(read, DataError)
    with pytest.raises(DataError, match=error):
        raise read


def test_nan_beside_messages_is_no_value():
    nan = float("nan")
    row = {"prompt": nan, "response": nan, "context": nan, "messages": [{"role": "user", "content": "a"}]}
    assert read_row(row, file="f", line=1).exchange.prompt == "a"


def test_a_renamed_column_is_named_as_the_file_calls_it():
    read = read_row({"q": 3}, file="f", line=1, columns={"prompt": "q"})
    assert isinstance(read, DataError)
    assert read.field == "q"


def test_messages_are_read_as_text_never_as_a_python_repr():
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": '{"q": "soup"}'}}
    custom = {"type": "custom", "custom": {"name": "run", "input": "ls"}}
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "input_text", "text": "two"}]},
        {"role": "assistant", "content": None, "tool_calls": [call, custom]},
        {"role": "tool", "tool_call_id": "1", "content": "hot soup"},
        {"role": "user", "content": "three"},
        {"role": "assistant", "content": [], "refusal": "No."},
    ]
    made = as_exchange(messages, "x")
    assert (made.prompt, made.response) == ("three", "No.")
    assert made.context == (
        Message("system", "Be kind."),
        Message("user", "one\ntwo"),
        Message("assistant", '[tool call] find({"q": "soup"})\n[tool call] run(ls)'),
        Message("tool", "hot soup"),
    )
    assert exchange_of({"messages": messages}, "x") == made
    assert read_turns([{"role": "assistant", "content": None}]) == [Message("assistant", "")]
    null = exchange_of({"prompt": "a", "context": [{"role": "assistant", "content": None}]}, "x")
    assert null.context == ()


def test_arguments_given_as_an_object_are_text():
    call = {"function": {"name": "find", "arguments": {"q": "soup"}}}
    assert as_exchange([{"role": "assistant", "tool_calls": [call]}], "x").response == '[tool call] find({"q": "soup"})'


def test_suffixes_are_found_whatever_their_case():
    assert [suffix_of(n) for n in ("a.CSV", "b.JsonL.GZ", "c.txt", "d.csv.zip", ".csv")] == [
        ".csv",
        ".jsonl.gz",
        "",
        "",
        "",
    ]
    assert [stem_of(n) for n in ("x/a.b.CSV.gz", "b.txt")] == ["a.b", "b"]


def test_every_kind_of_table_holds_the_same_rows(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"id": "1", "prompt": 'a "b",\nc'}, {"id": None, "prompt": "é\u2028"}]
    text = {
        ".jsonl": "".join(json.dumps(r) + "\n" for r in rows),
        ".json": json.dumps(rows),
        ".csv": '\ufeffid,prompt\n1,"a ""b"",\nc"\n,é\u2028\n',
        ".tsv": 'id\tprompt\n1\t"a ""b"",\nc"\n\té\u2028\n',
    }
    text[".ndjson"] = text[".jsonl"]
    for suffix in SUFFIXES:
        path = tmp_path / f"t{suffix}"
        if suffix == ".parquet":
            parquet.write_table(arrow.Table.from_pylist(rows), path)
        elif suffix.endswith(".gz"):
            path.write_bytes(gzip.compress(text[suffix.removesuffix(".gz")].encode()))
        else:
            path.write_text(text[suffix])
        assert [row for _, row in strict(read_table(path))] == rows, suffix


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("a.txt", b"", "says no kind of table; known: .jsonl"),
        ("a.jsonl.gz", b"no gzip", "cannot be read"),
        ("a.csv.gz", gzip.compress(b"a,b\n1,2\n" * 1000)[:-20], "no whole gzip file"),
        ("a.csv", b"a,a\n1,2\n", "two columns are called 'a'; rename one"),
        ("a.csv", "a,caf\u00e9\n".encode("latin-1"), "not UTF-8"),
        ("a.json", b'{"a": 1}', "a JSON object where a list of objects is wanted"),
        ("a.parquet", b"PAR1", "is no Parquet file"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_sentence(tmp_path, name, content, error):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises((DataError, ConfigError), match=error.replace(".", r"\.")):
        list(read_table(path))


def test_a_broken_row_of_a_csv_is_an_error_in_its_place(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"prompt,x\na,1\nb\nc\xff,2\nd,3\n")
    found = [row if isinstance(row, dict) else row.message for _, row in read_table(path)]
    assert found == [
        {"prompt": "a", "x": "1"},
        "another number of cells than the header has",
        "not UTF-8; save the file as UTF-8",
        {"prompt": "d", "x": "3"},
    ]


def test_parquet_cells_that_python_cannot_hold_are_text(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    stamps = arrow.array([1, 2], arrow.timestamp("ns"))
    table = arrow.table({"prompt": ["a", "b"], "at": stamps, "day": arrow.array([0, 1], arrow.date32())})
    parquet.write_table(table, tmp_path / "a.parquet")
    read = [read_row(row, file="a", line=line) for line, row in read_table(tmp_path / "a.parquet")]
    assert [r.exchange.prompt for r in read if isinstance(r, ReadRow)] == ["a", "b"]
    assert all(json.loads(dumps(r.passing))["day"].startswith("1970-01-0") for r in read if isinstance(r, ReadRow))


def test_a_stream_of_lines_is_not_cut_at_other_line_ends():
    content = json.dumps({"prompt": "a\u2028b\u0085c"}, ensure_ascii=False).encode()
    assert list(bounded_lines(io.BytesIO(content + b"\n"))) == [content + b"\n"]


@pytest.mark.parametrize(
    "content",
    [
        b'sep=;\r\nprompt;label\r\nhello;0\r\n"a; b, c";1\r\n',
        b'SEP=,\nprompt,label\nhello,0\n"a; b, c",1\n',
        b'prompt;label\nhello;0\n"a; b, c";1\n',
        b"prompt\tlabel\nhello\t0\na; b, c\t1\n",
        b'\xef\xbb\xbfprompt,label\rhello,0\r"a; b, c",1\r',
        'prompt;label\r\nhello;0\r\n"a; b, c";1\r\n'.encode("utf-16"),
        '\ufeffprompt,label\nhello,0\n"a; b, c",1\n'.encode("utf-16-be"),
    ],
)
@pytest.mark.parametrize("name", ["mine.csv", "mine.CSV.gz"])
def test_what_spreadsheets_write_is_read(tmp_path, content, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert columns_of(path) == ["prompt", "label"]
    assert [row for _, row in read_table(path)] == [
        {"prompt": "hello", "label": "0"},
        {"prompt": "a; b, c", "label": "1"},
    ]


@pytest.mark.parametrize("header", ['prompt;"label, or none";why', "prompt;label, or none;why"])
def test_a_comma_in_the_name_of_a_column_is_no_separator(tmp_path, header):
    (tmp_path / "mine.csv").write_text(f"{header}\nhello;0;so\n")
    assert columns_of(tmp_path / "mine.csv") == ["prompt", "label, or none", "why"]
    assert [row for _, row in read_table(tmp_path / "mine.csv")] == [
        {"prompt": "hello", "label, or none": "0", "why": "so"}
    ]


def test_the_line_of_a_broken_row_counts_the_line_that_names_the_separator(tmp_path):
    (tmp_path / "mine.csv").write_text("sep=;\nprompt;label\nhello\n")
    ((line, error),) = read_table(tmp_path / "mine.csv")
    assert (line, error.line) == (3, 3)
