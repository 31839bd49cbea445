"""The channel of our Redis transport: moves messages from queue to consumer so that a crash can never lose them.

kombu's own Redis transport pops a message and records it as unacknowledged afterwards, so a process that is killed in
between takes the message with it.  Here the broker moves the message into a processing list of the consumer (BLMOVE),
and one MULTI takes it out of that list and records it.  What is in a list, or recorded, of a dead consumer goes back to
its queue.  A failed acknowledgement frees its slot all the same, and an invalid message becomes a dead letter before
Celery sees it.

The queues themselves are those of kombu and every other client.  docs/decisions/0008-redis-transport.md gives the
reasons; each method that replaces one of kombu 5.7.0 names it, and a test checks that kombu's have not changed.
"""

# mypy: disable-error-code="no-untyped-call"
# kombu has no type annotations, and this module uses its internals.

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable
from datetime import UTC, datetime
from queue import Empty
from time import monotonic
from typing import Any

import structlog
from celery import current_app
from kombu.asynchronous import get_event_loop
from kombu.transport import redis as stock

from schedules.routes import QUEUES, queue_of
from workers.broker.sentinel import PrimaryConnection
from workers.transport import dead_letters, postponed
from workers.transport.pausing import is_queue_paused, is_task_paused
from workers.transport.poller import Poller, QueueReader
from workers.transport.qos import QoS, Receipt
from workers.transport.reclaim import ConsumerId, Reclaimed
from workers.transport.validation import Rejected, ValidButDelayed, validate_message

log = structlog.get_logger(__name__)

POLL_INTERVAL = 5.0
MAX_HOLD_SECONDS = 1.0
"""Seconds for which a received message waits for a slot here before another worker may take it."""
MESSAGE_BLOCK_QUEUE = queue_of("orders.cancel")
"""The queue of the commands, from which all that wait are received at once."""
MAX_MESSAGES_PER_BLOCK = 100
"""Commands received at once: those that wait while all pool processes are busy (docs/decisions/0027)."""
MAX_SINGLE_COMMAND_BYTES = 4 * 1024
"""A longer message is taken for many commands, as `orders.cancel_many` has.  It ends a block, so that other workers
find what waits behind it, and so do emails, which yield to waiting commands (docs/decisions/0031)."""
_TAKE_MESSAGES_SCRIPT = """
local items = {}
for i = 1, tonumber(ARGV[1]) do
    local item = redis.call('LMOVE', KEYS[1], KEYS[2], 'RIGHT', 'LEFT')
    if not item then break end
    items[i] = item
    if #item > tonumber(ARGV[2]) then break end
end
return items
"""
"""Move the oldest messages into a processing list, in one trip; they are recorded in the next one."""


_consuming_channels: weakref.WeakSet[Channel] = weakref.WeakSet()
"""The channels of this process that consume our queues; after a fork only the parent uses them."""


