"""Wake-ups: messages that start a task at once; at most one per task is queued, however many processes commit.

The key is set before the message is sent, and the woken run deletes it before it reads anything. So a commit that finds
the key knows that a run will start which sees its rows.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import redis

from schedules.routes import queue_of
from workers.broker.redis_url import connect

if TYPE_CHECKING:
    from celery import Celery

KEY_PREFIX = "unwind:woken:"
KEY_EXPIRES_SECONDS = 60
"""For a lost message. The timetable's ticks also delete the key when they begin."""
WOKEN_TASKS = frozenset({"outbox.relay", "notices.deliver", "submissions.drain", "automation.resolve_requests"})
MESSAGE_EXPIRES_SECONDS = 3600
"""With less, a worker whose clock is half an hour ahead would drop every wake-up."""


class Wakeups:
    def __init__(self, app: Celery, broker_url: str) -> None:
        self._app = app
        self.client: Any = connect(broker_url)

    def send(self, task: str) -> None:
        """Send a wake-up unless one waits. Raises when the broker cannot be reached."""
        key = KEY_PREFIX + task
        if not self.client.set(key, 1, nx=True, ex=KEY_EXPIRES_SECONDS):
            return
        try:
            self._app.send_task(task, queue=queue_of(task), ignore_result=True, expires=MESSAGE_EXPIRES_SECONDS)
        except BaseException:
            self.begin(task)
            raise

    def begin(self, task: str) -> None:
        """Let the next commit send a wake-up again. Without a broker, the key expires."""
        with contextlib.suppress(redis.RedisError, OSError):
            self.client.delete(KEY_PREFIX + task)

    def close(self) -> None:
        self.client.close()
