"""Fixture plugins of the test suite."""

pytest_plugins = [
    "tests.plugins.servers",
    "tests.plugins.postgres",
    "tests.plugins.simulation",
    "tests.plugins.market",
    "tests.plugins.seed_history",
    "tests.plugins.crashes",
    "tests.plugins.invariants",
    "tests.plugins.guarantees",
    "tests.plugins.browser",
]
