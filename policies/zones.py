"""Which time zones are there?  Those that IANA names, and nothing else that a machine's directory of zones may hold."""

from __future__ import annotations

import zoneinfo
from functools import lru_cache

NON_ZONES = ("Factory", "localtime", "posixrules")
"""Files beside the zones: what a machine that was never set has, and what this one happens to be set to."""


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    """The names of all zones."""
    return frozenset(zoneinfo.available_timezones()).difference(NON_ZONES)


def validate_zone(text: object) -> str:
    """The name, if it is one: in IANA's spelling, to the letter.  Raises ValueError."""
    if not isinstance(text, str) or text not in zone_names():
        raise ValueError("must be the name of a time zone such as America/New_York or Europe/Berlin")
    return text
