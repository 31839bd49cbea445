"""Which jobs were given up, how are they set going again, and which messages could nobody take?

./run jobs dead
./run jobs replay 17 18
./run jobs replay --task npb.file
./run jobs replay --all
./run jobs discard 19 --reason "the order was settled by phone"
./run jobs dead-letters
./run jobs dead-letters requeue
"""

from __future__ import annotations

import json

import click

from workers.cli import data_option
from workers.cli.database import open_database


@click.group()
@data_option
def jobs() -> None:
    """Jobs that were given up: look at them, set them going again or discard them. And messages that no task could take."""


@jobs.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--discarded", is_flag=True, help="Those that were discarded instead, each with its reason.")
def dead(as_json: bool, discarded: bool) -> None:
    """The jobs that wait for somebody, oldest first."""
    from models import dead_jobs
    from policies.timestamps import format_timestamp
    from workers.redaction import redact_arguments

    with open_database() as database, database.transaction() as conn:
        found = dead_jobs.list_discarded(conn) if discarded else dead_jobs.list_waiting(conn)
    for row in found:
        # Arguments may hold comments and addresses, so only ids and codes are shown (P9).
        about = redact_arguments(row.arguments)
        if as_json:
            told = {
                "id": row.dead_job_id,
                "task": row.task,
                "about": about,
                "reason": row.reason,
                "first_error": row.first_error,
                "error": row.error,
                "attempts": row.attempts,
            }
            if discarded:
                told |= {"discarded_at": format_timestamp(row.discarded_at), "discard_reason": row.discard_reason}
            click.echo(json.dumps(told | {"parked_at": format_timestamp(row.parked_at)}))
        else:
            click.echo(f"{row.dead_job_id:>6}  {format_timestamp(row.parked_at)}  {row.task}  {about}")
            click.echo(f"        {dead_jobs.REASONS[row.reason]}, tried {row.attempts} times: {row.error}")
            if row.first_error != row.error:
                click.echo(f"        at first: {row.first_error}")
            if discarded:
                click.echo(f"        discarded {format_timestamp(row.discarded_at)}: {row.discard_reason}")
    if not found and not as_json:
        click.echo("No job was discarded." if discarded else "No job was given up.")


@jobs.command()
@click.argument("numbers", type=int, nargs=-1, metavar="[ID]...")
@click.option("--task", metavar="NAME", help="All jobs of this task that wait.")
@click.option("--all", "everything", is_flag=True, help="All jobs that wait.")
def replay(numbers: tuple[int, ...], task: str | None, everything: bool) -> None:
    """Set jobs going again. They keep their request ids, so nothing happens twice."""
    if (bool(numbers), task is not None, everything).count(True) != 1:
        raise click.UsageError("Say which: ids, --task NAME or --all.")
    from models import dead_jobs
    from workers.requeue import CannotRequeue, requeue_dead_job, wake_relay

    with open_database() as database:
        if not numbers:
            with database.transaction() as conn:
                numbers = tuple(
                    job.dead_job_id for job in dead_jobs.list_waiting(conn) if task is None or job.task == task
                )
        trouble = []
        for number in numbers:  # each by itself: what cannot go keeps no other from going
            try:
                click.echo(f"{number:>6}  {requeue_dead_job(database, number)} is on its way again.")
            except CannotRequeue as problem:
                trouble.append(str(problem))
    if not numbers:
        click.echo("No job waits for that.")
    elif len(trouble) < len(numbers):
        wake_relay()
    if trouble:
        raise click.ClickException(" ".join(trouble))


@jobs.command()
@click.argument("numbers", type=int, nargs=-1, required=True, metavar="ID...")
@click.option("--reason", required=True, metavar="TEXT", help="Why it is not to be done; kept with the job.")
def discard(numbers: tuple[int, ...], reason: str) -> None:
    """Take jobs off the list that are not to be done. They stay on record: ./run jobs dead --discarded."""
    from models.dead_jobs import MAX_REASON_LENGTH
    from workers import requeue as revival

    if not reason.strip() or not reason.isprintable() or len(reason) > MAX_REASON_LENGTH:
        raise click.BadParameter(f"must be one line of 1 to {MAX_REASON_LENGTH} characters", param_hint="--reason")
    trouble = []
    with open_database() as database:
        for number in numbers:
            try:
                click.echo(f"{number:>6}  {revival.discard_dead_job(database, number, reason)} is discarded.")
            except revival.CannotRequeue as problem:
                trouble.append(str(problem))
    if trouble:
        raise click.ClickException(" ".join(trouble))


@jobs.group(name="dead-letters", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, metavar="N")
@click.pass_context
def dead_letters(context: click.Context, as_json: bool, limit: int) -> None:
    """Messages that name no task of ours or are none, newest first, and those in lists that nobody reads."""
    if context.invoked_subcommand is None:
        _list_dead_letters(as_json, limit)


@dead_letters.command()
@click.argument("numbers", type=int, nargs=-1, metavar="[ID]...")
def requeue(numbers: tuple[int, ...]) -> None:
    """Send commands on that went astray: those in lists that nobody reads, or with IDs those that were kept.

    From the lists they go into the queue of commands, one by one, oldest first; may be stopped and repeated at any time.
    What is no command of ours stays where it is. Kept ones are submitted by SQL, with their own request ids.
    """
    from workers import requeue as revival
    from workers.app import app
    from workers.transport import dead_letters as odd

    if not numbers:
        with app.connection_for_write() as connection:
            taken, left = odd.requeue_strays(
                connection.default_channel.client, revival.is_public_command, _tell_progress
            )
        click.echo(f"{taken} messages were moved to the queue commands; {left} are no commands and stay.")
        return
    trouble = []
    with open_database() as database:
        for number in numbers:
            try:
                click.echo(f"{number:>6}  {revival.requeue_dead_letter(database, number)} is submitted.")
            except revival.CannotRequeue as problem:
                trouble.append(str(problem))
    if trouble:
        raise click.ClickException(" ".join(trouble))


def _tell_progress(done: int, of: int) -> None:
    if done % 1000 == 0 or done == of:
        click.echo(f"{done} of {of}", err=True)


def _list_dead_letters(as_json: bool, limit: int) -> None:
    from models import dead_letters
    from policies.timestamps import format_timestamp
    from workers.app import app
    from workers.transport.dead_letters import find_strays

    with open_database() as database, database.transaction() as conn:
        kept = dead_letters.list_newest(conn, limit=limit)
    with app.connection_for_read() as connection:
        lying = find_strays(connection.default_channel.client)
    for row in kept:
        told = {
            "reason": row.reason,
            "detail": row.detail,
            "task": row.task_name,
            "message": row.message_id,
            "queue": row.queue,
        }
        came = format_timestamp(row.received_at)
        if as_json:
            if row.requeued_at is not None:
                told["requeued_at"] = format_timestamp(row.requeued_at)
            click.echo(json.dumps(told | {"id": row.dead_letter_id, "bytes": row.body_bytes, "came_at": came}))
        else:
            about = dead_letters.REASONS[row.reason] + (f": {row.detail}" if row.detail else "")
            click.echo(f"{row.dead_letter_id:>6}  {came}  {row.task_name or '?'}  {row.message_id or '?'}")
            click.echo(f"        it {about}; {row.body_bytes} bytes, from queue {row.queue or '?'}")
            if row.requeued_at is not None:
                click.echo(f"        requeued {format_timestamp(row.requeued_at)}")
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
        click.echo("There are no dead letters.")
