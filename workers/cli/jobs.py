"""The `jobs` commands: list, replay and discard dead jobs; list and requeue dead letters.

./run jobs dead
./run jobs replay 17 18
./run jobs replay --task npb.file
./run jobs replay --all
./run jobs discard 19 --reason "the order was settled by phone"
./run jobs dead-letters
./run jobs dead-letters requeue
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import click
from kombu.exceptions import OperationalError

from models import dead_jobs
from models import dead_letters as dead_letter_rows
from models.db.row_mapping import map_row_to_json
from policies.texts import pluralize
from policies.timestamps import format_timestamp
from workers import requeue as requeuing
from workers.app import app
from workers.broker.wakeups import send_internal_task
from workers.cli.database import open_database, open_transaction
from workers.cli.options import json_lines_option, zone_option
from workers.cli.terminal_text import echo
from workers.redaction import redact_arguments
from workers.transport import unread_lists


@click.group()
def jobs() -> None:
    """List jobs that failed for good, replay or discard them. List messages that no task could take."""


@jobs.command()
@json_lines_option
@click.option("--discarded", is_flag=True, help="List the discarded ones instead, each with its reason.")
@zone_option
def dead(as_json: bool, discarded: bool) -> None:
    """List the jobs that wait for a decision, oldest first."""
    with open_transaction() as (conn, _):
        rows = dead_jobs.list_discarded_jobs(conn) if discarded else dead_jobs.list_waiting_jobs(conn)
    for row in rows:
        # Arguments may contain comments and addresses, so only ids and codes are shown.
        arguments, facts = redact_arguments(row.arguments), map_row_to_json(row)
        if as_json:
            names = ["parked_at", "task", "reason", "first_error", "error", "attempts"]
            names += ["discarded_at", "discard_reason"] if discarded else []
            fields = {"id": row.dead_job_id, "about": arguments} | {name: facts[name] for name in names}
            click.echo(json.dumps(fields))
            continue
        attempts = "once" if row.attempts == 1 else f"{row.attempts} times"
        echo(f"{row.dead_job_id:>6}  {format_timestamp(row.parked_at)}  {row.task}  {arguments}")
        echo(f"        {dead_jobs.DEAD_JOB_REASONS[row.reason]}, tried {attempts}: {row.error}")
        if row.first_error != row.error:
            echo(f"        at first: {row.first_error}")
        if discarded:
            echo(f"        discarded {facts['discarded_at']}: {row.discard_reason}")
    if not rows and not as_json:
        echo("There are no discarded jobs." if discarded else "There are no dead jobs.")


@jobs.command()
@click.argument("ids", type=int, nargs=-1, metavar="[ID]...")
@click.option("--task", metavar="NAME", help="Replay all dead jobs of this task.")
@click.option("--all", "replay_all", is_flag=True, help="Replay all dead jobs.")
def replay(ids: tuple[int, ...], task: str | None, replay_all: bool) -> None:
    """Replay dead jobs. They keep their request ids, so nothing happens twice."""
    if (bool(ids), task is not None, replay_all).count(True) != 1:
        raise click.UsageError("Name the jobs: ids, --task NAME or --all.")
    with open_database() as database:
        if not ids:
            with database.transaction() as conn:
                waiting = dead_jobs.list_waiting_jobs(conn)
            ids = tuple(job.dead_job_id for job in waiting if task is None or job.task == task)
        if not ids:
            echo("There are no such dead jobs.")
        _for_each_job(ids, lambda id_: f"{requeuing.requeue_dead_job(database, id_)} is requeued.", wake_relay=True)


@jobs.command()
@click.argument("ids", type=int, nargs=-1, required=True, metavar="ID...")
@click.option("--reason", required=True, metavar="TEXT", help="Why it must not be done; stored with the job.")
def discard(ids: tuple[int, ...], reason: str) -> None:
    """Discard jobs that must not be done. They stay on record: ./run jobs dead --discarded."""
    if not reason.strip() or not reason.isprintable() or len(reason) > dead_jobs.MAX_REASON_LENGTH:
        raise click.BadParameter(
            f"must be one line of 1 to {dead_jobs.MAX_REASON_LENGTH} characters", param_hint="--reason"
        )
    with open_database() as database:
        _for_each_job(ids, lambda n: f"{requeuing.discard_instead_of_requeue(database, n, reason)} is discarded.")


@jobs.group(name="dead-letters", invoke_without_command=True)
@json_lines_option
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, metavar="N")
@zone_option
@click.pass_context
def dead_letters(context: click.Context, as_json: bool, limit: int) -> None:
    """List messages that are malformed or name an unknown task, newest first, and those in lists without a consumer."""
    if context.invoked_subcommand is not None:
        return
    with open_transaction() as (conn, _):
        rows = dead_letter_rows.list_newest_dead_letters(conn, limit=limit)
    with app.connection_for_read() as connection:
        unread = unread_lists.find_unread_lists(connection.default_channel.client)
    if as_json:
        _print_dead_letters_as_json(rows, unread)
        return
    for row in rows:
        reason = dead_letter_rows.DEAD_LETTER_ROW_REASONS[row.reason] + (f": {row.detail}" if row.detail else "")
        received_at = format_timestamp(row.received_at)
        echo(f"{row.dead_letter_id:>6}  {received_at}  {row.task_name or '?'}  {row.message_id or '?'}")
        echo(f"        it {reason}; {row.body_bytes} bytes, from queue {row.queue or '?'}")
        if row.requeued_at:
            echo(f"        requeued {format_timestamp(row.requeued_at)}")
    for messages in unread:
        waiting = pluralize(messages.count, "message waits", "messages wait")
        echo(f"{waiting} in the list {messages.queue!r}, which has no consumer: send to `commands` instead")
        for task, message in messages.oldest:
            echo(f"        {task}  {message}")
    if not rows and not unread:
        echo("There are no dead letters.")


def _print_dead_letters_as_json(rows: Sequence[Any], unread: Sequence[unread_lists.UnreadList]) -> None:
    for row in rows:
        fields = {"id": row.dead_letter_id, "reason": row.reason, "detail": row.detail, "task": row.task_name}
        fields |= {"message": row.message_id, "queue": row.queue, "bytes": row.body_bytes}
        times = {"came_at": row.received_at, "requeued_at": row.requeued_at}
        click.echo(json.dumps(fields | {name: format_timestamp(at) for name, at in times.items() if at}))
    for messages in unread:
        for task, message in messages.oldest:
            fields = {"reason": "QUEUE_UNREAD", "task": task, "message": message, "queue": messages.queue}
            click.echo(json.dumps(fields | {"of": messages.count}))


@dead_letters.command("requeue")
@click.argument("ids", type=int, nargs=-1, metavar="[ID]...")
def jobs_requeue(ids: tuple[int, ...]) -> None:
    """Requeue commands that went astray: those in lists without a consumer, or with IDs recorded dead letters.

    Messages in lists move to the queue `commands` one by one, oldest first; safe to interrupt and to repeat. What is
    not a command stays where it is. Recorded ones are submitted by SQL, with their own request ids.
    """
    if ids:
        with open_database() as database:
            _for_each_job(ids, lambda number: f"{requeuing.requeue_dead_letter(database, number)} is submitted.")
        return
    with app.connection_for_write() as connection:
        moved, left = unread_lists.requeue_unread_commands(
            connection.default_channel.client, requeuing.may_requeue_message, _print_job_progress
        )
    stay = pluralize(left, "is not a command and stays", "are not commands and stay")
    echo(f"{pluralize(moved, 'message was', 'messages were')} moved to the queue commands; {stay}.")


def _for_each_job(ids: Sequence[int], act: Callable[[int], str], *, wake_relay: bool = False) -> None:
    # Each in a transaction of its own: a failure does not stop the others.
    problems = []
    for number in ids:
        try:
            echo(f"{number:>6}  {act(number)}")
        except requeuing.CannotRequeue as problem:
            problems.append(str(problem))
    if wake_relay and len(problems) < len(ids):
        with contextlib.suppress(OperationalError):  # without a broker, the timetable's tick does it
            send_internal_task(app, "outbox.relay")
    if problems:
        raise click.ClickException(" ".join(problems))


def _print_job_progress(done: int, total: int) -> None:
    if done % 1000 == 0 or done == total:
        click.echo(f"{done} of {total}", err=True)
