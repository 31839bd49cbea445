"""Conflicts between transactions: how they are recognised, and running the unit of work again after one."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TypeGuard, TypeVar

from sqlalchemy.exc import DBAPIError
from tenacity import Retrying, retry_if_exception, stop_after_attempt, stop_after_delay, wait_random_exponential

T = TypeVar("T")

MAX_CONFLICT_RETRIES = 6
CONFLICT_SQLSTATES = ("40001", "40P01", "55P03", "23505")
"""Serialization failure, deadlock, lock timeout and unique violation: after such a conflict nothing was written."""


class Conflict(Exception):
    """Another transaction changed what this one had read, and its locks may be too weak: run again, it sees that."""


def retry_on_conflict(body: Callable[[], T], *, max_seconds: float = inf) -> T:
    """Run a unit of work, and run it again after a conflict, at most `MAX_CONFLICT_RETRIES` times with jitter.

    After `max_seconds` it is not run again.
    """
    retrying = Retrying(
        retry=retry_if_exception(is_conflict),
        stop=stop_after_attempt(MAX_CONFLICT_RETRIES) | stop_after_delay(max_seconds),
        wait=wait_random_exponential(multiplier=0.02, max=0.5),
        reraise=True,
    )
    return retrying(body)


def is_conflict(error: BaseException) -> bool:
    if isinstance(error, DBAPIError):
        return getattr(error.orig, "sqlstate", None) in CONFLICT_SQLSTATES
    return isinstance(error, Conflict)


def is_error_without_conflict(error: Exception) -> TypeGuard[DBAPIError]:
    """Return whether PostgreSQL refused a statement, and would again: no conflict, and no lost connection."""
    return isinstance(error, DBAPIError) and not is_conflict(error) and not error.connection_invalidated
