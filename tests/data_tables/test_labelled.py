"""Labelled files of the user's own: columns, labels, and what the error of somebody else's file says."""

import argparse
import gzip
import json
import re

import pytest

from guardreasoner.cli.main import parser_for
from guardreasoner.data.labelled import Column, parse_mapping, read_examples, read_label
from guardreasoner.errors import ConfigError, DataError, UnknownName
from guardreasoner.types import Task


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
        ('{"promt": "a"}\n', r"columns found: promt; try --map prompt=promt"),
        ('{"text": "a"}\n', r"mine.jsonl: there is no column 'prompt'; columns found: text; try --map prompt=text"),
        (
            '{"prompt": "a", "labels": {"prompt_harm": "harmful"}}\n',
            r"'labels' holds an object; write its labels as columns of the row: {\"prompt\"",
        ),
        (
            '{"id": "x", "prompt": "a", "refusal": ""}\n{"id": "x", "prompt": "b"}\n',
            r"line 2, field 'id': the id of line 1 again",
        ),
        (
            '{"prompt": "", "response": "", "refusal": 1}\n',
            "line 1, field 'prompt': both prompt and response are empty",
        ),
        ('{"prompt": 1, "prompt_harm": 1}\n', "line 1, field 'prompt': a number where a text is wanted"),
        ('{"prompt": \n', "line 1: not JSON"),
        ("", "no rows"),
    ],
)
def test_a_broken_row_is_named_by_file_line_and_field(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_examples(write(tmp_path, "mine.jsonl", text))


def test_judged_text_under_a_wrong_mapping_is_not_quoted(tmp_path):
    path = write(tmp_path, "mine.jsonl", '{"prompt": "a", "response": "b", "reply": "planted words"}\n')
    with pytest.raises(DataError) as error:
        read_examples(path, parse_mapping("refusal=reply"))
    assert "planted" not in str(error.value)


def test_a_csv_row_of_another_length_is_named(tmp_path):
    with pytest.raises(DataError, match="line 2: another number of cells"):
        read_examples(write(tmp_path, "mine.csv", "prompt,prompt_harm\na,1,2\n"))


def test_another_kind_of_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"says no kind of table; known: \.jsonl"):
        read_examples(write(tmp_path, "mine.txt", "a"))


def test_a_mapping_is_checked():
    with pytest.raises(UnknownName, match="did you mean 'prompt'"):
        parse_mapping("promt=a")
    with pytest.raises(ConfigError, match="FIELD=COLUMN"):
        parse_mapping("prompt")
    with pytest.raises(ConfigError, match="colons between the values of a label"):
        parse_mapping("prompt_harm=label:1=harmful,0=unharmful")
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


def test_a_labelled_reply_that_is_empty_is_a_reply(tmp_path):
    rows = [{"prompt": "a", "response": text, "refusal": "refusal"} for text in ("", None, " ")]
    made = read_examples(write(tmp_path, "mine.jsonl", "".join(json.dumps(r) + "\n" for r in rows)))
    assert [e.exchange.response for e in made] == ["", "", " "]
    (cell,) = read_examples(write(tmp_path, "mine.csv", "prompt,response,refusal\na,,no\n"))
    assert cell.exchange.response == ""


def test_ids_are_kept_as_they_are_and_a_row_without_one_is_numbered(tmp_path):
    rows = [{"id": 0, "prompt": "a", "prompt_harm": 1}, {"id": 1, "prompt": "b"}, {"id": None, "prompt": "c"}]
    made = read_examples(write(tmp_path, "mine.jsonl", "".join(json.dumps(r) + "\n" for r in rows)))
    assert [e.exchange.id for e in made] == ["0", "1", "mine:2"]


def test_packed_upper_case_and_marked_files_are_read(tmp_path):
    table = "\ufeffid, prompt ,prompt_harm\n1,a,unsafe\n"
    (tmp_path / "TABLE.CSV.GZ").write_bytes(gzip.compress(table.encode()))
    (made,) = read_examples(tmp_path / "TABLE.CSV.GZ")
    assert (made.exchange.id, made.exchange.prompt, made.gold.prompt_harm) == ("1", "a", "harmful")
    assert made.exchange.source == "TABLE"


