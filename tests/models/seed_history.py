"""A history with an order for each outcome and two months of bills."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.plugins.market import FILED, Market

UNLOCKED = FILED + timedelta(days=7)
LATER = datetime(2026, 6, 10, tzinfo=UTC)


def play_history(market: Market) -> None:
    """One order for each outcome, two months of bills, an overpayment, a late payment, and an open alert."""
    for n in range(1, 10):
        market.done("members.record", member_id=f"b{n}", handle=f"B{n}", email=f"b{n}@example.org")
        lot = market.lot(500 + n, item={"no": f"n{n}", "type": "PART"}, unit_price="75", quantity=20)
        line = {"lot_id": lot, "quantity": 10}
        market.done("orders.submit", order_id=n, buyer_id=f"b{n}", seller_id="seller", lines=[line])
    for n in (7, 9):
        lines = [{"line_no": 1, "quantity": 2}]
        removal = market.done("removals.request", order_id=n, member_id=f"b{n}", lines=lines)["removal_id"]
        if n == 7:
            market.done("removals.approve", removal_id=removal, member_id="seller", return_items=True)
    market.simulation.advance(FILED)
    for n in (1, 2, 4):
        market.done("npb.file", order_id=n, member_id="seller", comment="no payment")
    market.done("nrs.file", order_id=8, member_id="b8", comment="no word")
    market.done("npb.accept_penalty", order_id=4, member_id="b4")
    market.done("members.terminate", member_id="b6", staff="kim", comment="closed")
    for n in (5, 9):
        market.done("ocr.file", order_id=n, member_id="seller", reason="S_MUTUAL", comment="both agree")
    market.simulation.advance(UNLOCKED)
    for n in (1, 4, 5, 6, 9):
        market.done("orders.cancel", order_id=n, member_id="seller", request_id=f"cancel-{n}")
    market.done("credits.post_manual", seller_id="seller", amount="400.00", staff="kim", comment="sorry")
    market.done("bills.record_payment", seller_id="seller", billing_month="2026-03", amount="900.00", payment_id="p-1")
    market.simulation.advance(UNLOCKED + timedelta(days=8))
    market.done("orders.cancel", order_id=8, member_id="b8", request_id="cancel-8")
    market.done("orders.record_payment", order_id=5, payment_status="Received")
    market.simulation.advance(LATER)
    market.do("audit.check_invariants")
