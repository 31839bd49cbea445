"""A wait for what has no event: a change in another process or in a server."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

TIMEOUT_SECONDS = 45.0


def wait_until(condition: Callable[[], Any], seconds: float = TIMEOUT_SECONDS, *, what: str = "it") -> Any:
    """Poll until the result is true, and return it."""
    end = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < end, f"{what} did not happen within {seconds:.0f} s"
        time.sleep(0.02)
    return answer
