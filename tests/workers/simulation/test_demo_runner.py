"""Tests that the demo misses no event, in whatever order transactions commit, and waits for none that need not come."""

from __future__ import annotations

import pytest
from celery import Celery
from sqlalchemy import Connection, insert

from models.db import database as db
from models.events import EventRow, event_row
from tests.plugins.market import FILED, Market
from workers.simulation.demo.runner import DemoRun
from workers.simulation.demo.sample_market import SampleMarket


def write_event(conn: Connection, order_id: int, type_: str = "npb.unlocked") -> None:
    conn.execute(insert(EventRow), [event_row(type_, FILED, actor="system", role="system", order_id=order_id, seq=100)])


@pytest.mark.breaks_invariants("the events are written without what they tell of")
def test_event_that_commits_after_a_later_one_is_followed(market: Market, database_url: str) -> None:
    orders = {market.order(1003), market.order(1004)}
    database, other = market.simulation.database, db.connect(database_url)
    run = DemoRun(SampleMarket(untouched=orders), database, Celery("storefront", set_as_current=False))
    events = run.follow()
    with other.transaction() as slow:
        write_event(slow, 1003)
        with database.transaction() as quick:
            write_event(quick, 1004)
        assert next(events).order_id == 1004
    other.dispose()
    assert [event.order_id for event in events] == [1003]


@pytest.mark.breaks_invariants("the event is written without what it tells of")
def test_an_order_that_is_cancelled_automatically_need_not_be_unlocked_first(market: Market) -> None:
    """Both fall due at one instant, and either sweep may come first."""
    run = DemoRun(
        SampleMarket(automatic={market.order(1003)}),
        market.simulation.database,
        Celery("storefront", set_as_current=False),
    )
    with market.simulation.database.transaction() as conn:
        write_event(conn, 1003, "orders.cancelled")
    assert [event.type for event in run.follow()] == ["orders.cancelled"]
