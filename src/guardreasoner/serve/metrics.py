"""Prometheus metrics of one server. No label ever holds judged text."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from guardreasoner.types import TASKS, Verdict

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
STEPS = (1, 2, 4, 8, 16, 32, 64)
PREFIX = "guardreasoner"


class Metrics:
    """Counters and histograms; each instance has a registry of its own, so that two servers can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
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

    def verdict(self, verdict: Verdict, route: str, seconds: float) -> None:
        """Count one decided verdict."""
        self.seconds.labels(verdict.mode, "total").observe(seconds)
        self.statuses.labels(route, verdict.status).inc()
        self.actions.labels(route, str(verdict.notes.get("action"))).inc()
        for task in TASKS:
            if (label := verdict.labels[task]) is not None:
                self.verdicts.labels(task.value, label).inc()
        if verdict.fail_mode is not None:
            self.unjudged.labels(route, verdict.fail_mode, verdict.status).inc()
        self.tokens.labels("prompt").inc(verdict.usage.prompt_tokens)
        self.tokens.labels("completion").inc(verdict.usage.completion_tokens)

    def page(self) -> bytes:
        """The exposition text."""
        page: bytes = generate_latest(self.registry)
        return page

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace=PREFIX, registry=self.registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, ("mode", "stage"), namespace=PREFIX, registry=self.registry, buckets=SECONDS)
