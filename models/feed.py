"""The change feed: CloudEvents over all append-only tables, read by cursor.

Transactions commit in another order than their rows are numbered.  So the feed is ordered by the transaction that wrote
a row, and returns only rows below the oldest transaction still running: a reader meets no gap and no repeat.

Transaction ids belong to a server.  After a restore on another server, `advance_feed_base` lets them continue from the
newest row; every migration and every restore calls it.
"""

from __future__ import annotations

from typing import Annotated, Any

from sqlalchemy import BigInteger, Connection, column, func, select, table, text
from sqlalchemy.orm import mapped_column

from models.sql import read_sql

FEED_BASE = (
    "CREATE OR REPLACE FUNCTION unwind.feed_base() RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN {base}"
)
"""The number added to a server's transaction ids: 0 until the tables move to a server with lower ids.

It is an immutable function of a constant, so the planner folds it.
"""
_WRITTEN_IN = text("((pg_current_xact_id()::text)::bigint + unwind.feed_base())")
WrittenIn = Annotated[int, mapped_column(BigInteger, server_default=_WRITTEN_IN)]
"""The transaction that wrote a row: the change feed is ordered by it."""

FEED_TABLES = ("events", "stock_moves", "ledger_lines", "bills")
EVENTS_AFTER_SIGNATURE = "unwind.events_after(text, integer)"

DDL: tuple[str, ...] = (read_sql("events_after"), f"REVOKE ALL ON FUNCTION {EVENTS_AFTER_SIGNATURE} FROM PUBLIC")


_WRITTEN_IN_COLUMNS = [table(name, column("written_in"), schema="unwind").c.written_in for name in FEED_TABLES]
_NEWEST_ROW = func.greatest(*(select(func.max(written)).scalar_subquery() for written in _WRITTEN_IN_COLUMNS))
_FEED_TRANSACTION_ID_GAP = select(_NEWEST_ROW - _WRITTEN_IN)


def feed_transaction_id_gap(conn: Connection) -> int:
    return max(0, conn.execute(_FEED_TRANSACTION_ID_GAP).scalar() or 0)


def advance_feed_base(conn: Connection) -> int:
    """Continue transaction ids from the newest row after a restore on another server; return by how many.

    Only the owner may.  Without it new events would sort before old ones, and no reader would see them.
    """
    missing = feed_transaction_id_gap(conn)
    if missing:
        base = conn.execute(text("SELECT unwind.feed_base()")).scalar_one() + missing
        conn.execute(text(FEED_BASE.format(base=int(base))))
    return missing


def events_after(conn: Connection, cursor: str | None, limit: int) -> list[tuple[str, dict[str, Any]]]:
    rows = conn.execute(
        text("SELECT cursor, event FROM unwind.events_after(:cursor, :limit)"), {"cursor": cursor, "limit": limit}
    )
    return [(row.cursor, row.event) for row in rows]


def feed_end_cursor(conn: Connection) -> str:
    return f"{first_unsettled_transaction(conn) - 1}.9.{10**18 - 1}"


def first_unsettled_transaction(conn: Connection) -> int:
    """Return a transaction id below which every transaction has ended, as `written_in` counts them."""
    settled = text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint + unwind.feed_base()")
    return int(conn.execute(settled).scalar_one())
