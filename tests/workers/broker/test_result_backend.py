"""Tests of results as they are stored: what Celery's own encoding would give to a client."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from policies.statuses import Role
from workers.app import app


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ({"outcome": "done", "effects": {"role": Role.BUYER, "note": "é\u2028"}}, None),
        ({"units": 2**70}, None),
        ({"text": "\ud800"}, None),
        (datetime(2026, 3, 28, tzinfo=UTC), {"__type__": "datetime", "__value__": "2026-03-28T00:00:00+00:00"}),
        ({1: "a"}, {"1": "a"}),
    ],
)
def test_results_are_read_as_with_the_encoding_of_celery(stored: Any, read: Any) -> None:
    backend = app.backend
    assert backend.decode(backend.encode(stored)) == (read or stored)
