"""One server with default policy for all tests of a module that need no other."""

from collections.abc import Iterator

import pytest

from serve.running import Served, serving


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving() as running:
        yield running
