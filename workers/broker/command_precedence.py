"""Emails wait a few seconds while commands, or what follows from them, are queued."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from time import monotonic, sleep
from typing import Any

import redis
from sqlalchemy.exc import DBAPIError

from models import outbox
from models.db import database as db
from policies.credits import CREDIT_TASK
from schedules.routes import queue_of

YIELDING_TASKS = frozenset({"notices.tell_buyer", "notices.tell_seller", "notices.deliver"})
PRECEDING_QUEUES = tuple(
    queue_of(task) for task in ("orders.cancel", "submissions.drain", "outbox.relay", "credits.post_to_next_invoice")
)
QUEUES_THAT_MAY_WAIT = frozenset({"notices", "audits"})
"""A worker of these alone leaves commands and sweeps to another: its own would wait with its emails."""
QUIET_SECONDS = 0.1
"""These queues are empty for moments during a burst, too."""
MAX_WAIT_SECONDS = 5.0
"""Longest wait of a run, so that emails go on when there are always commands, or no worker processes them."""
POLL_INTERVAL = 0.02
FEW_CREDITS = 50
"""Emails wait for more credits than these, too: their one message is no longer queued while they are being posted."""


def wait_for_commands(client: Any, task: str, queues: Iterable[str]) -> None:
    """Return at once if nothing precedes this task, or when nothing has preceded it for `QUIET_SECONDS`.

    `queues` are those of this worker.
    """
    if task not in YIELDING_TASKS or not QUEUES_THAT_MAY_WAIT.issuperset(queues):
        return
    with contextlib.suppress(redis.RedisError, OSError, DBAPIError):
        end, busy_at = monotonic() + MAX_WAIT_SECONDS, float("-inf")
        while (now := monotonic()) < end:
            if _is_work_waiting(client):
                busy_at = now
            elif now - busy_at >= QUIET_SECONDS:
                return
            sleep(POLL_INTERVAL)


def _is_work_waiting(client: Any) -> bool:
    if client.exists(*PRECEDING_QUEUES):
        return True
    with db.current_database().transaction() as conn:
        return len(outbox.new_rows(conn, CREDIT_TASK, limit=FEW_CREDITS + 1)) > FEW_CREDITS
