"""The calendar of `./run forecast --ics`: unlocks, automatic acts and bill days as iCalendar (RFC 5545)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date, datetime
from typing import Any

from icalendar import Calendar, Event

from policies.bills import format_month, month_name

PRODUCT_ID = "-//Unwind//forecast//EN"
SUMMARIES = {
    "npb.unlock": "Order {}: the seller can cancel through the non-paying buyer alert",
    "nrs.unlock": "Order {}: the buyer can cancel through the non-responding seller alert",
    "nss.unlock": "Order {}: the buyer can cancel through the non-shipping seller alert",
    "npb.file": "Order {}: a non-paying buyer alert is filed automatically",
    "ocr.decline": "Order {}: the buyer's cancel request is declined automatically",
    "orders.cancel": "Order {}: it is cancelled automatically",
}


def calendar_parts(acts: Iterable[Any], bill_days: Iterable[tuple[date, str, date]], now: datetime) -> Iterator[str]:
    calendar = Calendar()
    for name, value in (("prodid", PRODUCT_ID), ("version", "2.0"), ("method", "PUBLISH")):
        calendar.add(name, value)
    head, end = calendar.to_ical().decode().split("END:VCALENDAR")
    yield head
    for day, event, month in bill_days:
        uid = f"bills-{event}-{format_month(month)}@unwind"
        yield _calendar_event(uid, day, f"The bills of {month_name(month)} are {event}", now)
    for act in acts:
        uid = f"{act.act}-{act.order_id}-{act.since:%Y%m%dT%H%M%S%f}@unwind"
        parties = f"Seller {act.seller_id}, buyer {act.buyer_id}."
        yield _calendar_event(uid, act.at, SUMMARIES[act.act].format(act.order_id), now, parties)
    yield f"END:VCALENDAR{end}"


def _calendar_event(uid: str, start: date, summary: str, now: datetime, description: str | None = None) -> str:
    event = Event.new(uid=uid, stamp=now, start=start, summary=summary, description=description)
    encoded: bytes = event.to_ical()
    return encoded.decode()
