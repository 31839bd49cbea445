"""Descriptions of failures without private values: error type, SQL state, constraint and source line.

A database error's own text holds the whole row and a KeyError its key; both would end in logs, events and Flower.
"""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable
from pathlib import Path

import psycopg
from sqlalchemy.exc import DBAPIError

_PROJECT_ROOT = str(Path(__file__).resolve().parents[1])


class SanitizedError(Exception):
    """Its text is a description without private values."""


def unknown_task_error_hint(name: str, registered: Iterable[str]) -> str:
    names = difflib.get_close_matches(name, [task for task in registered if not task.startswith("celery.")], cutoff=0.7)
    return f"Did you mean {' or '.join(names)}?" if names else "The files in contract/ have the names of all tasks."


def summarize_error(error: BaseException) -> str:
    """Describe an error in one line: `IntegrityError 23505 uq_alerts_one_open_per_order at tasks/npb.py:55 in file`."""
    if isinstance(error, SanitizedError):
        return str(error)
    words = [type(error).__name__]
    if isinstance(error, DBAPIError) and isinstance(error.orig, psycopg.Error):
        diagnosis = error.orig.diag
        words += filter(None, (error.orig.sqlstate, diagnosis.constraint_name or diagnosis.table_name))
    path = traceback_path(error)
    return " ".join(words) + (f" at {path[-1]}" if path else "")


def sanitize_error(error: BaseException) -> SanitizedError:
    failure = SanitizedError(summarize_error(error))
    for step in traceback_path(error):
        failure.add_note(f"  by {step}")
    return failure


def traceback_path(error: BaseException) -> list[str]:
    return [
        f"{Path(frame.filename).relative_to(_PROJECT_ROOT)}:{frame.lineno} in {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.startswith(_PROJECT_ROOT) and "site-packages" not in frame.filename
    ]
