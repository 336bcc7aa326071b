"""The label-correction page: one row at a time, by keyboard, blind until the first answer.

A review folder (`guardreasoner disagreements --out`) holds `items.jsonl`, which the page shows, and `sealed.jsonl` with
gold, verdicts and reasoning, shown only for rows that this reviewer has answered. Answers are appended to
`reviews-<reviewer>.jsonl`, one `Review` a line; a second answer to a row, given after the reveal, says so in its note.
The server listens on this machine only, answers only to its own names, and accepts only same-origin JSON.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from guardreasoner.errors import DataError
from guardreasoner.records import Appender, from_dict, now, read_jsonl
from guardreasoner.report.worth_reading import visible
from guardreasoner.review.disagreements import ITEMS, SEALED
from guardreasoner.serve.access.connection import HEADERS
from guardreasoner.serve.service import page_routes
from guardreasoner.types import TASKS, Labels, Review, Task
from guardreasoner.yaml_files import in_package

PAGES = {"/": ("review.html", "text/html"), "/review.js": ("review.js", "text/javascript"),
         "/review.css": ("review.css", "text/css")}  # fmt: skip
LATER = "after the reveal:"
TASK_NAMES = {Task.prompt_harm: "Is the request harmful?", Task.refusal: "Is the reply a refusal?",
              Task.response_harm: "Is the reply harmful?"}  # fmt: skip


class ReviewAnswer(BaseModel):
    """What the page sends."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(max_length=1000)
    labels: dict[Task, str | None]
    note: str = Field("", max_length=4000)


class Store:
    """One reviewer's answers to one review folder."""

    def __init__(self, folder: str | Path, reviewer: str) -> None:
        """Read the folder."""
        self.folder, self.reviewer = Path(folder), reviewer
        self.items = {str(row["id"]): row for _, row in _rows(self.folder / ITEMS, ("id", "tasks", "prompt"))}
        self.sealed: dict[str, list[dict[str, Any]]] = {}
        for _, row in _rows(self.folder / SEALED, ("id", "task", "gold", "verdicts")):
            self.sealed.setdefault(str(row["id"]), []).append(row)
        self.path = self.folder / f"reviews-{slug(reviewer)}.jsonl"
        self.file = Appender(self.path)
        self.given: dict[str, Review] = {}
        for row in self.file.existing:
            review = from_dict(Review, row)
            if review.reviewer == reviewer:
                self.given[review.exchange_id] = review

    def item(self, identity: str | None = None) -> dict[str, Any] | None:
        """One row as the page shows it: the asked one, or the first without an answer; None = all are answered.

        Raises:
            KeyError: there is no such row.
        """
        if identity is None:
            identity = next((i for i in self.items if i not in self.given), None)
            if identity is None:
                return None
        row = self.items[identity]
        given = self.given.get(identity)
        response = row.get("response")
        return {
            "id": identity,
            "tasks": row["tasks"],
            "prompt": visible(str(row["prompt"])),
            "response": None if response is None else visible(str(response)),
            "given": given.labels.as_dict() if given else None,
            "note": given.note if given else "",
            "revealed": self.reveal(identity) if given else None,
        }

    def reveal(self, identity: str) -> list[dict[str, Any]]:
        """Gold and verdicts of a row, task by task."""
        return [
            {
                "task": row["task"],
                "gold": row["gold"],
                "verdicts": [
                    {
                        "guard": visible(str(v.get("guard"))),
                        "label": v.get("label"),
                        "score": v.get("score"),
                        "reasoning": visible(str(v.get("reasoning") or "")),
                    }
                    for v in row["verdicts"]
                ],
            }
            for row in self.sealed.get(identity, ())
        ]

    def answer(self, answer: ReviewAnswer) -> dict[str, Any]:
        """Keep an answer, unless it is the one that is kept already; returns the row with gold and verdicts.

        Raises:
            KeyError: there is no such row.
            ValueError: a label that a task cannot have, or a task that is not asked.
        """
        row = self.items[answer.id]
        if {t.value for t in answer.labels} - set(row["tasks"]):
            raise ValueError("a task that is not asked")
        labels = Labels.of(answer.labels)
        note, before = answer.note.removeprefix(LATER).strip(), self.given.get(answer.id)
        if before is None or (before.labels, before.note.removeprefix(LATER).strip()) != (labels, note):
            note = note if before is None else f"{LATER} {note}".strip()
            review = Review(answer.id, self.reviewer, labels, note, now())
            self.file.append(review)
            self.given[answer.id] = review
        shown = self.item(answer.id)
        assert shown is not None
        return shown

    def progress(self) -> dict[str, Any]:
        """Who reviews, and how far."""
        return {
            "reviewer": visible(self.reviewer),
            "done": len(self.given.keys() & self.items),
            "total": len(self.items),
        }


def slug(name: str) -> str:
    """A name that is safe in a file name, and another for each name."""
    safe = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:40] or "anonymous"
    return safe if safe == name else f"{safe}-{hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:8]}"


def _rows(path: Path, wanted: tuple[str, ...]) -> list[tuple[int, dict[str, Any]]]:
    if not path.exists():
        raise DataError(
            f"{path.parent} holds no review ({path.name} is not there); make one with `guardreasoner disagreements`"
        )
    rows = list(read_jsonl(path))
    for line, row in rows:
        if missing := [key for key in wanted if key not in row]:
            raise DataError("not a line of a review", file=str(path), line=line, field=missing[0])
    return rows


def make_review_app(store: Store) -> ASGIApp:
    """The page and its three routes."""
    app = FastAPI(title="guardreasoner review", docs_url=None, redoc_url=None, openapi_url=None)
    asked = {
        t.value: {"question": TASK_NAMES[t], "positive": row.positive, "negative": row.negative}
        for t, row in TASKS.items()
    }

    def state(item: Mapping[str, Any] | None) -> dict[str, Any]:
        return {**store.progress(), "tasks": asked, "item": item}

    @app.get("/api/next")
    def following() -> dict[str, Any]:
        return state(store.item())

    @app.get("/api/item")
    def one(id: str) -> Response:
        try:
            return JSONResponse(state(store.item(id)))
        except KeyError:
            return JSONResponse({"error": "there is no such row"}, 404)

    @app.post("/api/answer")
    async def take(answer: ReviewAnswer) -> Response:
        try:
            return JSONResponse(state(store.answer(answer)))
        except KeyError:
            return JSONResponse({"error": "there is no such row"}, 404)
        except ValueError:
            return JSONResponse({"error": "a label that this row cannot have"}, 422)

    async def malformed(_: Request, __: Exception) -> Response:  # FastAPI's own answer quotes the body
        return JSONResponse({"error": "not an answer"}, 422)

    app.add_exception_handler(RequestValidationError, malformed)
    app.router.routes.extend(page_routes(in_package("review/pages"), PAGES))
    return LocalPagesOnly(app)


class LocalPagesOnly:
    """Lets in only requests of this machine's own pages, and puts the policy on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *HEADERS.items()]}
            await send(message)

        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        name = re.sub(r":\d+$", "", headers.get("host", ""))
        foreign = headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
        plain = scope["method"] == "POST" and not headers.get("content-type", "").startswith("application/json")
        if name not in ("127.0.0.1", "localhost", "[::1]") or foreign or plain:
            await JSONResponse({"error": "not from here"}, 403)(scope, receive, dressed)
            return
        await self.app(scope, receive, dressed)
