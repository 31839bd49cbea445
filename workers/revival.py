"""How is a job set going again that was given up?  By rows in one commit, so that it is either still dead or surely on its way.

A promise is due again, a letter is to be tried again, and a command goes in through the door for SQL with its own request id:
none of them rests on a message that a broker could lose (promises.md P1).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from models import dead_jobs, notices, outbox, submissions
from policies.verdicts import Promise
from schedules.routes import queue_of

if TYPE_CHECKING:
    from models.session import Database


class CannotRevive(Exception):
    """Why this one stays as it is; the text is for whoever asked."""


def set_going(database: Database, number: int) -> str:
    """Set one going again; gives its task.  Raises CannotRevive."""
    from workers.app import app
    from workers.job import command_of

    with database.transaction() as conn:
        job = dead_jobs.get(conn, number)
        if job is None:
            raise CannotRevive(f"There is no dead job {number}.")
        now = database.clock.now(conn)
        if not dead_jobs.replayed(conn, number, now):
            raise CannotRevive(f"Dead job {number} was set going again already.")
        arguments: dict[str, Any] = dict(job.arguments)
        if dead_jobs.payload_hash(arguments) != bytes(job.payload_hash):
            raise CannotRevive(f"Dead job {number} is not what was parked: somebody changed its arguments.")
        if job.outbox_id is not None:
            outbox.revive(conn, [job.outbox_id], now)
        elif job.task == "notices.deliver":
            notices.revive(conn, arguments.get("notice_id", 0), now)
            outbox.promise(conn, [Promise("notices.deliver", f"deliver-again:{number}", None)], now)
        elif job.task not in app.tasks or command_of(app.tasks[job.task]) is None:
            raise CannotRevive(f"Dead job {number} names {job.task}, which this version does not know.")
        else:
            request_id = str(arguments.get("request_id") or job.message_id or f"dead-{number}")
            if not submissions.again(conn, job.task, arguments, request_id, now):
                raise CannotRevive(f"Dead job {number} is no command that could be taken again as it is.")
    return str(job.task)


def tell_relay() -> None:
    """So that nobody waits for the next tick; without a broker that is all it takes."""
    from kombu.exceptions import OperationalError

    from workers.app import app

    with contextlib.suppress(OperationalError):
        app.send_task("outbox.relay", queue=queue_of("outbox.relay"), ignore_result=True)
