"""Timestamps as text: RFC 3339 in UTC, ending in Z, with a fraction unless that is zero; and as people read them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_INSTANT = re.compile(r"[1-8]\d{3}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)

_WRITTEN = re.compile(r"\b[1-8]\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z", re.ASCII)


def format_timestamp(instant: datetime) -> str:
    utc = instant.astimezone(UTC)
    text = utc.replace(tzinfo=None).isoformat(timespec="microseconds" if utc.microsecond else "seconds")
    return (text.rstrip("0") if utc.microsecond else text) + "Z"


def describe_timestamp(instant: datetime, *, onwards: bool = False) -> str:
    """Format to the second, for sentences; with `onwards` rounded up, so that the time is never too early."""
    truncated = instant.replace(microsecond=0)
    return format_timestamp(truncated + timedelta(seconds=1) if onwards and truncated < instant else truncated)


def format_for_people(instant: datetime) -> str:
    """Format like `29 Nov 2026, 06:01 UTC`, with seconds if they are not zero."""
    utc = instant.astimezone(UTC)
    return f"{utc.day} {utc:%b %Y, %H:%M}{f':{utc:%S}' if utc.second else ''} UTC"


def rewrite_for_people(text: str) -> str:
    return _WRITTEN.sub(_rewrite_match, text)


def _rewrite_match(match: re.Match[str]) -> str:
    try:
        return format_for_people(parse_timestamp(match[0]))
    except ValueError:  # looks like a timestamp, in a comment
        return match[0]


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
