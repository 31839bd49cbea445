"""The names of IANA time zones."""

from __future__ import annotations

import zoneinfo
from functools import lru_cache

NON_ZONES = ("Factory", "localtime", "posixrules")
"""Files in the system's zone directory that are not zones."""


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones()).difference(NON_ZONES)


def validate_zone(text: object) -> str:
    if not isinstance(text, str) or text not in zone_names():
        raise ValueError("must be the name of a time zone such as America/New_York or Europe/Berlin")
    return text
