"""OpenAI's `POST /v1/moderations`.

The guard says that something is harmful and, in its own words, what kind of harm. `moderations.yaml` fills the 13
categories from those words; where no row matches, all stay false and `flagged` is true all the same.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel
from pydantic import Field as Default
from starlette.requests import Request
from starlette.responses import Response

from guardreasoner.data.harm_kinds import kinds
from guardreasoner.serve.access.limits import Refused
from guardreasoner.serve.chat.conversation import worst
from guardreasoner.serve.fields import Field, FieldTable
from guardreasoner.serve.service import Service, brief, described, reply
from guardreasoner.types import Exchange, Mode, Task, Verdict
from guardreasoner.yaml_files import packaged

CATEGORIES = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm",
    "self-harm/intent", "self-harm/instructions", "sexual", "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip

CROSSWALK: tuple[tuple[str, tuple[str, ...]], ...] = tuple(
    (pattern, tuple(categories)) for pattern, categories in packaged("serve/wires/moderations.yaml").items()
)
"""Pattern over the case-folded kind of harm -> categories; every matching row counts."""
INPUT_TYPES = {c: ["text"] for c in CATEGORIES}
_CROSSWALK = tuple((re.compile(pattern), categories) for pattern, categories in CROSSWALK)


FIELDS = FieldTable(
    (
        Field("input", "text"),
        Field("input[]", "text"),
        Field("input[].type", "=text|image_url"),
        Field("input[].text", "text"),
        Field("input[].image_url", "refused"),
        Field("model", "note"),
        Field("guardreasoner.mode", "=instant|short|full|auto"),
        Field("guardreasoner.role", "=prompt|response"),
    )
)
"""The body's fields. Nothing of it is sent on; `model` is answered with the guard's own name."""


class ModerationOptions(BaseModel):
    """Ours, in `extra_body`."""

    mode: Mode | None = None
    role: Literal["prompt", "response"] = "prompt"
    """Whether the input was said by a user or by a model."""


class Part(BaseModel):
    """One part of a multimodal input."""

    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: Mapping[str, Any] | None = None


class Moderation(BaseModel):
    """The body; `model` may be any name and is answered with the guard's own."""

    input: str | list[str] | list[Part]
    model: str | None = None
    guardreasoner: ModerationOptions = Default(default_factory=ModerationOptions)


def scores_of(verdict: Verdict) -> dict[str, float]:
    """All 13 category scores; 0.0 where the verdict is no harm, or its kind counts towards no category."""
    found = dict.fromkeys(CATEGORIES, 0.0)
    if not verdict.labels.harmful:
        return found
    table = kinds()
    for name, p in verdict.kinds.items():
        for number, category in enumerate(table[name].openai if name in table else ()):
            if number == 0 or "/" not in category:  # the others say more than a kind does
                found[category] = max(found[category], p)
    said, worst_p = (verdict.harm or "").casefold(), _probability(verdict)
    for pattern, categories in _CROSSWALK:
        for category in categories if said and pattern.search(said) else ():
            found[category] = worst_p
    return found


def categories_of(verdict: Verdict) -> dict[str, bool]:
    """All 13 categories: true where the score is at least half of P(harmful)."""
    least = _probability(verdict) / 2
    return {c: score > 0 and score >= least for c, score in scores_of(verdict).items()}


def result_of(verdict: Verdict) -> dict[str, Any]:
    """One element of `results`."""
    return {
        "flagged": verdict.flagged,
        "categories": categories_of(verdict),
        "category_scores": scores_of(verdict),
        "category_applied_input_types": INPUT_TYPES,
        "guardreasoner": brief(verdict),
    }


def _probability(verdict: Verdict) -> float:
    """P(harmful) of request or reply, whichever is worse; 1 where a guard gives none."""
    scores = [verdict.scores.get(t.value) for t in (Task.prompt_harm, Task.response_harm)]
    return max((s for s in scores if s is not None), default=1.0)


def router(service: Service) -> APIRouter:
    """The route."""
    routes = APIRouter()

    @routes.post("/v1/moderations", name="moderations", **described(Moderation, "OpenAI moderation of texts."))
    async def moderations(request: Request) -> Response:
        body, checked = await service.read(request, "moderations", Moderation, table=FIELDS, many="input")
        ask = service.ask(request, "moderations", body.guardreasoner.mode)
        asked = [[_exchange(t, f"{i}", body) for t in texts] for i, texts in enumerate(_inputs(body.input))]
        verdicts = iter(await service.judge_all(request, [e for several in asked for e in several], ask))
        results = [result_of(worst([next(verdicts) for _ in several])) for several in asked]
        for result in results if checked.refused else ():
            result["guardreasoner"]["notes"]["unread"] = f"{len(checked.refused)} part(s)"
        return reply({"id": f"modr-{uuid.uuid4().hex}", "model": service.core.worker.name, "results": results})

    return routes


def _exchange(text: str, name: str, body: Moderation) -> Exchange:
    return Exchange(name, "", text) if body.guardreasoner.role == "response" else Exchange(name, text)


def _inputs(given: str | list[str] | list[Part]) -> list[list[str]]:
    """What is judged for each result: a text; for a list of parts, all of them together and each by itself."""
    if isinstance(given, str):
        given = [given]
    if given and isinstance(given[0], Part):
        texts = [p.text for p in given if isinstance(p, Part) and p.text]
        if not texts:
            raise Refused(400, "input holds no text", "empty")
        return [list(dict.fromkeys(["\n".join(texts), *texts]))]
    for number, text in enumerate(given):
        if not text:
            where = "input" if len(given) == 1 else f"input[{number}]"
            raise Refused(400, f"{where} is empty; there is nothing to judge", "empty")
    if not given:
        raise Refused(400, "input holds no text", "empty")
    return [[text] for text in given if isinstance(text, str)]
