"""Queries of end-to-end tests."""

from __future__ import annotations

from typing import Any

import psycopg


def fetch_one(books: psycopg.Connection, query: str, *values: Any) -> Any:
    row = books.execute(query.encode(), values).fetchone()
    return row[0] if row else None


def outbox_is_empty(books: psycopg.Connection) -> bool:
    waiting = (
        "SELECT (SELECT count(*) FROM unwind.outbox WHERE state <> 'done')"
        " + (SELECT count(*) FROM unwind.notices WHERE state <> 'sent')"
    )
    return bool(fetch_one(books, waiting) == 0)
