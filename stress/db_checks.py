"""Compares the database with the reference model row by row, and finds rows that must not exist."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row

from models.db import database as db
from models.integrity import invariants, month_audit
from stress.oracle import Oracle
from stress.reference_model.market import Order
from tests.plugins.servers import libpq_url

ORDERS = """
    SELECT o.order_id, o.status, o.payment_status, o.basis, o.fee,
      (SELECT array_agg(l.removed || '/' || l.returned ORDER BY l.line_no) FROM unwind.order_lines l
       WHERE l.order_id = o.order_id) AS lines,
      (SELECT a.kind || ' ' || a.state || CASE WHEN a.responded_at IS NULL THEN '' ELSE ' answered' END
       FROM unwind.alerts a WHERE a.order_id = o.order_id ORDER BY a.alert_id DESC LIMIT 1) AS alert,
      (SELECT a.unlocks_at FROM unwind.alerts a WHERE a.order_id = o.order_id AND a.state = 'open') AS unlocks_at,
      (SELECT r.filed_by || ' ' || r.state FROM unwind.ocrs r WHERE r.order_id = o.order_id
       ORDER BY r.ocr_id DESC LIMIT 1) AS ocr,
      (SELECT array_agg(r.state ORDER BY r.removal_id) FROM unwind.removals r
          WHERE r.order_id = o.order_id) AS removals,
      (SELECT array_agg(to_char(l.billing_month, 'YYYY-MM') || ' ' || l.kind || ' ' || l.amount
                        ORDER BY l.billing_month, l.kind, l.amount)
       FROM unwind.ledger_lines l WHERE l.order_id = o.order_id AND l.amount <> 0) AS ledger,
      (SELECT array_agg(p.payment_status || CASE WHEN p.settled_at IS NULL THEN ' open' ELSE ' settled' END
                        ORDER BY p.late_payment_id)
       FROM unwind.late_payments p WHERE p.order_id = o.order_id) AS late_payments,
      (SELECT array_agg(s.member_id || ' ' || s.role) FROM unwind.strikes s WHERE s.order_id = o.order_id) AS strikes
    FROM unwind.orders o WHERE o.order_id = ANY(%s)
"""
LOTS = "SELECT lot_id, quantity FROM unwind.lots"
MISSING_REQUESTS = """
    SELECT alert_id FROM unwind.alerts WHERE state = 'open' AND unlocked_at IS NULL AND NOT penalty_stands
    AND unlocks_at < clock_timestamp() - interval '5 seconds'
"""
OLD_SESSIONS = """
    SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction'
        AND xact_start < clock_timestamp() - interval '30 s'
"""
EMAILS = "SELECT count(*) FROM unwind.notices WHERE message_id = ANY(%s)"
FUTURE = """
    SELECT event_id FROM unwind.events WHERE at > clock_timestamp() + interval '1 second' LIMIT 10
"""


def open_connection(database_url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(libpq_url(database_url), autocommit=True, connect_timeout=5, application_name="auditor")


def compare_with_reference(conn: psycopg.Connection[Any], oracle: Oracle, order_ids: Iterable[int]) -> list[str]:
    """Return the differences between database and reference model for these orders and all stock."""
    reference = oracle.reference
    known = sorted(order_id for order_id in set(order_ids) if order_id in reference.orders)
    postings = oracle.postings()
    removals: dict[int, list[str]] = defaultdict(list)
    for _, taking in sorted(reference.removals.items()):
        removals[taking.order_id].append(taking.state)
    violations = []
    with conn.cursor(row_factory=namedtuple_row) as cursor:
        rows: dict[int, Any] = {row[0]: row for row in cursor.execute(ORDERS, [known])}
    for order_id in known:
        order = reference.orders[order_id]
        if (row := rows.get(order_id)) is None:
            violations.append(f"order {order_id} is not there")
            continue
        lines = sorted((p.month, p.kind, p.amount) for p in postings[order_id])
        expected = {
            "status": order.status,
            "payment_status": order.payment,
            "basis": order.basis,
            "fee": order.fee,
            "lines": [f"{line.removed}/{line.returned}" for _, line in sorted(order.lines.items())],
            "alert": _alert(order),
            "unlocks_at": order.open_alert.unlocks() if order.open_alert and order.status != "NPX" else row.unlocks_at,
            "ocr": f"{order.ocr.by} {order.ocr.state}" if order.ocr else None,
            "removals": removals[order_id] or None,
            "ledger": [f"{month} {kind} {amount}" for month, kind, amount in lines] or None,
            "late_payments": [str(late) for late in order.late] or None,
            "strikes": _strikes(order),
        }
        for name, value in expected.items():
            if getattr(row, name) != value:
                violations.append(f"order {order_id}: {name} is {getattr(row, name)}, by the rules {value}")
    on_hand = dict(conn.execute(LOTS).fetchall())
    for lot_id, lot in reference.stock.lots.items():
        if on_hand.pop(lot_id, None) != lot.quantity:
            violations.append(f"lot {lot_id} holds other than the {lot.quantity} units of the rules")
    violations += [f"lot {lot_id} should not be there" for lot_id in on_hand]
    return violations


def _alert(order: Order) -> str | None:
    if order.alert is None:
        return None
    return f"{order.alert.kind} {order.alert.state}{' answered' if order.alert.responded else ''}"


def _strikes(order: Order) -> list[str] | None:
    if order.basis in ("NPB", "NPX"):
        return [f"{order.buyer} buyer"]
    return [f"{order.seller} seller"] if order.basis in ("NRS", "NSS") else None


def unfinished_outbox_messages(database_url: str, at: datetime | None = None) -> list[str]:
    """Check all invariants, and that everything due at `at`, else now, was done."""
    database = db.connect(database_url, as_app=False)
    try:
        with database.transaction() as conn:
            now = at or database.clock.now(conn)
            violations = invariants.query_invariants(conn, now, months=month_audit.months_to_audit(conn))
    finally:
        database.dispose()
    return [f"{sentence}: {', '.join(ids[:10])}" for sentence, ids in violations.items()]


def unexpected_rows(conn: psycopg.Connection[Any], emails: list[str]) -> list[str]:
    """Find what the invariants do not cover: missed alerts, timestamps in the future, old sessions, unknown emails."""
    violations = [f"alert {row[0]} is due and was not unlocked" for row in conn.execute(MISSING_REQUESTS)]
    violations += [f"event {row[0]} lies in the future of the database's clock" for row in conn.execute(FUTURE)]
    violations += [f"session {row[0]} holds a transaction open" for row in conn.execute(OLD_SESSIONS)]
    ids = sorted(set(emails))
    row = conn.execute(EMAILS, [ids]).fetchone()
    if row is None or row[0] != len(ids):
        violations.append("emails were sent that no notice has written")
    return violations
