"""Tests of the transport: its fit to the installed kombu, delivery, requeueing and reclaiming."""

# mypy: disable-error-code="no-untyped-call"
# kombu has no types of its own.

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import re
from collections.abc import Iterator
from importlib.metadata import version
from queue import Empty
from typing import Any

import pytest
import redis
from celery import Celery
from kombu import connection as kombu_connection
from kombu.asynchronous import Hub, get_event_loop, set_event_loop
from kombu.entity import Queue
from kombu.messaging import Consumer
from kombu.transport import redis as stock
from kombu.utils.json import dumps

from schedules.routes import QUEUES
from tests.plugins.servers import count_in_flight
from tests.workers.transport.hostile_messages import message
from workers.app import app
from workers.settings import CHECKOUT
from workers.transport import reclaim
from workers.transport.channel import MAX_SINGLE_COMMAND_BYTES, Channel
from workers.transport.connection import Connection, Transport
from workers.transport.dead_letters import MAX_PENDING, PENDING_KEY, push_dead_letter
from workers.transport.poller import Poller, QueueReader
from workers.transport.qos import QoS, Receipt
from workers.transport.validation import Rejected

READ_IN = "5.7.0"
"""The kombu that was read when the transport was written."""

REPLACED = {
    "kombu.connection.Connection.__init__": "e9c58f881d0a",
    "kombu.connection.Connection._info": "d756812a3936",
    "kombu.connection.Connection.as_uri": "84a4b582d143",
    "kombu.transport.redis.QoS.__init__": "77545b203b86",
    "kombu.transport.virtual.base.QoS.can_consume": "787f80092f8d",
    "kombu.transport.redis.QoS.append": "35c655f6ecc6",
    "kombu.transport.redis.QoS.ack": "1bc15a4ddf54",
    "kombu.transport.redis.QoS.reject": "747a02434344",
    "kombu.transport.redis.MultiChannelPoller._register_BRPOP": "85724582464a",
    "kombu.transport.redis.MultiChannelPoller.on_readable": "c0d99f241607",
    "kombu.transport.redis.Channel.__init__": "f189bdebe243",
    "kombu.transport.redis.Channel._create_client": "dae92bc4075d",
    "kombu.transport.redis.Channel.basic_consume": "34e0da85e689",
    "kombu.transport.redis.Channel._basic_cancel": "f799ede50375",
    "kombu.transport.redis.Channel.close": "101e9b9cdad4",
    "kombu.transport.redis.Channel._update_queue_cycle": "25de35faeae0",
    "kombu.transport.redis.Channel._poll_error": "2c941c0124b9",
    "kombu.transport.redis.Channel._on_connection_disconnect": "9eab3394f78b",
    "kombu.transport.redis.Transport.__init__": "4fc30e8fa54d",
    "kombu.transport.redis.Transport.register_with_event_loop": "4b835642e4a9",
    "kombu.connection.Connection.get_transport_cls": "6c439e6b9759",
    "kombu.transport.redis.Channel._connparams": "e9a4295085a8",
}
"""The methods we override, by the first digits of their source's SHA-256.  When this fails, read what kombu changed."""

RELIED_ON = {
    "kombu.transport.redis.QoS.restore_by_tag": "58e161d81b6f",
    "kombu.transport.redis.QoS._remove_from_indices": "980a109d54ad",
    "kombu.transport.redis.MultiChannelPoller._register": "327dc991dcc1",
    "kombu.transport.redis.MultiChannelPoller._client_registered": "a16964c3e3d2",
    "kombu.transport.redis.MultiChannelPoller.on_poll_start": "414f76caaa67",
    "kombu.transport.redis.MultiChannelPoller.handle_event": "a96a90b9df4b",
    "kombu.transport.redis.Channel._brpop_start": "06723d707ddf",
    "kombu.transport.redis.Channel._brpop_read": "c42518699709",
    "kombu.transport.redis.Channel._do_restore_message": "8b430df94e45",
    "kombu.transport.virtual.base.QoS.ack": "0714292b916f",
    "kombu.transport.virtual.base.QoS.append": "b388f0cd6485",
    "kombu.transport.virtual.base.QoS._flush": "33e6483a6075",
    "kombu.transport.virtual.base.Channel.basic_consume": "0fec96269493",
    "kombu.transport.virtual.base.Transport._deliver": "799e242f3ec5",
}
"""What our methods call or stand between, the same."""
OWN_CLASSES = {
    QoS: stock.QoS,
    Poller: stock.MultiChannelPoller,
    Channel: stock.Channel,
    Transport: stock.Transport,
    Connection: kombu_connection.Connection,
}


