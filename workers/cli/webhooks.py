"""The `webhooks` command: endpoints that receive the events of the feed.

./run webhooks add https://shop.example/unwind --events "orders.cancelled,npb.*"
./run webhooks list
./run webhooks replay 1 --after 812.1.4711
./run webhooks remove 1
"""

from __future__ import annotations

import base64
import json
import re
import secrets

import click

from models import webhooks as model
from policies.timestamps import format_for_people, format_optional_timestamp
from workers.cli.database import open_transaction
from workers.cli.options import check_cursor_option, json_lines_option
from workers.cli.terminal_text import echo_literally


@click.group()
def webhooks() -> None:
    """Send the events of the feed to endpoints, signed and in order."""


@webhooks.command()
@click.argument("url")
@click.option("--events", default="*", show_default=True, metavar="TYPES", help="Types, such as orders.cancelled,npb.*")
def add(url: str, events: str) -> None:
    """Add an endpoint for all future events, and print the secret of its signatures, once."""
    types = [word.strip() for word in events.split(",")]
    if not all(re.fullmatch(r"[a-z_.]{1,64}\*?|\*", word) for word in types):
        raise click.BadParameter("must be types such as orders.cancelled, npb.* or *", param_hint="--events")
    try:
        model.check_webhook_url(url)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="URL") from None
    secret = f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
    with open_transaction() as (conn, now):
        webhook_id = model.add_webhook(conn, url, secret, types, now)
    click.echo(secret)
    echo_literally(f"Webhook {webhook_id}. This secret is shown only now (https://www.standardwebhooks.com).", err=True)


@webhooks.command("list")
@json_lines_option
def list_webhooks_command(as_json: bool) -> None:
    """List the endpoints, each with its cursor and its last error."""
    with open_transaction() as (conn, _):
        rows = model.list_webhooks(conn)
    for row in rows:
        if as_json:
            facts = {"id": row.webhook_id, "url": row.url, "events": row.event_types.split(","), "cursor": row.cursor}
            facts |= {"delivered": row.delivered, "failures": row.failures, "last_error": row.last_error}
            times = ("delivered_at", "failing_since", "next_try_at", "disabled_at")
            click.echo(json.dumps(facts | {name: format_optional_timestamp(getattr(row, name)) for name in times}))
            continue
        click.echo(f"{row.webhook_id:>4}  {row.url}  {row.event_types}")
        last = f", last {format_for_people(row.delivered_at)}" if row.delivered_at else ""
        click.echo(f"      {row.delivered} delivered{last}; at cursor {row.cursor}")
        if row.disabled_at is not None:
            click.echo(f"      disabled {format_for_people(row.disabled_at)}: {row.last_error}")
        elif row.failing_since is not None:
            since, again = format_for_people(row.failing_since), format_for_people(row.next_try_at)
            click.echo(f"      failing since {since}: {row.last_error}; again {again}")
    if not rows and not as_json:
        click.echo("There are no webhooks.")


@webhooks.command()
@click.argument("webhook_id", type=click.IntRange(1, 2**62), metavar="ID")
@click.option(
    "--after",
    "cursor",
    metavar="CURSOR",
    callback=check_cursor_option,
    help="Send again everything after this cursor.",
)
def replay(webhook_id: int, cursor: str | None) -> None:
    """Send again from a cursor on; without one, continue a disabled endpoint where it stopped."""
    with open_transaction() as (conn, now):
        if not model.replay_webhook(conn, webhook_id, cursor, now):
            raise click.ClickException(f"There is no webhook {webhook_id}.")
    click.echo(f"Webhook {webhook_id} continues after {cursor or 'its own cursor'}.")


@webhooks.command()
@click.argument("webhook_id", type=click.IntRange(1, 2**62), metavar="ID")
def remove(webhook_id: int) -> None:
    """Remove an endpoint."""
    with open_transaction() as (conn, now):
        if not model.remove_webhook(conn, webhook_id, now):
            raise click.ClickException(f"There is no webhook {webhook_id}.")
    click.echo(f"Webhook {webhook_id} is removed.")
