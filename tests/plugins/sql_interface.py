"""Commands submitted by SQL, as an upstream system does it."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.types.json import Jsonb


def submit_command(
    conn: psycopg.Connection[Any], task: str | None, payload: Any, request_id: str | None = None
) -> dict[str, Any]:
    """Submit a payload as jsonb and return the receipt."""
    return _submit(conn, task, Jsonb(payload), request_id)


def submit_text(
    conn: psycopg.Connection[Any], task: str | None, payload: str, request_id: str | None = None
) -> dict[str, Any]:
    """Submit a payload as the text it is and return the receipt."""
    return _submit(conn, task, payload, request_id, "%s::text")


def _submit(
    conn: psycopg.Connection[Any], task: str | None, payload: Any, request_id: str | None, argument: str = "%s"
) -> dict[str, Any]:
    query = f"SELECT unwind.submit_command(%s, {argument}, %s)"
    row = conn.execute(query.encode(), [task, payload, request_id]).fetchone()
    assert row is not None
    receipt: dict[str, Any] = row[0]
    return receipt
