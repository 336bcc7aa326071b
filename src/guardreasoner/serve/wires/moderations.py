"""OpenAI's `POST /v1/moderations`.

The guard says *that* something is harmful and, in its own words, *what kind* of harm. The 13 categories are filled from
those words by the table below; where no row matches they all stay false, and `flagged` is true all the same.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from guardreasoner.serve.door.limits import Refused, read
from guardreasoner.serve.service import Service, brief, described, reply
from guardreasoner.types import Exchange, Mode, Task, Verdict

CATEGORIES = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm",
    "self-harm/intent", "self-harm/instructions", "sexual", "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip

CROSSWALK: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        r"child (sexual )?(abuse|exploitation)|csam|minors?\b.*sex|sex.*\bminors?|pa?edophil",
        ("sexual", "sexual/minors"),
    ),
    (r"\bsex(ual|ually)?\b|porn|obscen|nud(e|ity)", ("sexual",)),
    (
        r"(instruction|method|how to|advice|encourag|promot)\w*.*(suicid|self[- ]?harm)|pro[- ]?ana",
        ("self-harm", "self-harm/instructions"),
    ),
    (r"suicid|self[- ]?harm|self[- ]?injur|eating disorder", ("self-harm",)),
    (
        r"weapon|explosive|bomb|firearm|\bguns?\b|terror|chemical attack|biological|nuclear|mass (violence|casualt)",
        ("illicit", "illicit/violent"),
    ),
    (
        r"hat(e|ful|red)\b.*(threat|violen)|(threat|violen)\w*.*\bhat(e|ful|red)|genocid",
        ("hate", "hate/threatening"),
    ),
    (
        r"\bhat(e|ful|red)\b|racis|sexis|discriminat|slur|bigot|antisemit|homophob|dehumani|stereotyp|supremac",
        ("hate",),
    ),
    (r"threat|intimidat|blackmail|extort|stalk", ("harassment", "harassment/threatening")),
    (r"harass|bully|insult|toxic|profan|defam|abusive|derogat", ("harassment",)),
    (r"gore|gory|graphic|torture|mutilat", ("violence", "violence/graphic")),
    (r"violen|murder|kill|assault|physical harm|injur", ("violence",)),
    (
        r"illegal|illicit|crim(e|inal)|fraud|scam|theft|steal|robber|burglar|drug|narcotic|traffick|launder|hack|malware|"
        r"phish|cyber|counterfeit|forg(e|ery)|piracy|smuggl|tax evasion|identity",
        ("illicit",),
    ),
)
"""Pattern over the case-folded kind of harm -> categories; every matching row counts."""
INPUT_TYPES = {c: ["text"] for c in CATEGORIES}
_CROSSWALK = tuple((re.compile(pattern), categories) for pattern, categories in CROSSWALK)


class Options(BaseModel):
    """Ours, in `extra_body`."""

    model_config = ConfigDict(extra="forbid")
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
    guardreasoner: Options = Field(default_factory=Options)


def categories_of(verdict: Verdict) -> dict[str, bool]:
    """All 13 categories; true where the verdict is harm and its kind matches the crosswalk."""
    kind = (verdict.harm or "").casefold() if _harmful(verdict) else ""
    hit = {c for pattern, categories in _CROSSWALK if kind and pattern.search(kind) for c in categories}
    return {c: c in hit for c in CATEGORIES}


def result_of(verdict: Verdict) -> dict[str, Any]:
    """One element of `results`."""
    categories = categories_of(verdict)
    scores = [verdict.scores.get(t.value) for t in (Task.prompt_harm, Task.response_harm)]
    score = max((s for s in scores if s is not None), default=1.0 if _harmful(verdict) else 0.0)
    return {
        "flagged": verdict.flagged,
        "categories": categories,
        "category_scores": {c: score if hit else 0.0 for c, hit in categories.items()},
        "category_applied_input_types": INPUT_TYPES,
        "guardreasoner": brief(verdict),
    }


def router(service: Service) -> APIRouter:
    """The route."""
    routes = APIRouter()

    @routes.post("/v1/moderations", name="moderations", **described(Moderation, "OpenAI moderation of texts."))
    async def moderations(request: Request) -> Response:
        body = await read(request, Moderation, service.policy.limits)
        texts, images = _texts(body.input)
        if images and service.policy.rules("moderations").fail_mode == "closed":
            raise Refused(
                400, "this guard reads text only, and fail mode closed lets no image pass unread", "unjudgeable"
            )
        ask = service.ask(request, "moderations", body.guardreasoner.mode)
        verdicts = await service.judge(request, [_exchange(t, i, body) for i, t in enumerate(texts)], ask)
        results = [result_of(v) for v in verdicts]
        if images:
            service.metrics.unjudged.labels("moderations", "open", "unreadable").inc(images)
            for result in results:
                result["guardreasoner"]["notes"]["unread"] = f"{images} image(s)"
        return reply({"id": f"modr-{uuid.uuid4().hex}", "model": service.core.worker.name, "results": results})

    return routes


def _exchange(text: str, number: int, body: Moderation) -> Exchange:
    if body.guardreasoner.role == "response":
        return Exchange(f"{number}", "", text)
    return Exchange(f"{number}", text)


def _texts(given: str | list[str] | list[Part]) -> tuple[list[str], int]:
    """The texts, each of which gets a result, and how many images there are besides.

    Raises:
        Refused: there is nothing to judge.
    """
    if isinstance(given, str):
        return [given], 0
    strings = [g for g in given if isinstance(g, str)]
    parts = [g for g in given if isinstance(g, Part)]
    images = sum(p.type == "image_url" for p in parts)
    texts = strings or (["\n".join(p.text or "" for p in parts if p.type == "text")] if parts else [])
    if not texts or (images and not texts[0]):
        raise Refused(400, "input holds no text", "empty")
    return texts, images


def _harmful(verdict: Verdict) -> bool:
    return "harmful" in (verdict.labels.prompt_harm, verdict.labels.response_harm)
