"""Tests of simulated time: each deadline is met at its own instant, and time only moves forward."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.plugins.market import FILED, WEEK, Market
from workers.simulation import engine as staging
from workers.simulation.engine import SweepStuck

DAY = timedelta(days=1)


def test_each_alert_is_unlocked_at_its_own_instant(market: Market) -> None:
    """R41, R42: one step over two weeks finds both, each when it was due."""
    market.order(1003)
    market.order(1004)
    for order_id, later in ((1003, timedelta()), (1004, timedelta(hours=5))):
        market.simulation.advance(FILED + later)
        market.done("npb.file", order_id=order_id, member_id="seller")
    seen: list[Any] = []
    market.simulation.on_sweep = lambda at, sweep, effects: seen.append((at, sweep, effects))
    market.simulation.advance(FILED + 2 * WEEK)
    unlocks = [at for at, sweep, effects in seen if sweep == "npb.scan_open_alerts" and effects["unlocked"]]
    assert unlocks == [FILED + WEEK, FILED + WEEK + timedelta(hours=5)]
    rows = market.rows("SELECT unlocked_at, unlocks_at FROM unwind.alerts")
    assert all(row.unlocked_at == row.unlocks_at for row in rows)


def test_a_deadline_at_the_very_end_is_met(market: Market) -> None:
    """Inclusive, as every boundary of the rules (A3)."""
    market.order(1003)
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller")
    market.simulation.advance(FILED + WEEK)
    assert market.row("SELECT unlocked_at FROM unwind.alerts").unlocked_at == FILED + WEEK


def test_time_does_not_run_backwards(market: Market) -> None:
    """A history is written in time order."""
    with pytest.raises(ValueError, match="set back"):
        market.simulation.advance(market.simulation.clock.instant - timedelta(seconds=1))


def test_a_sweep_that_leaves_what_is_due_is_a_bug_and_not_an_endless_loop(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Better an exception than a replay that never ends."""
    monkeypatch.setattr(staging, "DEADLINES", ((lambda _conn: FILED, ("reminders.scan",)),))
    with pytest.raises(SweepStuck, match=r"reminders\.scan"):
        market.simulation.advance(FILED + DAY)
