"""Lists of the broker that no worker reads: of producers that named no queue, or a priority."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from policies.texts import replace_unprintable
from schedules.routes import QUEUES, queue_of

CELERY_DEFAULT_QUEUE = "celery"  # of a client that was configured without a queue
PRIORITY_SEPARATOR = "\x06\x16"  # kombu's, between queue and priority; no worker of ours reads such lists
SAMPLE_SIZE = 20


@dataclass(frozen=True, slots=True)
class UnreadList:
    """A list that no worker reads: the count of its messages, and the oldest few as (task, id)."""

    queue: str
    count: int
    oldest: list[tuple[str, str]]


def _unread_list_names(client: Any) -> list[str]:
    queues = (CELERY_DEFAULT_QUEUE, *QUEUES)
    names = [CELERY_DEFAULT_QUEUE, *(f"{name}{PRIORITY_SEPARATOR}{n}" for name in queues for n in range(1, 10))]
    return [name for name in names if client.type(name) in (b"list", "list")]


def find_unread_lists(client: Any) -> list[UnreadList]:
    unread = []
    for name in _unread_list_names(client):
        newest_last = [_unread_task_and_id(raw) for raw in client.lrange(name, -SAMPLE_SIZE, -1)]
        unread.append(
            UnreadList(name.replace(PRIORITY_SEPARATOR, " with priority "), client.llen(name), newest_last[::-1])
        )
    return unread


# Atomic: a killed process has moved an unread command or not, and of two that move the same one, one succeeds.
_MOVE_UNREAD_COMMAND = """
if redis.call('LREM', KEYS[1], -1, ARGV[1]) == 1 then return redis.call('LPUSH', KEYS[2], ARGV[1]) end
return 0
"""
_UNREAD_BATCH_SIZE = 200


def requeue_unread_commands(
    client: Any, is_command: Callable[[bytes], bool], on_progress: Callable[[int, int], None] = lambda _done, _of: None
) -> tuple[int, int]:
    """Move the commands in unread lists to the commands queue, oldest first; return the numbers of moved and of other
    messages.

    Other messages stay where they are.  `on_progress` is called with the number of checked messages and the total.
    """
    lists = _unread_list_names(client)
    total = sum(client.llen(name) for name in lists)
    checked = moved = left = 0
    for name in lists:
        # From the right, where the oldest are; skip those that stay.
        skipped = 0
        while batch := client.lrange(name, -skipped - _UNREAD_BATCH_SIZE, -skipped - 1):
            commands = [raw for raw in reversed(batch) if is_command(raw)]
            pipe = client.pipeline(transaction=False)
            for raw in commands:
                pipe.eval(_MOVE_UNREAD_COMMAND, 2, name, queue_of("orders.cancel"), raw)
            moved += sum(1 for length in pipe.execute() if length)
            skipped += len(batch) - len(commands)
            checked += len(batch)
            on_progress(checked, total)
        left += skipped
    return moved, left


def _unread_task_and_id(raw: Any) -> tuple[str, str]:
    try:
        headers = json.loads(raw)["headers"]
        return replace_unprintable(str(headers["task"])[:100]), replace_unprintable(str(headers["id"])[:100])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "?", "?"
