"""What if nobody looks for weeks, or the database's clock steps back?  Levels, not edges; and no order's time runs back."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.plugins.market import FILED, WEEK, Market

DAY = timedelta(days=1)


@pytest.mark.promise("P3")
def test_after_45_days_of_silence_one_sweep_unlocks_and_tells_everything_once(market: Market) -> None:
    """P3: found by the first sweep after its instant, however late that comes; what was answered meanwhile stays locked."""
    for order_id in (1, 2, 3, 4):
        market.order(order_id)
    market.at(FILED)
    for order_id in (1, 2, 3, 4):
        market.done("npb.file", order_id=order_id, member_id="seller")
    market.at(FILED + DAY)
    market.done("npb.remove", order_id=4, member_id="seller")
    market.at(FILED + 45 * DAY)
    unlocked = [market.done("npb.scan_open_alerts")["unlocked"] for _ in range(3)]
    assert unlocked == [3, 0, 0]
    told = market.rows("SELECT order_id FROM unwind.notices WHERE event = 'npb_unlocked' AND recipient = 'seller'")
    assert sorted(row.order_id for row in told) == [1, 2, 3]
    assert market.code("orders.cancel", order_id=1, member_id="seller") is None


def test_a_clock_that_steps_back_turns_no_order_back(market: Market) -> None:
    """F50, rules of time: a decision is never earlier than the order's last event, so its timeline only goes on."""
    market.order()
    market.at(FILED)
    market.done("npb.file", order_id=1003, member_id="seller")
    market.at(FILED + WEEK + timedelta(seconds=1))
    assert market.done("npb.scan_open_alerts")["unlocked"] == 1
    market.at(FILED + WEEK - timedelta(hours=1))
    market.done("npb.respond", order_id=1003, member_id="buyer", comment="Paid yesterday, please look.")
    market.at(FILED + WEEK - timedelta(hours=2))
    market.done("orders.cancel", order_id=1003, member_id="seller")
    instants = [row.at for row in market.rows("SELECT at FROM unwind.events WHERE order_id = 1003 ORDER BY seq")]
    assert instants == sorted(instants)
    assert instants[-1] >= FILED + WEEK


def test_a_clock_that_steps_back_before_the_instant_makes_it_wait_again(market: Market) -> None:
    """P3: never early by the clock that decides; nothing was marked yet, so nothing has to be taken back."""
    market.order()
    market.at(FILED)
    market.done("npb.file", order_id=1003, member_id="seller")
    market.at(FILED + WEEK - timedelta(hours=1))
    assert market.done("npb.scan_open_alerts")["unlocked"] == 0
    assert market.code("orders.cancel", order_id=1003, member_id="seller") == "TOO_EARLY"