def test_a_mapping_says_what_the_values_of_a_label_mean(tmp_path):
    path = write(tmp_path, "mine.csv", "text,label\na,S1\nb,ok\nc,S4\nd,\n")
    mapping = parse_mapping(["prompt=text", "prompt_harm=label:ok=unharmful:*=harmful"])
    assert mapping["prompt_harm"] == Column("label", {"ok": "unharmful", "*": "harmful"})
    golds = [e.gold.prompt_harm for e in read_examples(path, mapping)]
    assert golds == ["harmful", "unharmful", "harmful", None]
    assert parse_mapping("prompt_harm=a:b:Unsafe=harmful") == {"prompt_harm": Column("a:b", {"unsafe": "harmful"})}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompt=text:a=harmful", "takes no values: only labels have them"),
        ("refusal=label:no=harmful", "where LABEL is refusal or compliance"),
        ("prompt_harm=", "FIELD=COLUMN"),
    ],
)
def test_a_mapping_of_values_is_checked(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_mapping(text)


@pytest.mark.parametrize(
    ("content", "fits"),
    [
        ("text,label\na,0\nb,1\n", "prompt=text,prompt_harm=label"),
        ("prompt,label\na,0\nb,1\n", "prompt_harm=label"),
        ("question,answer,is_safe\na,b,true\nc,d,false\n",
         "'prompt=question,response=answer,response_harm=is_safe:true=unharmful:*=harmful'"),
        ("question,model_answer,is_safe\na,b,true\n",
         "'prompt=question,response=model_answer,response_harm=is_safe:true=unharmful:*=harmful'"),
        ("prompt_id,user_prompt,label\n1,a,0\n", "prompt=user_prompt,prompt_harm=label"),
        ("ticket,user_message,is_safe\n1,a,no\n", "'prompt=user_message,prompt_harm=is_safe:1=unharmful:*=harmful'"),
        ("prompt,Prompt_Harm\na,safe\n", "prompt_harm=Prompt_Harm"),
        ("goal,category\na,ok\nb,S4\n", "'prompt=goal,prompt_harm=category:ok=unharmful:*=harmful'"),
        ("Prompt,toxicity\na,toxic\nb,non-toxic\n",
         "'prompt=Prompt,prompt_harm=toxicity:non-toxic=unharmful:*=harmful'"),
        ("user_input,is_toxic\na,1.0\nb,0.0\n", "prompt=user_input,prompt_harm=is_toxic"),
        ("question,bot_answer,user_verdict,answer_verdict\na,b,ok,bad\nc,d,bad,ok\n",
         "'prompt=question,response=bot_answer,response_harm=answer_verdict:ok=unharmful:*=harmful,"
         "prompt_harm=user_verdict:ok=unharmful:*=harmful'"),
    ],
)  # fmt: skip
def test_the_error_of_another_file_names_its_columns_and_a_map_that_fits(tmp_path, content, fits):
    path = write(tmp_path, "other.csv", content)
    with pytest.raises(DataError) as error:
        read_examples(path)
    assert f"columns found: {content.splitlines()[0].replace(',', ', ')}; try --map {fits}" in str(error.value)
    assert read_examples(path, parse_mapping(fits.strip("'")))


@pytest.mark.parametrize(("safe", "other"), [("yes", "no"), ("true", "false"), ("1", "0"), ("safe", "unsafe")])
def test_in_a_column_of_what_is_safe_every_other_value_is_harmful(tmp_path, safe, other):
    path = write(tmp_path, "other.csv", f"text,is_safe\na,{safe}\nb,{other}\nc,\n")
    with pytest.raises(DataError) as error:
        read_examples(path)
    fits = re.search(r"--map '?([^']+)", str(error.value))[1]
    assert [e.gold.prompt_harm for e in read_examples(path, parse_mapping(fits))] == ["unharmful", "harmful", None]


def test_a_column_of_what_is_safe_is_not_read_as_one_of_what_is_harmful(tmp_path):
    path = write(tmp_path, "other.csv", "text,is_safe\na,yes\nb,no\n")
    with pytest.raises(
        DataError, match=r"'is_safe' says what is safe; write --map prompt_harm=is_safe:yes=unharmful:\*=harmful$"
    ):
        read_examples(path, parse_mapping("prompt=text,prompt_harm=is_safe"))
    read_examples(path, parse_mapping("prompt=text,prompt_harm=is_safe:no=harmful:yes=unharmful"))


def test_a_map_that_can_only_be_guessed_in_part_says_what_it_lacks(tmp_path):
    path = write(tmp_path, "other.csv", "colour,label\na,0\n")
    with pytest.raises(DataError, match=r"try --map prompt=COLUMN,prompt_harm=label$"):
        read_examples(path)
    with pytest.raises(DataError, match=r"there is no column 'prompt'; .*; add prompt=COLUMN to --map$"):
        read_examples(path, parse_mapping("prompt_harm=label:0=unharmful:*=harmful"))


def test_what_was_asked_for_is_not_suggested_again(tmp_path):
    path = write(tmp_path, "other.csv", "question,bot_answer,mark\na,b,ok\n")
    with pytest.raises(DataError, match=r"columns found: question, bot_answer, mark; add prompt_harm=COLUMN to --map$"):
        read_examples(path, parse_mapping("prompt=question,response=bot_answer"))


def test_labels_of_the_reply_without_a_reply_are_told_before_anything_is_judged(tmp_path):
    path = write(tmp_path, "mine.csv", "prompt,answer,refusal\na,b,1\n")
    with pytest.raises(DataError, match=r"refusal is about the reply, .* no column 'response'.*response=answer"):
        read_examples(path)


def test_a_column_of_reply_labels_that_is_empty_asks_for_no_reply(tmp_path):
    (made,) = read_examples(write(tmp_path, "mine.csv", "prompt,prompt_harm,refusal\na,1,none\n"))
    assert made.exchange.response is None


def test_a_file_whose_labels_are_all_empty_is_told(tmp_path):
    with pytest.raises(DataError, match="none of the rows has a label"):
        read_examples(write(tmp_path, "mine.csv", "prompt,prompt_harm\na,\n"))


def test_a_mapped_column_that_is_not_there_is_told_with_those_that_are(tmp_path):
    with pytest.raises(DataError, match="there is no column 'q'; columns found: prompt, label"):
        read_examples(write(tmp_path, "mine.csv", "prompt,label\na,1\n"), parse_mapping("prompt=q,prompt_harm=label"))


@pytest.mark.parametrize("command", ["evaluate", "score", "stress", "calibrate", "tune"])
def test_a_command_that_reads_labelled_files_takes_the_map_that_its_errors_suggest(command):
    assert "--map FIELD=COLUMN" in command_parser(command).format_help()


def command_parser(name):
    (subcommands,) = (a for a in parser_for(name)._actions if isinstance(a, argparse._SubParsersAction))
    return subcommands.choices[name]
