"""What all tests share: how long they wait. Nothing here measures; on a machine that is busy they only take longer."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings

from patience import until

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture
def eventually() -> Callable[[Callable[[], Any]], Any]:
    """`patience.until`: wait for something to become true."""
    return until
