"""Tests of `forecast`, `credits`, `show sweeps` and the page of an order."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner, Result
from icalendar import Calendar

from models.db import database as db
from models.queries.forecast import list_forecast_acts, list_forecast_bill_days
from policies.timestamps import format_timestamp
from tests.plugins.market import FILED, ORDERED, WEEK, Market
from workers.cli import group
from workers.cli.forecast import calendar_parts
from workers.cli.show import forecast_lines
from workers.cli.terminal_text import PeopleConsole

HOUR = timedelta(hours=1)


@pytest.fixture
def typed(market: Market, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Type a command against a marketplace with one cancelled order and one overdue alert."""
    market.order(1003)
    market.order(1004)
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller")
    market.done("ocr.file", order_id=1004, member_id="seller", reason="S_MUTUAL", comment="agreed by mail")
    market.done("orders.cancel", order_id=1004, member_id="seller")
    market.simulation.do("npb.scan_open_alerts")
    monkeypatch.setenv("DATABASE_URL", database_url)

    def run(*words: str) -> Result:
        return CliRunner().invoke(group, words)

    yield run
    db.set_database(market.simulation.database)


def test_forecast_begins_with_overdue_alerts(typed: Any) -> None:
    """P3: an overdue alert comes first, with its fix."""
    output = typed("forecast").output
    assert output.startswith("Overdue: 1 alert is due")
    assert "order 1003: NPB" in output
    assert "./run doctor" in output
    forecast = json.loads(typed("forecast", "--json").output)
    assert (forecast["overdue"], forecast["hours"], forecast["later"]) == (1, [], 0)


@pytest.mark.parametrize("days", ["0", "367", "-1", "x"])
def test_invalid_days_are_refused(typed: Any, days: str) -> None:
    assert typed("forecast", "--days", days).exit_code == 2


def test_credits_name_their_bills(typed: Any) -> None:
    """R84: order, basis, fee and bill of each credit."""
    output = " ".join(typed("credits", "seller").output.split())
    assert "Order 1004, cancelled 4 Apr 2026, 10:00 UTC on the ground OCR_SELLER" in output
    assert "on the bill for April 2026, which is still open" in output
    assert "No order of buyer was cancelled" in typed("credits", "buyer").output
    assert json.loads(typed("credits", "seller", "--json").output)["credits"][0]["order_id"] == 1004
    result = typed("credits", "nobody")
    assert result.exit_code != 0


def test_order_page_has_verdict_stock_credit_and_emails(typed: Any) -> None:
    output = typed("show", "order", "1004").output
    for words in (
        "on the ground of the seller's own cancel request.",
        "sold: -10 in lot 501004 (line 1)",
        "returned: +10 in lot 501004 (line 1)",
        "is on the bill for April 2026",
        "to buyer: Order 1004: cancelled",
        "      What this means\n      ---------------\n",
    ):
        assert words in output, words
    earlier = json.loads(typed("show", "order", "1004", "--at", format_timestamp(ORDERED), "--json").output)
    assert earlier["credits"] == earlier["notices"] == []
    assert [move["kind"] for move in earlier["stock"]] == ["sold"]


def test_sweeps_are_shown_with_their_results(typed: Any) -> None:
    """P3: completed scans are shown."""
    output = typed("show", "sweeps").output
    assert "npb.scan_open_alerts: last ran 4 Apr 2026, 10:00 UTC, found 0 in total." in output
    assert "notices.deliver: last ran" in output


def chart_lines(forecast: dict[str, Any]) -> list[str]:
    """The chart as lines of a terminal of eighty columns."""
    paper = io.StringIO()
    console = PeopleConsole(file=paper, width=80)
    for line in forecast_lines(forecast):
        console.write(line)
    return paper.getvalue().splitlines()


def test_chart_shows_one_unlock_beside_a_thousand() -> None:
    now = FILED
    hours = [(now + HOUR, 1), (now + 2 * HOUR, 1000), (now + WEEK, 10)]
    forecast = {
        "at": format_timestamp(now),
        "until": format_timestamp(now + 2 * WEEK),
        "overdue": 0,
        "overdue_orders": [],
        "total": 1011,
        "hours": [{"hour": format_timestamp(hour), "total": count} for hour, count in hours],
        "later": 3,
    }
    lines = chart_lines(forecast)
    assert lines[0] == "Nothing is overdue."
    first, last = lines[3], lines[10]
    assert first.startswith("Sat 2026-04-04 |           ░█")
    assert first.endswith(" 1001")
    assert last.startswith("Sat 2026-04-11 |          ░ ")
    assert lines[-1] == "3 unlock after that."
    assert all(len(line) <= 80 for line in lines)


