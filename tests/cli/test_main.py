"""The command line as a whole: nothing typed, something typed wrong, and errors that nobody foresaw."""

import errno
import json
import os
import shutil
import subprocess
import sys

import pytest

import guardreasoner.cli.main as command
from guardreasoner.cli.main import COMMANDS, GROUPS, main
from guardreasoner.guards.ours import NANO_FOLDER


def said(capsys, *words):
    try:
        code = main(list(words))
    except SystemExit as stop:
        code = stop.code
    out = capsys.readouterr()
    assert "Traceback" not in out.err
    return code, out.out, out.err


def test_alone_it_prints_every_command_in_a_group_on_a_screen(capsys):
    code, out, err = said(capsys)
    assert (code, err) == (0, "")
    assert sum(len(group) for group in GROUPS.values()) == len(COMMANDS) == len(set(COMMANDS))
    assert all(f"\n{title}:\n" in out for title in GROUPS)
    assert all(f"\n  {name} " in out for name in COMMANDS)
    assert max(map(len, out.splitlines())) <= 120
    assert len(out.splitlines()) <= 45


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["chek", "hi"], 2, "there is no command named 'chek'; did you mean 'check'?"),
        (["judge", "hi"], 2, "there is no command named 'judge'; did you mean 'check'?"),
        (["guards", "lama"], 1, "there is no guard named 'lama'; did you mean 'llama'?"),
        (["help", "chek"], 2, "there is no command named 'chek'; did you mean 'check'?"),
        (["check", "hi", "--gaurd", "nano"], 2, "there is no option --gaurd; did you mean --guard?"),
        (["check", "hi", "--gaurd=nano"], 2, "there is no option --gaurd; did you mean --guard?"),
        (["check", "hi", "--mod", "full"], 2, "--mod may be --mode or --model; write it out"),
        (
            ["check", "hi", "--fail-on", "hamful"],
            2,
            "takes harmful, refusal or any, not 'hamful'; did you mean harmful?",
        ),
        (["check", "hi", "--fail-on", "x"], 2, "guardreasoner: --fail-on takes harmful, refusal or any, not 'x'\n"),
        (["--verson"], 2, "there is no option --verson; did you mean --version?"),
        (["check", "hi", "--mode", "fast"], 1, "there is no mode named 'fast'; did you mean 'instant'?"),
        (["check", "hi", "--mode", "instnat"], 1, "did you mean 'instant'?"),
        (["check", "hi", "--fail-mode", "shut"], 1, "there is no fail mode named 'shut'; known: closed, open."),
        (["check", "hi", "--guard", "nanno"], 1, "there is no guard named 'nanno'; did you mean 'nano'?"),
        (["check", "hi", "--option", "threads=two"], 1, "not 'two'"),
        (["check", "hi", "--option", "budgets=3"], 1, "budgets"),
        (["stress"], 2, "the following arguments are required: --out"),
    ],
)
def test_what_is_typed_wrong_is_named_with_the_nearest_right_thing(capsys, words, code, message):
    found, _, err = said(capsys, *words)
    assert (found, len(err.splitlines())) == (code, 1)
    assert message in err


def test_a_folder_that_is_not_there_is_named_with_its_neighbour(capsys, tmp_path):
    (tmp_path / "my-guard").mkdir()
    _, _, err = said(capsys, "check", "hi", "--guard", str(tmp_path / "my-gard"))
    assert f"there is no folder or file {tmp_path}/my-gard; did you mean {tmp_path}/my-guard?" in err
    _, _, err = said(capsys, "check", "hi", "--guard", "./nofolder")
    assert "there is no folder or file nofolder" in err


@pytest.mark.parametrize("text", ["[1]", '"x"', "{", '{"wire": 5}', '{"budgets": [1]}', '{"budgets": {"full": "x"}}'])
def test_a_guard_json_of_another_shape_is_one_sentence(capsys, tmp_path, text):
    for path in NANO_FOLDER.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    (tmp_path / "guard.json").write_text(text)
    (tmp_path / "genai_config.json").touch()
    code, _, err = said(capsys, "check", "hi", "--guard", str(tmp_path))
    assert (code, len(err.splitlines())) == (1, 1)


def test_weights_that_were_not_fetched_from_git_lfs_are_named(capsys, tmp_path):
    (tmp_path / "guard.json").write_text('{"wire": "raw"}')
    (tmp_path / "genai_config.json").write_text("{}")
    (tmp_path / "model.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    code, _, err = said(capsys, "check", "hi", "--guard", str(tmp_path), "--engine", "onnx")
    assert (code, len(err.splitlines())) == (1, 1)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "out.jsonl"), "out.jsonl: No space left on device"),
        (MemoryError(), "there is not enough memory"),
        (ValueError("planted text"), "something unforeseen went wrong (ValueError"),
        (KeyboardInterrupt(), "stopped"),
        (RecursionError("planted text"), "RecursionError"),
    ],
)
def test_any_error_ends_in_one_sentence_that_quotes_nothing(capsys, monkeypatch, error, message):
    def fail(words):
        raise error

    monkeypatch.setattr(command, "_run", fail)
    code, _, err = said(capsys, "doctor")
    assert (code, len(err.splitlines())) == (1, 1)
    assert message in err
    assert "planted" not in err


def test_debug_shows_where_an_error_came_from(capsys, monkeypatch):
    def fail(words):
        assert words == ["doctor"]
        raise ValueError("details")

    monkeypatch.setattr(command, "_run", fail)
    assert main(["doctor", "--debug"]) == 1
    assert "details" in capsys.readouterr().err


REQUESTS = ["--help", "-h", "-", "--", "--examples", "--version", "--fail-on", "--debug", "-x", "=", "a b", "--a b", ""]


@pytest.mark.parametrize("request_text", REQUESTS)
def test_the_documented_way_judges_any_value_or_says_why_not(capsys, request_text):
    options = ["--guard", "constant", "--json", "--fail-on", "harmful"]
    code, out, err = said(capsys, "check", f"--prompt={request_text}", f"--response={request_text}", *options)
    if request_text:
        assert code == 10
        assert json.loads(out)["labels"]["prompt_harm"] == "harmful"
    else:
        assert code == 1
        assert "both prompt and response are empty" in err


@pytest.mark.parametrize("request_text", ["--help", "-h", "-", "--examples", "--version", "--debug", "--", ""])
def test_the_plain_argument_never_lets_a_value_pass_unjudged(request_text):
    words = ["check", request_text, "--fail-on", "harmful", "--guard", "constant"]
    command = [sys.executable, "-m", "guardreasoner", *words]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr or done.returncode == 10


@pytest.mark.parametrize(
    ("how", "environment"),
    [
        (">&-", {}),
        ("2>&- >/dev/null", {}),
        ("", {"PYTHONIOENCODING": "ascii"}),
        ("--json", {"PYTHONIOENCODING": "ascii"}),
    ],
)
def test_whatever_output_there_is_the_exit_code_says_what_was_found(how, environment):
    words = f"{sys.executable} -m guardreasoner check --guard constant --fail-on harmful --prompt='café 你好' {how}"
    env = {**os.environ, **environment, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(["sh", "-c", words], capture_output=True, text=True, env=env)
    assert (done.returncode, "unforeseen" in done.stderr) == (10, False), done.stderr
