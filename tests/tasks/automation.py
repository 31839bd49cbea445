"""What the tests of automation share: settings, what is shown, stored deadlines and emails."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from tests.plugins.market import FILED, WEEK, Market
from workers import show_queries

SECOND, DAY = timedelta(seconds=1), timedelta(days=1)
UNLOCKED = FILED + WEEK


def automate(market: Market, **settings: Any) -> dict[str, Any]:
    return market.done("sellers.set_automation", member_id="seller", **settings)


def see(market: Market, *words: str | int) -> Any:
    with market.simulation.database.transaction() as conn:
        return show_queries.parse_query(words).read(conn, market.simulation.clock.instant)


def deadlines(market: Market) -> dict[int, datetime | None]:
    return {alert.order_id: alert.cancels_at for alert in market.alerts()}


def emails(market: Market, order_id: int = 1003) -> list[tuple[str, str]]:
    return [(notice.event, notice.recipient) for notice in market.notices(order_id=order_id)]


DUE = UNLOCKED + 3 * DAY
