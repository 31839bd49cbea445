"""What becomes of a message that no task of ours can take?  It is kept where `./run jobs odd` shows it, and stops nothing else.

Celery drops such a message and writes its whole body to the log; here it goes into the database instead, written by a thread of
its own so that a database that is away keeps no worker from its next message.  Messages that never reach a worker, because their
producer named no queue, lie in lists that nobody reads: `strays` looks there.
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import threading
from dataclasses import dataclass
from typing import Any

import structlog
from celery import signals

from schedules.routes import QUEUES

log = structlog.get_logger(__name__)

MOST_WAITING = 1000
"""Messages in memory while the database is away; more are only logged."""
TRY_AGAIN = 2.0
IDLE = 1.0
"""Seconds without an odd message after which the keeper lets go of its connection."""

CELERYS_OWN_QUEUE = "celery"
"""Where a client pushes that was told no queue."""
PRIORITY = "\x06\x16"
"""Between a queue's name and a number: where clients push messages with a priority, which no worker of ours reads (F20)."""
FIRST_FEW = 20


@dataclass(frozen=True, slots=True)
class Odd:
    """One message as it was found."""

    reason: str
    named: str | None
    message_id: str | None
    queue: str | None
    body: bytes


class Keeper:
    """Writes odd messages down, one thread per worker group."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[Odd] = queue.Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def keep(self, odd: Odd) -> None:
        """Have it written, soon."""
        log.error("a message is none of ours", reason=odd.reason, named=odd.named, message=odd.message_id)
        try:
            self._waiting.put_nowait(odd)
        except queue.Full:
            log.error("too many of them wait to be written down: this one is only logged")
            return
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="odd messages", daemon=True)
                self._thread.start()

    def close(self, seconds: float = 2.0) -> None:
        """Give it time to write what waits."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        from workers import wiring

        while True:
            with self._lock:
                if self._waiting.empty():
                    self._thread = None
                    return
            try:
                with contextlib.closing(_Disposed(wiring.open_database(wiring.settings()))) as held:
                    self._write(held.database)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again and stops nobody
                log.warning("odd messages cannot be written down now", error=type(error).__name__)
                threading.Event().wait(TRY_AGAIN)

    def _write(self, database: Any) -> None:
        from models import odd_messages

        while True:
            try:
                odd = self._waiting.get(timeout=IDLE)
            except queue.Empty:
                return
            try:
                with database.transaction() as conn:
                    odd_messages.keep(
                        conn,
                        reason=odd.reason,
                        named=odd.named,
                        message_id=odd.message_id,
                        queue=odd.queue,
                        body=odd.body,
                        now=database.clock.now(conn),
                    )
            except Exception:
                with contextlib.suppress(queue.Full):
                    self._waiting.put_nowait(odd)
                raise


@dataclass(frozen=True, slots=True)
class _Disposed:
    database: Any

    def close(self) -> None:
        self.database.dispose()


_keeper = Keeper()


@signals.task_unknown.connect
def _unknown_task(message: Any = None, name: Any = "", id: Any = "", **_: Any) -> None:  # noqa: A002 - the signal's names
    _keeper.keep(_odd("TASK_UNKNOWN", message, name, id))


@signals.task_rejected.connect
def _not_a_command(message: Any = None, **_: Any) -> None:
    headers = getattr(message, "headers", None)
    said = headers if isinstance(headers, dict) else {}
    _keeper.keep(_odd("NOT_A_COMMAND", message, said.get("task"), said.get("id")))


@signals.worker_shutdown.connect
def _close(**_: Any) -> None:
    _keeper.close()


def _odd(reason: str, message: Any, name: Any, message_id: Any) -> Odd:
    body = getattr(message, "body", b"")
    delivered = getattr(message, "delivery_info", None)
    where = delivered.get("routing_key") if isinstance(delivered, dict) else None
    raw = body if isinstance(body, bytes) else str(body).encode("utf-8", "surrogatepass")
    return Odd(reason, _text(name), _text(message_id), _text(where), raw)


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


def strays(client: Any) -> list[Stray]:
    """Look into the lists where producers push by mistake.  `client` is a connection to the broker of redis-py."""
    wrong = [
        CELERYS_OWN_QUEUE,
        *(f"{name}{PRIORITY}{n}" for name in (CELERYS_OWN_QUEUE, *QUEUES) for n in range(1, 10)),
    ]
    found = []
    for name in wrong:
        if client.type(name) not in (b"list", "list"):
            continue
        first = [_named(raw) for raw in client.lrange(name, -FIRST_FEW, -1)]
        found.append(Stray(name.replace(PRIORITY, " with priority "), client.llen(name), first[::-1]))
    return found


def _named(raw: Any) -> tuple[str, str]:
    """Task and id of a message as they stand in its headers; question marks for what is no message."""
    try:
        headers = json.loads(raw)["headers"]
        return _short(headers["task"]), _short(headers["id"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return "?", "?"


def _short(value: Any) -> str:
    return "".join(c if c.isprintable() else "?" for c in value[:100]) if isinstance(value, str) else "?"
