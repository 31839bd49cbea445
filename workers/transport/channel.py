"""How does a message come from the broker to a worker without being lost on the way, whoever dies, and without harming it?

kombu's own Redis transport pops a message and records it as unacknowledged afterwards: what is killed or cut off in between
takes the message with it (F01, F02).  Here the broker moves it into a list of the worker's, and one transaction takes it out
of there and records it.  Whatever lies in a list, or is recorded, for nobody alive goes back to its queue.  An acknowledgement
that fails keeps no slot (F03), and what is no message for its queue is put aside before Celery sees it (X3).

The queues themselves stay what kombu and every other client make of them.  docs/decisions/0008-redis-transport.md says why each
thing is as it is; each method that replaces one of kombu 5.7.0 names it, and a test holds that kombu's have not changed.
"""

# mypy: disable-error-code="no-untyped-call"
# kombu has no types of its own, and this module is about its insides.

from __future__ import annotations

import contextlib
import weakref
from datetime import UTC, datetime
from queue import Empty
from time import monotonic, time  # noqa: TID251 - kombu counts the visibility timeout by it
from typing import Any

import structlog
from celery import current_app
from kombu import connection as kombu_connection
from kombu.asynchronous import get_event_loop
from kombu.transport import redis as stock
from kombu.transport import virtual
from kombu.utils.json import dumps

from schedules.routes import QUEUES, is_internal_task, queue_of
from workers.broker.redis_url import SCHEMES, RedisUrl
from workers.transport import dead_letters, pausing
from workers.transport.acknowledgement import is_settled
from workers.transport.pausing import is_queue_paused, is_task_paused
from workers.transport.reclaim import ConsumerId
from workers.transport.validation import Delayed, Rejected, has_no_arguments, validate

log = structlog.get_logger(__name__)

POLL_INTERVAL = 5.0
MAX_HOLD_SECONDS = 1.0
"""Seconds a message may wait in the hand for a slot, while another worker could have it."""


INITIAL_RETURN_DELAY, MAX_RETURN_DELAY = 0.5, 30.0
"""Seconds after which a message that is not settled goes back to its queue, doubled each time it comes here again."""
MAX_REMEMBERED_RETURNS = 1000
"""The waits of so many messages are remembered."""
PARKED_PREFIX = "unwind.parked."
"""Beginning of the list of a paused task's messages."""
PARKED_TASKS_KEY = "unwind.parked"
"""Set of the tasks that have such a list."""
_UNPARK = """
for moved = 1, tonumber(ARGV[2]) do
    if not redis.call('LMOVE', KEYS[1], KEYS[2], 'LEFT', 'RIGHT') then redis.call('SREM', KEYS[3], ARGV[1]); return end
end
"""
"""The newest first, so that the oldest is the next one out."""
PAUSES_KEY, PAUSES_TTL_SECONDS = "unwind.pauses", 5
"""Key that says for so many seconds what is paused, for Flower, which has no database."""
MAX_PAUSED_TICKS = 5000
"""What waits in a paused queue of ticks: each tick does the work of all before it, and beat sends five a second."""
DELAYED_PREFIX = "unwind.delayed."
"""Beginning of a queue's sorted set of messages that are wanted later: by the broker's clock, whoever looks."""
REQUEUE_BATCH_SIZE = 1000
"""Messages that come back into a queue at one look, so that a worker's loop goes on meanwhile."""
_MOVE_DUE = """
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for i = #due, 1, -1 do redis.call('RPUSH', KEYS[2], due[i]); redis.call('ZREM', KEYS[1], due[i]) end
return #due
"""
"""In one step, for several workers look.  What has waited longest is the next one out."""


class Reclaimed(Exception):
    """Somebody thought this worker dead and gave the message back; it is not ours any more."""


class QueueReader:
    """A connection that waits for one queue, and the list into which the broker puts what it takes from there."""

    def __init__(self, queue: str, client: Any) -> None:
        self.queue, self.client = queue, client
        self.list = ""
        self.waiting_since: float | None = None
        self.held: bytes | None = None
        self.held_since = 0.0


