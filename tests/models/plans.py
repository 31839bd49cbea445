"""Records each statement that the code sends, with its query plan.

Statements are caught at the driver's cursor.  Functions inside the database are not visible there; for them the
database counts sequential scans per table.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
from sqlalchemy import event

from models.db import database as db

_PLANNED = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")
_READ_WHOLE = """
    SELECT relname, seq_tup_read FROM pg_stat_xact_user_tables WHERE schemaname = 'unwind' AND seq_tup_read > 0
"""


@dataclass
class Plan:
    """One statement and what it touches: indexes by name, tables scanned sequentially, pages."""

    statement: str
    indexes: set[str] = field(default_factory=set)
    read_whole: set[str] = field(default_factory=set)
    pages: int = 0


@dataclass
class Plans:
    statements: list[Plan] = field(default_factory=list)
    rows_scanned: dict[str, int] = field(default_factory=dict)
    """Rows read by sequential scans, those of functions inside the database included, by table."""

    @property
    def indexes(self) -> set[str]:
        return {name for plan in self.statements for name in plan.indexes}

    @property
    def pages(self) -> int:
        return sum(plan.pages for plan in self.statements)

    def read_whole(self, big: set[str]) -> list[tuple[str, str]]:
        scans = [(table, plan.statement) for plan in self.statements for table in plan.read_whole & big]
        return scans + [
            (table, f"{rows} rows by a function") for table, rows in self.rows_scanned.items() if table in big
        ]


@contextlib.contextmanager
def record_plans(database: db.Database, *, analyze: bool = False) -> Iterator[Plans]:
    """Record the statements sent to this database.  `carried_out` counts pages by executing each statement twice,
    so it suits statements without side effects only.
    """
    plans = Plans()
    options = "ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON" if analyze else "FORMAT JSON"

    class Recording:
        connection: psycopg.Connection[Any]

        def execute(self, query: Any, params: Any = None, **how: Any) -> Any:
            if isinstance(query, str) and query.lstrip().upper().startswith(_PLANNED):
                with psycopg.Cursor(self.connection) as cursor:
                    row = cursor.execute(f"EXPLAIN ({options}) {query}".encode(), params).fetchone()
                plans.statements.append(_read(query, row[0][0] if row else {}))
            return super().execute(query, params, **how)  # type: ignore[misc]

    class RecordingCursor(Recording, psycopg.Cursor[Any]):
        pass

    class RecordingServerCursor(Recording, psycopg.ServerCursor[Any]):
        pass

    def begin(dbapi_connection: Any, *_: Any) -> None:
        dbapi_connection.cursor_factory = RecordingCursor
        dbapi_connection.server_cursor_factory = RecordingServerCursor

    def count(conn: Any) -> None:
        with psycopg.Cursor(conn.connection.driver_connection) as cursor:
            for table, rows in cursor.execute(_READ_WHOLE).fetchall():
                plans.rows_scanned[table] = plans.rows_scanned.get(table, 0) + rows

    database.dispose()  # so that the connection is a new one
    event.listen(database.engine, "connect", begin)
    event.listen(database.engine, "commit", count)
    try:
        yield plans
    finally:
        event.remove(database.engine, "connect", begin)
        event.remove(database.engine, "commit", count)
        database.dispose()


def _read(statement: str, explained: dict[str, Any]) -> Plan:
    plan = Plan(" ".join(statement.split()))
    nodes = [explained["Plan"]]
    plan.pages = sum(explained["Plan"].get(f"Shared {how} Blocks", 0) for how in ("Hit", "Read"))
    while nodes:
        node = nodes.pop()
        nodes.extend(node.get("Plans", ()))
        if "Index Name" in node:
            plan.indexes.add(node["Index Name"])
        if node["Node Type"] == "Seq Scan":
            plan.read_whole.add(node["Relation Name"])
    return plan
