"""Fixtures of the tests of tasks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tasks.process_services import services
from tests.tasks.crashes import CrashPoints


@pytest.fixture
def points() -> Iterator[CrashPoints]:
    yield CrashPoints()
    services.publisher = None
    services.mailer = None
