"""What is said of a failure?  What kind, where, and which constraint: never the values, which may be private (P9).

A database error's own text holds the whole row, a KeyError its key; both would end in logs, events and Flower (F64).
"""

from __future__ import annotations

import traceback
from pathlib import Path

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

_HOUSE = str(Path(__file__).resolve().parents[1])
_SERVER_AWAY = ("08", "53", "57P", "58", "25006")
"""SQL states of connections, resources, shutdown, the system itself, and of a server that only reads for now."""


class TaskFailed(Exception):
    """A job raised what nobody expected; the text says what and where, without values."""


def is_database_unavailable(error: BaseException) -> bool:
    """The database or the way to it, not the job, is what failed: nothing was decided, so trying again is always right.

    A statement that was cancelled for its length is not: it would be cancelled every time.
    """
    if isinstance(error, DBAPIError):
        state = getattr(error.orig, "sqlstate", None)
        if error.connection_invalidated or (state is not None and state.startswith(_SERVER_AWAY)):
            return True
        return state is None and isinstance(error, OperationalError | InterfaceError)
    return isinstance(error, PoolTimeout)


def summarize(error: BaseException) -> str:
    """One line: `IntegrityError 23505 uq_alerts_one_open_per_order at tasks/npb.py:55 in file`."""
    said = [type(error).__name__]
    if isinstance(error, DBAPIError):
        diagnosis = getattr(error.orig, "diag", None)
        said += [
            str(part)
            for part in (
                getattr(error.orig, "sqlstate", None),
                getattr(diagnosis, "constraint_name", None) or getattr(diagnosis, "table_name", None),
            )
            if part
        ]
    where = traceback_path(error)
    return " ".join(said) + (f" at {where[-1]}" if where else "")


def sanitized(error: BaseException) -> TaskFailed:
    """What is raised in its stead: described, and with the way through our code for whoever reads the traceback."""
    failure = TaskFailed(summarize(error))
    for step in traceback_path(error):
        failure.add_note(f"  by {step}")
    return failure


def traceback_path(error: BaseException) -> list[str]:
    """The way through our own code to the failure, outermost first."""
    return [
        f"{Path(frame.filename).relative_to(_HOUSE)}:{frame.lineno} in {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.startswith(_HOUSE) and "site-packages" not in frame.filename
    ]
