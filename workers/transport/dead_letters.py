"""What becomes of a message that no task of ours can take?  `./run jobs dead-letters` shows it, and it stops nothing else.

Celery drops such a message and writes its whole body to the log; the transport meets some that would end the worker.  Here they go
into a short list in the broker, in the same step that takes them from their queue, and from there into the database, by a
thread of its own: a database that is away keeps no worker from its next message.  Messages that never reach a worker, because
their producer named no queue, lie in lists that nobody reads: `strays` looks there.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import threading
from collections.abc import Callable, Container
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID, uuid4

import structlog
from celery import current_app, signals, states

from schedules.routes import QUEUES

log = structlog.get_logger(__name__)

PENDING_KEY = "unwind.dead-letters"
"""The list in the broker."""
MAX_PENDING = 1000
"""The newest that many wait while the database is away, with the beginning of each."""
RETRY_DELAY = 2.0

CELERY_DEFAULT_QUEUE = "celery"
"""Where a client pushes that was told no queue."""
PRIORITY_SEPARATOR = "\x06\x16"
"""Between a queue's name and a number: where clients push messages with a priority, which no worker of ours reads (F20)."""
SAMPLE_SIZE = 20
COMMANDS_QUEUE = "commands"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message as it was found; of its bytes only the beginning, in base64."""

    key: str
    reason: str
    detail: str
    named: str | None
    message_id: str | None
    queue: str | None
    length: int
    begins: str
    is_awaited: bool = False
    """Whether its producer may wait for an answer under `message_id`."""

    @classmethod
    def of(
        cls,
        reason: str,
        named: str | None,
        message_id: str | None,
        queue: str | None,
        raw: bytes,
        detail: str = "",
        is_awaited: bool = False,
    ) -> DeadLetter:
        """From the whole bytes.  The id of one that is awaited is kept as it is, up to its 255 visible characters."""
        from models.dead_letters import MAX_BODY_BYTES  # here: beat and Flower need nothing of the database (B15)

        begins = base64.b64encode(raw[:MAX_BODY_BYTES]).decode()
        return cls(
            str(uuid4()),
            reason,
            detail,
            named and _plain(named),
            message_id if is_awaited else message_id and _plain(message_id),
            queue,
            len(raw),
            begins,
            is_awaited,
        )


def push(pipe: Any, odd: DeadLetter) -> None:
    """Add to a pipeline what keeps it in the broker."""
    log.error(
        "a message is none of ours", reason=odd.reason, detail=odd.detail, named=odd.named, message=odd.message_id
    )
    pipe.lpush(PENDING_KEY, json.dumps(asdict(odd))).ltrim(PENDING_KEY, 0, MAX_PENDING - 1)


class DeadLetterWriter:
    """Writes odd messages down, one thread per worker group; several do not disturb each other."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._wanted = False
        self._closed = threading.Event()

    def write_soon(self) -> None:
        """Have written what waits in the broker."""
        with self._lock:
            self._wanted = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="odd messages", daemon=True)
                self._thread.start()

    def close(self, seconds: float = 2.0) -> None:
        """Give it time to write what waits; what it does not get done waits for the next worker."""
        self._closed.set()
        if (thread := self._thread) is not None:
            thread.join(seconds)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._wanted:
                    self._thread = None
                    return
                self._wanted = False
            try:
                self._write()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again and stops nobody
                log.warning("odd messages cannot be written down now", error=type(error).__name__)
                if self._closed.wait(RETRY_DELAY):
                    return
                self._wanted = True

    def _write(self) -> None:
        from workers import lifecycle

        with contextlib.ExitStack() as held:
            database = lifecycle.open_database(lifecycle.process_settings())
            held.callback(database.dispose)
            connection = held.enter_context(current_app.connection_for_read())
            broker = connection.default_channel.client
            while (raw := broker.lindex(PENDING_KEY, -1)) is not None:
                odd = json.loads(raw)
                if odd.get("is_awaited"):
                    store_rejection(current_app.backend, odd["message_id"], odd["reason"], odd["detail"])
                self._keep(database, odd)
                broker.lrem(PENDING_KEY, -1, raw)

    @staticmethod
    def _keep(database: Any, odd: dict[str, Any]) -> None:
        from models import dead_letters

        with database.transaction() as conn:
            dead_letters.record(
                conn,
                key=UUID(odd["key"]),
                reason=odd["reason"],
                detail=odd["detail"],
                task_name=odd["named"],
                message_id=odd["message_id"],
                queue=odd["queue"],
                body=base64.b64decode(odd["begins"]),
                body_bytes=odd["length"],
                now=database.clock.now(conn),
            )


class MessageRefused(Exception):
    """What whoever waits for the answer of a message that was turned away gets: the reason and a sentence."""


