"""Simulates a machine with a wrong clock; Python imports this file at startup when its directory is on PYTHONPATH.

`time.time` and the current `datetime` are off by SKEW_SECONDS, or by the content of the file SKEW_FILE, so that a
test can step the clock of a running program.  Monotonic clocks and the servers' clocks are right.
"""

from __future__ import annotations

import datetime as dt
import os
import time
from typing import Any

_SKEW = float(os.environ.get("SKEW_SECONDS", "0"))
_FILE = os.environ.get("SKEW_FILE")
_right = time.time  # noqa: TID251 - the clock itself
_datetime = dt.datetime


class _Kind(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, _datetime)


class _Skewed(_datetime, metaclass=_Kind):
    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return _datetime.fromtimestamp(_wrong(), tz)

    @classmethod
    def utcnow(cls) -> Any:
        return _datetime.fromtimestamp(_wrong(), dt.UTC).replace(tzinfo=None)


def _wrong() -> float:
    if _FILE is None:
        return _right() + _SKEW
    with open(_FILE) as file:  # noqa: PTH123 - nothing of pathlib's, which may itself ask for the time
        return _right() + float(file.read() or 0)


_Skewed.__module__, _Skewed.__name__, _Skewed.__qualname__ = "datetime", "datetime", "datetime"
time.time = _wrong  # noqa: TID251 - the same
dt.datetime = _Skewed  # type: ignore[misc]