def _digest(name: str) -> str:
    module, kind, method = name.rsplit(".", 2)
    value = getattr(inspect.getattr_static(__import__(module, fromlist=[kind]), kind), method)
    return hashlib.sha256(inspect.getsource(value).encode()).hexdigest()[:12]


def _replaced() -> dict[str, str]:
    """Each method of kombu that a class of the transport replaces, with our docstring."""
    docstrings = {}
    for own_class, base in OWN_CLASSES.items():
        for name, value in vars(own_class).items():
            if inspect.isfunction(value) and hasattr(base, name):
                kind = next(k for k in base.__mro__ if name in vars(k))
                docstrings[f"{kind.__module__}.{kind.__qualname__}.{name}"] = inspect.getdoc(value) or ""
    return docstrings


def test_kombu_has_the_reviewed_version() -> None:
    assert version("kombu") == READ_IN
    assert re.search(rf'"kombu=={re.escape(READ_IN)}"', (CHECKOUT / "pyproject.toml").read_text())


def test_replaced_kombu_methods_are_unchanged() -> None:
    """An upgrade of kombu needs a review of these methods."""
    assert {name: _digest(name) for name in _replaced()} == REPLACED


def test_used_kombu_methods_are_unchanged() -> None:
    """The same for methods that the transport calls, or that call it."""
    assert {name: _digest(name) for name in RELIED_ON} == RELIED_ON


def test_every_replacement_names_the_replaced_method() -> None:
    """In the first words of its docstring."""
    for name, doc in _replaced().items():
        if not name.endswith("Channel.__init__"):
            short = name.replace("kombu.connection.", "kombu.").replace("transport.virtual.base", "transport.redis")
            assert doc.startswith(short), name


@pytest.mark.parametrize(
    "url",
    ["redis://localhost:6379/0", "rediss://localhost:6379/0?ssl_cert_reqs=required", "redis+socket:///run/x.sock"],
)
def test_redis_urls_use_our_transport(url: str) -> None:
    """The URL is displayed unchanged."""
    with app.connection(url) as connection:
        assert type(connection.transport) is Transport
        assert connection.clone().get_transport_cls() is Transport
        assert connection.as_uri().startswith(url.partition("://")[0])
        assert connection.transport.driver_type == "redis"


def test_valkey_url_is_rewritten_by_settings() -> None:
    assert app.amqp.Connection is Connection


def test_plain_kombu_client_keeps_kombus_transport() -> None:
    """Importing the application changes nothing for other clients in the process."""
    with (
        Celery("plain", broker="redis://localhost:1/0", set_as_current=False) as plain,
        plain.connection() as connection,
    ):
        assert type(connection.transport) is stock.Transport


# -- by itself, in a real broker ---------------------------------------------------------------------------------------


@pytest.fixture
def broker(broker_url: str) -> Iterator[Any]:
    """A plain connection to the broker."""
    with contextlib.closing(redis.Redis.from_url(broker_url)) as client:
        yield client


@contextlib.contextmanager
def _consumer(broker_url: str, *queues: str, slots: int = 1) -> Iterator[tuple[Any, list[Any]]]:
    """A consumer without an event loop, and the messages that it received."""
    received: list[Any] = []
    options = app.conf.broker_transport_options
    with Connection(broker_url, transport_options=options) as connection:
        queues_ = [Queue(name, routing_key=name) for name in queues]
        channel = connection.default_channel
        channel.basic_qos(0, slots, False)
        with Consumer(channel, queues_, on_message=received.append, accept=["json"]):
            yield connection, received


def _heartbeat_message(queue: str, number: int = 0) -> str:
    return json.dumps(message(headers={"task": "queues.heartbeat", "id": f"{queue}-{number}"}))


def _drain(connection: Any, seconds: float = 3.0) -> None:
    """One round of a worker's event loop and of its timer."""
    poller = connection.transport.cycle
    poller.maintain_readers()
    poller.on_poll_start()
    for descriptor, event in poller.poller.poll(seconds):
        with contextlib.suppress(Empty):
            poller.handle_event(descriptor, event)


def test_consuming_channel_shares_one_client_until_it_reconnects(broker_url: str) -> None:
    """A client for each command would double its cost; forks and waiting callers have their own."""
    with Connection(broker_url) as connection:
        channel = connection.default_channel
        with channel.conn_or_acquire() as first, channel.conn_or_acquire() as second:
            assert first is not second, "who only publishes does as kombu does"
        channel.readers["commands"] = QueueReader("commands", channel._create_client(asynchronous=True))
        with channel.conn_or_acquire() as first, channel.conn_or_acquire() as second:
            assert first is second
        assert channel._create_client(asynchronous=True) is not channel._create_client(asynchronous=True)
        channel._after_fork()
        with channel.conn_or_acquire() as third:
            assert (third is first, third.ping()) == (False, True)
        channel.readers.clear()


