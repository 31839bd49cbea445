"""Crash points of a piece of work, found by listening at the driver.

Every statement of every connection passes a recording cursor and every commit a recording connection; published
messages and emails pass stubs.  A first run counts the points.  Then one run dies at each, in one of three ways, and
the same work runs again.
"""

from __future__ import annotations

import json
import os
import re
import signal
import warnings
from collections.abc import Callable, Sequence
from typing import Any, LiteralString

import psycopg
from sqlalchemy import Engine, event

from models.db.driver import DriverConnection
from models.ddl.complete_metadata import metadata
from policies.lots import FIRST_UNWIND_LOT_ID
from tasks.mailer import OutgoingEmail
from tests.plugins.servers import libpq_url
from workers.embedded.processes import wait_until

Way = Callable[[psycopg.Connection[Any] | None], None]


PING = ";"
"""Sent by the pool to a connection that was idle; how often that happens differs between runs."""


class Died(BaseException):
    """The worker has died."""


class CrashPoints:
    """The crash points of one piece of work, in order."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._deadly = 0
        self._way: Way | None = None
        self.struck = False

    def arm(self, number: int, way: Way | None) -> None:
        """Reset the counter and set the point and the way of the next crash."""
        self.names, self._deadly, self._way, self.struck = [], number, way, False

    def reach(self, name: str, connection: psycopg.Connection[Any] | None = None) -> None:
        self.names.append(name)
        if self._way is not None and len(self.names) == self._deadly:
            self.struck = True
            self._way(connection)

    def watch(self, engine: Engine) -> None:
        engine.dispose()
        points = self

        class Cursor(psycopg.Cursor[Any]):
            def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
                if query == PING:
                    return super().execute(query, *args, **kwargs)
                statement = " ".join(str(query).split())[:60]
                points.reach(f"before {statement}", self.connection)
                super().execute(query, *args, **kwargs)
                points.reach(f"after {statement}", self.connection)
                return self

        class Connection(DriverConnection):
            """Reports when a commit is requested, and when it is durable but not yet reported."""

            def commit(self) -> None:
                points.reach("before commit", self)
                super().commit()
                points.reach("after commit", self)

        @event.listens_for(engine, "connect")
        def _watched(dbapi_connection: Any, _record: Any) -> None:
            dbapi_connection.__class__ = Connection
            dbapi_connection.cursor_factory = Cursor


class PublisherStub:
    def __init__(self, points: CrashPoints) -> None:
        self.published: set[int] = set()
        self._points = points

    def broker_epoch(self) -> str | None:
        return None

    def publish(self, task: str, rows: Sequence[int]) -> None:
        self._points.reach(f"before publishing {task}")
        self.published |= set(rows)
        self._points.reach(f"after publishing {task}")


class MailStub:
    def __init__(self, points: CrashPoints) -> None:
        self.sent: set[str] = set()
        self._points = points

    def send(self, emails: Sequence[OutgoingEmail]) -> list[Exception | None]:
        for email in emails:
            self._points.reach("before sending")
            self.sent.add(email.message_id)
            self._points.reach("after sending")
        return [None] * len(emails)


def raise_error(_connection: psycopg.Connection[Any] | None) -> None:
    raise Died


def kill_process(_connection: psycopg.Connection[Any] | None) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def end_sessions(conn: psycopg.Connection[Any], condition: LiteralString, *values: Any) -> None:
    """End sessions and wait until they are gone; pg_terminate_backend itself would look every 100 ms."""
    sessions: LiteralString = f"FROM pg_stat_activity WHERE {condition}"
    conn.execute(f"SELECT pg_terminate_backend(pid) {sessions}", values)
    assert wait_until(lambda: conn.execute(f"SELECT {sessions}", values).rowcount == 0, 5)


def terminate_session(admin: psycopg.Connection[Any]) -> Way:
    """The server ends the session; the process continues."""

    def end(connection: psycopg.Connection[Any] | None) -> None:
        if connection is not None:
            end_sessions(admin, "pid = %s", connection.info.backend_pid)

    return end


def run_in_child(body: Callable[[], Any]) -> int:
    """Run in a child process; returns the signal that ended it, or 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: the child does nothing but this body
        child = os.fork()
    if child == 0:
        try:
            body()
        finally:
            os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


_RANDOM_VALUES = rf"\b{str(FIRST_UNWIND_LOT_ID)[:4]}\d{{9}}\b|(?<=\"replayed\": )(?:true|false)"
"""Ids of new lots, and whether an answer inside an answer was repeated."""


def without_random_values(thing: Any) -> str:
    """Render as JSON without values that differ between identical runs."""
    return re.sub(_RANDOM_VALUES, "…", json.dumps(thing, sort_keys=True))


class DatabaseSnapshot:
    """A snapshot of a database that can be restored repeatedly, faster than creating a new one."""

    IGNORED_TABLES = ("sweeps", "sweep_hours", "audit_positions", "violations")
    """They hold when something was last checked."""
    IGNORED_COLUMNS = (
        "written_in",
        "publish_count",
        "attempts",
        "due_at",
        "sent_at",
        "done_at",
        "lines_hash",
        "first_error",
        "last_error",
    )
    """Numbers of attempts, transaction ids, and hashes over ids that a lost attempt consumed."""

    def __init__(self, database_url: str) -> None:
        self._owner = psycopg.connect(libpq_url(database_url), autocommit=True)
        self._tables = {table.name: table for table in metadata.tables.values()}
        self._numbers = {c.name for table in self._tables.values() for c in table.c if c.identity is not None}
        self._owner.execute("CREATE SCHEMA saved")
        for name in self._tables:
            self._owner.execute(f"CREATE TABLE saved.{name} AS TABLE unwind.{name}")
        again = "DELETE FROM unwind.{0}; INSERT INTO unwind.{0} OVERRIDING SYSTEM VALUE SELECT * FROM saved.{0};"
        self._back = "BEGIN; SET LOCAL session_replication_role = replica;" + "".join(map(again.format, self._tables))

    def restore(self) -> None:
        self._owner.execute(self._back + "COMMIT")

    def wait_for_dead_sessions(self) -> None:
        """Wait until the sessions of dead processes are gone, because others skip rows that they still lock."""
        end_sessions(self._owner, "datname = current_database() AND application_name = 'unwind'")

    def state(self) -> dict[str, list[str]]:
        """Return all business state, without generated numbers."""
        rows_by_table = {}
        for name in sorted(set(self._tables) - set(self.IGNORED_TABLES)):
            rows = self._owner.execute(f"SELECT to_jsonb(t) FROM unwind.{name} t").fetchall()  # noqa: S608 - a name of ours
            hidden = {*self._numbers, *self.IGNORED_COLUMNS}
            visible_rows = ({k: v for k, v in row.items() if k not in hidden} for (row,) in rows)
            rows_by_table[name] = sorted(map(without_random_values, visible_rows))
        return rows_by_table

    def close(self) -> None:
        self._owner.close()