def test_calendar_has_the_automatic_answers_to_requests(market: Market) -> None:
    """R117, R123, R119: an agreement that a hold postpones, and a decline."""
    market.done(
        "terms.apply",
        terms={"OCR_SILENCE": {"decline_after": "5d"}},
        staff="kim",
        **{"from": format_timestamp(ORDERED)},
    )
    market.done("sellers.set_automation", member_id="seller", agree_to_requests_within=0)
    for order_id, asked_at in ((1, ORDERED), (2, ORDERED + timedelta(seconds=1))):
        market.at(ORDERED).order(order_id)
        until = format_timestamp(ORDERED + timedelta(days=2))
        market.done("orders.hold_automation", order_id=order_id, staff="kim", comment="wait", until=until)
        market.at(asked_at)
        market.done("ocr.file", order_id=order_id, member_id="buyer", reason="B_MUTUAL", comment="ordered twice")
    events = {str(event["summary"]): event["dtstart"].dt for event in calendar_at(market, ORDERED).values()}
    assert events["Order 1: it is cancelled automatically"] == ORDERED + timedelta(days=2)
    declined = events["Order 2: the buyer's cancel request is declined automatically"]
    assert declined == ORDERED + timedelta(days=5, seconds=1)


def calendar_at(market: Market, now: datetime, days: int = 30) -> dict[str, Any]:
    """The events of the calendar as of that time, by UID."""
    with market.simulation.database.transaction() as conn:
        acts = list_forecast_acts(conn, days=days, now=now)
        bill_days = list_forecast_bill_days(conn, days=days, now=now)
        calendar = Calendar.from_ical("".join(calendar_parts(acts, bill_days, now)))
    return {str(event["uid"]): event for event in calendar.walk("VEVENT")}


def test_calendar_has_unlocks_automatic_acts_and_bill_days(market: Market) -> None:
    """R119: an event for each date to come, with a UID that stays when the date moves."""
    market.order(1003)
    market.at(FILED).order(1004)
    market.done("npb.file", order_id=1003, member_id="seller")
    before = calendar_at(market, FILED)
    market.done("sellers.set_automation", member_id="seller", file_npb_after=10, cancel_after_unlock=3)
    market.done("npb.respond", order_id=1003, member_id="buyer", comment="on Friday; or, Saturday\nnoon")
    after = calendar_at(market, FILED)
    assert {str(event["summary"]): event["dtstart"].dt for event in after.values()} == {
        "The bills of March 2026 are issued": date(2026, 4, 5),
        "The bills of February 2026 are due": date(2026, 4, 5),
        "Order 1003: the seller can cancel through the non-paying buyer alert": FILED + 2 * WEEK,
        "Order 1003: it is cancelled automatically": FILED + timedelta(days=17),
        "Order 1004: a non-paying buyer alert is filed automatically": FILED + timedelta(days=10),
    }
    (unlock,) = (uid for uid in before if uid.startswith("npb.unlock"))
    assert (before[unlock]["dtstart"].dt, after[unlock]["dtstart"].dt) == (FILED + WEEK, FILED + 2 * WEEK)
    assert before.keys() < after.keys()
    later = calendar_at(market, FILED + timedelta(days=1), days=10)
    assert {str(event["summary"]) for event in later.values()} == {
        "The bills of March 2026 are issued",
        "The bills of February 2026 are due",
        "Order 1004: a non-paying buyer alert is filed automatically",
    }


def test_calendar_is_printed_by_the_command(typed: Any) -> None:
    output = typed("forecast", "--ics", "--days", "40").output
    names = [str(event["summary"]) for event in Calendar.from_ical(output).walk("VEVENT")]
    assert len(names) >= 2
    assert all(name.startswith("The bills of ") for name in names)
    assert typed("forecast", "--ics", "--json").exit_code == 2