_consuming: weakref.WeakSet[Channel] = weakref.WeakSet()
"""The channels of this process that take messages of ours; a fork leaves them with its parent, and their hands too."""


class QoS(stock.QoS):
    """What this worker has taken and not yet acknowledged."""

    def knows(self, tag: str) -> bool:
        """Whether the message with this tag is at work here."""
        return tag in self._delivered and tag not in self._dirty

    def append(self, message: Any, delivery_tag: str) -> None:
        """kombu.transport.redis.QoS.append: its ZADD and HSET, and out of the hand's list in the same MULTI."""
        taking = self.channel.taking
        if taking is None:
            super().append(message, delivery_tag)
            return
        hand, item = taking
        unacked = dumps([message._raw, "", hand.queue])
        with self.pipe_or_acquire() as pipe:
            removed, *_ = (
                pipe.lrem(hand.list, 1, item)
                .zadd(self.unacked_index_key, {delivery_tag: time()})
                .hset(self.unacked_key, delivery_tag, unacked)
                .execute()
            )
        if not removed:
            self.restore_by_tag(delivery_tag)  # twice is harmless, never is not
            raise Reclaimed
        virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """kombu.transport.redis.QoS.ack: frees the slot whatever happens (F03), and asks twice, for it may be said twice.

        This is the one place where messages are acknowledged: what is owed to somebody and not settled goes back instead.
        """
        message = self._delivered.get(delivery_tag)
        if message is not None and _is_owed(message):
            self._return_later(delivery_tag, message)
            return
        try:
            try:
                self._remove_from_indices(delivery_tag).execute()
            except self.channel.connection_errors:
                self._remove_from_indices(delivery_tag).execute()
        finally:
            self._let_go(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """kombu.transport.redis.QoS.reject: what Celery cannot take is put aside in the same step; what goes back waits first."""
        message = self._delivered.get(delivery_tag)
        if message is not None and requeue:
            self._return_later(delivery_tag, message)
            return
        try:
            if message is not None and not is_settled(message):
                with self.pipe_or_acquire() as pipe:
                    dead_letters.push(pipe, dead_letters.describe_untaken(message, current_app.tasks))
                    self._remove_from_indices(delivery_tag, pipe).execute()
                dead_letters.write_soon()
            else:
                super().reject(delivery_tag, requeue=requeue)
        finally:
            self._let_go(delivery_tag)

    def _return_later(self, delivery_tag: str, message: Any) -> None:
        """Keep it for a while, so that what cannot be done now is not tried all the time, and give it back.

        Its slot stays taken: a worker that can make nothing durable takes nothing more.  Should the worker end meanwhile, kombu
        or another worker restores what is recorded here.
        """
        known = message.headers.get("id")
        wait = min(MAX_RETURN_DELAY, INITIAL_RETURN_DELAY * 2 ** _returned.get(known, 0))
        while len(_returned) >= MAX_REMEMBERED_RETURNS:
            del _returned[next(iter(_returned))]
        _returned[known] = min(_returned.pop(known, 0) + 1, 10)
        log.warning("nothing durable came of a message; it goes back", message=known, wait=wait)
        loop = get_event_loop()
        if loop is None:
            self._return(delivery_tag)
        else:
            loop.call_later(wait, self._return, delivery_tag)

    def _return(self, delivery_tag: str) -> None:
        if self.knows(delivery_tag):
            try:
                self.restore_by_tag(delivery_tag, leftmost=True)
            finally:
                self._let_go(delivery_tag)

    def _let_go(self, delivery_tag: str) -> None:
        virtual.QoS.ack(self, delivery_tag)
        self.channel.slot_is_free()


_returned: dict[str, int] = {}
"""How often messages went back from here, by their ids."""


def _is_owed(message: Any) -> bool:
    """Whether somebody waits for what becomes of it: it is no tick or ring, which come again, and not settled."""
    task = message.headers.get("task") if isinstance(message.headers, dict) else None
    return isinstance(task, str) and not is_internal_task(task) and not is_settled(message)


class Poller(stock.MultiChannelPoller):
    """Watches a connection per queue, where kombu watches one for all: BLMOVE waits for a single list."""

    def _register_BRPOP(self, channel: Channel) -> None:  # noqa: N802 - kombu's name
        """kombu.transport.redis.MultiChannelPoller._register_BRPOP: our queues by BLMOVE, any other as before."""
        channel.reach_out(self)
        if channel.queues_of_others():
            super()._register_BRPOP(channel)

    def on_readable(self, fileno: int) -> Any:
        """kombu.transport.redis.MultiChannelPoller.on_readable: an answer to a hand is read even when no slot is free."""
        channel, hand = self._fd_to_chan.get(fileno, (None, None))
        if isinstance(hand, QueueReader):
            return channel.take(hand)
        return super().on_readable(fileno)

    def get(self, callback: Any, timeout: float | None = None) -> Any:
        """kombu.transport.redis.MultiChannelPoller.get: without an event loop there is no timer, so look after hands here."""
        self.look_after_hands()
        if any(channel.take_what_is_there() for channel in list(self._channels)):
            return None
        return super().get(callback, timeout=timeout)

    def look_after_hands(self) -> None:
        """Whatever has to be done from time to time; a broker that is away is met by whoever reads from it."""
        for channel in list(self._channels):
            with contextlib.suppress(*channel.connection_errors):
                channel.look_after_hands()

    def let_go(self, channel: Channel, hand: QueueReader) -> None:
        """Watch a hand no longer."""
        self._chan_to_sock.pop((channel, hand.client, hand), None)
        for fd in [fd for fd, watched in self._fd_to_chan.items() if watched == (channel, hand)]:
            del self._fd_to_chan[fd]
            self._unregister_from_poll(fd)


class Channel(stock.Channel):
    """Takes messages of our queues hand over hand; all else is kombu's."""

    QoS = QoS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.hands: dict[str, QueueReader] = {}
        self.taking: tuple[QueueReader, bytes] | None = None
        self._looked_at = self._brought_back_at = float("-inf")
        self._asking: Any = None
        super().__init__(*args, **kwargs)

    def _create_client(self, asynchronous: bool = False) -> Any:
        """kombu.transport.redis.Channel._create_client: one client for all that is said of messages taken here.

        A client for each command takes an eighth of the time of a worker's parent process.
        """
        if asynchronous or not self.hands:
            return super()._create_client(asynchronous=asynchronous)
        if self._asking is None or self._asking.connection_pool is not self.pool:
            self._asking = super()._create_client()
        return self._asking

    # -- which queues ----------------------------------------------------------------------------------------------

    def basic_consume(self, queue: str, no_ack: bool = False, *args: Any, **kwargs: Any) -> Any:
        """kombu.transport.redis.Channel.basic_consume: a hand for the queue, if it is ours and there will be acknowledgements."""
        if queue in QUEUES and not no_ack and queue not in self.hands:
            self.hands[queue] = QueueReader(queue, self._create_client(asynchronous=True))
        return super().basic_consume(queue, no_ack, *args, **kwargs)

    def _basic_cancel(self, consumer_tag: str) -> Any:
        """kombu.transport.redis.Channel._basic_cancel: what the hand holds goes back."""
        done = super()._basic_cancel(consumer_tag)
        gone = [self.hands.pop(queue) for queue in list(self.hands) if queue not in self.active_queues]
        self._let_go(gone)
        return done

    def close(self) -> None:
        """kombu.transport.redis.Channel.close: the same for all hands."""
        hands, self.hands = list(self.hands.values()), {}
        self._let_go(hands)
        super().close()
        _consuming.discard(self)

    def queues_of_others(self) -> list[str]:
        """Queues that this channel consumes by kombu's own BRPOP, such as the replies to remote control."""
        return [queue for queue in self.active_queues if queue not in self.hands]

    def _update_queue_cycle(self) -> None:
        """kombu.transport.redis.Channel._update_queue_cycle: BRPOP is for those only."""
        self._queue_cycle.update(self.queues_of_others())

    # -- taking messages -------------------------------------------------------------------------------------------

    def reach_out(self, poller: Poller) -> None:
        """Deliver what is held, then wait for whatever comes, as long as there are slots; the queue served last comes last."""
        self._deliver_held()
        for hand in list(self.hands.values()):
            is_free = hand.waiting_since is None and hand.held is None and self.qos.can_consume()
            if is_free and not is_queue_paused(hand.queue):
                self._ask(hand, poller)

    def slot_is_free(self) -> None:
        """What is held is delivered at once, in the loop of a worker.

        The next tick would be too late: its callbacks come in the order of chance, and a pool that was before us sends what it is
        given then only after the next event, which may be a second away.  So would the loop's next round: what an
        acknowledgement asks for in this one comes after the loop has waited for an event.
        """
        if get_event_loop() is not None and self.taking is None:
            with contextlib.suppress(*self.connection_errors):  # the tick meets them, where the connection is made anew
                self._deliver_held()

    def _deliver_held(self) -> None:
        for hand in list(self.hands.values()):
            if hand.held is not None and self.qos.can_consume() and not is_queue_paused(hand.queue):
                item, hand.held = hand.held, None
                try:
                    self._hand_over(hand, item)
                except BaseException:
                    hand.held = item
                    raise

    def _ask(self, hand: QueueReader, poller: Poller) -> None:
        if not poller._client_registered(self, hand.client, hand):
            # A list of its own for each connection: whatever the broker may still do for an old one lies in an old list.
            poller._register(self, hand.client, hand)
            hand.list = ConsumerId.current().new_list()
            _consuming.add(self)
            self.heartbeat_and_reclaim()
        hand.client.connection.send_command("BLMOVE", hand.queue, hand.list, "RIGHT", "LEFT", self.brpop_timeout or 0)
        hand.waiting_since = monotonic()

    def take(self, hand: QueueReader) -> bool:
        """Read what the broker said to a hand.  Raises Empty for nothing, as kombu.transport.redis.Channel._brpop_read."""
        connection = hand.client.connection
        if hand.waiting_since is None:  # nothing was asked: the broker has closed the connection
            connection.disconnect()
            raise Empty
        try:
            item = hand.client.parse_response(connection, "BLMOVE")
        except self.connection_errors:
            connection.disconnect()
            raise
        finally:
            hand.waiting_since = None
        if item is None:
            raise Empty
        if is_queue_paused(hand.queue):  # since it was asked for
            self._give_back(hand)
            raise Empty
        if not self.qos.can_consume():
            hand.held, hand.held_since = item, monotonic()
            raise Empty
        self._hand_over(hand, item)
        return True

    def take_what_is_there(self) -> bool:
        """One message, of the queue that has waited longest: whoever polls sees the same connection first each time."""
        for hand in list(self.hands.values()):
            if hand.waiting_since is not None and stock._socket_readable(hand.client.connection._sock):
                with contextlib.suppress(Empty):
                    return self.take(hand)
        return False

    def _hand_over(self, hand: QueueReader, item: bytes) -> None:
        """Check, record, deliver."""
        self.hands[hand.queue] = self.hands.pop(hand.queue)
        self.taking = hand, item
        tag = ConsumerId.current().new_tag()
        try:
            message = validate(item, hand.queue, current_app.tasks, tag, datetime.now(UTC))  # noqa: TID251 - as Celery compares
            if is_task_paused(message["headers"]["task"]):
                self._park(hand, item, message)
            else:
                self.connection._deliver(message, hand.queue)
        except Rejected as refused:
            self._put_aside(hand, item, refused)
        except Delayed as delayed:
            self._put_off(hand, item, delayed)
        except Reclaimed:
            log.warning("a message was given back by another worker, which thought this one dead", queue=hand.queue)
        except Exception as error:
            if not isinstance(error, KeyError) and isinstance(
                error, self.connection_errors + self.connection.channel_errors
            ):
                raise
            # The check let through what Celery cannot bear: the worker must live on, and the next one must not meet it.
            log.error("Celery could not take a message", queue=hand.queue, error=type(error).__name__)
            self.qos._remove_from_indices(tag).execute()
            virtual.QoS.ack(self.qos, tag)
            headers, said = message["headers"], f"Celery could not take it: {type(error).__name__}"
            is_awaited = not headers["ignore_result"]
            self._put_aside(hand, item, Rejected("NOT_A_COMMAND", said, headers["task"], headers["id"], is_awaited))
        finally:
            self.taking = None

    def _put_aside(self, hand: QueueReader, item: bytes, refused: Rejected) -> None:
        with self.conn_or_acquire() as client:
            pipe = client.pipeline().lrem(hand.list, 1, item)
            dead_letters.push(
                pipe,
                dead_letters.DeadLetter.of(
                    refused.reason,
                    refused.named,
                    refused.message_id,
                    hand.queue,
                    item,
                    refused.detail,
                    refused.is_awaited,
                ),
            )
            pipe.execute()
        dead_letters.write_soon()

    def _put_off(self, hand: QueueReader, item: bytes, delayed: Delayed) -> None:
        """Out of the worker's list and into the queue's sorted set, in one step; a worker that dies here loses nothing."""
        with self.conn_or_acquire() as client:
            seconds, microseconds = client.time()
            due = seconds + microseconds / 1e6 + delayed.seconds
            client.pipeline().lrem(hand.list, 1, item).zadd(DELAYED_PREFIX + hand.queue, {delayed.raw: due}).execute()

    def _park(self, hand: QueueReader, item: bytes, message: dict[str, Any]) -> None:
        """Lay a paused task's message aside, in one step; of a tick nothing is kept, for the next one does its work."""
        task = message["headers"]["task"]
        with self.conn_or_acquire() as client:
            pipe = client.pipeline().lrem(hand.list, 1, item)
            if not (is_internal_task(task) and has_no_arguments(message)):
                pipe.lpush(PARKED_PREFIX + task, item).sadd(PARKED_TASKS_KEY, task)
            pipe.execute()

    def bring_back(self) -> None:
        """What was put off and is wanted now, and what was paused and is resumed, goes back into its queue."""
        queues = list(self.hands)
        with self.conn_or_acquire() as client:
            pipe = client.pipeline(transaction=False).time().smembers(PARKED_TASKS_KEY)
            for queue in queues:
                pipe.zcard(DELAYED_PREFIX + queue)
            if said := pausing.pauses_as_json():
                pipe.set(PAUSES_KEY, said, ex=PAUSES_TTL_SECONDS)
                if "sweeps" in queues and is_queue_paused("sweeps"):
                    pipe.ltrim("sweeps", 0, MAX_PAUSED_TICKS - 1)
            (seconds, microseconds), parked, *counts = pipe.execute()
            for task in [task for task in map(bytes.decode, parked) if not is_task_paused(task)]:
                client.eval(
                    _UNPARK, 3, PARKED_PREFIX + task, queue_of(task), PARKED_TASKS_KEY, task, REQUEUE_BATCH_SIZE
                )
            for queue in [queue for queue, count in zip(queues, counts, strict=False) if count]:
                client.eval(
                    _MOVE_DUE, 2, DELAYED_PREFIX + queue, queue, seconds + microseconds / 1e6, REQUEUE_BATCH_SIZE
                )

    def _poll_error(self, type: Any, **options: Any) -> None:  # noqa: A002 - kombu's name
        """kombu.transport.redis.Channel._poll_error: a hand reads from its own connection, and so meets what is wrong."""
        if isinstance(type, QueueReader):
            self.take(type)
        else:
            super()._poll_error(type, **options)

    def _on_connection_disconnect(self, connection: Any) -> None:
        """kombu.transport.redis.Channel._on_connection_disconnect: nobody answers a hand whose connection is gone."""
        for hand in self.hands.values():
            if hand.client.connection is connection:
                hand.waiting_since = None
        super()._on_connection_disconnect(connection)

    # -- giving back -----------------------------------------------------------------------------------------------

    def _let_go(self, hands: list[QueueReader]) -> None:
        for hand in hands:
            with contextlib.suppress(Exception):
                self.connection.cycle.let_go(self, hand)
            with contextlib.suppress(Exception):
                hand.client.connection.disconnect()
                hand.client.close()
        if hands:
            with contextlib.suppress(*self.connection_errors):
                self.heartbeat_and_reclaim()

    def _give_back(self, hand: QueueReader) -> None:
        """What the broker handed over and nobody took goes back to be the next one out."""
        with self.conn_or_acquire() as client:
            client.lmove(hand.list, hand.queue, "LEFT", "RIGHT")

    def look_after_hands(self) -> None:
        """Give back what waits too long, drop connections that fell silent, and look for what lies about."""
        now = monotonic()
        for hand in self.hands.values():
            if hand.held is not None and now - hand.held_since > MAX_HOLD_SECONDS:
                hand.held = None
                self._give_back(hand)
            overdue = (self.brpop_timeout or 0) + (self.health_check_interval or 0)
            if hand.waiting_since is not None and now - hand.waiting_since > overdue:
                sock = getattr(hand.client.connection, "_sock", None)
                if sock is not None and not stock._socket_readable(sock):
                    log.warning("the broker fell silent; connecting again", queue=hand.queue)
                    hand.client.connection.disconnect()
        if self.hands and now - self._brought_back_at > MAX_HOLD_SECONDS:
            self._brought_back_at = now
            self.bring_back()
        if self.hands and now - self._looked_at > POLL_INTERVAL:
            self.heartbeat_and_reclaim()

    def heartbeat_and_reclaim(self) -> None:
        """Give back what belongs to nobody alive: at start, after each connection error, and every five seconds."""
        self._looked_at = monotonic()
        lists = {hand.list: hand.queue for channel in _consuming for hand in channel.hands.values() if hand.list}
        with self.conn_or_acquire() as client:
            ConsumerId.current().heartbeat_and_reclaim(
                client,
                self.unacked_index_key,
                lists,
                is_processing=lambda tag: any(channel.qos.knows(tag) for channel in _consuming),
                restore=lambda tag: self.qos.restore_by_tag(tag, client),
            )


class Transport(stock.Transport):
    """kombu's Redis transport, with our channel."""

    Channel = Channel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """kombu.transport.redis.Transport.__init__: our poller in the place of kombu's."""
        super().__init__(*args, **kwargs)
        self.cycle: Any = Poller()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """kombu.transport.redis.Transport.register_with_event_loop: one more timer."""
        super().register_with_event_loop(connection, loop)
        self.cycle.look_after_tref = loop.call_repeatedly(MAX_HOLD_SECONDS, self.cycle.look_after_hands)


class Connection(kombu_connection.Connection):
    """A connection whose `redis://`, `rediss://` and `redis+socket://` mean this transport; its URL is what users wrote."""

    def __init__(
        self,
        hostname: Any = "localhost",
        *args: Any,
        ssl: Any = False,
        transport_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """kombu.Connection.__init__: parse the address as every program here does; its options count more than ours."""
        if isinstance(hostname, str) and hostname.partition("://")[0] in SCHEMES:
            address = RedisUrl.parse(hostname)
            hostname = address.kombu_url
            ssl = dict(address.tls_options) or ssl
            transport_options = {**(transport_options or {}), **address.client_options}
        super().__init__(hostname, *args, **kwargs, ssl=ssl, transport_options=transport_options)  # type: ignore[misc]

    def as_uri(self, include_password: bool = False, mask: str = "**", getfields: Any = None) -> str:  # noqa: ARG002 - kombu's
        """kombu.Connection.as_uri: an IPv6 address stays one."""
        if self.get_transport_cls() is not Transport:
            return str(super().as_uri(include_password=include_password, mask=mask))
        if self.uri_prefix:  # a socket's path is all of kombu's `hostname`
            address = RedisUrl.parse(f"{self.uri_prefix}+{self.hostname}")
        else:
            database = int((self.virtual_host or "").strip("/") or 0)
            host = self.hostname or "localhost"
            address = RedisUrl(host, self.port, None, self.userid, self.password, database, {}, self.ssl or {})
        return address.kombu_url if include_password else address.masked(mask)

    def get_transport_cls(self) -> Any:
        """kombu.Connection.get_transport_cls."""
        found = super().get_transport_cls()
        return Transport if found is stock.Transport else found
