"""A test that the demo misses no event, in whatever order transactions commit."""

from __future__ import annotations

import pytest
from celery import Celery
from sqlalchemy import Connection, insert

from models.db import database as db
from models.events import EventRow, event_row
from tests.plugins.market import FILED, Market
from workers.simulation.demo.runner import DemoRun
from workers.simulation.demo.sample_market import SampleMarket


def write_unlocked(conn: Connection, order_id: int) -> None:
    unlocked = event_row("npb.unlocked", FILED, actor="system", role="system", order_id=order_id, seq=100)
    conn.execute(insert(EventRow), [unlocked])


@pytest.mark.breaks_invariants("the events are written without what they tell of")
def test_event_that_commits_after_a_later_one_is_followed(market: Market, database_url: str) -> None:
    orders = {market.order(1003), market.order(1004)}
    database, other = market.simulation.database, db.connect(database_url)
    run = DemoRun.from_now(SampleMarket(untouched=orders), database, Celery("storefront"))
    events = run.follow()
    with other.transaction() as slow:
        write_unlocked(slow, 1003)
        with database.transaction() as quick:
            write_unlocked(quick, 1004)
        assert next(events).order_id == 1004
    other.dispose()
    assert [event.order_id for event in events] == [1003]
