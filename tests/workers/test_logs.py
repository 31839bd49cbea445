"""Tests that a log event is one line, for people and as JSON, whatever text it contains."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from workers import logs


@pytest.fixture(autouse=True)
def restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.parametrize("form", ["console", "json"])
def test_no_text_starts_a_new_log_line(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Newlines, terminal colors and direction overrides."""
    logs.configure(form)
    structlog.get_logger("here").info("answered", order="1\n2026 [error] forged", who="\x1b[31mred\u202e")
    logging.getLogger("elsewhere").warning("from a library: %s", "a\r\nb")
    output = capsys.readouterr().err
    assert len(output.splitlines()) == 2
    assert "\x1b[31mred" not in output
    assert "\u202e" not in output


def test_json_log_has_one_object_per_line_with_task_and_order(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json")
    with structlog.contextvars.bound_contextvars(task="npb.file", order=1003, request="r-1"):
        structlog.get_logger("here").info("answered", outcome="done")
    entry = json.loads(capsys.readouterr().err)
    assert (entry["task"], entry["order"], entry["request"], entry["outcome"]) == ("npb.file", 1003, "r-1", "done")
    assert entry["timestamp"].endswith("Z")