def store_rejection(backend: Any, message_id: str, reason: str, detail: str) -> None:
    """Store a FAILURE where the answer would have been.  What is there already, under whatever id a stranger gave, stays.

    Raises when the result backend cannot be reached.
    """
    if not hasattr(backend, "client"):
        return  # there are no answers here
    error = MessageRefused(f"{reason}: {detail}" if detail else reason)
    meta = backend._get_result_meta(backend.prepare_exception(error), states.FAILURE, None, None)
    key, written = backend.get_key_for_task(message_id), backend.encode(meta | {"task_id": message_id})
    if backend.client.set(key, written, nx=True, ex=backend.expires):
        backend.client.publish(key, written)


_keeper = DeadLetterWriter()
write_soon = _keeper.write_soon


@signals.worker_ready.connect
def _write_what_was_left(**_: Any) -> None:
    _keeper.write_soon()


@signals.worker_shutdown.connect
def _close(**_: Any) -> None:
    _keeper.close()


def describe_untaken(message: Any, registered: Container[str]) -> DeadLetter:
    """What the transport let through and Celery would not take, or took for a task that it does not know."""
    headers = message.headers if isinstance(message.headers, dict) else {}
    delivered = message.delivery_info if isinstance(message.delivery_info, dict) else {}
    name, raw = _text(headers.get("task")), message.body
    reason = "NOT_A_COMMAND" if name is not None and name in registered else "TASK_UNKNOWN"
    if not isinstance(raw, bytes):
        raw = str(raw).encode("utf-8", "surrogatepass")
    return DeadLetter.of(reason, name, _text(headers.get("id")), _text(delivered.get("routing_key")), raw)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


class _SaidByUs(logging.Filter):
    """Celery's own words about such messages hold their bodies, which may be private (P9); ours hold ids."""

    _BEGIN = ("Received unregistered task", "Received and deleted unknown message", "Received invalid task message")

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(self._BEGIN)


logging.getLogger("celery.worker.consumer.consumer").addFilter(_SaidByUs())


# -- messages that no worker ever sees ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stray:
    """Messages in a list that nobody reads: how many, and the first few as (task, id)."""

    queue: str
    count: int
    first: list[tuple[str, str]]


def _wrong_lists() -> list[str]:
    return [
        CELERY_DEFAULT_QUEUE,
        *(f"{name}{PRIORITY_SEPARATOR}{n}" for name in (CELERY_DEFAULT_QUEUE, *QUEUES) for n in range(1, 10)),
    ]


def find_strays(client: Any) -> list[Stray]:
    """Look into the lists where producers push by mistake.  `client` is a connection to the broker of redis-py."""
    found = []
    for name in _wrong_lists():
        if client.type(name) not in (b"list", "list"):
            continue
        first = [_named(raw) for raw in client.lrange(name, -SAMPLE_SIZE, -1)]
        found.append(Stray(name.replace(PRIORITY_SEPARATOR, " with priority "), client.llen(name), first[::-1]))
    return found


_MOVE = """
if redis.call('LREM', KEYS[1], -1, ARGV[1]) == 1 then return redis.call('LPUSH', KEYS[2], ARGV[1]) end
return 0
"""
"""In one step: whoever is killed has moved it or not, and of two who move the same one, one does."""
_LOOKED_AT_ONCE = 200


def requeue_strays(
    client: Any, is_command: Callable[[bytes], bool], moved: Callable[[int, int], None] = lambda _done, _of: None
) -> tuple[int, int]:
    """Move the commands among the strays into the queue of commands, oldest first; returns how many were and were not.

    What is none stays where it is.  `moved` is told now and then how many of how many were looked at.
    """
    lists = [name for name in _wrong_lists() if client.type(name) in (b"list", "list")]
    total = sum(client.llen(name) for name in lists)
    looked_at = taken = left = 0
    for name in lists:
        # From the right, where the oldest are; whatever stays there is passed over.
        stay = 0
        while batch := client.lrange(name, -stay - _LOOKED_AT_ONCE, -stay - 1):
            commands = [raw for raw in reversed(batch) if is_command(raw)]
            pipe = client.pipeline(transaction=False)
            for raw in commands:
                pipe.eval(_MOVE, 2, name, COMMANDS_QUEUE, raw)
            taken += sum(1 for length in pipe.execute() if length)
            stay += len(batch) - len(commands)
            looked_at += len(batch)
            moved(looked_at, total)
        left += stay
    return taken, left


def _named(raw: Any) -> tuple[str, str]:
    """Task and id of a message as they stand in its headers; question marks for what is no message."""
    try:
        headers = json.loads(raw)["headers"]
        return _short(headers["task"]), _short(headers["id"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "?", "?"


def _short(value: Any) -> str:
    return _plain(value) if isinstance(value, str) else "?"


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:100])
