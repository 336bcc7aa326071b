"""`guardreasoner COMMAND ...`: finds the command's module, runs it, and turns errors into one sentence.

Exit codes: 0 done, 1 our error, 2 usage, 10 `--fail-on` met, 11 something left unjudged under fail mode `closed`.
A command module has `HELP`, `add(parser)` and `run(args) -> int`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

from guardreasoner import __version__
from guardreasoner.engines.hardware import wait_gently
from guardreasoner.errors import GuardReasonerError

COMMANDS: dict[str, str] = {
    "check": "judge one exchange, or JSON lines from standard input",
    "batch": "judge a table of any size (JSON lines, CSV, Parquet), resumable",
    "serve": "run the HTTP service and the playground",
    "evaluate": "run a guard over benchmarks, keep verdicts, score them",
    "score": "re-score stored predictions",
    "report": "write Markdown and HTML tables of finished runs",
    "disagreements": "list rows on which runs disagree with each other or with gold",
    "cascade": "replay two runs as one cascade: F1 against the share that goes on to the second guard",
    "audit": "measure whether the reasoning supports the verdicts",
    "leakage": "find training rows that overlap with benchmarks",
    "calibrate": "fit thresholds and probabilities of any guard with scores",
    "tune": "fit nano's heads and thresholds to labelled rows of your own",
    "import-traces": "read published reasoning traces into Trace records",
    "synthesize": "let a teacher write reasoning for labelled examples",
    "sft": "train on reasoning traces (R-SFT)",
    "sample": "write k answers per example with one or several models",
    "mine": "turn disagreeing answers into weighted preferences",
    "dpo": "train on weighted preferences (HS-DPO)",
    "export": "turn a checkpoint into an ONNX model folder",
    "reproduce": "run all stages of a recipe in order, then evaluate",
    "show": "print records of a run",
    "bench": "latency, throughput, tokens and memory per query",
    "review": "correct labels in the browser",
    "guards": "list guards and what each needs",
    "benchmarks": "list the 13 benchmark cells",
    "seeds": "list the seed training sets",
    "doctor": "what is installed, what is missing, what to do about it",
}


def module_of(command: str) -> str:
    """The module that holds a command."""
    return f"guardreasoner.cli.{command.replace('-', '_')}"


def parser_for(command: str | None) -> argparse.ArgumentParser:
    """The whole parser; only the asked command's module is imported, so that `check` starts fast."""
    parser = argparse.ArgumentParser(
        prog="guardreasoner", description="A guard for LLM applications that reasons before it judges."
    )
    parser.add_argument("--version", action="version", version=f"guardreasoner {__version__}")
    sub = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        if find_spec(module_of(name)) is None:
            continue
        child = sub.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name == command:
            module = import_module(module_of(name))
            module.add(child)
            child.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    wait_gently()
    words = list(sys.argv[1:] if argv is None else argv)
    command = next((w for w in words if not w.startswith("-")), None)
    args = parser_for(command).parse_args(words)
    try:
        return int(args.run(args))
    except GuardReasonerError as error:
        print(f"guardreasoner: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("guardreasoner: stopped; the same command again resumes where the run allows it", file=sys.stderr)
        return 1
    except BrokenPipeError:
        sys.stderr.close()
        return 1


if __name__ == "__main__":
    sys.exit(main())
