"""The `forecast` command: upcoming unlocks as a chart or JSON, and everything with a date as a calendar."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date, datetime
from typing import Any

import click
from icalendar import Calendar, Event

from models.queries.forecast import DEFAULT_DAYS, MAX_DAYS, list_forecast_acts, list_forecast_bill_days
from policies.bills import format_month, month_name
from workers import show_queries
from workers.cli.database import open_transaction
from workers.cli.options import json_option, zone_option
from workers.cli.show import print_query_result

CALENDAR_SUMMARIES = {
    "npb.unlock": "Order {}: the seller can cancel through the non-paying buyer alert",
    "nrs.unlock": "Order {}: the buyer can cancel through the non-responding seller alert",
    "nss.unlock": "Order {}: the buyer can cancel through the non-shipping seller alert",
    "npb.file": "Order {}: a non-paying buyer alert is filed automatically",
    "ocr.decline": "Order {}: the buyer's cancel request is declined automatically",
    "orders.cancel": "Order {}: it is cancelled automatically",
}


@click.command()
@click.option("--days", default=DEFAULT_DAYS, show_default=True, type=click.IntRange(1, MAX_DAYS), help="Days ahead.")
@click.option("--ics", "as_calendar", is_flag=True, help="Print unlocks, automatic acts and bill days as iCalendar.")
@json_option
@zone_option
def forecast(days: int, as_calendar: bool, as_json: bool) -> None:
    """Show when alerts will unlock, hour by hour, with the overdue ones on top."""
    if not as_calendar:
        print_query_result(show_queries.parse_query(["forecast", "--days", days]), as_json)
        return
    if as_json:
        raise click.UsageError("A forecast is printed with --ics or with --json.")
    with open_transaction(snapshot=True) as (conn, now):
        bill_days = list_forecast_bill_days(conn, days=days, now=now)
        for part in calendar_parts(list_forecast_acts(conn, days=days, now=now), bill_days, now):
            click.echo(part, nl=False)


def calendar_parts(acts: Iterable[Any], bill_days: Iterable[tuple[date, str, date]], now: datetime) -> Iterator[str]:
    calendar = Calendar()
    for name, value in (("prodid", "-//Unwind//forecast//EN"), ("version", "2.0"), ("method", "PUBLISH")):
        calendar.add(name, value)
    head, end = calendar.to_ical().decode().split("END:VCALENDAR")
    yield head
    for day, event, month in bill_days:
        uid = f"bills-{event}-{format_month(month)}@unwind"
        yield _calendar_event(uid, day, f"The bills of {month_name(month)} are {event}", now)
    for act in acts:
        uid = f"{act.act}-{act.order_id}-{act.since:%Y%m%dT%H%M%S%f}@unwind"
        parties = f"Seller {act.seller_id}, buyer {act.buyer_id}."
        yield _calendar_event(uid, act.at, CALENDAR_SUMMARIES[act.act].format(act.order_id), now, parties)
    yield f"END:VCALENDAR{end}"


def _calendar_event(uid: str, start: date, summary: str, now: datetime, description: str | None = None) -> str:
    event = Event.new(uid=uid, stamp=now, start=start, summary=summary, description=description)
    return str(event.to_ical(), "utf-8")
