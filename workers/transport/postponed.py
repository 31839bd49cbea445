"""Messages that wait in the broker outside their queue: delayed ones, and those of paused tasks."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from schedules.routes import is_internal_task, queue_of
from workers.transport import pausing
from workers.transport.pausing import PAUSES_KEY, PAUSES_TTL_SECONDS, is_queue_paused, is_task_paused
from workers.transport.poller import QueueReader

PARKED_PREFIX = "unwind.parked."  # begins the name of the list of a paused task's messages
PARKED_TASKS_KEY = "unwind.parked"  # the set of the paused tasks that have such a list
# Unparks the newest message first, so that the oldest is the next one out of the queue.
_UNPARK_TASK = """
for moved = 1, tonumber(ARGV[2]) do
    if not redis.call('LMOVE', KEYS[1], KEYS[2], 'LEFT', 'RIGHT') then redis.call('SREM', KEYS[3], ARGV[1]); return end
end
"""
PAUSED_TICK_QUEUES = ("sweeps", "outbox")
# Ticks kept in a paused queue: each does the work of all before it, and beat sends five a second.
MAX_PAUSED_TICKS = 5000
# Begins the name of a queue's sorted set of delayed messages.  Their scores are by the broker's clock, not a worker's.
DELAYED_PREFIX = "unwind.delayed."
# Delayed or parked messages moved in one script call, which then does not block the worker's loop for long.
POSTPONED_BATCH_SIZE = 1000
# One script, since several workers run it at once.  The delayed message that is due longest is the next one out.
_MOVE_DELAYED = """
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for i = #due, 1, -1 do redis.call('RPUSH', KEYS[2], due[i]); redis.call('ZREM', KEYS[1], due[i]) end
return #due
"""


def delay_message(client: Any, reader: QueueReader, item: bytes, seconds: float, tag: str) -> None:
    """Move a message from the processing list to the queue's sorted set in one MULTI: a crash loses nothing."""
    now, microseconds = client.time()
    due = now + microseconds / 1e6 + seconds
    client.pipeline().lrem(reader.processing_list, 1, item).zadd(
        DELAYED_PREFIX + reader.queue, {delayed_without_eta(item, tag): due}
    ).execute()


def delayed_without_eta(raw: bytes, tag: str) -> bytes:
    # The message without its `eta`, so that it is processed after one wait, whatever a worker's clock says. `tag` makes
    # it differ from another message with the same bytes.
    envelope = json.loads(raw)
    envelope["headers"]["eta"] = None
    envelope["properties"]["delivery_tag"] = tag
    return json.dumps(envelope).encode()


def park_paused_message(client: Any, reader: QueueReader, item: bytes, message: dict[str, Any]) -> None:
    """Move a paused task's message to its list in one MULTI; drop a tick, since the next one does its work."""
    task = message["headers"]["task"]
    pipe = client.pipeline().lrem(reader.processing_list, 1, item)
    if not _is_paused_tick(message):
        pipe.lpush(PARKED_PREFIX + task, item).sadd(PARKED_TASKS_KEY, task)
    pipe.execute()


def _is_paused_tick(message: dict[str, Any]) -> bool:
    if not is_internal_task(message["headers"]["task"]):
        return False
    body = message["body"]
    args, kwargs, _ = json.loads(base64.b64decode(body) if message["properties"]["body_encoding"] else body)
    return not args and not kwargs


def requeue_due_and_resumed(client: Any, queues: Sequence[str]) -> None:
    pipe = client.pipeline(transaction=False).time().smembers(PARKED_TASKS_KEY)
    for queue in queues:
        pipe.zcard(DELAYED_PREFIX + queue)
    if paused := pausing.pauses_as_json():
        pipe.set(PAUSES_KEY, paused, ex=PAUSES_TTL_SECONDS)
        for queue in PAUSED_TICK_QUEUES:
            if queue in queues and is_queue_paused(queue):
                pipe.ltrim(queue, 0, MAX_PAUSED_TICKS - 1)
    (seconds, microseconds), parked, *counts = pipe.execute()
    for task in [task for task in map(bytes.decode, parked) if not is_task_paused(task)]:
        client.eval(_UNPARK_TASK, 3, PARKED_PREFIX + task, queue_of(task), PARKED_TASKS_KEY, task, POSTPONED_BATCH_SIZE)
    for queue in [queue for queue, count in zip(queues, counts, strict=False) if count]:
        client.eval(_MOVE_DELAYED, 2, DELAYED_PREFIX + queue, queue, seconds + microseconds / 1e6, POSTPONED_BATCH_SIZE)
