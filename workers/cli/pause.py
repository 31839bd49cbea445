"""Pause a queue or a task for all workers, and resume it; through the database, for workers obey no remote control.

./run pause notices --until 2026-04-12T00:00:00Z --reason "the mail server moves"
./run pause
./run resume notices
"""

from __future__ import annotations

import json
from datetime import datetime

import click

from workers.cli import data_option
from workers.cli.database import open_database


@click.command()
@click.argument("name", required=False, metavar="[QUEUE|TASK]")
@click.option(
    "--until", metavar="T", help="When it ends by itself, such as 2026-04-12T00:00:00Z; else when it is resumed."
)
@click.option("--reason", default="", metavar="TEXT", help="Shown wherever the pause is.")
@click.option("--json", "as_json", is_flag=True, help="Without a name: one JSON object a line.")
@data_option
def pause(name: str | None, until: str | None, reason: str, as_json: bool) -> None:
    """Have workers take nothing of a queue or a task; without a name, list what is paused.

    Workers obey within about two seconds and finish what they have in hand. Messages wait in the broker, rows stay due, and
    commands are still accepted; nothing is lost. Pauses outlive restarts.
    """
    from models import pauses

    if name is None:
        _list(as_json)
        return
    kind, ends = _kind_of(name), _instant(until)
    if not all(c.isprintable() for c in reason) or len(reason) > pauses.MAX_REASON_LENGTH:
        raise click.BadParameter(
            f"must be one line of at most {pauses.MAX_REASON_LENGTH} characters", param_hint="--reason"
        )
    with open_database() as database, database.transaction() as conn:
        now = database.clock.now(conn)
        if ends is not None and ends <= now:
            raise click.BadParameter("must be in the future", param_hint="--until")
        pauses.pause(conn, kind, name, now, until=ends, reason=reason)
    click.echo(f"The {kind} {name} is paused{f' until {until}' if until else ''}. ./run resume {name} ends it.")


@click.command()
@click.argument("name", metavar="QUEUE|TASK")
@data_option
def resume(name: str) -> None:
    """End a pause: what waited meanwhile is taken, the oldest first."""
    from models import pauses

    kind = _kind_of(name)
    with open_database() as database, database.transaction() as conn:
        ended = pauses.resume(conn, kind, name, database.clock.now(conn))
    if not ended:
        raise click.ClickException(f"The {kind} {name} is not paused.")
    click.echo(f"The {kind} {name} is resumed.")


def _list(as_json: bool) -> None:
    from models import pauses
    from policies.timestamps import format_timestamp

    with open_database() as database, database.transaction() as conn:
        rows = pauses.list_in_effect(conn, database.clock.now(conn))
    for row in rows:
        since, until = format_timestamp(row.paused_at), row.until and format_timestamp(row.until)
        if as_json:
            facts = {"kind": row.kind, "name": row.name, "paused_at": since, "until": until, "reason": row.reason}
            click.echo(json.dumps(facts))
        else:
            ends = f"until {until}" if until else "until it is resumed"
            click.echo(f"{row.kind} {row.name}  since {since} {ends}{f': {row.reason}' if row.reason else ''}")
    if not rows and not as_json:
        click.echo("Nothing is paused.")


def _kind_of(name: str) -> str:
    """`queue` or `task`.  Raises for anything else, and for canaries, by which a worker that takes nothing is found out."""
    from schedules.routes import HEARTBEAT_QUEUES, QUEUES
    from workers.app import app

    if name in QUEUES:
        return "queue"
    if name in app.tasks and not name.startswith("celery.") and name not in HEARTBEAT_QUEUES:
        return "task"
    raise click.ClickException(
        f"There is no queue or task {name} that can be paused. The queues are {', '.join(QUEUES)}."
    )


def _instant(text: str | None) -> datetime | None:
    from policies.timestamps import parse_timestamp

    if text is None:
        return None
    try:
        return parse_timestamp(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--until") from None
