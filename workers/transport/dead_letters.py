"""Moves dead letters, messages no task can process, out of their queues; they do not block other messages.

Celery drops such a message and logs its whole body; some would end the worker.  Here the transport moves them to a
short list in the broker, in the same step that takes them from their queue.  A thread of its own writes them to the
database from there, so that a database that is away keeps no worker from its next message.  Messages that never reach a
worker, because their producer named no queue, are in the lists of `unread_lists.py`.
"""

from __future__ import annotations

import base64
import json
import logging
import threading
from dataclasses import asdict
from typing import Any
from uuid import uuid4

import structlog
from celery import current_app, signals

from models import dead_letters
from models.dead_letters import MAX_BODY_BYTES
from policies.texts import replace_unprintable
from workers import lifecycle
from workers.broker.result_backend import ResultBackend
from workers.transport.validation import Rejected

log = structlog.get_logger(__name__)

PENDING_KEY = "unwind.dead-letters"
"""List in the broker of dead letters not yet in the database."""
MAX_PENDING = 1000
"""Dead letters kept in the broker while the database is away; the oldest are dropped."""
POLL_INTERVAL = 0.5
"""Seconds within which the writer's thread ends."""
RETRY_DELAY = 2.0
"""Seconds."""


def push_dead_letter(pipe: Any, rejection: Rejected, queue: str | None, raw: bytes) -> None:
    letter = pending_letter(rejection, queue, raw)
    facts = {name: letter[name] for name in ("reason", "detail", "named")}
    log.error("dead_letter", **facts, message=letter["message_id"])
    pipe.lpush(PENDING_KEY, json.dumps(letter)).ltrim(PENDING_KEY, 0, MAX_PENDING - 1)


def pending_letter(rejection: Rejected, queue: str | None, raw: bytes) -> dict[str, Any]:
    message_id = rejection.message_id
    return {
        **asdict(rejection),
        "key": str(uuid4()),
        "named": rejection.named and replace_unprintable(rejection.named[:100]),
        # An awaited message's id is stored unchanged: its caller waits for it.
        "message_id": message_id if rejection.is_awaited else message_id and replace_unprintable(message_id[:100]),
        "queue": queue,
        "length": len(raw),
        "body_start": base64.b64encode(raw[:MAX_BODY_BYTES]).decode(),
    }


def push_untaken_as_dead_letter(pipe: Any, message: Any) -> None:
    name, raw = message.headers.get("task"), message.body
    reason = "NOT_A_COMMAND" if name in current_app.tasks else "TASK_UNKNOWN"
    rejection = Rejected(reason, "", name, message.headers.get("id"))
    queue = message.delivery_info.get("routing_key")
    push_dead_letter(pipe, rejection, queue, raw if isinstance(raw, bytes) else raw.encode("utf-8", "surrogatepass"))


_write_requested = threading.Event()
write_soon = _write_requested.set


class DeadLetterWriter(lifecycle.BackgroundThread):
    """What it does not finish is left to the next worker."""

    def run(self) -> None:
        write_soon()  # what earlier workers left
        while not self._stop_requested.is_set():
            if _write_requested.wait(POLL_INTERVAL):
                _write_requested.clear()
                try:
                    self._store_pending_dead_letters()
                except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again and stops nobody
                    log.warning("dead_letters_write_failed", error=type(error).__name__)
                    self._stop_requested.wait(RETRY_DELAY)
                    write_soon()

    def _store_pending_dead_letters(self) -> None:
        with lifecycle.process_database() as database, current_app.connection_for_read() as connection:
            broker = connection.default_channel.client
            while (raw := broker.lindex(PENDING_KEY, -1)) is not None:
                letter = json.loads(raw)
                if letter.get("is_awaited") and isinstance(current_app.backend, ResultBackend):
                    reason = ": ".join(filter(None, (letter["reason"], letter["detail"])))
                    current_app.backend.store_rejection(letter["message_id"], MessageRefused(reason))
                with database.transaction() as conn:
                    dead_letters.insert_dead_letter(conn, letter, database.clock.now(conn))
                broker.lrem(PENDING_KEY, -1, raw)


class MessageRefused(Exception):
    """The result that a caller gets for a rejected message: a reason code and a sentence."""


@signals.worker_ready.connect
def _start_dead_letter_writer(**_: Any) -> None:
    DeadLetterWriter().start()


# Celery's log lines about such messages contain the body, which may be private.
_DROPPED_LINES = ("Received unregistered task", "Received and deleted unknown message", "Received invalid task message")
logging.getLogger("celery.worker.consumer.consumer").addFilter(
    lambda record: not str(record.msg).startswith(_DROPPED_LINES)
)
