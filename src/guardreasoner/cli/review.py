"""`guardreasoner review RUN`: correct labels in the browser, one row at a time, blind until the first answer."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from guardreasoner.cli.options import add_data
from guardreasoner.errors import ConfigError, need


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="RUN", help="a review folder made by `disagreements --out`, or a "
                        "finished run (its review is then drawn into RUN/review)")  # fmt: skip
    parser.add_argument("--port", type=int, default=8090, help="on this machine only (default 8090)")
    parser.add_argument("--reviewer", metavar="NAME", help="signs the reviews (default: asked for)")
    add_data(parser)


def run(args: argparse.Namespace) -> int:
    uvicorn = need("uvicorn", "serve")
    need("fastapi", "serve")
    from guardreasoner.review.app import Store, make_review_app

    if not 0 < args.port < 65536:
        raise ConfigError("--port must be between 1 and 65535")
    reviewer = args.reviewer or _ask_name()
    store = Store(_review_folder(args.folder, args.data), reviewer)
    done = store.progress()
    print(f"{done['done']} of {done['total']} rows done; answers go to {store.path}", file=sys.stderr)
    print(f"open http://127.0.0.1:{args.port} (texts may be harmful); Ctrl-C ends", file=sys.stderr)
    uvicorn.run(make_review_app(store), host="127.0.0.1", port=args.port, log_level="warning", access_log=False)
    return 0


def _review_folder(folder: Path, data: Path | None) -> Path:
    from guardreasoner.evaluate.contestants import contestants
    from guardreasoner.evaluate.finished_runs import open_run
    from guardreasoner.review.disagreements import ITEMS, contested, draw, write_review

    if (folder / ITEMS).exists():
        return folder
    own = folder / "review"
    if not (own / ITEMS).exists():
        rows = write_review(draw(contested(contestants([open_run(folder, data)]))), own)
        print(f"drew {rows} rows to review into {own}", file=sys.stderr)
    return own


def _ask_name() -> str:
    """The reviewer's name, asked for: labels are weighed by who gave them."""
    if not sys.stdin.isatty():
        raise ConfigError("who reviews? give --reviewer NAME; reviews are signed")
    while not (name := input("Your name, to sign the reviews: ").strip()):
        pass
    return name
