"""Where does a test play a history?  On a stage: a database of its own, a clock it sets, the real task bodies."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from workers.stage import Stage


@pytest.fixture
def stage(database_url: str) -> Iterator[Stage]:
    """A stage at 2026-03-01T00:00:00Z."""
    with Stage(database_url) as standing:
        yield standing
