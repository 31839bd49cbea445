"""Direct use of psycopg on hot paths: prepared SQL, generic plans, several statements in one round trip (pipelines).

SQLAlchemy keeps the connection and its transaction; statements that run thousands of times a minute bypass its compiler
and result rows (docs/decisions/0011).  A statement is a constant of SQLAlchemy, Core or `text`, and compiled once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar

import psycopg
from psycopg.pq import PipelineStatus
from psycopg.rows import namedtuple_row
from sqlalchemy import BindParameter, ClauseElement, Connection, bindparam, func, select
from sqlalchemy.dialects.postgresql.psycopg import PGCompiler_psycopg, PGDialect_psycopg
from sqlalchemy.exc import DBAPIError

from models.db.driver import driver_of

T = TypeVar("T")
Cursor = psycopg.Cursor[Any]
Fetch = Callable[[], T]
"""What a function that only sends a query returns: call it once, after the pipeline, to read the rows."""


def execute(conn: Connection, statement: ClauseElement, values: Mapping[str, Any]) -> Cursor:
    """Run one statement in the transaction of `conn`; rows are named tuples.  Read it after the end of a `pipeline`."""
    query = driver_sql(statement)
    driver = driver_of(conn)
    try:
        return driver.cursor(row_factory=namedtuple_row).execute(query, values, prepare=True)
    except psycopg.Error as error:
        raise _wrap_driver_error(error, driver) from error


def _wrap_driver_error(error: psycopg.Error, driver: psycopg.Connection[Any]) -> BaseException:
    return DBAPIError.instance(
        None, None, error, psycopg.Error, hide_parameters=True, connection_invalidated=driver.closed
    )


@lru_cache(maxsize=1024)
def driver_sql(statement: ClauseElement) -> str:
    return str(statement.compile(dialect=_DIALECT))


class _PipelineCompiler(PGCompiler_psycopg):
    # Writes constants into the text, so that generic plans can use partial indexes; named parameters stay.

    def visit_bindparam(self, bindparam: BindParameter[Any], *args: Any, **options: Any) -> str:
        if not bindparam.required:
            options["literal_binds"] = True
        return str(super().visit_bindparam(bindparam, *args, **options))  # type: ignore[no-untyped-call]


class _PipelineDialect(PGDialect_psycopg):
    statement_compiler = _PipelineCompiler
    supports_statement_cache = True


_DIALECT = _PipelineDialect()  # type: ignore[no-untyped-call]


@contextmanager
def pipeline(conn: Connection) -> Iterator[None]:
    """Send the statements executed in the block in one round trip.

    Each statement keeps its own snapshot.  Reading a cursor inside the block waits for everything sent so far.  A
    nested block joins the outer one.
    """
    driver = driver_of(conn)
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
    driver = driver_of(conn)
    if driver.is_pooled:  # before the first statement of the transaction
        driver.set_in_transactions(settings)
    else:
        execute(conn, _SET_GENERIC_PLANS, settings)


_KEY_PLANS = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off"}
_DEFAULT_PLANS = {"plan_cache_mode": "auto", "enable_seqscan": "on"}
_SET_GENERIC_PLANS = select(*(func.set_config(name, bindparam(name), False) for name in _KEY_PLANS))
