"""Fixture plugins of the test suite, and the order of its files."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings

pytest_plugins = [
    "tests.plugins.servers",
    "tests.plugins.postgres",
    "tests.plugins.pooler",
    "tests.plugins.sentinel",
    "tests.plugins.simulation",
    "tests.plugins.market",
    "tests.plugins.invariants",
    "tests.plugins.guarantees",
]

# Hypothesis fails a slow example after 200 ms; here that says only how loaded the machine is.
settings.register_profile("without_deadline", settings(), deadline=None)
settings.load_profile("without_deadline")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a distributed run sort files by expected duration, so that no long file begins when other processes end."""
    if not hasattr(config, "workerinput"):
        return
    seconds: Counter[str] = Counter()
    for item in items:
        seconds[item.location[0]] += _expected_seconds(item)
    items.sort(key=lambda item: (-seconds[item.location[0]], item.location[0]))


def _expected_seconds(item: pytest.Item) -> int:
    """A rough guess in tenths of a second from the markers: a test's own timeout is several times its duration."""
    timeout = item.get_closest_marker("timeout")
    if timeout is not None and item.get_closest_marker("long"):
        return int(timeout.args[0]) * 2
    if item.get_closest_marker("long"):
        return 150
    return 40 if item.get_closest_marker("e2e") else 3
