"""Servers that the tests of a module share: one with the default policy, and one that is a proxy with its upstream."""

from collections.abc import Iterator

import pytest

from serve.running import Served, Upstream, serving, upstream


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Upstream, Served]]:
    with upstream() as up, serving({"proxy": {"upstream": up.url}}) as running:
        yield up, running


@pytest.fixture
def proxied(pair: tuple[Upstream, Served]) -> tuple[Upstream, Served]:
    """The proxy, whose upstream has seen nothing yet and says hello."""
    up, running = pair
    up.seen.clear()
    up.headers.clear()
    up.reply = lambda body: "Hello there."
    return up, running
