"""How long a test waits for what must happen: long enough for a machine on which everything else runs too.

A wait ends as soon as what it waits for has happened, so that patience costs nothing where all is well.
"""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PATIENCE = 180.0
"""Seconds; also the time limit of requests, joins and processes that a test waits for."""


def until(happened: Callable[[], T], what: str = "what the test waits for did not happen") -> T:
    """What `happened` gives, as soon as that is true.

    Raises:
        AssertionError: it is not, for `PATIENCE` seconds.
    """
    end = time.monotonic() + PATIENCE
    while not (value := happened()):
        assert time.monotonic() < end, what
        time.sleep(0.01)
    return value
