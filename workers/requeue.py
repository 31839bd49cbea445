"""How is a job set going again that was given up?  By rows in one commit, so that it is either still dead or surely on its way.

A promise is due again, a letter is to be tried again, and a command goes in through the door for SQL with its own request id:
none of them rests on a message that a broker could lose (promises.md P1).
"""

from __future__ import annotations

import base64
import contextlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from models import dead_jobs, dead_letters, notices, outbox, submissions
from policies.verdicts import OutboxMessage
from schedules.routes import queue_of
from workers.transport.validation import Delayed, Rejected, validate

if TYPE_CHECKING:
    from models.db.database import Database


class CannotRequeue(Exception):
    """Why this one stays as it is; the text is for whoever asked."""


def requeue_dead_job(database: Database, number: int) -> str:
    """Set one going again; gives its task.  Raises CannotRevive."""
    from workers.app import app
    from workers.task import command_model

    with database.transaction() as conn:
        job = dead_jobs.get(conn, number)
        if job is None:
            raise CannotRequeue(f"There is no dead job {number}.")
        now = database.clock.now(conn)
        if job.discarded_at is not None:
            raise CannotRequeue(f"Dead job {number} was discarded: {job.discard_reason}")
        if not dead_jobs.mark_replayed(conn, number, now):
            raise CannotRequeue(f"Dead job {number} was set going again already.")
        arguments: dict[str, Any] = dict(job.arguments)
        if dead_jobs.payload_hash(arguments) != bytes(job.payload_hash):
            raise CannotRequeue(f"Dead job {number} is not what was parked: somebody changed its arguments.")
        if job.outbox_id is not None:
            outbox.requeue(conn, [job.outbox_id], now)
        elif job.task == "notices.deliver":
            notices.requeue(conn, arguments.get("notice_id", 0), now)
            outbox.enqueue(conn, [OutboxMessage("notices.deliver", f"deliver-again:{number}", None)], now)
        elif job.task not in app.tasks or command_model(app.tasks[job.task]) is None:
            raise CannotRequeue(f"Dead job {number} names {job.task}, which this version does not know.")
        else:
            request_id = str(arguments.get("request_id") or job.message_id or f"dead-{number}")
            if not submissions.requeue(conn, job.task, arguments, request_id, now):
                raise CannotRequeue(f"Dead job {number} is no command that could be taken again as it is.")
    return str(job.task)


def discard_dead_job(database: Database, number: int, reason: str) -> str:
    """Note that one is not to be done; returns its task.  Raises CannotRevive."""
    with database.transaction() as conn:
        job = dead_jobs.get(conn, number)
        if job is None:
            raise CannotRequeue(f"There is no dead job {number}.")
        if not dead_jobs.discard(conn, number, reason, database.clock.now(conn)):
            raise CannotRequeue(f"Dead job {number} was {'discarded' if job.discarded_at else 'set going'} already.")
    return str(job.task)


def requeue_dead_letter(database: Database, number: int) -> str:
    """Take a kept message as the command that it is after all, with its own request id; returns its task.

    A row of the SQL interface in the commit that notes it, so it is taken once, whatever dies.  Raises CannotRevive.
    """
    with database.transaction() as conn:
        letter = dead_letters.get(conn, number)
        if letter is None:
            raise CannotRequeue(f"There is no dead letter {number}.")
        now = database.clock.now(conn)
        task, message_id, arguments = _command_in(letter)
        if not dead_letters.mark_requeued(conn, number, now):
            raise CannotRequeue(f"Dead letter {number} was requeued already.")
        request_id = str(arguments.get("request_id") or message_id)
        if not submissions.requeue(conn, task, arguments, request_id, now):
            raise CannotRequeue(f"Dead letter {number} is no command that could be taken as it is.")
    return task


def _command_in(letter: Any) -> tuple[str, str, dict[str, Any]]:
    """Task, message id and arguments: of a whole message as it lay in its queue, or of the body alone, which Celery shows."""
    number = letter.dead_letter_id
    if letter.body_bytes > dead_letters.MAX_BODY_BYTES:
        raise CannotRequeue(f"Dead letter {number} is longer than what is kept of one; its sender must send it again.")
    try:
        kept = json.loads(base64.b64decode(letter.body))
        task, message_id = letter.task_name, letter.message_id
        if isinstance(kept, dict):
            task, message_id = kept["headers"]["task"], kept["headers"]["id"]
            encoded = kept["properties"].get("body_encoding") == "base64"
            kept = json.loads(base64.b64decode(kept["body"]) if encoded else kept["body"])
        args, arguments, _ = kept
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CannotRequeue(f"Dead letter {number} is no command.") from None
    if (
        task not in submissions.PUBLIC_TASKS
        or args
        or not isinstance(arguments, dict)
        or not isinstance(message_id, str)
    ):
        raise CannotRequeue(f"Dead letter {number} is no command.")
    return task, message_id, arguments


def is_public_command(raw: bytes) -> bool:
    """Whether a message that lies where nobody reads is a public command that a worker would take."""
    from workers.app import app

    try:
        headers = validate(raw, queue_of("orders.cancel"), app.tasks, "requeued", datetime.now(UTC))["headers"]  # noqa: TID251 - as the transport compares
    except Delayed as delayed:
        headers = json.loads(delayed.raw)["headers"]
    except Rejected:
        return False
    return headers["task"] in submissions.PUBLIC_TASKS


def wake_relay() -> None:
    """So that nobody waits for the next tick; without a broker that is all it takes."""
    from kombu.exceptions import OperationalError

    from workers.app import app

    with contextlib.suppress(OperationalError):
        app.send_task("outbox.relay", queue=queue_of("outbox.relay"), ignore_result=True)
