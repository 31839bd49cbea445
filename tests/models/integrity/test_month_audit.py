"""Tests of the month audit: it certifies correct months and names each change made by hand."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from models.integrity import month_audit
from models.integrity.month_audit import MonthCertificate
from tests.plugins.market import Market

MARCH, APRIL, MAY = date(2026, 3, 1), date(2026, 4, 1), date(2026, 5, 1)


def audit(market: Market, month: date) -> MonthCertificate:
    with market.simulation.database.transaction() as conn:
        return month_audit.audit_month(conn, month)


def advance_to(market: Market, *when: int) -> Market:
    """Advance the simulation."""
    market.simulation.advance(datetime(*when, tzinfo=UTC))  # type: ignore[misc,arg-type]
    return market


def cancel(market: Market, order_id: int) -> None:
    market.done("ocr.file", order_id=order_id, member_id="seller", reason="S_MUTUAL", comment="both agree")
    market.done("orders.cancel", order_id=order_id, member_id="seller")


@pytest.fixture
def three_month_market(market: Market) -> Market:
    """Three months of two sellers with every kind of line."""
    for number, price in ((1, "750"), (2, "120"), (3, "300"), (4, "0.10")):
        market.order(number, [(market.lot(500 + number, unit_price=price, quantity=2), 1)])
    mine = market.lot(520, unit_price="12.3456", seller_id="other_seller")
    market.order(20, [(mine, 7)], seller_id="other_seller", currency="EUR", usd_rate="1.0825")
    cancel(market, 2)
    advance_to(market, 2026, 4, 2)
    market.done("orders.add_batch", order_id=3, lines=[{"lot_id": market.lot(530, unit_price="400"), "quantity": 1}])
    advance_to(market, 2026, 4, 12)
    cancel(market, 1)
    market.done("credits.post_manual", seller_id="seller", amount="2.00", order_id=3, staff="kim", comment="refund")
    march_bill = {"seller_id": "seller", "billing_month": "2026-03"}
    market.done("bills.record_payment", **march_bill, amount="10.00", payment_id="p-1")
    market.done("bills.record_payment", **march_bill, amount="25.00", payment_id="p-2")
    advance_to(market, 2026, 4, 20)
    cancel(market, 3)
    return advance_to(market, 2026, 6, 10)


def test_every_correct_month_is_certified(three_month_market: Market) -> None:
    march, april, may = (audit(three_month_market, month) for month in (MARCH, APRIL, MAY))
    assert (march.differences, april.differences, may.differences) == ([], [], [])
    assert march.closed
    assert march.sums == {"charge": "35.41", "reset": "-3.60"}
    assert (march.billed, march.paid, march.bills) == ("31.81", "35.00", 2)
    assert april.sums == {
        "charge": "19.00",
        "credit": "-20.00",
        "manual_credit": "-2.00",
        "reset": "-19.00",
        "reversal": "-9.00",
    }
    assert (april.billed, april.carried_forward) == ("0.00", "-37.00")
    assert (may.lines, may.carried_forward) == (0, "-37.00")
    assert len({march.hash, april.hash, may.hash}) == 3


MANIPULATIONS = [
    (
        "UPDATE unwind.ledger_lines SET amount = 19.99 WHERE order_id = 1 AND kind = 'charge'",
        MARCH,
        "19.99 for order 1",
    ),
    ("DELETE FROM unwind.ledger_lines WHERE order_id = 1 AND kind = 'credit'", APRIL, "-20.00 for order 1"),
    ("DELETE FROM unwind.ledger_lines WHERE kind = 'manual_credit'", APRIL, "manual_credit of -2.00 for order 3"),
    ("DELETE FROM unwind.ledger_lines WHERE payment_id = 'p-1'", MARCH, "a payment of 10.00"),
    ("UPDATE unwind.ledger_lines SET billing_month = '2026-05-01' WHERE kind = 'credit'", APRIL, "is missing"),
    ("UPDATE unwind.ledger_lines SET billing_month = '2026-05-01' WHERE kind = 'credit'", MAY, "is not expected"),
    ("UPDATE unwind.ledger_lines SET note = 'x' WHERE order_id = 20", MARCH, "lines_hash"),
    ("UPDATE unwind.bills SET total = 1, lines_sum = 1 WHERE seller_id = 'other_seller'", MARCH, "has total 1.00"),
    ("DELETE FROM unwind.bills WHERE billing_month = '2026-04-01'", APRIL, "the bill of seller is missing"),
    (
        "UPDATE unwind.bills SET opening_credit = 0, carried_forward = -31 WHERE billing_month = '2026-04-01'",
        APRIL,
        "opening",
    ),
    (
        "UPDATE unwind.bills SET carried_forward = -36, opening_credit = -36 WHERE billing_month = '2026-05-01'",
        MAY,
        "-36",
    ),
]


@pytest.mark.breaks_invariants("corrupts the ledger")
@pytest.mark.parametrize(("statement", "month", "reported"), MANIPULATIONS)
def test_every_manipulation_is_reported(
    three_month_market: Market, database_url: str, statement: str, month: date, reported: str
) -> None:
    engine = create_engine(database_url)
    with engine.begin() as conn:
        conn.execute(text("SET LOCAL session_replication_role = replica"))
        assert conn.execute(text(statement)).rowcount > 0
    engine.dispose()
    certificate = audit(three_month_market, month)
    assert not certificate.holds
    assert any(reported in difference for difference in certificate.differences), certificate.differences


def test_empty_month_is_certified(market: Market) -> None:
    certificate = audit(market, date(2020, 2, 1))
    assert (certificate.holds, certificate.lines, certificate.sums) == (True, 0, {})


def test_line_posted_after_its_bill_is_counted_as_moved_on(market: Market) -> None:
    market.order(1, [(market.lot(501, unit_price="750"), 1)])
    market.simulation.do("ocr.file", order_id=1, member_id="seller", reason="S_MUTUAL", comment="both agree")
    market.simulation.do("orders.cancel", order_id=1, member_id="seller")
    _set_outbox_state(market, "dead")
    market.at(datetime(2026, 4, 6, tzinfo=UTC)).done("bills.issue")
    assert not audit(market, MARCH).holds
    _set_outbox_state(market, "due")
    market.simulation.process_outbox()
    march, april = audit(market, MARCH), audit(market, APRIL)
    assert (march.differences, march.moved_on, march.sums) == ([], 1, {"charge": "20.00"})
    assert (april.differences, april.sums) == ([], {"credit": "-20.00"})


def _set_outbox_state(market: Market, state: Any) -> None:
    with market.simulation.database.transaction() as conn:
        conn.execute(text("UPDATE unwind.outbox SET state = :state WHERE key = 'fee:1'"), {"state": state})
