"""How does a hot path speak to the database?  Through the driver's own cursor: SQL written once, many statements in one trip.

SQLAlchemy keeps the connection and its transaction; what runs thousands of times a minute goes past its compiler and its
result rows, which cost more than most of these statements do (docs/decisions/0011).  Placeholders are psycopg's: `%(name)s`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import orjson
import psycopg
from psycopg.pq import PipelineStatus
from psycopg.rows import namedtuple_row
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

Cursor = psycopg.Cursor[Any]


def execute(conn: Connection, statement: str, values: Mapping[str, Any]) -> Cursor:
    """Run one statement in the transaction of `conn`; its rows have names.  Read it after the block that sends it `together`."""
    driver = _driver_of(conn)
    try:
        return driver.cursor(row_factory=namedtuple_row).execute(statement, values, prepare=True)
    except psycopg.Error as error:
        raise _known(error, driver) from error


@contextmanager
def pipeline(conn: Connection) -> Iterator[None]:
    """Let what is `run` in the block go in one trip, without waiting for results in between.

    Each still is a statement of its own, with a look of its own at what others have committed by then.  Reading a cursor
    inside the block is possible and waits for all that was sent so far.  A block within a block goes with the outer one.
    """
    driver = _driver_of(conn)
    if driver.pgconn.pipeline_status != PipelineStatus.OFF:
        yield
        return
    try:
        with driver.pipeline():
            yield
    except psycopg.Error as error:
        raise _known(error, driver) from error


def use_generic_plans(conn: Connection, by_keys: bool) -> None:
    """From now on this connection finds rows by keys and keeps its plans whatever values come next; or goes back to as it was.

    Left alone the server plans eight of the statements of a cancellation anew each time: for a set of one it takes a plan for
    exactly one row to be worth its making, though making it costs more than running it.  And a plan that was made while a table
    was small reads it from end to end until the table is analysed (docs/decisions/0011).  Fit for sets of commands, not for
    sweeps, whose limits and instants should shape their plans.
    """
    execute(conn, _PLAN, {"plans": "force_generic_plan" if by_keys else "auto", "scans": "off" if by_keys else "on"})


_PLAN = """
    SELECT set_config('plan_cache_mode', %(plans)s, false) AS plans, set_config('enable_seqscan', %(scans)s, false) AS scans
"""


def _driver_of(conn: Connection) -> psycopg.Connection[Any]:
    driver: psycopg.Connection[Any] = conn.connection.driver_connection  # type: ignore[assignment]  # it is psycopg's
    return driver


def _known(error: psycopg.Error, driver: psycopg.Connection[Any]) -> BaseException:
    """The same error as SQLAlchemy would raise it, which is what callers look for."""
    return DBAPIError.instance(
        None, None, error, psycopg.Error, hide_parameters=True, connection_invalidated=driver.closed
    )


def int_array(values: Sequence[Any]) -> str:
    """An array of integers or amounts as PostgreSQL reads it: written in one go, ten times as fast as element by element."""
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"


def bool_array(values: Sequence[bool | None]) -> str:
    """An array of booleans."""
    return "{" + ",".join(["NULL" if value is None else "t" if value else "f" for value in values]) + "}"


def timestamp_array(values: Sequence[datetime | date | None]) -> str:
    """An array of instants or dates; most sets have one and the same many times."""
    written = {value: "NULL" if value is None else value.isoformat() for value in set(values)}
    return "{" + ",".join([written[value] for value in values]) + "}"


def text_array(values: Sequence[str | None]) -> str:
    """An array of texts.  NUL, which no text of PostgreSQL can hold, parts them while all are escaped at once."""
    if None in values:
        return "{" + ",".join(["NULL" if value is None else text_array([value])[1:-1] for value in values]) + "}"
    if not values:
        return "{}"
    joined = "\x00".join(values)  # type: ignore[arg-type]  # None was looked for
    if joined.count("\x00") != len(values) - 1:
        raise ValueError("a text with NUL in it cannot be stored")
    return '{"' + joined.replace("\\", "\\\\").replace('"', '\\"').replace("\x00", '","') + '"}'


def bytea_array(values: Sequence[bytes | None]) -> str:
    """An array of byte strings."""
    return "{" + ",".join(["NULL" if value is None else f'"\\\\x{value.hex()}"' for value in values]) + "}"


def json_array(values: Sequence[Any]) -> str:
    """One JSON array of all.  Amounts are text in it: money is never a float.  Raises `TypeError` for what has no one way."""
    return orjson.dumps(values, default=_amount, option=orjson.OPT_PASSTHROUGH_DATETIME).decode()


def _amount(value: Any) -> str:
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"a {type(value).__name__} is not written as JSON: say how")
