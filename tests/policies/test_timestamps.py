"""Tests of timestamps as text."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from policies.timestamps import describe_timestamp, format_timestamp, parse_timestamp

FULL_SECOND = datetime(2026, 3, 28, 10, tzinfo=UTC)


@pytest.mark.parametrize("text", ["2026-03-28T10:00:00Z", "2026-03-28T10:00:00.15716Z", "2026-03-28T10:00:00.000001Z"])
def test_timestamp_round_trips_exactly(text: str) -> None:
    assert format_timestamp(parse_timestamp(text)) == text


def test_sentences_have_whole_seconds() -> None:
    """Past times are truncated; a time from which something is possible is rounded up."""
    between = FULL_SECOND.replace(microsecond=1)
    assert describe_timestamp(between) == "2026-03-28T10:00:00Z"
    assert describe_timestamp(between, onwards=True) == "2026-03-28T10:00:01Z"
    assert describe_timestamp(FULL_SECOND, onwards=True) == format_timestamp(FULL_SECOND)
