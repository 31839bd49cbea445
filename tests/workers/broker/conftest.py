"""Fixtures of the tests of the broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plugins.sentinel import SentinelGroup


@pytest.fixture
def sentinel_group(tmp_path: Path) -> Iterator[SentinelGroup]:
    folder = tmp_path / "sentinel"
    folder.mkdir()
    group = SentinelGroup(folder)
    yield group
    group.stop()
