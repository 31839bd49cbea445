"""Ends the thread that stores dead letters before the servers of its test go."""

from __future__ import annotations

import pytest

from workers.transport import dead_letters


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown() -> None:
    dead_letters._dead_letter_writer.close(30)
    dead_letters._dead_letter_writer = writer = dead_letters.DeadLetterWriter()
    dead_letters.write_soon = writer.write_soon
