"""Fixtures of the tests of tasks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tasks import mailer, publisher
from tests.tasks.crashes import CrashPoints


@pytest.fixture
def points() -> Iterator[CrashPoints]:
    yield CrashPoints()
    publisher.set_publisher(None)
    mailer.set_mailer(None)
