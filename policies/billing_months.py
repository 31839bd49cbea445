"""Billing months, and when a month's bill is issued, due and past due (A6, R89, R92).

A billing month is the calendar month of a time in the billing zone, written as the date of its first day.  Months are
counted and never added as durations, so February and clock changes have no effect.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta

from policies.terms import Terms


def month_of(instant: datetime, terms: Terms) -> date:
    return instant.astimezone(terms.zone).date().replace(day=1)


def next_month(month: date) -> date:
    return date(month.year + month.month // 12, month.month % 12 + 1, 1)


def previous_month(month: date) -> date:
    return date(month.year - (month.month == 1), (month.month - 2) % 12 + 1, 1)


def issued_on(month: date, terms: Terms) -> date:
    return next_month(month).replace(day=terms.bill_day)


def bill_issues_at(month: date, terms: Terms) -> datetime:
    return start_of_day(issued_on(month, terms), terms)


def due_on(month: date, terms: Terms) -> date:
    return next_month(next_month(month)).replace(day=terms.bill_due_day)


def past_due_from(due: date, terms: Terms) -> datetime:
    return start_of_day(due + timedelta(days=1), terms)


def grace_until(due: date, terms: Terms) -> date:
    return due + terms.past_due_grace


def start_of_day(day: date, terms: Terms) -> datetime:
    """The start of a day in the billing zone, in UTC.

    Where clocks skip midnight, the offset before the change (fold 0) gives the time of the change.
    """
    return datetime.combine(day, time(), tzinfo=terms.zone).astimezone(UTC)


def format_month(month: date) -> str:
    return month.isoformat()[:7]


def parse_month(text: str) -> date:
    """Parse `2026-03`.  Raises ValueError for other text and for years outside 1000 to 8999."""
    if not re.fullmatch(r"[1-8][0-9]{3}-(0[1-9]|1[0-2])", text):
        raise ValueError("must be a month such as 2026-03")
    return date.fromisoformat(f"{text}-01")


def month_name(month: date) -> str:
    return f"{MONTH_NAMES[month.month - 1]} {month.year}"


MONTH_NAMES = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
