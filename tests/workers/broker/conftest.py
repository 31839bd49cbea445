"""Fixtures of the tests of the broker."""

from tests.plugins.sentinel import sentinel_group  # noqa: F401 - a fixture
