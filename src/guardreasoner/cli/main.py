"""`guardreasoner COMMAND ...`: finds the command's module, runs it, and turns every error into one sentence.

Exit codes: 0 done, 1 our error, 2 usage, 10 `--fail-on` met, 11 something left unjudged under fail mode `closed`.
A command module has `add(parser)` and `run(args) -> int`. `--debug`, anywhere, shows where an error came from.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from guardreasoner import __version__
from guardreasoner.engines.hardware import wait_gently
from guardreasoner.errors import GuardReasonerError, UnknownName, nearest, printable
from guardreasoner.ranges import check_range

GROUPS: dict[str, dict[str, str]] = {
    "judge": {
        "check": "judge one exchange, or JSON lines from standard input",
        "batch": "judge a table of any size (JSON lines, CSV, Parquet), resumable",
        "serve": "run the HTTP service and the playground",
        "bench": "latency, throughput, tokens and memory per query",
        "guards": "list guards and what each needs",
        "doctor": "what is installed, what is missing, what to do about it",
    },
    "evaluate": {
        "evaluate": "run a guard over benchmarks, keep verdicts, score them",
        "stress": "disguise, wrap and dilute rows: what passes a guard, what it flags",
        "tune": "fit nano's heads and thresholds to labelled rows of your own",
        "calibrate": "fit thresholds and probabilities of any guard with scores",
        "report": "write Markdown and HTML tables of finished runs",
        "score": "re-score stored predictions",
        "show": "print records of a run",
        "disagreements": "list rows on which runs disagree with each other or with gold",
        "review": "correct labels in the browser",
        "audit": "measure whether the reasoning supports the verdicts",
        "cascade": "replay two runs as one cascade: F1 against the share that reaches the second guard",
        "leakage": "find training rows that overlap with benchmarks",
        "benchmarks": "list the 13 benchmark cells",
    },
    "train": {
        "reproduce": "run all stages of a recipe in order, then evaluate",
        "synthesize": "let a teacher write reasoning for labelled examples",
        "import-traces": "read published reasoning traces into Trace records",
        "sft": "train on reasoning traces (R-SFT)",
        "sample": "write k answers per example with one or several models",
        "mine": "turn disagreeing answers into weighted preferences",
        "dpo": "train on weighted preferences (HS-DPO)",
        "export": "turn a checkpoint into an ONNX model folder",
        "seeds": "list the seed training sets",
    },
}
"""Purpose -> command -> what it does, in one line."""
COMMANDS: dict[str, str] = {name: text for group in GROUPS.values() for name, text in group.items()}


MEANT = {"judge": "check", "scan": "check", "moderate": "check", "train": "reproduce", "playground": "serve"}
"""What people call a command -> its name."""


class CommandParser(argparse.ArgumentParser):
    """Names what is wrong in one line, with the command's own help behind it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"guardreasoner: {message}; `{self.prog} --help` lists what there is\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        *first, last = map(str, action.choices)
        wanted = f"{', '.join(first)} or {last}" if first else last
        near = nearest(str(value), [*first, last], 0.5)
        name = action.option_strings[-1] if action.option_strings else action.metavar or action.dest
        _usage(
            f"{name} takes {wanted}, not {printable(str(value), 40)!r}" + (f"; did you mean {near}?" if near else "")
        )

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        if action.option_strings and action.nargs is None and arg_strings == ["--"]:
            return "--"  # of --prompt=--; argparse would drop it
        return super()._get_values(action, arg_strings)


class MainParser(CommandParser):
    """The whole command line; its help shows the commands in groups."""

    def format_help(self) -> str:
        width = max(map(len, COMMANDS)) + 2
        groups = "".join(
            f"\n{title}:\n" + "".join(f"  {name:<{width}}{text}\n" for name, text in group.items())
            for title, group in GROUPS.items()
        )
        return (
            f"usage: {self.prog} COMMAND ...\n\n{self.description}\n{groups}\n"
            f"`{self.prog} COMMAND --help` says more. --version prints the version; --debug shows where an error came "
            "from.\n"
        )


