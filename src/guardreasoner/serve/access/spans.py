"""OpenTelemetry spans, where OpenTelemetry is installed; nothing otherwise. No attribute ever holds judged text.

Only the API is used here: exporter, endpoint and sampling are set up from outside, by `opentelemetry-instrument` or by
the standard `OTEL_*` variables. FastAPI (0.165) makes the spans of the requests around ours by itself, so that a traced
request goes through its layers (`FrontDoor`).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

try:
    from opentelemetry import trace
except ModuleNotFoundError:
    trace = None


def configured() -> bool:
    """Whether an exporter for spans is configured."""
    return trace is not None and not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def span(name: str, attributes: Mapping[str, str | int | float | bool]) -> AbstractContextManager[Any]:
    """A span around a block of work, where they are `configured`; the current one where spans nest."""
    tracer = trace.get_tracer("guardreasoner")
    return tracer.start_as_current_span(  # type: ignore[no-any-return]
        f"guardreasoner.{name}", attributes=dict(attributes), record_exception=False, set_status_on_exception=False
    )
