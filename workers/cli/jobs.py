"""Which jobs were given up, how are they set going again, and which messages could nobody take?

./run jobs dead
./run jobs replay 17
./run jobs odd
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from workers.cli import data_option
from workers.cli.database import open_database

if TYPE_CHECKING:
    from models.session import Database


@click.group()
@data_option
def jobs() -> None:
    """Jobs that were given up: look at them, set them going again. And messages that no task could take."""


@jobs.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def dead(as_json: bool) -> None:
    """The jobs that wait for somebody, oldest first."""
    from models import dead_jobs
    from policies.instants import instant_text
    from workers.shown import shown_arguments

    with open_database() as database, database.transaction() as conn:
        found = dead_jobs.waiting(conn)
    for row in found:
        # Arguments may hold comments and addresses, so only ids and codes are shown (P9).
        about = shown_arguments(row.arguments)
        if as_json:
            told = {
                "id": row.dead_job_id,
                "task": row.task,
                "about": about,
                "error": row.error,
                "attempts": row.attempts,
            }
            click.echo(json.dumps(told | {"parked_at": instant_text(row.parked_at)}))
        else:
            click.echo(f"{row.dead_job_id:>6}  {instant_text(row.parked_at)}  {row.task}  {about}")
            click.echo(f"        {row.error} (tried {row.attempts} times)")
    if not found and not as_json:
        click.echo("No job was given up.")


@jobs.command()
@click.argument("number", type=int, metavar="ID")
def replay(number: int) -> None:
    """Set one going again. It keeps its request id, so nothing happens twice."""
    with open_database() as database:
        task = set_going(database, number)
    click.echo(f"{task} is on its way again.")


@jobs.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, metavar="N")
def odd(as_json: bool, limit: int) -> None:
    """Messages that name no task of ours or are none, newest first, and those in lists that nobody reads."""
    from models import odd_messages
    from policies.instants import instant_text
    from workers.app import app
    from workers.odd import strays

    with open_database() as database, database.transaction() as conn:
        kept = odd_messages.latest(conn, limit=limit)
    with app.connection_for_read() as connection:
        lying = strays(connection.default_channel.client)
    for row in kept:
        told = {
            "reason": row.reason,
            "detail": row.detail,
            "task": row.named,
            "message": row.message_id,
            "queue": row.queue,
        }
        came = instant_text(row.came_at)
        if as_json:
            click.echo(json.dumps(told | {"id": row.odd_message_id, "bytes": row.body_bytes, "came_at": came}))
        else:
            about = odd_messages.REASONS[row.reason] + (f": {row.detail}" if row.detail else "")
            click.echo(f"{row.odd_message_id:>6}  {came}  {row.named or '?'}  {row.message_id or '?'}")
            click.echo(f"        it {about}; {row.body_bytes} bytes, from queue {row.queue or '?'}")
    for stray in lying:
        if as_json:
            for task, message in stray.first:
                told = {"reason": "QUEUE_UNREAD", "task": task, "message": message, "queue": stray.queue}
                click.echo(json.dumps(told | {"of": stray.count}))
        else:
            click.echo(
                f"{stray.count} messages lie in the list {stray.queue!r}, which nobody reads: send to `commands`"
            )
            for task, message in stray.first:
                click.echo(f"        {task}  {message}")
    if not kept and not lying and not as_json:
        click.echo("There are no odd messages.")


def set_going(database: Database, number: int) -> str:
    """Revive a promise or send a command again; gives the task. Raises ClickException for what is not there."""
    from models import dead_jobs, outbox
    from schedules.routes import queue_of
    from workers.app import app
    from workers.job import command_of

    with database.transaction() as conn:
        job = dead_jobs.get(conn, number)
        if job is None:
            raise click.ClickException(f"There is no dead job {number}.")
        if job.replayed_at is not None:
            raise click.ClickException(f"Dead job {number} was set going again already.")
        now = database.clock.now(conn)
        dead_jobs.replayed(conn, number, now)
        if job.outbox_id is not None:
            outbox.revive(conn, [job.outbox_id], now)
    if job.outbox_id is not None:
        app.send_task("outbox.relay", queue=queue_of("outbox.relay"), ignore_result=True)
        return str(job.task)
    arguments: dict[str, Any] = dict(job.arguments)
    if job.task in app.tasks and command_of(app.tasks[job.task]) is not None and job.message_id:
        arguments.setdefault("request_id", job.message_id)
    app.send_task(job.task, kwargs=arguments, queue=queue_of(job.task), ignore_result=True)
    return str(job.task)
