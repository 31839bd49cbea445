"""What is a machine like whose clock is wrong?  Python imports this file at its start when its folder is on PYTHONPATH.

`time.time` and the present of `datetime` are off by SKEW_SECONDS for everything in the process, or by what stands in the file
SKEW_FILE at that moment, so that a test can step the clock of a running program; monotonic clocks and the servers' clocks are
right, as they are where one machine's wall clock was set wrong.
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
    """Instants that C code makes are instants, too."""

    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, _datetime)


class _Skewed(_datetime, metaclass=_Kind):
    """`datetime.datetime`, at another time."""

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        """What this machine takes for the present."""
        return _datetime.fromtimestamp(_wrong(), tz)

    @classmethod
    def utcnow(cls) -> Any:
        """The same, without a zone."""
        return _datetime.fromtimestamp(_wrong(), dt.UTC).replace(tzinfo=None)


def _wrong() -> float:
    if _FILE is None:
        return _right() + _SKEW
    with open(_FILE) as file:  # noqa: PTH123 - nothing of pathlib's, which may itself ask for the time
        return _right() + float(file.read() or 0)


_Skewed.__module__, _Skewed.__name__, _Skewed.__qualname__ = "datetime", "datetime", "datetime"
time.time = _wrong  # noqa: TID251 - the same
dt.datetime = _Skewed  # type: ignore[misc]
