"""Guards of the user's own: functions, classes, objects, and rows in YAML that import nothing."""

import re
import sys
from pathlib import Path

import pytest

from guardreasoner.errors import ConfigError, DataError
from guardreasoner.guards.base import Guard
from guardreasoner.guards.custom import FunctionGuard, load_object, read_row
from guardreasoner.guards.load import load_guard
from guardreasoner.types import Exchange, Labels, Task

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_guard.py"
BOTH = Exchange("1", "WHERE is my hat?", "I'm sorry, I cannot say.")


def write(path, text):
    path.write_text(text)
    return path


def test_the_example_is_loaded_by_file_and_attribute_and_judges():
    guard = load_guard(f"{EXAMPLE}:shouting")
    assert isinstance(guard, Guard)
    (verdict,) = guard.judge([BOTH])
    assert verdict.labels == Labels("unharmful", "refusal", "unharmful")
    assert verdict.scores["prompt_harm"] == pytest.approx(5 / 12)
    assert (verdict.guard, verdict.status, verdict.flagged) == ("shouting", "ok", False)
    loud = guard.check("WHERE IS MY HAT?")
    assert (loud.labels, loud.scores["prompt_harm"], loud.flagged) == (Labels("harmful"), 1.0, True)


def test_a_module_on_the_path_is_loaded_by_name(tmp_path, monkeypatch):
    write(
        tmp_path / "my_guards_xyz.py",
        "class Box:\n    strict = staticmethod(lambda p, r: {'prompt_harm': 'harmful'})\n",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load_guard("my_guards_xyz:Box.strict").check("hi").labels.prompt_harm == "harmful"
    sys.modules.pop("my_guards_xyz")


def test_a_class_gets_the_options_it_knows(tmp_path):
    code = (
        "from guardreasoner.guards.base import Judging\n"
        "from guardreasoner.types import *\n"
        "class Mine(Judging):\n"
        "    name, tasks = 'mine', (Task.prompt_harm,)\n"
        "    def __init__(self, word='hat', fail_mode='closed'): self.word, self.fail_mode = word, fail_mode\n"
        "    def judge(self, exchanges):\n"
        "        return [Verdict(e.id, self.name, 'instant', 'ok',\n"
        "                Labels('harmful' if self.word in e.prompt else 'unharmful')) for e in exchanges]\n"
    )
    file = write(tmp_path / "mine.py", code)
    guard = load_guard(f"{file}:Mine", word="shoe", fail_mode="open")
    assert (guard.fail_mode, guard.check("my shoe").labels.prompt_harm) == ("open", "harmful")
    assert load_guard(f"{file}:Mine").check("my shoe").labels.prompt_harm == "unharmful"
    with pytest.raises(ConfigError, match=r"takes no option 'wrd'; known: word, fail_mode"):
        load_guard(f"{file}:Mine", wrd="x")


@pytest.mark.parametrize(
    ("answer", "labels", "score"),
    [
        ({"prompt_harm": 0.5}, Labels("harmful"), 0.5),
        ({"prompt_harm": 0.49}, Labels("unharmful"), 0.49),
        ({"prompt_harm": True}, Labels("harmful"), None),
        ({"prompt_harm": False, "refusal": True}, Labels("unharmful"), None),
        ({"prompt_harm": "unharmful"}, Labels("unharmful"), None),
        ({"prompt_harm": None}, Labels(), None),
        ({}, Labels(), None),
    ],
)
def test_a_function_answers_with_probabilities_labels_or_truth(answer, labels, score):
    (verdict,) = FunctionGuard(lambda p, r: answer).judge([Exchange("1", "hi")])
    assert (verdict.status, verdict.labels, verdict.scores["prompt_harm"]) == ("ok", labels, score)


@pytest.mark.parametrize(
    "answer", [{"prompt_harm": 1.5}, {"prompt_harm": "bad"}, 3, None, {"prompt_harm": float("nan")}]
)
def test_an_answer_that_is_none_is_unparsed_and_the_fail_mode_decides(answer):
    for mode, flagged in (("closed", True), ("open", False)):
        (verdict,) = FunctionGuard(lambda p, r: answer, fail_mode=mode).judge([Exchange("1", "hi")])
        assert (verdict.status in ("unparsed", "unavailable"), verdict.flagged) == (True, flagged)
        assert verdict.labels == Labels()


def test_a_function_that_fails_is_unavailable_and_its_message_is_not_repeated():
    def broken(prompt, response):
        raise OSError("text to judge")

    (verdict,) = FunctionGuard(broken).judge([Exchange("1", "hi")])
    assert (verdict.status, verdict.flagged) == ("unavailable", True)
    assert "judge" not in verdict.error


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module_xyz:guard", "there is no module 'no_such_module_xyz'"),
        ("no/such/file.py:guard", r"there is no file no/such/file\.py"),
        (f"{EXAMPLE}:shoutin", "did you mean 'shouting'"),
        (f"{EXAMPLE}:REFUSALS", "is a tuple, not a guard"),
    ],
)
def test_what_cannot_be_loaded_is_said(name, message):
    with pytest.raises(ConfigError, match=message):
        load_object(name)


