"""Queries of end-to-end tests."""

from __future__ import annotations

from typing import Any

import psycopg


def fetch_one(conn: psycopg.Connection, query: str, *values: Any) -> Any:
    row = conn.execute(query.encode(), values).fetchone()
    return row[0] if row else None


def count_rows(conn: psycopg.Connection, table: str, **values: Any) -> int:
    """The number of rows with these values."""
    condition = " AND ".join(["true", *(f"{column} = %s" for column in values)])
    return int(fetch_one(conn, f"SELECT count(*) FROM unwind.{table} WHERE {condition}", *values.values()))  # noqa: S608


def units_in_stock(conn: psycopg.Connection) -> int:
    return int(fetch_one(conn, "SELECT sum(quantity) FROM unwind.lots"))


def order_status(conn: psycopg.Connection, order_id: int) -> str:
    return str(fetch_one(conn, "SELECT status FROM unwind.orders WHERE order_id = %s", order_id))


def outbox_is_empty(conn: psycopg.Connection) -> bool:
    waiting = (
        "SELECT (SELECT count(*) FROM unwind.outbox WHERE state <> 'done')"
        " + (SELECT count(*) FROM unwind.notices WHERE state <> 'sent')"
    )
    return bool(fetch_one(conn, waiting) == 0)
