"""Tests of queries about the open alerts against one member, across several orders."""

from __future__ import annotations

from datetime import timedelta

from models import alerts, members
from policies.statuses import Role
from tests.plugins.market import FILED, Market


def _pending(market: Market, at_least: int = 3) -> list[tuple[str, Role, int]]:
    with market.simulation.database.transaction() as conn:
        return alerts.count_open_alerts_by_accused(conn, at_least)


def test_three_open_alerts_against_one_member_are_counted(market: Market) -> None:
    """R98: operators are warned; nothing else changes (A20)."""
    for order_id in (1, 2, 3):
        market.order(order_id)
    market.at(FILED)
    for order_id in (1, 2):
        market.done("npb.file", order_id=order_id, member_id="seller")
    assert _pending(market) == []
    assert _pending(market, 2) == [("buyer", Role.BUYER, 2)]
    market.done("npb.file", order_id=3, member_id="seller")
    assert _pending(market) == [("buyer", Role.BUYER, 3)]
    with market.simulation.database.transaction() as conn:
        assert members.load_members(conn, ["buyer"])["buyer"].can_buy
    market.done("npb.remove", order_id=3, member_id="seller")
    assert _pending(market) == []


def test_open_nrs_and_nss_alerts_are_counted_together(market: Market) -> None:
    """R98: NRS and NSS are summed; a completed alert no longer counts."""
    for order_id in (1, 2, 3):
        market.order(order_id)
    market.done("orders.record_payment", order_id=3, payment_status="Received")
    market.at(FILED)
    for order_id in (1, 2):
        market.done("nrs.file", order_id=order_id, member_id="buyer", comment="Silent.")
    market.done("nss.file", order_id=3, member_id="buyer", grounds="NOT_SHIPPED", comment="Nothing came.")
    assert _pending(market) == [("seller", Role.SELLER, 3)]
    market.at(FILED + timedelta(days=14)).done("orders.cancel", order_id=1, member_id="buyer")
    assert _pending(market) == []
    assert _pending(market, 2) == [("seller", Role.SELLER, 2)]
