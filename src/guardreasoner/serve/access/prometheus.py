"""Prometheus metrics of one server. No label ever holds judged text."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from guardreasoner.types import Labels, Verdict, field_names

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
STEPS = (1, 2, 4, 8, 16, 32, 64)
PREFIX = "guardreasoner"
TASK_NAMES = field_names(Labels)
M = TypeVar("M", Counter, Histogram)


class Metrics:
    """Counters and histograms; each instance has a registry of its own, so that two servers can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._children = functools.cache(lambda metric, *labels: metric.labels(*labels))
        self.http = self._counter("http_requests", "Answers by route and HTTP status", "route", "code")
        self.seconds = self._histogram("stage_seconds", "Time per exchange by mode and stage (queue, judge, total)")
        self.verdicts = self._counter("verdicts", "Labels given", "task", "label")
        self.statuses = self._counter("verdict_statuses", "Verdicts by route and status", "route", "status")
        self.actions = self._counter("actions", "What policy decided, by route", "route", "action")
        self.unjudged = self._counter(
            "unjudged", "Not judged, by fail mode that decided", "route", "fail_mode", "status"
        )
        self.tokens = self._counter("tokens", "Tokens of the guard", "kind")
        self.escalations = self._counter("escalations", "Reasoning passes in mode auto", "outcome")
        self.cache = self._counter("cache", "Verdict cache look-ups", "outcome")
        self.restarts = self._counter("guard_restarts", "Guard processes replaced")
        self.cancelled = self._counter("cancelled", "Exchanges whose caller left before they were judged")
        self.queue = Gauge("queue_exchanges", "Exchanges waiting", namespace=PREFIX, registry=self.registry)
        self.ready = Gauge("ready", "1 while the guard can judge", namespace=PREFIX, registry=self.registry)
        self.batch = Histogram(
            "batch_exchanges", "Exchanges judged together", namespace=PREFIX, registry=self.registry, buckets=STEPS
        )

    def of(self, metric: M, *labels: str) -> M:
        """A metric's child, remembered: to look one up takes a lock, and labels have few values."""
        child: M = self._children(metric, *labels)
        return child

    def handed_over(self, mode: str, waited: Sequence[float]) -> None:
        """Count a batch and the seconds its exchanges waited."""
        self.batch.observe(len(waited))
        for seconds in waited:
            self.of(self.seconds, mode, "queue").observe(seconds)

    def verdict(self, verdict: Verdict, route: str, seconds: float) -> None:
        """Count one decided verdict."""
        of = self.of
        of(self.seconds, verdict.mode, "total").observe(seconds)
        of(self.statuses, route, verdict.status).inc()
        of(self.actions, route, str(verdict.notes.get("action"))).inc()
        for task in TASK_NAMES:
            if (label := getattr(verdict.labels, task)) is not None:
                of(self.verdicts, task, label).inc()
        if verdict.fail_mode is not None:
            of(self.unjudged, route, verdict.fail_mode, verdict.status).inc()
        of(self.tokens, "prompt").inc(verdict.usage.prompt_tokens)
        of(self.tokens, "completion").inc(verdict.usage.completion_tokens)

    def page(self) -> bytes:
        """The exposition text."""
        page: bytes = generate_latest(self.registry)
        return page

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace=PREFIX, registry=self.registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, ("mode", "stage"), namespace=PREFIX, registry=self.registry, buckets=SECONDS)