def test_a_file_that_fails_while_loading_says_where(tmp_path):
    for code, message in (
        ("x =", "line 1: not Python"),
        ("import no_such_thing_xyz", "needs no_such_thing_xyz"),
        ("1 / 0", "failed while it was loaded .ZeroDivisionError"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_object(f"{write(tmp_path / 'bad.py', code)}:guard")
    half = write(tmp_path / "half.py", "class Half:\n    def judge(self, exchanges): return []\n")
    with pytest.raises(ConfigError, match="not all of a guard's parts"):
        load_object(f"{half}:Half")


def test_a_class_that_fails_is_one_sentence_and_an_error_of_ours_stays_as_it_is(tmp_path):
    code = (
        "from guardreasoner.errors import DataError\n"
        "class Broken:\n    def __init__(self): raise TypeError('no\\x1b[31m word')\n"
        "class Needy:\n    def __init__(self, word): pass\n"
        "class Ours:\n    def __init__(self): raise DataError('no such list')\n"
    )
    file = write(tmp_path / "broken.py", code)
    with pytest.raises(ConfigError) as caught:
        load_object(f"{file}:Broken")
    assert str(caught.value) == f"{file}:Broken could not be made (TypeError: no\\x1b[31m word)"
    with pytest.raises(ConfigError, match=r"could not be made \(TypeError: .*'word'"):
        load_object(f"{file}:Needy")
    with pytest.raises(ConfigError, match=r"could not be made \(ValueError: no signature"):
        load_object("builtins:dict")
    with pytest.raises(DataError, match=r"^no such list$"):
        load_object(f"{file}:Ours")


ROW = """
name: my-guard
format: yes_no
engine: scripted
model: mine
tasks: [prompt_harm]
options:
  frame:
    prompt: "Is this rude? {prompt}"
  yes_words: [" yes"]
  no_words: [" no"]
note: mine
"""


def test_a_row_in_yaml_is_a_guard(tmp_path):
    file = write(tmp_path / "my.yaml", ROW)
    row = read_row(file)
    assert (row.name, row.tasks, row.note) == ("my-guard", (Task.prompt_harm,), "mine")
    guard = load_guard(str(file))
    (call,) = guard.format.render(BOTH, guard.tasks, guard.options, force=True)
    assert "".join(s.text for s in call.prompt) == "Is this rude? WHERE is my hat?"
    assert call.plan[0].words == (" yes", " no")
    assert guard.judge([BOTH])[0].labels.prompt_harm in ("harmful", "unharmful")


def test_a_row_is_data_and_nothing_in_it_is_run(tmp_path):
    trap = tmp_path / "trap"
    code = f"name: !!python/object/apply:os.system ['touch {trap}']\nformat: yes_no\nengine: hf\nmodel: x\n"
    with pytest.raises(ConfigError, match="tags that make Python objects are refused"):
        read_row(write(tmp_path / "bad.yaml", code))
    assert not trap.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("name: my-guard", "naem: my-guard"), "named 'naem'; did you mean 'name'"),
        (("format: yes_no", "format: yesno"), "no format 'yesno'"),
        (("engine: scripted", "engine: 3"), "'engine' is missing, or is not a text"),
        (("[prompt_harm]", "[prompt_hram]"), "tasks are a list of"),
        (("tasks: [prompt_harm]", "tasks: 3"), "tasks are a list of"),
        (("options:", "options: 3\nx:"), "no key in .* named 'x'"),
    ],
)
def test_a_wrong_row_names_what_is_wrong(tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        read_row(write(tmp_path / "row.yaml", ROW.replace(*change)))


def test_yes_and_no_that_yaml_took_for_truth_are_refused(tmp_path):
    for change in (('[" yes"]', "[yes]"), ("yes_words", "yes")):
        with pytest.raises(ConfigError, match="put them in quotes"):
            read_row(write(tmp_path / "row.yaml", ROW.replace(*change)))


def test_a_row_that_cannot_be_read_is_said(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_row(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="is a mapping"):
        read_row(write(tmp_path / "list.yaml", "- a\n"))
    with pytest.raises(ConfigError, match="options are a mapping"):
        read_row(write(tmp_path / "o.yaml", "format: yes_no\nengine: hf\nmodel: x\noptions: [1]\n"))


def test_a_folder_named_as_a_guard_of_ours_does_not_take_its_place(tmp_path, monkeypatch):
    from guardreasoner.guards.load import find_row

    (tmp_path / "nano").mkdir()
    (tmp_path / "nano" / "config.json").write_text("{}")
    before = find_row("nano")
    monkeypatch.chdir(tmp_path)
    assert find_row("nano") == before
    assert find_row("./nano").engine == "hf"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("key: MY_OTHER_SECRET\noptions: {base_url: 'http://127.0.0.1:9/v1'}", "GUARD_KEY"),
        ("key: OPENAI_API_KEY\noptions: {base_url: 'http://127.0.0.1:9/v1'}", "GUARD_KEY"),
        ("options: {base_url: 'http://127.0.0.1:9/v1', key: HOME}", "GUARD_KEY"),
        ("key: MY_OTHER_SECRET", "OPENAI_API_KEY"),
    ],
)
def test_a_row_in_a_file_sends_no_secret_that_is_not_meant_for_it(tmp_path, row, said):
    path = tmp_path / "row.yaml"
    path.write_text(f"format: yes_no\nengine: openai\nmodel: any\n{row}\n")
    with pytest.raises(ConfigError, match=said):
        read_row(path)


