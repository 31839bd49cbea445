"""Timestamps as text: RFC 3339 in UTC, ending in Z, with a fraction only when it is not zero."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_INSTANT = re.compile(r"[1-8]\d{3}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def format_timestamp(instant: datetime) -> str:
    utc = instant.astimezone(UTC)
    text = utc.replace(tzinfo=None).isoformat(timespec="microseconds" if utc.microsecond else "seconds")
    return (text.rstrip("0") if utc.microsecond else text) + "Z"


def describe_timestamp(instant: datetime, *, onwards: bool = False) -> str:
    """Format to the second, for sentences; with `onwards` rounded up, so that the time is never too early."""
    truncated = instant.replace(microsecond=0)
    return format_timestamp(truncated + timedelta(seconds=1) if onwards and truncated < instant else truncated)


def parse_timestamp(text: str) -> datetime:
    """Parse a timestamp of the years 1000 to 8999.  Raises ValueError, also for a missing offset."""
    if not _INSTANT.fullmatch(text):
        raise ValueError("must be an instant such as 2026-03-28T10:00:00Z, with its offset")
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError("must be an instant that exists, such as 2026-03-28T10:00:00Z") from error


def format_optional_timestamp(instant: datetime | None) -> str | None:
    return None if instant is None else format_timestamp(instant)
