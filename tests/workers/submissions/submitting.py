"""Helpers of the tests of submissions."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import psycopg

from tests.plugins.market import FILED, Market


def set_due(caller: psycopg.Connection, at: datetime = FILED) -> None:
    """Commit, with this time as the one from which all submissions count and are due."""
    caller.execute("UPDATE unwind.submissions SET submitted_at = %s, due_at = %s", [at, at])
    caller.commit()


def fetch_receipt(caller: psycopg.Connection, query: str, *values: Any) -> dict[str, Any]:
    """The receipt that a query of one row returns."""
    row = caller.execute(query.encode(), values).fetchone()
    assert row is not None
    receipt: dict[str, Any] = row[0]
    return receipt


def outcome_of(market: Market, request_id: str) -> tuple[str, str | None, str | None] | None:
    """The state, outcome and code of a request in the view of answers."""
    answer = market.command_answer(request_id)
    return None if answer is None else (answer.state, answer.outcome, answer.code)
