"""Tests that a log event is one line, for people and as JSON, whatever text it contains."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from workers import logs


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.parametrize("form", ["console", "json"])
def test_no_text_starts_a_new_log_line(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Bad input: newline injection into logs, terminal colours, right-to-left override."""
    logs.configure(form)
    structlog.get_logger("here").info("answered", order="1\n2026 [error] forged", who="\x1b[31mred\u202e")
    logging.getLogger("elsewhere").warning("from a library: %s", "a\r\nb")
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 2
    assert "\x1b[31mred" not in said
    assert "\u202e" not in said


def test_json_log_has_one_object_per_line_with_task_and_order(capsys: pytest.CaptureFixture[str]) -> None:
    """Issue: structured logs with request, order and cause."""
    logs.configure("json")
    with structlog.contextvars.bound_contextvars(task="npb.file", order=1003, request="r-1"):
        structlog.get_logger("here").info("answered", outcome="done")
    told = json.loads(capsys.readouterr().err)
    assert (told["task"], told["order"], told["request"], told["outcome"]) == ("npb.file", 1003, "r-1", "done")
    assert told["timestamp"].endswith("Z")
