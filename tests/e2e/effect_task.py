"""The application with a task that only records its number, for `celery -A tests.e2e.effect_task worker`.

The task appends to a list in the broker, by a connection of its own.  TEST_TRANSPORT selects the transport: the
product's (`ours`), with kombu's acknowledgement (`stock ack`), or kombu's alone (`stock`); the tests must notice what
those two lose.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import redis
from kombu.connection import Connection
from kombu.transport import redis as stock

from workers.app import app
from workers.transport import qos

EFFECTS = "test.effects"
TASK = "test.effect"

if os.environ.get("TEST_TRANSPORT") == "stock":
    app.amqp.Connection = Connection
if os.environ.get("TEST_TRANSPORT") == "stock ack":
    qos.QoS.ack = stock.QoS.ack  # type: ignore[method-assign]


@lru_cache(maxsize=1)
def _notes() -> Any:
    return redis.Redis.from_url(os.environ["TEST_NOTES"])


@app.task(name=TASK)
def effect(number: int) -> dict[str, Any]:
    _notes().rpush(EFFECTS, number)
    return {}
