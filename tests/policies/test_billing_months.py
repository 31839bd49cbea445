"""Tests of billing months and of the days a bill is issued, due and past due (A6, R89, R92)."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta, tzinfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.bills import (
    bill_issues_at,
    billing_month_of,
    due_on,
    format_month,
    grace_until,
    issued_on,
    month_name,
    next_month,
    parse_month,
    past_due_from,
    previous_month,
)
from policies.terms import DEFAULT_TERMS, Terms
from policies.timestamps import format_timestamp, parse_timestamp

NEW_YORK = DEFAULT_TERMS


def in_zone(name: str) -> Terms:
    return replace(DEFAULT_TERMS, billing_time_zone=name)


@pytest.mark.parametrize(
    ("zone", "instant", "month"),
    [
        ("America/New_York", "2026-04-01T03:30:00Z", "2026-03"),  # E9: 31 March 23:30
        ("America/New_York", "2026-04-01T03:59:59.999999Z", "2026-03"),
        ("America/New_York", "2026-04-01T04:00:00Z", "2026-04"),
        ("America/New_York", "2026-04-01T04:30:00Z", "2026-04"),
        ("America/New_York", "2027-01-01T04:59:59Z", "2026-12"),  # E10: year end, winter time
        ("America/New_York", "2027-01-01T05:00:00Z", "2027-01"),
        ("America/New_York", "2028-02-29T12:00:00Z", "2028-02"),
        ("America/New_York", "2028-03-01T04:59:59Z", "2028-02"),
        ("America/New_York", "2026-11-01T03:59:59Z", "2026-10"),  # the clocks go back on this very day
        ("America/New_York", "2026-11-01T04:00:00Z", "2026-11"),
        ("America/New_York", "2026-12-01T04:59:59Z", "2026-11"),
        ("UTC", "2026-04-01T03:30:00Z", "2026-04"),
        ("UTC", "2026-03-31T23:59:59.999999Z", "2026-03"),
        ("Pacific/Kiritimati", "2026-03-31T09:59:59Z", "2026-03"),  # UTC+14
        ("Pacific/Kiritimati", "2026-03-31T10:00:00Z", "2026-04"),
        ("Etc/GMT+12", "2026-04-01T11:59:59Z", "2026-03"),  # UTC-12
        ("Etc/GMT+12", "2026-04-01T12:00:00Z", "2026-04"),
        ("Asia/Kathmandu", "2026-03-31T18:14:59Z", "2026-03"),  # UTC+5:45
        ("Asia/Kathmandu", "2026-03-31T18:15:00Z", "2026-04"),
    ],
)
def test_billing_month_follows_the_billing_zone(zone: str, instant: str, month: str) -> None:
    """A6, R89."""
    assert format_month(billing_month_of(parse_timestamp(instant), in_zone(zone))) == month


@pytest.mark.parametrize(
    ("zone", "month", "issued_at", "due", "past_due", "grace"),
    [
        ("America/New_York", "2026-01", "2026-02-05T05:00:00Z", "2026-03-05", "2026-03-06T05:00:00Z", "2026-03-15"),
        ("America/New_York", "2026-02", "2026-03-05T05:00:00Z", "2026-04-05", "2026-04-06T04:00:00Z", "2026-04-15"),
        ("America/New_York", "2026-03", "2026-04-05T04:00:00Z", "2026-05-05", "2026-05-06T04:00:00Z", "2026-05-15"),
        ("America/New_York", "2026-10", "2026-11-05T05:00:00Z", "2026-12-05", "2026-12-06T05:00:00Z", "2026-12-15"),
        ("America/New_York", "2026-11", "2026-12-05T05:00:00Z", "2027-01-05", "2027-01-06T05:00:00Z", "2027-01-15"),
        ("America/New_York", "2026-12", "2027-01-05T05:00:00Z", "2027-02-05", "2027-02-06T05:00:00Z", "2027-02-15"),
        ("UTC", "2028-01", "2028-02-05T00:00:00Z", "2028-03-05", "2028-03-06T00:00:00Z", "2028-03-15"),
        ("Pacific/Kiritimati", "2026-03", "2026-04-04T10:00:00Z", "2026-05-05", "2026-05-05T10:00:00Z", "2026-05-15"),
        ("Asia/Kathmandu", "2026-03", "2026-04-04T18:15:00Z", "2026-05-05", "2026-05-05T18:15:00Z", "2026-05-15"),
    ],
)
def test_bill_is_issued_on_the_fifth_and_past_due_after_the_next_fifth(
    zone: str, month: str, issued_at: str, due: str, past_due: str, grace: str
) -> None:
    """R92."""
    terms, of = in_zone(zone), parse_month(month)
    day = due_on(of, terms)
    assert format_timestamp(bill_issues_at(of, terms)) == issued_at
    assert issued_on(of, terms).day == 5
    assert day.isoformat() == due
    assert format_timestamp(past_due_from(day, terms)) == past_due
    assert grace_until(day, terms).isoformat() == grace


@pytest.mark.parametrize(
    ("zone", "day", "issued_at"),
    [
        # 8 March 2026: two o'clock does not exist in New York, midnight does; the day has 23 hours.
        ("America/New_York", 8, "2026-03-08T05:00:00Z"),
        ("America/New_York", 9, "2026-03-09T04:00:00Z"),
        # 8 March 2026: Havana's clocks jump from midnight to one; the day begins at the jump.
        ("America/Havana", 8, "2026-03-08T05:00:00Z"),
    ],
)
def test_bill_day_with_a_clock_change_has_one_start(zone: str, day: int, issued_at: str) -> None:
    terms = replace(in_zone(zone), bill_day=day)
    assert format_timestamp(bill_issues_at(date(2026, 2, 1), terms)) == issued_at


@given(st.dates(min_value=date(2000, 1, 1), max_value=date(2199, 12, 31)))
def test_months_are_counted_without_gap(day: date) -> None:
    month = day.replace(day=1)
    assert previous_month(next_month(month)) == month == next_month(previous_month(month))
    assert 28 <= (next_month(month) - month).days <= 31
    assert parse_month(format_month(month)) == month


@given(st.floats(min_value=0, max_value=6e9), st.timezones())
def test_bill_is_not_issued_before_its_month_ends(seconds: float, zone: tzinfo) -> None:
    instant = datetime.fromtimestamp(946_800_000 + seconds, tz=zone)
    month = billing_month_of(instant, NEW_YORK)
    assert bill_issues_at(month, NEW_YORK) > instant
    assert billing_month_of(bill_issues_at(month, NEW_YORK), NEW_YORK) == next_month(month)
    assert billing_month_of(bill_issues_at(month, NEW_YORK) - timedelta(days=5), NEW_YORK) == month


@pytest.mark.parametrize(
    "text", ["2026-3", "2026-13", "2026-00", "26-03", "2026-03-01", "2026/03", "", "march", "２０２６-03"]
)
def test_rejects_text_that_is_not_a_month(text: str) -> None:
    with pytest.raises(ValueError, match=r"month|isoformat"):
        parse_month(text)


def test_month_name_is_written_out() -> None:
    assert month_name(date(2026, 3, 1)) == "March 2026"
