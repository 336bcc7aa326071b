"""The application: one core, every wire format, and what an operator needs to watch it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module

import httpx
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from guardreasoner import __version__
from guardreasoner.serve.access.connection import FrontDoor
from guardreasoner.serve.access.keys import HostNames, Keys
from guardreasoner.serve.access.limits import Refused
from guardreasoner.serve.access.prometheus import Metrics
from guardreasoner.serve.chat import proxy
from guardreasoner.serve.chat.models import listed_models
from guardreasoner.serve.core.frames import Opener
from guardreasoner.serve.core.judge import Core
from guardreasoner.serve.core.worker import Worker
from guardreasoner.serve.policy import ROUTES, Policy
from guardreasoner.serve.service import Service, page_routes, reply
from guardreasoner.yaml_files import in_package

ABSENT = {
    path: f"{path} is not served here; send the conversation to /v1/chat/completions"
    for path in ("/v1/responses", "/v1/completions", "/v1/messages")
}
"""Other APIs that clients may try, and the message they get."""
WIRES = (*(import_module(f"guardreasoner.serve.wires.{route}") for route in ROUTES if route != "proxy"), proxy)
"""Everything with a `router`: a new wire is one file in `serve/wires/`."""
PAGES = {"/": ("playground.html", "text/html"), "/playground.js": ("playground.js", "text/javascript"),
         "/playground.css": ("playground.css", "text/css")}  # fmt: skip
NO_LIMIT = httpx.Limits(max_connections=None, max_keepalive_connections=100)


def make_app(
    opener: Opener,
    policy: Policy | None = None,
    *,
    keys: Keys | None = None,
    names: HostNames | None = None,
    upstream_key: str | None = None,
) -> FrontDoor:
    """The whole server as an ASGI application.

    Args:
        opener: makes the guard, in a process of its own.
        policy: None = all defaults.
        keys: who may call; None = everyone.
        names: names by which the server may be called; None = any well-formed one.
        upstream_key: the proxy's key for its upstream.
    """
    policy = policy or Policy()
    metrics = Metrics()
    worker = Worker(opener, hang_s=policy.limits.hang_s, on_loss=metrics.restarts.inc)
    core = Core(worker, policy, metrics)
    client = httpx.AsyncClient(timeout=policy.proxy.timeout_s, limits=NO_LIMIT, trust_env=False)
    service = Service(core, policy, metrics, client, upstream_key, keyed=bool(keys and keys.digests))

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        core.start()
        yield
        await core.close()
        await client.aclose()

    app = FastAPI(title="guardreasoner", version=__version__, docs_url=None, redoc_url=None, lifespan=life)
    app.state.core = core
    _errors(app)
    _operations(app, service)
    routers = [wire.router(service) for wire in WIRES]
    known = [*app.routes, *(route for router in routers for route in router.routes)]
    labels = {str(getattr(r, "path", "")): str(getattr(r, "name", "other")) for r in known}
    for router in routers:
        app.include_router(router)
    return FrontDoor(
        app,
        keys=keys or Keys({}),
        names=names or HostNames(()),
        metrics=metrics,
        routes=labels,
        wires={r.path: r.endpoint for router in routers for r in router.routes if isinstance(r, Route)},
        most=policy.limits.requests,
    )


def _errors(app: FastAPI) -> None:
    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        return reply(error.body(), error.status, error.headers)

    async def malformed(_: Request, __: Exception) -> Response:  # FastAPI's own answer quotes the body
        return reply(Refused(400, "the request is not what this route wants", "bad_request").body(), 400)

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        said = {404: "there is no such route", 405: "this route does not take that method"}
        message = said.get(error.status_code, "the request cannot be served")
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        headers = dict(error.headers or {})
        return reply(Refused(error.status_code, message, code).body(), error.status_code, headers)

    async def gone(_: Request, __: Exception) -> Response:
        return Response(status_code=499)

    async def broken(_: Request, error: Exception) -> Response:
        refusal = Refused(500, f"internal error ({type(error).__name__})", "internal")
        return reply(refusal.body(), 500)

    app.add_exception_handler(Exception, broken)
    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(RequestValidationError, malformed)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(ClientDisconnect, gone)


def _operations(app: FastAPI, service: Service) -> None:
    core, metrics = service.core, service.metrics
    began = time.time()

    @app.get("/healthz", name="healthz", summary="The server runs.")
    async def healthz() -> Response:
        return reply({"status": "ok", "seconds": round(time.time() - began, 1)})

    @app.get("/readyz", name="readyz", summary="The guard is loaded, and new work is welcome.")
    async def readyz() -> Response:
        state = "ready" if core.ready else "draining" if core.draining else "loading"
        return reply({"status": state, "guard": core.worker.name}, 200 if core.ready else 503)

    @app.get("/metrics", name="metrics", summary="Prometheus metrics.")
    async def page() -> Response:
        metrics.ready.set(core.ready)
        return Response(metrics.page(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/playground.json", name="playground", include_in_schema=False)
    async def playground() -> Response:
        own, guard = core.policy.rules("judge").thresholds, core.worker.guard
        return reply({"first": guard.first, "marks": {m: {**tasks, **own} for m, tasks in guard.thresholds.items()}})

    @app.get("/v1/models", name="models", summary="Models: the upstream's, or the guard.")
    async def models() -> Response:
        return reply({"object": "list", "data": await listed_models(service)})

    for path, message in ABSENT.items():
        answer = reply(Refused(404, message, "not_found").body(), 404)
        app.router.routes.append(Route(path, answer, methods=["GET", "POST"], name="absent"))
    app.router.routes.extend(page_routes(in_package("serve/pages"), PAGES))
