"""Tests of the demo's screen: order rows with countdowns, cancellations and totals."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console
from sqlalchemy import Row

from workers.simulation.demo.dashboard import EVENT_STYLES, Dashboard
from workers.simulation.demo.sample_market import build_sample_market

NOW = datetime(2026, 11, 25, 10, tzinfo=UTC)


class Screen:
    """A dashboard on a terminal of 80 columns, at an instant that the test sets."""

    def __init__(self) -> None:
        self.sample = build_sample_market(NOW)
        self.instant = NOW
        unlocks = {order_id: NOW + timedelta(seconds=9) for order_id in self.sample.unlocking}
        self.board = Dashboard(self.sample, unlocks, lambda: self.instant, "http://127.0.0.1:5555/")

    def show(self, event: str, order_id: int | None, **changes: Any) -> None:
        """Show one event."""
        member_id = None if order_id else "b-someone"
        row = SimpleNamespace(type=event, order_id=order_id, note="", member_id=member_id, changes=changes)
        self.board.apply(cast(Row[Any], row))

    def line(self, order_id: int) -> str:
        """The row of one order."""
        (row,) = [line for line in self.text().splitlines() if f" {order_id} " in line]
        return row

    def text(self) -> str:
        """The whole screen."""
        paper = io.StringIO()
        Console(file=paper, width=80).print(self.board)
        return paper.getvalue()


def test_every_order_has_a_row_that_counts_down() -> None:
    screen = Screen()
    first = min(screen.sample.sellers_cancel)
    assert "Flower http://127.0.0.1:5555/" in screen.text()
    for order_id in screen.sample.unlocking | screen.sample.ending_cancelled:
        assert screen.line(order_id)
    for seconds, text in ((0, "in 9 s"), (8, "in 1 s"), (9, "due"), (10, "due")):
        screen.instant = NOW + timedelta(seconds=seconds)
        assert text in screen.line(first)


def test_cancellation_shows_returned_units_and_the_credit() -> None:
    """R57, R84: units and money, as in the event of the cancellation."""
    screen = Screen()
    first = min(screen.sample.sellers_cancel)
    screen.show("npb.unlocked", first)
    assert "unlocked" in screen.line(first)
    returned = [{"returned": 7, "lot_id": 1}, {"returned": 5, "lot_id": 2}, {"returned": 0, "lot_id": None}]
    screen.show(
        "orders.cancelled", first, returned=returned, fee={"kind": "credit", "amount": "-3.20", "bill": "2026-11"}
    )
    assert "+12 units, 3.20 USD credited" in screen.line(first)
    screen.show("removals.cancelled", first)
    assert "+12 units, 3.20 USD credited, 1 removal " in screen.line(first)
    second_order = min(screen.sample.buyers_cancel)
    screen.show("orders.cancelled", second_order, returned=[], fee={"kind": "none", "amount": "0.00", "bill": None})
    assert "nothing is returned, the fee stays" in screen.line(second_order)


def test_waits_of_days_are_counted_in_days() -> None:
    screen = Screen()
    first = min(screen.sample.sellers_cancel)
    screen.board.unlocks[first] = NOW + timedelta(days=4, seconds=7)
    assert "in 4 days" in screen.line(first)


def test_every_event_fits_80_columns() -> None:
    screen = Screen()
    order_id = min(screen.sample.penalty_accepted)  # the longest case
    for event, (label, _, explanation) in EVENT_STYLES.items():
        if not event.startswith(("members.", "orders.", "removals.")):
            screen.show(event, order_id)
            assert label in screen.line(order_id)
            assert explanation in screen.line(order_id)
    fee = {"kind": "credit", "amount": "-20.00", "bill": "2026-11"}
    screen.show("orders.cancelled", order_id, returned=[{"returned": 288, "lot_id": 1}], fee=fee)
    screen.show("removals.cancelled", order_id)
    assert "+288 units, 20.00 USD credited, 1 removal " in screen.line(order_id)
    assert "…" not in screen.text()


def test_footer_counts_finished_orders() -> None:
    screen = Screen()
    assert "0 of 15 orders" in screen.text()
    screen.show("npb.unlocked", min(screen.sample.untouched))
    screen.show("npb.unlocked", min(screen.sample.sellers_cancel))
    assert "1 of 15 orders" in screen.text()
    screen.show("members.buying_revoked", None)
    assert EVENT_STYLES["members.buying_revoked"][2] in screen.text()


@pytest.mark.parametrize("event", EVENT_STYLES)
def test_screen_fits_a_terminal_of_80_columns(event: str) -> None:
    screen = Screen()
    for order_id in sorted(screen.sample.ending_cancelled):
        returned = [{"returned": 1000, "lot_id": 1}]
        screen.show("orders.cancelled", order_id, returned=returned, fee={"amount": "-1000.00", "kind": "credit"})
    screen.show(event, min(screen.sample.untouched))
    assert "…" not in screen.text()
    assert max(len(line) for line in screen.text().splitlines()) <= 80