def test_queues_are_served_in_turn(broker: Any, broker_url: str) -> None:
    """Two full queues progress together; the commands that wait come as one block."""
    queues = ("submissions", "consequences")
    for number in range(10):
        for queue in (*queues, "commands"):
            broker.lpush(queue, _heartbeat_message(queue, number))
    with _consumer(broker_url, *queues, "commands") as (connection, received):
        while len(received) < 30:
            before = len(received)
            _drain(connection, seconds=0.02)  # no longer: a message that is held for a second is requeued
            for message_ in received[before:]:
                message_.ack()
    ids = [message_.headers["id"] for message_ in received]
    first = ids.index("commands-0")
    assert first <= 2
    assert ids[first : first + 10] == [f"commands-{n}" for n in range(10)]
    names = [name.partition("-")[0] for name in ids if not name.startswith("commands")]
    half = names[:10].count("consequences")
    assert 3 <= half <= 7, f"not one queue before the other, whichever of two answers comes first: {names}"
    assert [name for name in ids if name.startswith("consequences")] == [f"consequences-{n}" for n in range(10)]
    assert count_in_flight(broker) == 0


def test_waiting_commands_occupy_one_slot_together(broker: Any, broker_url: str) -> None:
    """Two free slots share what waits; a slot is free again when the last message of its block is acknowledged."""
    for number in range(10):
        broker.lpush("commands", _heartbeat_message("commands", number))
    with _consumer(broker_url, "commands", slots=2) as (connection, received):
        _drain(connection)
        assert (len(received), count_in_flight(broker), broker.llen("commands")) == (5, 5, 5)
        _drain(connection)
        assert (len(received), count_in_flight(broker), broker.llen("commands")) == (10, 10, 0)
        broker.lpush("commands", _heartbeat_message("commands", 10))
        for message_ in received[:4]:
            message_.ack()
        assert not connection.default_channel.qos.can_consume()
        received[4].ack()
        assert connection.default_channel.qos.can_consume()
        _drain(connection)
        assert received[10].headers["id"] == "commands-10"
        connection.default_channel.qos.ack_settled([message_.delivery_tag for message_ in received[5:]])
        assert connection.default_channel.qos.free_slots() == 2
    assert count_in_flight(broker) == 0


def test_a_long_message_ends_a_block(broker: Any, broker_url: str) -> None:
    """Its commands take a while, in which other workers shall find what waits behind it."""
    for number, length in enumerate((1, MAX_SINGLE_COMMAND_BYTES, 1, MAX_SINGLE_COMMAND_BYTES)):
        body = [[], {"text": "x" * length}, {}]
        broker.lpush("commands", json.dumps(message(body, headers={"task": "queues.heartbeat", "id": f"{number}"})))
    with _consumer(broker_url, "commands", slots=1) as (connection, received):
        blocks = []
        while broker.exists("commands"):
            _drain(connection)
            blocks.append([message_.headers["id"] for message_ in received])
            while received:
                received.pop().ack()
        assert blocks == [["0", "1"], ["2", "3"]]


def test_invalid_messages_of_a_block_become_dead_letters(broker: Any, broker_url: str) -> None:
    broker.lpush("commands", _heartbeat_message("commands", 0), b"nonsense", _heartbeat_message("commands", 1))
    with _consumer(broker_url, "commands") as (connection, received):
        _drain(connection)
        assert [message_.headers["id"] for message_ in received] == ["commands-0", "commands-1"]
        assert (broker.llen(PENDING_KEY), count_in_flight(broker)) == (1, 2)
        for message_ in received:
            message_.ack()
    assert count_in_flight(broker) == 0


def test_reclaimed_message_of_a_block_is_not_processed(broker: Any, broker_url: str) -> None:
    with _consumer(broker_url, "commands") as (connection, received):
        _drain(connection, 0.2)
        channel = connection.default_channel
        reader = channel.readers["commands"]
        items = [_heartbeat_message("commands", number).encode() for number in range(2)]
        broker.lpush(reader.processing_list, items[0])
        receipts = [Receipt(reader, item, reclaim.ConsumerId.current().new_tag(), slot="block") for item in items]
        raw = [channel._validated_message(receipt) for receipt in receipts]
        assert channel.qos.record(list(zip(receipts, raw, strict=True))) == receipts[:1]
        _drain(connection)
        assert [message_.headers["id"] for message_ in received] == ["commands-1"], "it is back in the queue"
        received[0].ack()


