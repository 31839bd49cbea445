"""The application with short timeouts, for `celery -A tests.e2e.short_timeouts worker`.

A worker whose process id is in the file named by TEST_STALLED_PID_FILE is alive and connected, answers pings, and takes
no message; a beat in that file sends no ticks.
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

_original_tick: Any = MonotonicScheduler.tick
_original_can_consume: Any = QoS.can_consume


def _can_consume(self: Any) -> bool:
    by_queue = bool(self.channel.active_queues)  # pings come through another channel
    return bool(_original_can_consume(self)) and not (by_queue and _is_stalled())


def _is_stalled() -> bool:
    pid_file = Path(os.environ.get("TEST_STALLED_PID_FILE", "/nonexistent"))
    return pid_file.exists() and pid_file.read_text() == str(os.getpid())


def _tick(self: Any, *args: Any, **kwargs: Any) -> Any:
    while _is_stalled():
        Event().wait(0.1)
    return _original_tick(self, *args, **kwargs)


QoS.can_consume = _can_consume  # type: ignore[method-assign]
MonotonicScheduler.tick = _tick  # type: ignore[method-assign]
