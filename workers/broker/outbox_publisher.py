"""Publishes the ids of outbox rows for the relay, and tells it when the broker has lost its data."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import redis

from workers.broker.redis_url import connect_to_redis
from workers.broker.wakeups import send_internal_task

if TYPE_CHECKING:
    from celery import Celery


class OutboxPublisher:
    EPOCH_KEY = "unwind:memory"
    """Key in the broker: when it is missing, the broker has lost its data, published messages included."""

    def __init__(self, app: Celery, broker_url: str) -> None:
        self._app = app
        # Kombu's own connections wait for a broker that is away; this one asks once.
        self._client: Any = connect_to_redis(broker_url, decode_responses=True)

    def publish(self, task: str, rows: Sequence[int]) -> None:
        send_internal_task(self._app, task, rows)

    def broker_epoch(self) -> str | None:
        """Return a text that changes when the broker may have lost messages, or None when the broker does not answer.

        It holds a key, lost with the broker's data, and the server's run id: a restart may lose the last second of
        writes.
        """
        try:
            self._client.set(self.EPOCH_KEY, uuid.uuid4().hex, nx=True)
            epoch, run_id = self._client.get(self.EPOCH_KEY), ""
            with contextlib.suppress(redis.ResponseError):  # some hosted brokers refuse INFO
                run_id = self._client.info("server").get("run_id", "")
        except (redis.RedisError, OSError):
            return None
        return f"{epoch} {run_id}"
