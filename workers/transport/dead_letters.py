"""Moves dead letters, messages no task can process, out of their queues; they do not block other messages.

Celery drops such a message and logs its whole body; some would end the worker.  Here the transport moves them to a
short list in the broker, in the same step that takes them from their queue.  A thread of its own writes them to the
database from there, so that a database that is away keeps no worker from its next message.  Messages that never reach a
worker, because their producer named no queue, are in the lists of `unread_lists.py`.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import threading
from collections.abc import Container
from typing import Any
from uuid import UUID, uuid4

import structlog
from celery import current_app, signals

from models import dead_letters
from models.dead_letters import MAX_BODY_BYTES
from policies.texts import replace_unprintable
from workers import lifecycle
from workers.broker.result_backend import ResultBackend
from workers.transport.validation import Rejected, text_header

log = structlog.get_logger(__name__)

PENDING_KEY = "unwind.dead-letters"
"""List in the broker of dead letters not yet in the database."""
MAX_PENDING = 1000
"""Dead letters kept in the broker while the database is away; the oldest are dropped."""
RETRY_DELAY = 2.0
"""Seconds."""


def push_dead_letter(pipe: Any, rejection: Rejected, queue: str | None, raw: bytes) -> None:
    message_id = rejection.message_id
    letter = {
        "key": str(uuid4()),
        "reason": rejection.reason,
        "detail": rejection.detail,
        "named": rejection.named and replace_unprintable(rejection.named[:100]),
        # An awaited message's id is stored unchanged: its caller waits for it.
        "message_id": message_id if rejection.is_awaited else message_id and replace_unprintable(message_id[:100]),
        "queue": queue,
        "length": len(raw),
        "body_start": base64.b64encode(raw[:MAX_BODY_BYTES]).decode(),
        "is_awaited": rejection.is_awaited,
    }
    facts = {name: letter[name] for name in ("reason", "detail", "named")}
    log.error("dead_letter", **facts, message=letter["message_id"])
    pipe.lpush(PENDING_KEY, json.dumps(letter)).ltrim(PENDING_KEY, 0, MAX_PENDING - 1)


def push_untaken_as_dead_letter(pipe: Any, message: Any, registered: Container[str]) -> None:
    headers = message.headers if isinstance(message.headers, dict) else {}
    delivered = message.delivery_info if isinstance(message.delivery_info, dict) else {}
    name, raw = text_header(headers.get("task")), message.body
    reason = "NOT_A_COMMAND" if name is not None and name in registered else "TASK_UNKNOWN"
    if not isinstance(raw, bytes):
        raw = str(raw).encode("utf-8", "surrogatepass")
    rejection = Rejected(reason, "", name, text_header(headers.get("id")))
    push_dead_letter(pipe, rejection, text_header(delivered.get("routing_key")), raw)


class DeadLetterWriter:
    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._requested = False
        self._closed = threading.Event()

    def write_soon(self) -> None:
        with self._lock:
            self._requested = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_until_empty, name="dead letters", daemon=True)
                self._thread.start()

    def close(self, seconds: float = 2.0) -> None:
        """Wait for the thread; what it does not finish is left to the next worker."""
        self._closed.set()
        if (thread := self._thread) is not None:
            thread.join(seconds)

    def _write_until_empty(self) -> None:
        while True:
            with self._lock:
                if not self._requested:
                    self._thread = None
                    return
                self._requested = False
            try:
                self._store_pending_dead_letters()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again and stops nobody
                log.warning("dead_letters_write_failed", error=type(error).__name__)
                if self._closed.wait(RETRY_DELAY):
                    return
                self._requested = True

    def _store_pending_dead_letters(self) -> None:
        with contextlib.ExitStack() as stack:
            database = lifecycle.open_process_database()
            stack.callback(database.dispose)
            connection = stack.enter_context(current_app.connection_for_read())
            broker = connection.default_channel.client
            while (raw := broker.lindex(PENDING_KEY, -1)) is not None:
                letter = json.loads(raw)
                if letter.get("is_awaited") and isinstance(current_app.backend, ResultBackend):
                    reason = ": ".join(filter(None, (letter["reason"], letter["detail"])))
                    current_app.backend.store_rejection(letter["message_id"], MessageRefused(reason))
                self._store_dead_letter(database, letter)
                broker.lrem(PENDING_KEY, -1, raw)

    @staticmethod
    def _store_dead_letter(database: Any, letter: dict[str, Any]) -> None:
        with database.transaction() as conn:
            dead_letters.insert_dead_letter(
                conn,
                key=UUID(letter["key"]),
                reason=letter["reason"],
                detail=letter["detail"],
                task_name=letter["named"],
                message_id=letter["message_id"],
                queue=letter["queue"],
                body=base64.b64decode(letter["body_start"]),
                body_bytes=letter["length"],
                now=database.clock.now(conn),
            )


class MessageRefused(Exception):
    """The result that a caller gets for a rejected message: a reason code and a sentence."""


_dead_letter_writer = DeadLetterWriter()
write_soon = _dead_letter_writer.write_soon


@signals.worker_ready.connect
def _write_pending_dead_letters(**_: Any) -> None:
    _dead_letter_writer.write_soon()


@signals.worker_shutdown.connect
def _stop_dead_letter_writer(**_: Any) -> None:
    _dead_letter_writer.close()


class _DeadLetterLogFilter(logging.Filter):
    # Drops Celery's log lines about such messages: they contain the body, which may be private.
    _PREFIXES = ("Received unregistered task", "Received and deleted unknown message", "Received invalid task message")

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(self._PREFIXES)


logging.getLogger("celery.worker.consumer.consumer").addFilter(_DeadLetterLogFilter())
