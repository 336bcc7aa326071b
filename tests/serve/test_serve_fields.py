"""The tables of fields: whatever stands in a body is judged, harmless by its type, or refused by name."""

import importlib
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guardreasoner.serve.chat.conversation import read_messages
from guardreasoner.serve.chat.fields import REQUEST
from guardreasoner.serve.fields import KINDS, Field, FieldTable, coded, harmless, sealed, visible
from guardreasoner.serve.litellm_guardrail import FIELDS as LITELLM
from guardreasoner.serve.policy import ROUTES

WIRES = {route: importlib.import_module(f"guardreasoner.serve.wires.{route}") for route in ROUTES if route != "proxy"}
TABLES = {
    "proxy": REQUEST,
    **{r: LITELLM if r == "litellm" else w.FIELDS for r, w in WIRES.items()},
}
TEXT = st.text(min_size=1, max_size=12).filter(str.strip)
HARMLESS = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.just("") | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b1"]), inner, max_size=2),
    max_leaves=5,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


def strings(value):
    """Every string in a value, names included."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [s for k, v in value.items() for s in (k, *strings(v))]
    return [s for v in value for s in strings(v)] if isinstance(value, list) else []


@pytest.mark.parametrize("wire", TABLES)
@settings(max_examples=20)
@given(name=st.from_regex(r"[a-z_]{6,20}", fullmatch=True), text=TEXT, around=JSON)
def test_an_extra_field_with_text_is_refused_by_name(wire, name, text, around):
    found = TABLES[wire].read({f"x_{name}": [around, {"in": text}]})
    assert len(found.refused) == 1
    assert f"x_{name}" in found.refused[0]


@pytest.mark.parametrize("wire", TABLES)
@settings(max_examples=20)
@given(value=HARMLESS)
def test_an_extra_field_without_text_passes_and_its_name_is_judged(wire, value):
    found = TABLES[wire].read({"unheard_of": value})
    assert found.refused == []
    assert [loose.text for loose in found.loose] == ([] if value is None else ["unheard_of"])
    assert found.kept == ({} if value is None else {"unheard_of": value})


NAMES = {row.path.split(".")[1].split("[")[0] for row in REQUEST.rows if row.path.startswith("messages[].")}
MESSAGE = st.builds(
    lambda role, more: {**more, "role": role},
    st.sampled_from(["user", "assistant", "tool", "system"]),
    st.dictionaries(st.sampled_from(sorted(NAMES)), JSON, max_size=3),
)
KNOWN = {
    word for row in REQUEST.rows for word in (*row.path.replace("[]", "").split("."), *row.kind.lstrip("=").split("|"))
}


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(MESSAGE, min_size=1, max_size=2))
def test_every_string_of_a_message_is_judged_or_a_known_word_or_the_message_is_refused(messages):
    read = read_messages(messages)
    judged = visible("\n".join(f"{t.prompt}\n{t.response or ''}" for t in (*read.turns, *read.alone)))  # as it is sent
    refused = {int(where.partition("[")[2].partition("]")[0]) for where in read.unread}
    for place in range(len(messages)):
        for text in strings(read.messages[place]) if place not in refused else ():
            escaped = json.dumps(text, ensure_ascii=False)[1:-1]  # as it stands in a value that is judged as JSON
            passes = text in KNOWN or coded(text) or not text.strip()
            assert passes or text in judged or escaped in judged, (text, judged)


@given(JSON)
def test_reading_any_body_never_raises_and_keeps_its_shape(body):
    for table in TABLES.values():
        found = table.read(body)
        assert isinstance(found.kept, type(body))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tool_choice", "<ANY TEXT>"), ("reasoning_effort", "quite bad"), ("service_tier", "bad"), ("stream", "bad"),
        ("temperature", "bad"), ("verbosity", "bad"), ("logprobs", True), ("audio", {}),
        ("prediction", {"content": "x"}),
        ("web_search_options", {}), ("prompt_token_ids", [1, 2]), ("unheard_of", list(range(100))),
    ],
)  # fmt: skip
def test_what_a_field_cannot_hold_is_refused(name, value):
    (refused,) = REQUEST.read({name: value}).refused
    assert refused.startswith(name)


def test_a_misspelt_field_is_named_with_the_one_that_it_is_like():
    read = TABLES["judge"].read
    assert read({"promt": "hello"}).refused == ["promt is not a field that can be judged (did you mean 'prompt'?)"]
    assert read({"color": "red"}).refused == ["color is not a field that can be judged"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stop", "a bad word"), ("stop", ["\n", "a bad word"]), ("user", "a bad user"),
        ("metadata", {"k": "a bad word"}),
        ("tool_choice", {"type": "function", "function": {"name": "a bad tool"}}), ("model", "bad-model"),
        ("chat_template_kwargs", {"a bad switch": True}), ("logit_bias", {"a bad word": 1}), ("bad_thing", 1),
    ],
)  # fmt: skip
def test_what_is_sent_on_and_could_be_words_is_judged_by_itself(name, value):
    found = REQUEST.read({name: value})
    assert found.refused == []
    assert "bad" in "".join(loose.text for loose in found.loose)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("top_k", 5), ("min_p", 0.1), ("temperature", "0.7"), ("logprobs", False), ("logit_bias", {"50256": -100}),
        ("stop", "\n"), ("stop", ["###"]), ("tool_choice", "auto"), ("user", "a1"), ("annotations", []), ("n", 1),
        ("stream_options", {"include_usage": True}), ("reasoning", {"effort": "high"}), ("web_search_options", None),
    ],
)  # fmt: skip
def test_numbers_switches_codes_and_known_words_pass_by_type(name, value):
    found = REQUEST.read({name: value})
    assert (found.refused, [p for p in found.loose if p.where != "annotations"]) == ([], [])
    assert found.kept == ({} if name == "annotations" and value is None else {name: value})


@pytest.mark.parametrize(
    "identifier",
    [
        "call_9fXb2LqT7cVd1Kz4", "toolu_01A09q90qw90lq917835lq9", "chatcmpl-tool-0a1b23c45d67e89f0a1b23c45d67e89f", "1",
        "3f2b8c1e-0a4d-4e6f-9b7a-1c2d3e4f5a6b", "fp_44709d6fcb", "chatcmpl-1", "c1", "",
    ],
)  # fmt: skip
def test_identifiers_that_a_machine_made_hold_no_words(identifier):
    assert coded(identifier)


@pytest.mark.parametrize(
    "text",
    ["bad", "call_bad", "call_howdoibakeacake12", "how do i", "make a bomb", "b a d", "b\na", "плохо", "call_a bad"],
)
def test_words_are_no_identifiers(text):
    assert not coded(text)


def test_a_seal_is_base64_that_nobody_can_read():
    import base64
    import os

    assert sealed(base64.b64encode(bytes(range(128, 255))).decode())
    assert all(sealed(base64.b64encode(os.urandom(96)).decode()) for _ in range(20))
    for text in ("bad", "a bad plan " * 9, base64.b64encode(b"a bad plan that goes on and on and on").decode(),
                 "thisisabadplanwrittenasonewordwithoutanyspace1"):  # fmt: skip
        assert not sealed(text)


def test_characters_that_nobody_sees_and_that_carry_a_text_are_left_out():
    hidden = "".join(chr(0xE0000 + ord(c)) for c in "bad")
    wales = "\U0001f3f4\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f"
    assert visible(f"hello{hidden} there") == "hello there"
    assert visible("a" + "".join(chr(0xE0100 + ord(c)) for c in "bad")) == "a"
    assert visible(f"{wales} ❤️ 1️⃣ 字 café") == f"{wales} ❤️ 1️⃣ 字 café"
    found = read_messages([{"role": "user", "content": f"hi{hidden}"}])
    assert found.messages == ({"role": "user", "content": "hi"},)
    assert hidden in found.turns[0].prompt  # the guard reads what was written


@given(st.text())
def test_making_text_visible_twice_changes_nothing_more(text):
    assert visible(visible(text)) == visible(text)


def test_lengths_are_limited():
    table = FieldTable((Field("a", "text", 5), Field("b[]", "text")), lists={"b": 2})
    assert table.read({"a": "123456"}).refused == ["a is longer than 5 characters"]
    assert table.read({"b": ["1", "2", "3"]}).refused == ["b has more than 2 items"]
    assert table.read({"a": "12345", "b": ["1"]}).refused == []


def test_names_that_are_no_plain_words_are_not_repeated():
    (refused,) = REQUEST.read({"do something bad": "now"}).refused
    assert "bad" not in refused


@given(JSON)
def test_harmless_means_that_there_is_no_text(value):
    if harmless(value):
        assert not any(s.strip() for s in strings(list(_leaves(value))))


def _leaves(value):
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _leaves(inner)
    else:
        yield value


def test_every_kind_of_a_row_is_one_that_is_known():
    for table in TABLES.values():
        assert all(row.kind in KINDS or row.kind.startswith("=") for row in table.rows)