def module_of(command: str) -> str:
    """The module that holds a command."""
    return f"guardreasoner.cli.{command.replace('-', '_')}"


def parser_for(command: str | None) -> argparse.ArgumentParser:
    """The whole parser; only the asked command's module is imported, so that `check` starts fast."""
    parser = MainParser(prog="guardreasoner", description="A guard for LLM applications.")
    parser.add_argument("--version", action="version", version=f"guardreasoner {__version__}")
    sub = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=CommandParser)
    for name, text in COMMANDS.items():
        child = sub.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name == command:
            module = import_module(module_of(name))
            module.add(child)
            child.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code, whatever happens."""
    wait_gently()
    _open_streams()
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        return _run(words)
    except SystemExit:
        raise
    except BaseException as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, BrokenPipeError):
            sys.stderr.close()  # the reader has left; the interpreter would complain there
            return 1
        print(f"guardreasoner: {sentence(error)}", file=sys.stderr)
        return 1


def _open_streams() -> None:
    """Output that always has somewhere to go: a closed stream is the null device, and what the terminal's character
    set lacks is written as an escape. The exit code says what there is to know all the same."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - open until the process ends
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _run(words: list[str]) -> int:
    if not words:
        words = ["--help"]
    elif words[0] == "help":
        words = [*words[1:], "--help"]
    command = next((word for word in words if not word.startswith("-")), None)
    if command is not None and command not in COMMANDS:
        _usage(str(UnknownName("command", command, COMMANDS, MEANT)))
    if wrong := _mistaken(words, command):
        _usage(wrong)
    parser = parser_for(command)
    args, more = parser.parse_known_args(words)
    if more and command == "check":
        _usage("check takes one request; give the reply to it with --response REPLY")
    if more:
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    for name, value in vars(args).items():
        check_range(name, value, f"--{name.replace('_', '-')}")
    code = int(args.run(args))
    sys.stdout.flush()
    return code


def _usage(message: str) -> NoReturn:
    print(f"guardreasoner: {message}", file=sys.stderr)
    raise SystemExit(2)


def _mistaken(words: Sequence[str], command: str | None) -> str | None:
    """What is wrong with the options, before anything is parsed: argparse says less, and `--help` would end it well."""
    flags = [word.partition("=")[0] for word in words[: words.index("--") if "--" in words else None]]
    if "--fail-on" in flags and {"-h", "--help"}.intersection(flags):
        return "--help judges nothing; to judge a text that may begin with a dash, write --prompt=TEXT"
    if command is None:
        known: Iterable[str] = ("--help", "--version")
    else:
        (sub,) = (a for a in parser_for(command)._actions if isinstance(a, argparse._SubParsersAction))
        known = sub.choices[command]._option_string_actions
    for flag in flags:
        if not flag.startswith("--") or " " in flag:
            continue
        meant = [option for option in known if option.startswith(flag)]
        if len(meant) > 1 and flag not in meant:
            return f"{printable(flag, 40)} may be {' or '.join(meant)}; write it out"
        if not meant:
            near = nearest(flag, known, 0.5)
            hint = f"did you mean {near}?" if near else f"`guardreasoner {command or '--help'} --help` lists them"
            return f"there is no option {printable(flag, 40)}; {hint}"
    return None


def sentence(error: BaseException) -> str:
    """One sentence on any error. What a library says is not repeated: it may quote judged text."""
    if isinstance(error, GuardReasonerError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "stopped; the same command again resumes where the run allows it"
    if isinstance(error, MemoryError):
        return "there is not enough memory; give a smaller model, or --option max_batch=1"
    if isinstance(error, OSError) and error.strerror:
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        return f"{printable(what, 300)}; mend that, and give the same command again"
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "guardreasoner" in Path(frame.filename).parts]
    where = f" in {Path(ours[-1].filename).name}, line {ours[-1].lineno}" if ours else ""
    return f"something unforeseen went wrong ({type(error).__name__}{where}); --debug shows all of it, please report it"


if __name__ == "__main__":
    sys.exit(main())
