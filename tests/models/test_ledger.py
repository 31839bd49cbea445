"""Tests of the ledger: each charge is booked once, and added items replace the charge of the order."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from sqlalchemy import Connection

from models import ledger, members, orders
from models.ledger import LedgerLineRow
from policies.cases import Order
from policies.statuses import PaymentStatus, Status
from tests.plugins.stored_rows import load_rows
from workers.simulation.engine import Simulation

pytestmark = pytest.mark.breaks_invariants("inserts an order without its events")

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
MARCH, APRIL = date(2026, 3, 1), date(2026, 4, 1)


def insert_order(conn: Connection, fee: str = "9.00") -> Order:
    """Insert an order of seller s, charged in March."""
    members.upsert_members(
        conn,
        [
            {"member_id": m, "handle": m, "email": f"{m}@example.org", "time_zone": "UTC", "recorded_at": NOW}
            for m in ("b", "s")
        ],
    )
    order = Order(
        7, "b", "s", Status.PENDING, PaymentStatus.NONE, NOW, total=Decimal(300), fee=Decimal(fee), fee_month=MARCH,
        version=1, last_event_at=NOW,
    )  # fmt: skip
    orders.insert_orders(conn, [order])
    return order


def lines(conn: Connection) -> list[tuple[str, str, date]]:
    """(kind, amount, month) of every line, in the order of posting."""
    return [(line.kind, str(line.amount), line.billing_month) for line in load_rows(conn, LedgerLineRow)]


def test_repeated_charge_is_posted_once(simulation: Simulation) -> None:
    """P2: the order's event is the natural key."""
    with simulation.database.transaction() as conn:
        order = insert_order(conn)
        ledger.post_fee_lines(conn, ledger.charge_lines(order, NOW))
        ledger.post_fee_lines(conn, ledger.charge_lines(order, NOW))
        assert lines(conn) == [("charge", "9.00", MARCH)]


def test_zero_fee_posts_no_line(simulation: Simulation) -> None:
    with simulation.database.transaction() as conn:
        ledger.post_fee_lines(conn, ledger.charge_lines(insert_order(conn, "0.00"), NOW))
        assert lines(conn) == []


def test_added_items_reverse_the_charge_and_post_a_new_one(simulation: Simulation) -> None:
    """A21, E6: both lines are in the month of the change."""
    with simulation.database.transaction() as conn:
        order = insert_order(conn)
        ledger.post_fee_lines(conn, ledger.charge_lines(order, NOW))
        later = datetime(2026, 4, 2, tzinfo=UTC)
        changed_order = replace(order, fee=Decimal("19.00"), fee_month=APRIL)
        ledger.post_fee_lines(conn, ledger.charge_lines(changed_order, later, before=order, reason="items were added"))
        assert lines(conn)[1:] == [("reversal", "-9.00", APRIL), ("charge", "19.00", APRIL)]
