"""Task events, published ten times a second rather than on every iteration of the worker's loop, and without retries.

At a hundred messages a second, Celery's own behaviour costs a round trip to the broker per message, a third of what the
parent process does (docs/decisions/0011).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from time import monotonic
from typing import Any

from celery.events import dispatcher
from celery.worker import consumer

from workers.group_commit.dispatcher import CommandDispatcher

FLUSH_INTERVAL = 0.1
"""Seconds.  Two dozen events are published without waiting for it (Celery's own limit)."""


class Dispatcher(dispatcher.EventDispatcher):
    """Celery's dispatcher, which keeps an event that cannot be published for the next connection.

    Celery sends heartbeats with endless retries. They would stop the worker's loop while the broker is away, so that it
    could neither reconnect nor see that it should shut down.
    """

    def send(self, type: str, *args: Any, **fields: Any) -> Any:  # noqa: A002 - Celery's name
        return super().send(type, *args, **fields | {"retry": False})


class EventBatchingConsumer(consumer.Consumer):
    command_dispatcher: CommandDispatcher | None = None
    _next_flush_at = float("-inf")

    def __init__(self, on_task_request: Callable[[Any], None], *args: Any, **options: Any) -> None:
        super().__init__(self._take_request, *args, **options)
        self.execute_request = on_task_request
        self.app.events.dispatcher_cls = f"{__name__}:Dispatcher"

    def _take_request(self, request: Any) -> None:
        # A command that waited for its time has a slot of its own, and is not dispatched with others.
        if self.command_dispatcher is None or request.task.command_model is None or request.eta:
            self.execute_request(request)
        else:
            self.command_dispatcher.add(request)

    def update_strategies(self) -> None:
        """celery.worker.consumer.Consumer.update_strategies: with a dispatcher of commands for this connection."""
        self.command_dispatcher = CommandDispatcher(self)
        super().update_strategies()

    def on_close(self) -> None:
        """celery.worker.consumer.Consumer.on_close: forget the waiting commands, which are delivered again."""
        if self.command_dispatcher is not None:
            self.command_dispatcher.close()
        super().on_close()

    def on_send_event_buffered(self) -> None:
        """celery.worker.consumer.Consumer.on_send_event_buffered: schedule a flush instead of flushing at once."""
        now = monotonic()
        # By time and not by a flag: a lost connection clears the hub's timers, and the next event must schedule a
        # flush.
        if self.hub and now >= self._next_flush_at:
            self._next_flush_at = now + FLUSH_INTERVAL
            self.hub.call_later(FLUSH_INTERVAL, self._flush_events)

    def stop(self) -> Any:
        """celery.worker.consumer.Consumer.stop: publish the last events before the connection closes."""
        with contextlib.suppress(Exception):  # events are informational: losing them at shutdown breaks nothing
            self._flush_events()
        return super().stop()
