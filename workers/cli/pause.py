"""The `pause` and `resume` commands. Pauses are rows in the database, because workers accept no remote control.

./run pause notices --until 2026-04-12T00:00:00Z --reason "the mail server moves"
./run pause
./run resume notices
"""

from __future__ import annotations

import json
from datetime import datetime

import click

from models import pauses
from policies.timestamps import format_timestamp
from schedules.routes import HEARTBEAT, QUEUES
from workers.app import app
from workers.cli.database import open_transaction
from workers.cli.options import zone_option
from workers.cli.terminal_text import echo
from workers.local.run_command import RUN_COMMAND
from workers.show_queries import TIME


@click.command()
@click.argument("name", required=False, metavar="[QUEUE|TASK]")
@click.option("--until", metavar="T", type=TIME, help="End the pause at this time, such as 2026-04-12T00:00:00Z.")
@click.option("--reason", default="", metavar="TEXT", help="Shown wherever the pause is shown.")
@click.option("--json", "as_json", is_flag=True, help="Without a name: print one JSON object a line.")
@zone_option
def pause(name: str | None, until: datetime | None, reason: str, as_json: bool) -> None:
    """Pause a queue or a task on all workers; without a name, list what is paused.

    Workers obey within about two seconds and finish the jobs they have started. Messages wait in the broker, rows stay
    due, and commands are still accepted; nothing is lost. Pauses survive restarts. Without --until, a pause lasts until
    `./run resume`.
    """
    if name is None:
        _list_pauses(as_json)
        return
    kind = _pausable_kind_of(name)
    if not reason.isprintable() or len(reason) > pauses.MAX_REASON_LENGTH:
        raise click.BadParameter(
            f"must be one line of at most {pauses.MAX_REASON_LENGTH} characters", param_hint="--reason"
        )
    with open_transaction() as (conn, now):
        if until is not None and until <= now:
            raise click.BadParameter("must be in the future", param_hint="--until")
        pauses.pause(conn, kind, name, now, until=until, reason=reason)
    end = f" until {format_timestamp(until)}" if until else ""
    echo(f"The {kind} {name} is paused{end}. {RUN_COMMAND} resume {name} ends it.")


@click.command()
@click.argument("name", metavar="QUEUE|TASK")
def resume(name: str) -> None:
    """Resume a paused queue or task: waiting messages are taken, the oldest first."""
    kind = _pausable_kind_of(name)
    with open_transaction() as (conn, now):
        if not pauses.resume(conn, kind, name, now):
            raise click.ClickException(f"The {kind} {name} is not paused.")
    echo(f"The {kind} {name} is resumed.")


def _list_pauses(as_json: bool) -> None:
    with open_transaction() as (conn, now):
        rows = pauses.list_pauses_in_effect(conn, now)
    for row in rows:
        since, until = format_timestamp(row.paused_at), row.until and format_timestamp(row.until)
        if as_json:
            fields = {"kind": row.kind, "name": row.name, "paused_at": since, "until": until, "reason": row.reason}
            click.echo(json.dumps(fields))
        else:
            end = f"until {until}" if until else "until it is resumed"
            echo(f"{row.kind} {row.name}  since {since} {end}{f': {row.reason}' if row.reason else ''}")
    if not rows and not as_json:
        echo("Nothing is paused.")


def _pausable_kind_of(name: str) -> str:
    # `queue` or `task`. Raises for unknown names and for queue heartbeats, which the watchdog needs.
    if name in QUEUES:
        return "queue"
    if name in app.tasks and not name.startswith("celery.") and name != HEARTBEAT:
        return "task"
    raise click.ClickException(
        f"There is no queue or task {name} that can be paused. The queues are {', '.join(QUEUES)}."
    )