class Channel(stock.Channel):
    """Receives messages of our queues through processing lists; everything else is kombu's."""

    QoS = QoS
    connection_class: Any = stock.Channel.connection_class

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.readers: dict[str, QueueReader] = {}
        self.receiving: Receipt | None = None
        self._after_delivery: dict[Callable[[], None], None] = {}
        self._heartbeat_at = self._requeued_at = float("-inf")
        self._shared_client: Any = None
        super().__init__(*args, **kwargs)

    def _create_client(self, asynchronous: bool = False) -> Any:
        """kombu.transport.redis.Channel._create_client: share one client for all commands about received messages.

        A client per command costs an eighth of the time of a worker's parent process.
        """
        if asynchronous or not self.readers:
            return super()._create_client(asynchronous=asynchronous)
        if self._shared_client is None or self._shared_client.connection_pool is not self.pool:
            self._shared_client = super()._create_client()
        return self._shared_client

    def _connparams(self, asynchronous: bool = False) -> Any:
        """kombu.transport.redis.Channel._connparams: connect to the server that sentinels name, if any."""
        address = self.connection.client.transport_options.get("address")
        if address is None or not address.primary_options:
            return super()._connparams(asynchronous=asynchronous)
        self.connection_class = PrimaryConnection
        return super()._connparams(asynchronous=asynchronous) | address.primary_options

    # -- queues ----------------------------------------------------------------------------------------------------

    def basic_consume(self, queue: str, no_ack: bool = False, *args: Any, **kwargs: Any) -> Any:
        """kombu.transport.redis.Channel.basic_consume: add a reader if the queue is ours and acknowledged."""
        if queue in QUEUES and not no_ack and queue not in self.readers:
            self.readers[queue] = QueueReader(queue, self._create_client(asynchronous=True))
        return super().basic_consume(queue, no_ack, *args, **kwargs)

    def _basic_cancel(self, consumer_tag: str) -> Any:
        """kombu.transport.redis.Channel._basic_cancel: requeue what the reader holds."""
        done = super()._basic_cancel(consumer_tag)
        self._close_readers([queue for queue in self.readers if queue not in self.active_queues])
        return done

    def close(self) -> None:
        """kombu.transport.redis.Channel.close: requeue what all readers hold."""
        self._close_readers(list(self.readers))
        super().close()
        _consuming_channels.discard(self)

    def other_queues(self) -> list[str]:
        """Return the queues that this channel consumes by kombu's own BRPOP, such as replies to remote control."""
        return [queue for queue in self.active_queues if queue not in self.readers]

    def _update_queue_cycle(self) -> None:
        """kombu.transport.redis.Channel._update_queue_cycle: BRPOP serves those only."""
        self._queue_cycle.update(self.other_queues())

    # -- receiving -------------------------------------------------------------------------------------------------

    def request_messages(self, poller: Poller) -> None:
        """Deliver held messages, then request one per queue while slots are free; the queue served last comes last."""
        self._deliver_held()
        for reader in list(self.readers.values()):
            is_free = reader.waiting_since is None and reader.held is None and self.qos.can_consume()
            if is_free and not is_queue_paused(reader.queue):
                self._request_next_message(reader, poller)

    def on_slot_freed(self) -> None:
        """Deliver held messages at once in a worker's event loop.

        The loop's next tick would be too late: its callbacks run in no fixed order, and a pool that ran before us sends
        a message only after the next event, which may be a second away.  So would the loop's next round, which first
        waits for an event.
        """
        if get_event_loop() is not None and self.receiving is None:
            with contextlib.suppress(*self.connection_errors):  # the loop's tick meets them and reconnects
                self._deliver_held()

    def _deliver_held(self) -> None:
        for reader in list(self.readers.values()):
            if reader.held is not None and self.qos.can_consume() and not is_queue_paused(reader.queue):
                item, reader.held = reader.held, None
                try:
                    self._process_raw_message(reader, item)
                except BaseException:
                    reader.held = item
                    raise

    def _request_next_message(self, reader: QueueReader, poller: Poller) -> None:
        if not poller._client_registered(self, reader.client, reader):
            # A new list per connection: a BLMOVE that the broker still executes for an old one ends in the old list.
            poller._register(self, reader.client, reader)
            reader.processing_list = ConsumerId.current().new_list()
            _consuming_channels.add(self)
            self.heartbeat_and_reclaim()
        reader.client.connection.send_command(
            "BLMOVE", reader.queue, reader.processing_list, "RIGHT", "LEFT", self.brpop_timeout or 0
        )
        reader.waiting_since = monotonic()

    def receive(self, reader: QueueReader) -> bool:
        """Read a reader's response.  Raises Empty for none, like kombu.transport.redis.Channel._brpop_read."""
        connection = reader.client.connection
        if reader.waiting_since is None:  # nothing was requested: the broker has closed the connection
            connection.disconnect()
            raise Empty
        try:
            item = reader.client.parse_response(connection, "BLMOVE")
        except self.connection_errors:
            connection.disconnect()
            raise
        finally:
            reader.waiting_since = None
        if item is None:
            raise Empty
        if is_queue_paused(reader.queue):  # paused since the request
            self._requeue(reader)
            raise Empty
        if not self.qos.can_consume():
            reader.held, reader.held_since = item, monotonic()
            raise Empty
        self._process_raw_message(reader, item)
        return True

    def after_delivery(self, callback: Callable[[], None]) -> None:
        """Call back once the block that is being received is delivered, or at once."""
        if self.receiving is None:
            callback()
        else:
            self._after_delivery[callback] = None

    def _process_raw_message(self, reader: QueueReader, item: bytes) -> None:
        # Deliver a message, and with a command those that wait behind it.
        self.readers[reader.queue] = self.readers.pop(reader.queue)
        tag = ConsumerId.current().new_tag()
        self.receiving = receipt = Receipt(reader, item, tag, slot=tag)
        try:
            message = self._validated_message(receipt)
            if message is not None:
                self.qos.queue_length = 0
                self._deliver(receipt, message)
                is_short = reader.queue == MESSAGE_BLOCK_QUEUE and len(item) <= MAX_SINGLE_COMMAND_BYTES
                if is_short and self.qos.queue_length and not is_queue_paused(reader.queue):
                    self._deliver_waiting(reader, tag if message["headers"]["eta"] is None else "")
        finally:
            self.receiving = None
            callbacks, self._after_delivery = self._after_delivery, {}
            for callback in callbacks:
                callback()

    def _deliver_waiting(self, reader: QueueReader, slot: str) -> None:
        # Receive this worker's share of the waiting commands: all of them if its other slots are occupied. A message
        # that Celery lets wait has a slot of its own, since Celery adds one for it.
        share = -(-(self.qos.queue_length + 1) // (self.qos.free_slots() + 1))
        count = min(share, MAX_MESSAGES_PER_BLOCK) - 1
        if not count:
            return
        with self.conn_or_acquire() as client:
            items = client.eval(
                _TAKE_MESSAGES_SCRIPT, 2, reader.queue, reader.processing_list, count, MAX_SINGLE_COMMAND_BYTES
            )
        messages: dict[Receipt, dict[str, Any]] = {}
        for item in items:
            tag = ConsumerId.current().new_tag()
            receipt = Receipt(reader, item, tag, slot=tag)
            message = self._validated_message(receipt)
            if message is None:
                continue
            if message["headers"]["eta"] is None:
                receipt.slot = slot = slot or tag
            messages[receipt] = message
        if messages:
            for receipt in self.qos.record(list(messages.items())):
                self.receiving = receipt
                self._deliver(receipt, messages[receipt])

    def _validated_message(self, receipt: Receipt) -> dict[str, Any] | None:
        # The message in kombu's form; None for one that goes elsewhere.
        reader, item = receipt.reader, receipt.item
        try:
            # As Celery compares.
            message = validate_message(item, reader.queue, current_app.tasks, receipt.tag, datetime.now(UTC))  # noqa: TID251
        except Rejected as rejection:
            self._move_to_dead_letters(reader, item, rejection)
        except ValidButDelayed as delayed:
            with self.conn_or_acquire() as client:
                postponed.delay_message(client, reader, item, delayed.seconds, receipt.tag)
        else:
            if not is_task_paused(message["headers"]["task"]):
                return message
            with self.conn_or_acquire() as client:
                postponed.park_paused_message(client, reader, item, message)
        return None

    def _deliver(self, receipt: Receipt, message: dict[str, Any]) -> None:
        queue = receipt.reader.queue
        try:
            self.connection._deliver(message, queue)
        except Reclaimed:
            log.warning("message_reclaimed_by_other", queue=queue)
        except Exception as error:
            if not isinstance(error, KeyError) and isinstance(
                error, self.connection_errors + self.connection.channel_errors
            ):
                raise
            # Validation passed what Celery cannot process: this worker must survive, and no other may receive it.
            log.error("message_delivery_failed", queue=queue, error=type(error).__name__)
            headers, detail = message["headers"], f"Celery could not take it: {type(error).__name__}"
            is_awaited = not headers["ignore_result"]
            self._move_to_dead_letters(
                receipt.reader,
                receipt.item,
                Rejected("NOT_A_COMMAND", detail, headers["task"], headers["id"], is_awaited),
            )
            self.qos._remove_from_indices(receipt.tag).execute()
            self.qos.forget(receipt.tag)

    def _move_to_dead_letters(self, reader: QueueReader, item: bytes, rejection: Rejected) -> None:
        with self.conn_or_acquire() as client:
            pipe = client.pipeline().lrem(reader.processing_list, 1, item)
            dead_letters.push_dead_letter(pipe, rejection, reader.queue, item)
            pipe.execute()
        dead_letters.write_soon()

    def _poll_error(self, type: Any, **options: Any) -> None:  # noqa: A002 - kombu's name
        """kombu.transport.redis.Channel._poll_error: reading from the reader's connection raises the error."""
        if isinstance(type, QueueReader):
            self.receive(type)
        else:
            super()._poll_error(type, **options)

    def _on_connection_disconnect(self, connection: Any) -> None:
        """kombu.transport.redis.Channel._on_connection_disconnect: its reader's request is lost."""
        for reader in self.readers.values():
            if reader.client.connection is connection:
                reader.waiting_since = None
        super()._on_connection_disconnect(connection)

    # -- requeueing ------------------------------------------------------------------------------------------------

    def _close_readers(self, queues: list[str]) -> None:
        for reader in [self.readers.pop(queue) for queue in queues]:
            with contextlib.suppress(Exception):
                self.connection.cycle.forget_reader(self, reader)
            with contextlib.suppress(Exception):
                reader.client.connection.disconnect()
                reader.client.close()
        if queues:
            with contextlib.suppress(*self.connection_errors):
                self.heartbeat_and_reclaim()

    def _requeue(self, reader: QueueReader) -> None:
        # Move a received message back so that it is the next one out of the queue.
        with self.conn_or_acquire() as client:
            client.lmove(reader.processing_list, reader.queue, "LEFT", "RIGHT")

    def maintain_readers(self) -> None:
        """Requeue messages held too long, drop silent connections, and run the periodic requeueing and reclaiming."""
        now = monotonic()
        for reader in self.readers.values():
            if reader.held is not None and now - reader.held_since > MAX_HOLD_SECONDS:
                reader.held = None
                self._requeue(reader)
            overdue = (self.brpop_timeout or 0) + (self.health_check_interval or 0)
            if reader.waiting_since is not None and now - reader.waiting_since > overdue:
                sock = getattr(reader.client.connection, "_sock", None)
                if sock is not None and not stock._socket_readable(sock):
                    log.warning("broker_connection_silent", queue=reader.queue)
                    reader.client.connection.disconnect()
        if self.readers and now - self._requeued_at > MAX_HOLD_SECONDS:
            self._requeued_at = now
            with self.conn_or_acquire() as client:
                postponed.requeue_due_and_resumed(client, list(self.readers))
        if self.readers and now - self._heartbeat_at > POLL_INTERVAL:
            self.heartbeat_and_reclaim()

    def heartbeat_and_reclaim(self) -> None:
        """Reclaim messages of dead consumers: at start, after each connection error, and every five seconds."""
        self._heartbeat_at = monotonic()
        lists = {
            reader.processing_list: reader.queue
            for channel in _consuming_channels
            for reader in channel.readers.values()
            if reader.processing_list
        }
        with self.conn_or_acquire() as client:
            ConsumerId.current().heartbeat_and_reclaim(
                client,
                self.unacked_index_key,
                lists,
                is_processing=lambda tag: any(channel.qos.is_processing(tag) for channel in _consuming_channels),
                restore=lambda tag: self.qos.restore_by_tag(tag, client),
            )
