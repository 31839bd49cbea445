"""Messages that start a task at once: the ids of outbox rows, and wake-ups, of which at most one per task is queued.

The key of a wake-up is set before the message is sent, and the woken run deletes it before it reads anything. So a
commit that finds the key knows that a run will start which sees its rows.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import redis
import structlog

from models.outbox import OUTBOX_CONSUMERS
from schedules.routes import queue_of
from workers.broker.redis_url import connect_to_redis

if TYPE_CHECKING:
    from celery import Celery

log = structlog.get_logger(__name__)

KEY_PREFIX = "unwind:woken:"
KEY_EXPIRES_SECONDS = 60
"""For a lost wake-up. The timetable's ticks also delete the key when they begin."""
WOKEN_TASKS = frozenset(
    {"outbox.relay", "notices.deliver", "submissions.drain", "automation.resolve_requests", *OUTBOX_CONSUMERS}
)
MESSAGE_EXPIRES_SECONDS = 3600
"""Of wake-ups and of published outbox messages, which are published again by then.  With less, a worker whose clock is
half an hour ahead would drop every one."""
MIN_WAKEUP_INTERVAL, MAX_WAKEUP_INTERVAL = 0.01, 0.2
"""Seconds between two wake-ups of a task by one process; a run that starts later finds all rows inserted by then.
The pause doubles while commits keep coming: a lone cancellation's consumers start at once, and a busy worker does not
spend its time on wake-ups (B4), nor the consumers theirs on small batches (B17)."""


def send_internal_task(app: Celery, task: str, rows: Sequence[int] | None = None) -> None:
    arguments = {} if rows is None else {"rows": list(rows)}
    app.send_task(task, kwargs=arguments, queue=queue_of(task), ignore_result=True, expires=MESSAGE_EXPIRES_SECONDS)


class Wakeups:
    def __init__(self, app: Celery, broker_url: str) -> None:
        self._app = app
        self.client: Any = connect_to_redis(broker_url)

    def send(self, task: str) -> None:
        """Send a wake-up unless one waits. Raises when the broker cannot be reached."""
        key = KEY_PREFIX + task
        if not self.client.set(key, 1, nx=True, ex=KEY_EXPIRES_SECONDS):
            return
        try:
            send_internal_task(self._app, task, () if task in OUTBOX_CONSUMERS else None)
        except BaseException:
            self.begin(task)
            raise

    def begin(self, task: str) -> None:
        """Let the next commit send a wake-up again. Without a broker, the key expires."""
        if task in WOKEN_TASKS:
            with contextlib.suppress(redis.RedisError, OSError):
                self.client.delete(KEY_PREFIX + task)

    def close(self) -> None:
        self.client.close()


class OutboxPublisher:
    """Publishes the ids of outbox rows for the relay, and tells it when the broker has lost its data."""

    EPOCH_KEY = "unwind:memory"
    """Key in the broker: when it is missing, the broker has lost its data, published messages included."""

    def __init__(self, app: Celery, client: Any) -> None:
        self._app = app
        self._client = client  # kombu's own connections wait for a broker that is away; this one asks once

    def publish(self, task: str, rows: Sequence[int]) -> None:
        send_internal_task(self._app, task, rows)

    def broker_epoch(self) -> str | None:
        """Return a text that changes when the broker may have lost messages, or None when the broker does not answer.

        It holds a key, lost with the broker's data, and the server's run id: a restart may lose the last second of
        writes.
        """
        try:
            self._client.set(self.EPOCH_KEY, uuid.uuid4().hex, nx=True)
            epoch, run_id = (self._client.get(self.EPOCH_KEY) or b"").decode(), ""
            with contextlib.suppress(redis.ResponseError):  # some hosted brokers refuse INFO
                run_id = self._client.info("server").get("run_id", "")
        except (redis.RedisError, OSError):
            return None
        return f"{epoch} {run_id}"


class TaskWaker:
    """Wakes tasks soon after a commit that gives them work, without delaying the commit.

    It publishes from its own thread, so that a broker that hangs does not keep a worker from its next command.  A lost
    wake-up is made good by the next tick of the timetable.
    """

    def __init__(self, publish: Callable[[str], None]) -> None:
        self._publish = publish
        self._tasks: set[str] = set()
        self._requested = threading.Event()
        self._pause_ended = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="task waker", daemon=True)
        self._thread.start()

    def wake_at_once(self, task: str) -> None:
        """Wake without the pause that collects commits: the last run left work."""
        self._pause_ended.set()
        self.wake(task)

    def wake(self, task: str) -> None:
        self._tasks.add(task)
        self._requested.set()

    def close(self, seconds: float = 2.0) -> None:
        self._closed = True
        self._pause_ended.set()
        self._requested.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        pause = MIN_WAKEUP_INTERVAL
        while self._tasks or not self._closed:
            self._requested.wait()
            self._requested.clear()
            for _ in range(len(self._tasks)):
                task = self._tasks.pop()
                try:
                    self._publish(task)
                except Exception as error:  # noqa: BLE001 - whatever it is, the timetable's tick does the same work
                    log.warning("task_wake_failed", task=task, error=type(error).__name__)
            self._pause_ended.wait(pause)
            self._pause_ended.clear()
            pause = min(2 * pause, MAX_WAKEUP_INTERVAL) if self._requested.is_set() else MIN_WAKEUP_INTERVAL
