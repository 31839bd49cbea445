"""Received messages and the slots they occupy: recorded, acknowledged, returned or rejected."""

# mypy: disable-error-code="no-untyped-call"
# kombu has no type annotations, and this module uses its internals.

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from time import time  # noqa: TID251 - kombu counts the visibility timeout by it
from typing import Any

import structlog
from kombu.asynchronous import get_event_loop
from kombu.transport import redis as stock
from kombu.transport import virtual
from kombu.utils.functional import LRUCache
from kombu.utils.json import dumps

from workers.transport import dead_letters
from workers.transport.acknowledgement import is_settled, is_unsettled_command
from workers.transport.poller import QueueReader
from workers.transport.reclaim import Reclaimed

log = structlog.get_logger(__name__)

INITIAL_RETURN_DELAY, MAX_RETURN_DELAY = 0.5, 30.0
"""Seconds after which an unsettled message goes back to its queue, doubled each time it returns to this worker."""
MAX_REMEMBERED_MESSAGE_RETURNS = 1000
"""Messages whose return counts are remembered."""


@dataclass(eq=False)
class Receipt:
    reader: QueueReader
    item: bytes
    tag: str
    slot: str
    """The prefetch slot that it occupies: its own delivery tag, or that of the first message of its block."""
    is_recorded: bool = False


class QoS(stock.QoS):
    """Counts a block of messages as one: what limits a worker is how many blocks its processes have."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """kombu.transport.redis.QoS.__init__: add the slots."""
        super().__init__(*args, **kwargs)
        self._slots: dict[str, str] = {}
        self._slot_sizes: Counter[str] = Counter()
        self.queue_length = 0
        """Messages that waited behind the one recorded last."""

    def can_consume(self) -> bool:
        """kombu.transport.redis.QoS.can_consume: count slots instead of messages."""
        return not self.prefetch_count or len(self._slot_sizes) < self.prefetch_count

    def free_slots(self) -> int:
        return max(0, self.prefetch_count - len(self._slot_sizes))

    def is_processing(self, tag: str) -> bool:
        return tag in self._delivered and tag not in self._dirty

    def append(self, message: Any, delivery_tag: str) -> None:
        """kombu.transport.redis.QoS.append: its ZADD and HSET, and LREM from the processing list in one MULTI."""
        receipt = self.channel.receiving
        if receipt is None:
            super().append(message, delivery_tag)
        elif receipt.is_recorded or self.record([(receipt, message._raw)]):
            virtual.QoS.append(self, message, delivery_tag)
        else:
            raise Reclaimed
        self._slots[delivery_tag] = slot = receipt.slot if receipt is not None else delivery_tag
        self._slot_sizes[slot] += 1

    def record(self, received: Sequence[tuple[Receipt, Any]]) -> list[Receipt]:
        """Record messages of one queue as unacknowledged in one MULTI; return those that were not reclaimed."""
        reader = received[0][0].reader
        with self.pipe_or_acquire() as pipe:
            for receipt, _ in received:
                pipe.lrem(reader.processing_list, 1, receipt.item)
            pipe.zadd(self.unacked_index_key, dict.fromkeys((receipt.tag for receipt, _ in received), time()))
            unacked = {receipt.tag: dumps([raw, "", reader.queue]) for receipt, raw in received}
            *removed, _, _, self.queue_length = (
                pipe.hset(self.unacked_key, mapping=unacked).llen(reader.queue).execute()
            )
        recorded = []
        for (receipt, _), count in zip(received, removed, strict=True):
            if count:
                receipt.is_recorded = True
                recorded.append(receipt)
            else:
                self.restore_by_tag(receipt.tag)  # delivered twice is harmless, never is not
        return recorded

    def ack(self, delivery_tag: str) -> None:
        """kombu.transport.redis.QoS.ack: free the slot whatever happens, and try twice, since acknowledging twice is
        harmless.

        Messages are acknowledged nowhere else: a command that is not settled goes back to its queue instead.
        """
        message = self._delivered.get(delivery_tag)
        if message is not None and is_unsettled_command(message):
            self._return_later(delivery_tag, message)
        else:
            self.ack_settled([delivery_tag])

    def ack_settled(self, delivery_tags: Sequence[str]) -> None:
        """Acknowledge messages whose outcome is durable, in one trip."""
        try:
            try:
                self._remove_from_unacked(delivery_tags)
            except self.channel.connection_errors:
                self._remove_from_unacked(delivery_tags)
        finally:
            for delivery_tag in delivery_tags:
                self.forget(delivery_tag)
            self.channel.on_slot_freed()

    def _remove_from_unacked(self, delivery_tags: Sequence[str]) -> None:
        with self.pipe_or_acquire() as pipe:
            pipe.zrem(self.unacked_index_key, *delivery_tags).hdel(self.unacked_key, *delivery_tags).execute()

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """kombu.transport.redis.QoS.reject: dead-letter the message in the same MULTI; a message to requeue waits
        first."""
        message = self._delivered.get(delivery_tag)
        if message is not None and requeue:
            self._return_later(delivery_tag, message)
            return
        try:
            if message is not None and not is_settled(message):
                with self.pipe_or_acquire() as pipe:
                    dead_letters.push_untaken_as_dead_letter(pipe, message)
                    self._remove_from_indices(delivery_tag, pipe).execute()
                dead_letters.write_soon()
            else:
                super().reject(delivery_tag, requeue=requeue)
        finally:
            self._release(delivery_tag)

    def _return_later(self, delivery_tag: str, message: Any) -> None:
        # Requeue a message after a delay, so that a task that cannot succeed now is not repeated continuously. Its slot
        # stays occupied: a worker that can commit nothing takes no more messages. If the worker ends meanwhile, kombu
        # or another worker restores the recorded message.
        message_id = message.headers.get("id")
        wait = min(MAX_RETURN_DELAY, INITIAL_RETURN_DELAY * 2 ** _message_return_counts.get(message_id, 0))
        _message_return_counts[message_id] = min(_message_return_counts.get(message_id, 0) + 1, 10)
        log.warning("unsettled_message_returned", message=message_id, wait=wait)
        loop = get_event_loop()
        if loop is None:
            self._return(delivery_tag)
        else:
            loop.call_later(wait, self._return, delivery_tag)

    def _return(self, delivery_tag: str) -> None:
        if self.is_processing(delivery_tag):
            try:
                self.restore_by_tag(delivery_tag, leftmost=True)
            finally:
                self._release(delivery_tag)

    def _release(self, delivery_tag: str) -> None:
        self.forget(delivery_tag)
        self.channel.on_slot_freed()

    def forget(self, delivery_tag: str) -> None:
        virtual.QoS.ack(self, delivery_tag)
        slot = self._slots.pop(delivery_tag, None)
        if slot is not None:
            self._slot_sizes[slot] -= 1
            if not self._slot_sizes[slot]:
                del self._slot_sizes[slot]


_message_return_counts: Any = LRUCache(limit=MAX_REMEMBERED_MESSAGE_RETURNS)
"""How often this worker returned a message, by message id."""
