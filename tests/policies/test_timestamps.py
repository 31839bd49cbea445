"""Tests of timestamps as text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from policies.timestamps import (
    describe_timestamp,
    format_for_people,
    format_timestamp,
    parse_timestamp,
    rewrite_timestamps_for_people,
)

FULL_SECOND = datetime(2026, 3, 28, 10, tzinfo=UTC)


@pytest.mark.parametrize("text", ["2026-03-28T10:00:00Z", "2026-03-28T10:00:00.15716Z", "2026-03-28T10:00:00.000001Z"])
def test_timestamp_round_trips_exactly(text: str) -> None:
    assert format_timestamp(parse_timestamp(text)) == text


def test_sentences_have_whole_seconds_all_rounded_up() -> None:
    between = FULL_SECOND.replace(microsecond=1)
    assert describe_timestamp(between) == "2026-03-28T10:00:01Z"
    assert describe_timestamp(FULL_SECOND) == format_timestamp(FULL_SECOND)


def test_displayed_times_are_in_the_readers_zone() -> None:
    text = "Filed 2026-10-24T22:30:00Z, possible from 2026-10-31T22:30:00.000001Z."
    assert rewrite_timestamps_for_people(text, ZoneInfo("Europe/Berlin")) == (
        "Filed 25 Oct 2026, 00:30 CEST, possible from 31 Oct 2026, 23:30:01 CET."
    )


def test_displayed_dates_name_the_month() -> None:
    text = "Filed 2026-11-29T06:01:00Z, possible from 2026-12-06T06:01:40.5Z; no date: 2026-13-29T06:01:00Z."
    expected = "Filed 29 Nov 2026, 06:01 UTC, possible from 6 Dec 2026, 06:01:41 UTC; no date: 2026-13-29T06:01:00Z."
    assert rewrite_timestamps_for_people(text) == expected
    assert format_for_people(datetime(2026, 11, 29, 7, 1, tzinfo=timezone(timedelta(hours=1)))) == (
        "29 Nov 2026, 06:01 UTC"
    )
