"""An answer format is one file: it is found by its name, and guards can use it at once."""

from pathlib import Path

from guardreasoner import formats
from guardreasoner.engines.scripted import ScriptedEngine
from guardreasoner.formats.base import FORMATS, format_of
from guardreasoner.guards.base import GuardRow
from guardreasoner.guards.others.prompted import PromptedGuard
from guardreasoner.types import Exchange, Task

MODULE = """
from dataclasses import dataclass

from guardreasoner.formats.base import Call, Parsed, label
from guardreasoner.generation import Free, Judged
from guardreasoner.types import Labels


@dataclass(frozen=True, slots=True)
class Options:
    word: str = "BAD"


def render(exchange, tasks, options, *, force):
    return [Call((task,), (Judged(exchange.prompt),), (Free(4),)) for task in tasks]


def parse(call, completion, options):
    return Parsed(Labels.of({call.tasks[0]: label(call.tasks[0], options.word in completion.text)}))
"""


def test_every_module_of_the_folder_is_a_format():
    files = {p.stem for p in Path(formats.__file__).parent.glob("[a-z]*.py")} - {"base", "conclusion"}
    assert set(FORMATS) == files
    assert len(files) >= 9
    for name in FORMATS:
        if name != "guardreasoner":  # our own has a wire and a version instead of options
            assert all(hasattr(format_of(name), part) for part in ("Options", "render", "parse")), name


def test_a_new_format_is_one_file_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "shout.py").write_text(MODULE)
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(tmp_path)])
    monkeypatch.setattr("guardreasoner.formats.base.FORMATS", (*FORMATS, "shout"))  # what the next start finds
    row = GuardRow("mine", "shout", "scripted", "", tasks=(Task.prompt_harm,), options={"word": "NO"})
    guard = PromptedGuard(row, ScriptedEngine(default="NO"), mode="full")
    assert guard.judge([Exchange("1", "a hat")])[0].labels.prompt_harm == "harmful"