def test_a_row_with_a_server_of_its_own_does_not_send_it_the_key_of_openai(tmp_path):
    path = tmp_path / "row.yaml"
    path.write_text("format: yes_no\nengine: openai\nmodel: any\noptions: {base_url: 'http://127.0.0.1:9/v1'}\n")
    assert read_row(path).options["key"] == "GUARD_KEY"
    path.write_text("format: yes_no\nengine: openai\nmodel: any\nkey: GUARD_KEY_MINE\n")
    assert read_row(path).key == "GUARD_KEY_MINE"


@pytest.mark.parametrize("option", ["load_format: pt", "worker_extension_cls: evil.Cls", "logits_processors: ['a:B']"])
def test_a_row_in_a_file_has_no_option_that_runs_code(tmp_path, option):
    path = tmp_path / "row.yaml"
    path.write_text(f"format: yes_no\nengine: vllm\nmodel: any\noptions: {{{option}}}\n")
    with pytest.raises(ConfigError, match="can run code"):
        read_row(path)


@pytest.mark.parametrize(
    ("name", "option", "said"),
    [
        ("nano", {"engine": "vllm"}, "guard nano runs here, on one engine; it takes no engine"),
        ("constant", {"base_url": "http://x"}, "guard constant runs here, on one engine; it takes no base_url"),
        (f"{EXAMPLE}:shouting", {"model": "x"}, "is no class, so it takes no option 'model'"),
        ("guardreasoner", {"calibration": "c.json"}, "a calibration is for one; say which with --guard"),
        ("guardreasoner", {"model": "x"}, "say with --guard which one the engine or the weights are for"),
    ],
)
def test_what_a_guard_does_not_read_is_refused(name, option, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_guard(name, **option)
