"""The application with short timeouts, for `celery -A tests.e2e.short_timeouts worker`.

A worker whose process id is in the file named by TEST_DEAF is alive and connected, answers pings, and takes no
message; a beat in that file sends no ticks.
"""

from __future__ import annotations

import os
from pathlib import Path
from threading import Event
from typing import Any

from models.db import session_settings
from workers.app import app
from workers.beat import MonotonicScheduler
from workers.monitoring import watchdog
from workers.transport import channel, reclaim
from workers.transport.qos import QoS

watchdog.POLL_INTERVAL = 0.1
watchdog.MAX_SILENT_POLLS = 20
watchdog.MAX_SILENT_POLLS_WHEN_BUSY = 60
session_settings.IDLE_IN_TRANSACTION_TIMEOUT_MS = 2_000
session_settings.TRANSACTION_TIMEOUT_MS = 6_000
reclaim.HEARTBEAT_TTL_SECONDS = 2
channel.POLL_INTERVAL = 0.5

__all__ = ["app"]

_ticks: Any = MonotonicScheduler.tick
_hears: Any = QoS.can_consume


def _can_consume(self: Any) -> bool:
    by_queue = bool(self.channel.active_queues)  # pings come through another channel
    return bool(_hears(self)) and not (by_queue and _is_deaf())


def _is_deaf() -> bool:
    deaf = Path(os.environ.get("TEST_DEAF", "/nonexistent"))
    return deaf.exists() and deaf.read_text() == str(os.getpid())


def _tick(self: Any, *args: Any, **kwargs: Any) -> Any:
    while _is_deaf():
        Event().wait(0.1)
    return _ticks(self, *args, **kwargs)


QoS.can_consume = _can_consume  # type: ignore[method-assign]
MonotonicScheduler.tick = _tick  # type: ignore[method-assign]
