"""Tests of the demo's screen: order rows with countdowns, cancellations and totals."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console

from workers.simulation.demo.dashboard import EVENT_STYLES, Dashboard
from workers.simulation.demo.runner import TimelineEvent
from workers.simulation.demo.sample_market import build_sample_market

NOW = datetime(2026, 11, 25, 10, tzinfo=UTC)


class Screen:
    """A board that is looked at on a terminal 130 columns wide, at an instant that the test sets."""

    def __init__(self) -> None:
        self.sample = build_sample_market(NOW)
        self.instant = NOW
        unlocks = {order_id: NOW + timedelta(seconds=9) for order_id in self.sample.unlocking}
        self.board = Dashboard(self.sample, unlocks, lambda: self.instant, {"Flower": "http://127.0.0.1:5555/"})

    def hear(self, event: str, order_id: int | None, **changes: Any) -> None:
        """One piece of news."""
        self.board.apply(TimelineEvent(NOW, event, order_id, "", None if order_id else "b-someone", changes))

    def line(self, order_id: int) -> str:
        """What the screen says of one order."""
        (found,) = [line for line in self.text().splitlines() if f" {order_id} " in line]
        return found

    def text(self) -> str:
        """The whole screen."""
        paper = io.StringIO()
        Console(file=paper, width=130).print(self.board)
        return paper.getvalue()


def test_every_order_of_the_story_has_a_row_that_counts_down() -> None:
    screen = Screen()
    first = min(screen.sample.sellers_cancel)
    assert "Flower http://127.0.0.1:5555/" in screen.text()
    for order_id in screen.sample.unlocking | screen.sample.ending_cancelled:
        assert screen.line(order_id)
    for seconds, said in ((0, "unlocks in 9 s"), (8, "unlocks in 1 s"), (9, "due"), (10, "due")):
        screen.instant = NOW + timedelta(seconds=seconds)
        assert said in screen.line(first)


def test_a_cancellation_says_what_came_back_and_where_the_money_is() -> None:
    """R57, R84: units and money, as the event of the cancellation has them."""
    screen = Screen()
    first = min(screen.sample.sellers_cancel)
    screen.hear("npb.unlocked", first)
    assert "unlocked" in screen.line(first)
    returned = [{"returned": 7, "lot_id": 1}, {"returned": 5, "lot_id": 2}, {"returned": 0, "lot_id": None}]
    screen.hear(
        "orders.cancelled", first, returned=returned, fee={"kind": "credit", "amount": "-3.20", "bill": "2026-11"}
    )
    assert "12 units returned, 3.20 USD credited" in screen.line(first)
    screen.hear("removals.cancelled", first)
    assert "removal cancelled" in screen.line(first)
    other = min(screen.sample.buyers_cancel)
    screen.hear("orders.cancelled", other, returned=[], fee={"kind": "none", "amount": "0.00", "bill": None})
    assert "nothing is returned, the fee stays" in screen.line(other)


def test_the_foot_counts_what_has_come_to_its_end() -> None:
    """A seller who goes on waiting after the unlock has come to the end of the story too; other news stand beside."""
    screen = Screen()
    assert "0 of 14 orders" in screen.text()
    screen.hear("npb.unlocked", min(screen.sample.untouched))
    screen.hear("npb.unlocked", min(screen.sample.sellers_cancel))
    assert "1 of 14 orders" in screen.text()
    screen.hear("members.buying_revoked", None)
    assert EVENT_STYLES["members.buying_revoked"][2] in screen.text()
