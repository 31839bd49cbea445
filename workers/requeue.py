"""Requeueing of dead jobs and dead letters, each in one commit: a job is either still dead or definitely queued.

A requeued outbox message becomes due again, a requeued email is retried, and a requeued command is submitted through
the SQL interface with its own request id.  No requeued job depends on a message that a broker could lose.
"""

from __future__ import annotations

import base64
import contextlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from models import dead_jobs, dead_letters, notices, outbox, submissions
from schedules.routes import queue_of
from tasks.declarations import COMMANDS
from workers.app import app
from workers.transport.validation import Rejected, ValidButDelayed, validate_message

if TYPE_CHECKING:
    from models.db.database import Database


class CannotRequeue(Exception):
    pass


def requeue_dead_job(database: Database, number: int) -> str:
    with database.transaction() as conn:
        job, now = _require("dead job", number, dead_jobs.get_dead_job(conn, number)), database.clock.now(conn)
        if job.discarded_at is not None:
            raise CannotRequeue(f"Dead job {number} was discarded: {job.discard_reason}")
        if not dead_jobs.mark_job_replayed(conn, number, now):
            raise CannotRequeue(f"Dead job {number} was requeued already.")
        arguments: dict[str, Any] = dict(job.arguments)
        if dead_jobs.dead_job_payload_hash(arguments) != bytes(job.payload_hash):
            raise CannotRequeue(
                f"Dead job {number} cannot be requeued: its arguments were changed after it was parked."
            )
        if job.outbox_id is not None:
            outbox.requeue_messages(conn, [job.outbox_id], now)
        elif job.task == "notices.deliver":
            notices.requeue_notice(conn, arguments.get("notice_id", 0), now)
        elif job.task not in COMMANDS:
            raise CannotRequeue(f"Dead job {number} needs the task {job.task}, which this version does not know.")
        else:
            request_id = str(arguments.get("request_id") or job.message_id or f"dead-{number}")
            if not submissions.resubmit_dead_submission(conn, job.task, arguments, request_id, now):
                raise CannotRequeue(f"Dead job {number} cannot be requeued: the SQL interface refuses its arguments.")
    return str(job.task)


def discard_instead_of_requeue(database: Database, number: int, reason: str) -> str:
    with database.transaction() as conn:
        job = _require("dead job", number, dead_jobs.get_dead_job(conn, number))
        if not dead_jobs.discard_job(conn, number, reason, database.clock.now(conn)):
            raise CannotRequeue(f"Dead job {number} was {'discarded' if job.discarded_at else 'requeued'} already.")
    return str(job.task)


def requeue_dead_letter(database: Database, number: int) -> str:
    """Submit a dead letter as the command it contains, with its own request id, and return its task.

    The row of the SQL interface commits together with the mark on the dead letter, so the command is taken once.
    Raises CannotRequeue.
    """
    with database.transaction() as conn:
        dead_letter = _require("dead letter", number, dead_letters.get_dead_letter(conn, number))
        now = database.clock.now(conn)
        task, message_id, arguments = _read_command_to_requeue(dead_letter)
        if not dead_letters.mark_dead_letter_requeued(conn, number, now):
            raise CannotRequeue(f"Dead letter {number} was requeued already.")
        request_id = str(arguments.get("request_id") or message_id)
        if not submissions.resubmit_dead_submission(conn, task, arguments, request_id, now):
            raise CannotRequeue(f"Dead letter {number} cannot be requeued: the SQL interface refuses its arguments.")
    return task


def _require(noun: str, number: int, row: Any) -> Any:
    if row is None:
        raise CannotRequeue(f"There is no {noun} {number}.")
    return row


def _read_command_to_requeue(dead_letter: Any) -> tuple[str, str, dict[str, Any]]:
    # Task, message id and arguments, from a complete message or from a body alone (all that Celery reveals).
    number = dead_letter.dead_letter_id
    if dead_letter.body_bytes > dead_letters.MAX_BODY_BYTES:
        raise CannotRequeue(f"Dead letter {number} was too long to be stored in full. Its sender must send it again.")
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
        body = json.loads(base64.b64decode(dead_letter.body))
        task, message_id = dead_letter.task_name, dead_letter.message_id
        if isinstance(body, dict):
            task, message_id = body["headers"]["task"], body["headers"]["id"]
            encoded = body["properties"].get("body_encoding") == "base64"
            body = json.loads(base64.b64decode(body["body"]) if encoded else body["body"])
        args, arguments, _ = body
        if task in COMMANDS and not args and isinstance(arguments, dict) and isinstance(message_id, str):
            return task, message_id, arguments
    raise CannotRequeue(f"Dead letter {number} is no command.")


def may_requeue_message(raw: bytes) -> bool:
    try:
        now = datetime.now(UTC)  # noqa: TID251 - as the transport compares
        validate_message(raw, queue_of("orders.cancel"), app.tasks, "requeued", now)
    except Rejected:
        return False
    except ValidButDelayed:
        pass
    return json.loads(raw)["headers"]["task"] in COMMANDS
