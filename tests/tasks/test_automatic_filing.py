"""Automatic NPB alerts on a real database: stored deadlines and sweeps."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from policies.timestamps import format_timestamp, parse_timestamp
from tasks.automation import FilingSweep
from tasks.sweeps import sweep
from tests.plugins.market import FILED, ORDERED, Market
from tests.tasks.automation import DAY, SECOND, UNLOCKED, automate, emails, see


def test_unpaid_order_is_cancelled_without_manual_action(market: Market) -> None:
    """R115, R116, R119, N20, N21: nobody acts after the purchase."""
    automate(market, file_npb_after=7, cancel_after_unlock=0)
    market.order(1003)
    assert market.stored_order().files_npb_at == FILED
    announced = see(market, "explain", "order", 1003)["automation"]
    assert [(a["act"], a["at"]) for a in announced] == [("npb.file", format_timestamp(FILED))]
    market.simulation.advance(UNLOCKED)
    shown = see(market, "order", 1003)
    assert [(e["event"], e["at"], e["actor"]) for e in shown["timeline"]] == [
        ("orders.submitted", format_timestamp(ORDERED), "marketplace"),
        ("npb.filed", format_timestamp(FILED), "automation"),
        ("npb.unlocked", format_timestamp(UNLOCKED), "system"),
        ("orders.cancelled", format_timestamp(UNLOCKED), "automation"),
    ]
    assert sorted(emails(market)[:2]) == [("npb_filed", "buyer"), ("npb_filed_automatically", "seller")]


def test_a_filing_waits_for_what_the_seller_sets_and_the_buyer_pays(market: Market) -> None:
    """R114, R115, R121: in the commit of what moves it."""

    def files_at(order_id: int) -> datetime | None:
        return market.stored_order(order_id).files_npb_at

    market.order(1)
    market.order(2)
    assert files_at(1) is None
    automate(market, file_npb_after=10)
    assert files_at(1) == ORDERED + 10 * DAY
    market.done("orders.record_payment", order_id=1, payment_status="Pending")
    assert (files_at(1), files_at(2)) == (None, ORDERED + 10 * DAY)
    automate(market, exclude_buyers=["buyer"])
    assert files_at(2) is None
    automate(market, exclude_buyers=[])
    market.simulation.advance(ORDERED + 20 * DAY)
    assert [market.status(order_id) for order_id in (1, 2)] == ["PENDING", "NPB"]
    market.done("npb.remove", order_id=2, member_id="seller")
    assert files_at(2) is None
    market.done("orders.add_batch", order_id=2, lines=[{"lot_id": market.lot(777), "quantity": 1}])
    assert files_at(2) == ORDERED + 30 * DAY


@pytest.mark.parametrize("days", [6, 61, 7.0, "7"])
def test_a_filing_out_of_range_changes_nothing(market: Market, days: Any) -> None:
    """R114, R115."""
    answer = market.do("sellers.set_automation", member_id="seller", file_npb_after=days)
    assert [error["path"] for error in answer["errors"]] == ["file_npb_after"]


def test_longer_terms_postpone_a_stored_filing(market: Market) -> None:
    """R115, R19: what is due by its stored time and not by the terms of now gets their time."""
    automate(market, file_npb_after=7)
    market.order(1003)
    start = {"from": format_timestamp(ORDERED + DAY)}
    market.done("terms.apply", terms={"NPB_FILE_AFTER": "9d"}, staff="kim", **start)
    market.simulation.advance(ORDERED + 9 * DAY - SECOND)
    assert market.status(1003) == "PENDING"
    market.simulation.advance(ORDERED + 9 * DAY)
    assert market.status(1003) == "NPB"


@pytest.mark.parametrize("announced_days", [0, 2])
def test_shorter_terms_bring_a_stored_filing_forward(market: Market, announced_days: int) -> None:
    """R115, R119: to the first time that the rules allow, as announced, also when something else moves deadlines."""
    market.done("terms.apply", terms={"NPB_FILE_AFTER": "20d"}, staff="kim", **{"from": format_timestamp(ORDERED)})
    automate(market, file_npb_after=8)
    market.at(ORDERED + DAY)
    for order_id in (1, 2, 3):
        market.order(order_id)
    market.at(ORDERED + 2 * DAY)
    start = market.simulation.clock.instant + announced_days * DAY
    market.done("terms.apply", terms={"NPB_FILE_AFTER": "5d"}, staff="kim", **{"from": format_timestamp(start)})
    market.done("orders.record_payment", order_id=2, payment_status="Sent")
    market.done("orders.record_payment", order_id=2, payment_status="None")
    market.done("orders.hold_automation", order_id=3, staff="kim", comment="wait", until="2026-04-20T10:00:00Z")
    due = ORDERED + 9 * DAY
    (coming,) = see(market, "explain", "order", 1)["automation"]
    assert coming["at"] == format_timestamp(due)
    market.simulation.advance(due - SECOND)
    assert market.status(1) == market.status(2) == "PENDING"
    market.simulation.advance(due)
    assert [market.status(order_id) for order_id in (1, 2, 3)] == ["NPB", "NPB", "PENDING"]
    market.simulation.advance(parse_timestamp("2026-04-20T10:00:00Z"))
    assert market.status(3) == "NPB"


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_filings_come_in_batches(market: Market, limit: int) -> None:
    """R124."""
    automate(market, file_npb_after=7)
    for order_id in (1, 2, 3):
        market.order(order_id)
    market.at(FILED + 3 * DAY)
    assert sweep("automation.file_alerts", FilingSweep(), limit=limit) == 3
    assert sweep("automation.file_alerts", FilingSweep(), limit=limit) == 0
    assert {alert.filed_at for alert in market.alerts()} == {FILED + 3 * DAY}
