"""How often are those who watch told?  Ten times a second, of everything that happened meanwhile.

Celery keeps the events of a worker until its loop comes round and then publishes them: at a hundred messages a second that is a
trip to the broker for each, a third of what the parent process does (docs/decisions/0011).  Nobody who watches Flower sees a
tenth of a second.
"""

from __future__ import annotations

import contextlib
from time import monotonic
from typing import Any

from celery.worker import consumer

FLUSH_INTERVAL = 0.1
"""Seconds.  Two dozen events do not wait for it (Celery's own limit)."""


class Consumer(consumer.Consumer):
    """Celery's consumer, which tells in groups."""

    _telling_at = float("-inf")

    def on_send_event_buffered(self) -> None:
        """celery.worker.consumer.Consumer.on_send_event_buffered: soon, where Celery says at once."""
        now = monotonic()
        # By time and not by a flag: a lost connection clears the timers, and what was to be told then is told with the next.
        if self.hub and now >= self._telling_at:
            self._telling_at = now + FLUSH_INTERVAL
            self.hub.call_later(FLUSH_INTERVAL, self._flush_events)

    def stop(self) -> Any:
        """celery.worker.consumer.Consumer.stop: the last ones are told before the connection goes."""
        with contextlib.suppress(Exception):  # whoever watches gets what the broker takes; nothing depends on it
            self._flush_events()
        return super().stop()
