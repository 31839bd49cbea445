"""The `keys` command: API keys of the HTTP interface.

./run keys create storefront --scope submit
./run keys list
./run keys revoke storefront
"""

from __future__ import annotations

import json
import secrets

import click
from rich.console import Console
from rich.table import Table

from models import api_keys
from models.db.row_mapping import map_row_to_json
from policies.texts import is_identifier
from policies.timestamps import describe_timestamp
from workers.cli.database import open_transaction
from workers.cli.options import json_lines_option
from workers.cli.terminal_text import echo_literally


@click.group()
def keys() -> None:
    """Create, list and revoke the API keys of the HTTP interface."""


@keys.command()
@click.argument("name")
@click.option(
    "--scope",
    type=click.Choice(api_keys.SCOPES),
    required=True,
    help="submit: send commands and read their answers; read: read everything; staff: both, and act as staff.",
)
def create(name: str, scope: str) -> None:
    """Create a key and print it, once: only its hash is stored."""
    if not is_identifier(name) or not 1 <= len(name) <= api_keys.MAX_NAME_LENGTH:
        raise click.BadParameter(
            f"must be one line of at most {api_keys.MAX_NAME_LENGTH} visible characters", param_hint="NAME"
        )
    key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    with open_transaction() as (conn, now):
        if not api_keys.insert_key(conn, name, scope, key_id, secret, now):
            raise click.ClickException(f"There is a key {name} already; revoked keys keep their names.")
    click.echo(f"{key_id}.{secret}")
    echo_literally("This key is shown only now. Send it as `Authorization: Bearer KEY`.", err=True)


@keys.command("list")
@json_lines_option
def list_api_keys_command(as_json: bool) -> None:
    """List the keys, with the last use of each to the minute."""
    table = Table("name", "scope", "created", "last used", "revoked")
    with open_transaction() as (conn, _):
        rows = api_keys.list_keys(conn)
    for row in rows:
        if as_json:
            click.echo(json.dumps(map_row_to_json(row)))
        times = (row.created_at, row.last_used_at, row.revoked_at)
        table.add_row(row.name, row.scope, *("" if at is None else describe_timestamp(at) for at in times))
    if not as_json:
        Console(highlight=False).print(table if table.rows else "There are no keys.", markup=False)


@keys.command()
@click.argument("name")
def revoke(name: str) -> None:
    """Revoke a key: it is refused within a second, and its name cannot be reused."""
    with open_transaction() as (conn, now):
        if not api_keys.revoke_key(conn, name, now):
            raise click.ClickException(f"There is no valid key {name}.")
    click.echo(f"The key {name} is revoked.")