def test_message_held_too_long_is_requeued(broker: Any, broker_url: str) -> None:
    """One slot, two queues: the extra message goes to other workers after a second."""
    with _consumer(broker_url, "commands", "consequences") as (connection, received):
        _drain(connection, 0.2)
        broker.lpush("commands", _heartbeat_message("commands"))
        broker.lpush("consequences", _heartbeat_message("consequences"))
        _drain(connection)
        assert len(received) == 1
        for _ in range(30):
            _drain(connection, 0.1)
            if broker.llen("commands") + broker.llen("consequences") == 1:
                break
        assert (len(received), count_in_flight(broker)) == (1, 1)
        received[0].ack()
        while len(received) < 2:
            _drain(connection)
        received[1].ack()
    assert count_in_flight(broker) == 0


def test_acknowledgement_delivers_the_held_message(broker: Any, broker_url: str) -> None:
    """Waiting for the next tick would deliver it 0.1 to 1 s late (B12)."""
    with _consumer(broker_url, "commands", "consequences") as (connection, received):
        _drain(connection, 0.2)
        broker.lpush("commands", _heartbeat_message("commands"))
        broker.lpush("consequences", _heartbeat_message("consequences"))
        readers = connection.default_channel.readers
        for _ in range(50):
            _drain(connection, 0.05)
            if any(reader.held is not None for reader in readers.values()):
                break
        assert len(received) == 1
        before, loop = get_event_loop(), Hub()
        set_event_loop(loop)
        try:
            received[0].ack()
        finally:
            set_event_loop(before)
            loop.close()
        assert len(received) == 2
        received[1].ack()
    assert count_in_flight(broker) == 0


def test_message_reclaimed_meanwhile_is_not_processed(broker: Any, broker_url: str) -> None:
    with _consumer(broker_url, "commands") as (connection, received):
        _drain(connection, 0.2)
        channel = connection.default_channel
        reader = channel.readers["commands"]
        broker.lpush("commands", _heartbeat_message("commands"))
        item = channel.readers["commands"].client.parse_response(reader.client.connection, "BLMOVE")
        assert broker.lmove(reader.processing_list, "commands", "LEFT", "RIGHT") == item
        channel._process_raw_message(reader, item)
        assert (received, count_in_flight(broker), broker.llen("commands")) == ([], 0, 2)


def test_messages_of_a_dead_consumer_are_reclaimed(broker: Any, broker_url: str) -> None:
    """Once its heartbeat is missing; never before."""
    elsewhere = "another-machine/7/abcdef01"
    broker.hset(reclaim.PROCESSING_LISTS_KEY, "unwind.handed.x", f"{elsewhere} commands")
    broker.lpush("unwind.handed.x", _heartbeat_message("commands", 2), _heartbeat_message("commands", 1))
    tag = f"{elsewhere}/0123456789abcdef"
    held = dumps([message(headers={"task": "queues.heartbeat", "id": "commands-3"}), "", "commands"])
    broker.hset(reclaim.UNACKED_KEY, tag, held)
    broker.zadd(f"{reclaim.UNACKED_KEY}.index", {tag: 10**10})
    broker.set(reclaim.HEARTBEAT_PREFIX + elsewhere, 1)
    with _consumer(broker_url, "commands", slots=5) as (connection, received):
        _drain(connection, 0.2)
        assert (received, count_in_flight(broker)) == ([], 3)
        broker.delete(reclaim.HEARTBEAT_PREFIX + elsewhere)
        connection.default_channel.heartbeat_and_reclaim()
        while len(received) < 3:
            _drain(connection)
        assert {message_.headers["id"] for message_ in received} == {"commands-1", "commands-2", "commands-3"}
        for message_ in received:
            message_.ack()
    assert count_in_flight(broker) == 0


def test_dead_letters_in_the_broker_are_bounded(broker: Any) -> None:
    """Hostile messages must not fill the broker while the database is away."""
    for _ in range(3):
        pipe = broker.pipeline()
        for _ in range(MAX_PENDING // 2):
            push_dead_letter(pipe, Rejected("NOT_JSON", "it cannot be read"), "commands", b"x" * 100_000)
        pipe.execute()
    assert broker.llen(PENDING_KEY) == MAX_PENDING
    assert len(broker.lindex(PENDING_KEY, 0)) < 6_000


def test_transport_handles_exactly_the_routed_queues() -> None:
    """kombu handles the others, such as replies to remote control."""
    assert {queue.name for queue in app.conf.task_queues} == set(QUEUES)
