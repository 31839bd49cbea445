"""Which bill does an instant belong to, and when is that bill made, due and past due?  (rules.md 7.2, A6, R89, R92)

A billing month is the calendar month of an instant in the billing zone, written as the date of its first day.  Months
are counted, never added to dates as durations, so neither February nor a change of clocks can shift anything.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta

from policies.terms import Terms


def month_of(instant: datetime, terms: Terms) -> date:
    """The billing month of an instant: 2026-04-01T03:30Z is still March in New York (E9)."""
    return instant.astimezone(terms.zone).date().replace(day=1)


def next_month(month: date) -> date:
    """The month after."""
    return date(month.year + month.month // 12, month.month % 12 + 1, 1)


def previous_month(month: date) -> date:
    """The month before."""
    return date(month.year - (month.month == 1), (month.month - 2) % 12 + 1, 1)


def issued_on(month: date, terms: Terms) -> date:
    """The day on which the bill of a month is made: the 5th of the next month."""
    return next_month(month).replace(day=terms.bill_day)


def bill_issues_at(month: date, terms: Terms) -> datetime:
    """The first instant of that day in the billing zone, in UTC."""
    return start_of_day(issued_on(month, terms), terms)


def due_on(month: date, terms: Terms) -> date:
    """The day on which the bill of a month is due: the 5th of the month after the one in which it was made."""
    return next_month(next_month(month)).replace(day=terms.bill_due_day)


def past_due_from(due: date, terms: Terms) -> datetime:
    """The instant from which an unpaid bill due on that day is past due: the day itself is still in time."""
    return start_of_day(due + timedelta(days=1), terms)


def grace_until(due: date, terms: Terms) -> date:
    """The last day of grace after the due date."""
    return due + terms.past_due_grace


def start_of_day(day: date, terms: Terms) -> datetime:
    """The first instant of a day in the billing zone, in UTC.

    Where clocks jump over midnight, reading it with the offset before the jump (fold 0) gives the instant of the jump.
    """
    return datetime.combine(day, time(), tzinfo=terms.zone).astimezone(UTC)


def format_month(month: date) -> str:
    """Write a month as `2026-03`."""
    return month.isoformat()[:7]


def parse_month(text: str) -> date:
    """Read `2026-03`; ValueError for anything else, and for months so far away that the calendar ends beside them."""
    if not re.fullmatch(r"[1-8][0-9]{3}-[0-9]{2}", text):
        raise ValueError("must be a month such as 2026-03")
    return date.fromisoformat(f"{text}-01")


def month_name(month: date) -> str:
    """A month as people say it: March 2026."""
    return f"{_NAMES[month.month - 1]} {month.year}"


_NAMES = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
