"""Fixtures of the tests of the command line."""

from tests.workers.cli.lot_imports import run_import  # noqa: F401 - a fixture
