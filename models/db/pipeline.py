"""Direct use of psycopg on hot paths: prepared SQL, generic plans, several statements in one round trip (pipelines).

SQLAlchemy keeps the connection and its transaction; statements that run thousands of times a minute bypass its compiler
and result rows (docs/decisions/0011).  A statement is a constant of SQLAlchemy, Core or `text`, and compiled once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, TypeVar

import orjson
import psycopg
from psycopg.pq import PipelineStatus
from psycopg.rows import namedtuple_row
from sqlalchemy import BindParameter, ClauseElement, Connection, bindparam, func, select
from sqlalchemy.dialects.postgresql.psycopg import PGCompiler_psycopg, PGDialect_psycopg
from sqlalchemy.exc import DBAPIError

from models.db.driver import DriverConnection

T = TypeVar("T")
Cursor = psycopg.Cursor[Any]
Fetch = Callable[[], T]
"""What a function that only sends a query returns: call it once, after the pipeline, to read the rows."""


def execute(conn: Connection, statement: ClauseElement, values: Mapping[str, Any]) -> Cursor:
    """Run one statement in the transaction of `conn`; rows are named tuples.  Read it after the end of a `pipeline`."""
    query = driver_sql(statement)
    driver = _driver_of(conn)
    try:
        return driver.cursor(row_factory=namedtuple_row).execute(query, values, prepare=True)
    except psycopg.Error as error:
        raise _wrap_driver_error(error, driver) from error


@lru_cache(maxsize=1024)
def driver_sql(statement: ClauseElement) -> str:
    return str(statement.compile(dialect=_DIALECT))


class _Compiler(PGCompiler_psycopg):
    """Writes constants into the text, so that generic plans can use partial indexes; named parameters stay."""

    def visit_bindparam(self, bindparam: BindParameter[Any], *args: Any, **options: Any) -> str:
        if not bindparam.required:
            options["literal_binds"] = True
        return str(super().visit_bindparam(bindparam, *args, **options))  # type: ignore[no-untyped-call]


class _Dialect(PGDialect_psycopg):
    statement_compiler = _Compiler
    supports_statement_cache = True


_DIALECT = _Dialect()  # type: ignore[no-untyped-call]


@contextmanager
def pipeline(conn: Connection) -> Iterator[None]:
    """Send the statements executed in the block in one round trip.

    Each statement keeps its own snapshot.  Reading a cursor inside the block waits for everything sent so far.  A
    nested block joins the outer one.
    """
    driver = _driver_of(conn)
    if driver.pgconn.pipeline_status != PipelineStatus.OFF:
        yield
        return
    try:
        with driver.pipeline():
            yield
    except psycopg.Error as error:
        raise _wrap_driver_error(error, driver) from error


def use_generic_plans(conn: Connection, by_keys: bool) -> None:
    """Make this connection use generic plans and index scans, or reset it.

    By default the server replans eight statements of each cancellation, which costs more than running them, and a plan
    made while a table was small scans it until the table is analysed (docs/decisions/0011).  Use it for commands, which
    find rows by keys; the plans of sweeps should depend on their limits and instants.
    """
    settings = _KEY_PLANS if by_keys else _DEFAULT_PLANS
    driver = _driver_of(conn)
    if isinstance(driver, DriverConnection) and driver.is_pooled:  # before the first statement of the transaction
        driver.set_in_transactions(settings)
    else:
        execute(conn, _SET_PLANNER, settings)


_KEY_PLANS = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off"}
_DEFAULT_PLANS = {"plan_cache_mode": "auto", "enable_seqscan": "on"}
_SET_PLANNER = select(*(func.set_config(name, bindparam(name), False) for name in _KEY_PLANS))


def _driver_of(conn: Connection) -> psycopg.Connection[Any]:
    driver: psycopg.Connection[Any] = conn.connection.driver_connection  # type: ignore[assignment]  # it is psycopg's
    return driver


def _wrap_driver_error(error: psycopg.Error, driver: psycopg.Connection[Any]) -> BaseException:
    return DBAPIError.instance(
        None, None, error, psycopg.Error, hide_parameters=True, connection_invalidated=driver.closed
    )


def int_array(values: Sequence[Any]) -> str:
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"


def bool_array(values: Sequence[bool | None]) -> str:
    return "{" + ",".join(["NULL" if value is None else "t" if value else "f" for value in values]) + "}"


def timestamp_array(values: Sequence[datetime | date | None]) -> str:
    written = {value: "NULL" if value is None else value.isoformat() for value in set(values)}
    return "{" + ",".join([written[value] for value in values]) + "}"


def text_array(values: Sequence[str | None]) -> str:
    """Return an array literal of texts, which are escaped together and separated by NUL, as no text contains it."""
    if None in values:
        return "{" + ",".join(["NULL" if value is None else text_array([value])[1:-1] for value in values]) + "}"
    if not values:
        return "{}"
    joined = "\x00".join(values)  # type: ignore[arg-type]  # None was handled above
    if joined.count("\x00") != len(values) - 1:
        raise ValueError("a text that contains NUL cannot be stored")
    return '{"' + joined.replace("\\", "\\\\").replace('"', '\\"').replace("\x00", '","') + '"}'


def bytea_array(values: Sequence[bytes | None]) -> str:
    return "{" + ",".join(["NULL" if value is None else f'"\\\\x{value.hex()}"' for value in values]) + "}"


def json_array(values: Sequence[Any]) -> str:
    return orjson.dumps(values, default=_amount_json, option=orjson.OPT_PASSTHROUGH_DATETIME).decode()


def _amount_json(value: Any) -> str:
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"a {type(value).__name__} cannot be written as JSON: convert it first")
