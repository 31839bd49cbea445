"""Tests of simulated time: each deadline is met at its own instant, and time only moves forward."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.plugins.market import FILED, WEEK, Market
from workers.simulation import engine as staging

DAY = timedelta(days=1)


def test_each_alert_unlocks_at_its_own_instant(market: Market) -> None:
    """R41, R42: one step over two weeks unlocks both, each when it was due."""
    market.order(1003)
    market.order(1004)
    for order_id, later in ((1003, timedelta()), (1004, timedelta(hours=5))):
        market.simulation.advance(FILED + later)
        market.done("npb.file", order_id=order_id, member_id="seller")
    sweeps: list[Any] = []
    market.simulation.on_sweep = lambda at, sweep, effects: sweeps.append((at, sweep, effects))
    market.simulation.advance(FILED + 2 * WEEK)
    unlocks = [at for at, sweep, effects in sweeps if sweep == "npb.scan_open_alerts" and effects["unlocked"]]
    assert unlocks == [FILED + WEEK, FILED + WEEK + timedelta(hours=5)]
    assert all(alert.unlocked_at == alert.unlocks_at for alert in market.alerts())


def test_deadline_at_the_end_of_an_advance_is_met(market: Market) -> None:
    """A3: every boundary is inclusive."""
    market.order(1003)
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller")
    market.simulation.advance(FILED + WEEK)
    assert [alert.unlocked_at for alert in market.alerts()] == [FILED + WEEK]


def test_advancing_backwards_is_refused(market: Market) -> None:
    with pytest.raises(ValueError, match="set back"):
        market.simulation.advance(market.simulation.clock.instant - timedelta(seconds=1))


def test_sweep_that_leaves_due_rows_raises_an_error(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "SIMULATED_DEADLINES", ((lambda _conn: FILED, ("reminders.scan",)),))
    with pytest.raises(RuntimeError, match=r"reminders\.scan"):
        market.simulation.advance(FILED + DAY)
