"""The `terms` commands: show and apply dated terms. Running cases keep the terms they were filed under."""

from __future__ import annotations

import getpass
import json
import re
import tomllib
import uuid
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import click

from models.db import database as db
from models.terms import load_terms
from policies.terms import DEFAULT_TERMS, terms_to_mapping
from policies.timestamps import format_timestamp, parse_timestamp
from workers.app import app
from workers.cli import data_option
from workers.cli.database import open_database
from workers.task import execute

NOW_MARGIN = timedelta(seconds=2)
"""Added to `--from now`, which must still be in the future when the task decides."""


@click.group()
def terms() -> None:
    """Show the terms, or apply new ones from a date on."""


@terms.command("show")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@data_option
def show_terms(as_json: bool) -> None:
    """Show the terms in force now, and those that start later."""
    with open_database() as database, database.transaction() as conn:
        now, terms_history = database.clock.now(conn), load_terms(conn)
    current = terms_to_mapping(terms_history.at(now))
    dated = [
        {
            "from": format_timestamp(entry.valid_from),
            "applied_by": entry.applied_by,
            "terms": terms_to_mapping(entry.terms),
        }
        for entry in terms_history
    ]
    if as_json:
        click.echo(json.dumps({"now": current, "dated": dated}, indent=2))
        return
    defaults = terms_to_mapping(DEFAULT_TERMS)
    for name, value in current.items():
        note = "" if value == defaults[name] else f"   (BrickLink: {_format_value(defaults[name])})"
        click.echo(f"{name:<26} {_format_value(value)}{note}")
    for entry in terms_history:
        if entry.valid_from > now:
            click.echo(f"New terms apply from {format_timestamp(entry.valid_from)}, set by {entry.applied_by}.")


@terms.command("apply")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--from",
    "start",
    required=True,
    metavar="DATE",
    help="2027-01-01 (midnight in the billing zone), a timestamp, or now.",
)
@click.option("--staff", default=None, help="Who applies them; default: your login name.")
@data_option
def apply_terms(file: Path, start: str, staff: str | None) -> None:
    """Apply the settings of FILE (TOML, names as in docs/rules.md) from a date on. What it does not name stays."""
    try:
        settings = tomllib.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # bad TOML, bad UTF-8, endless numbers, deeply nested lists
        raise click.ClickException(f"{file} cannot be read: {error}") from None
    with open_database() as database:
        with database.transaction() as conn:
            now = database.clock.now(conn)
            zone = load_terms(conn).at(now).zone
        valid_from = _parse_start(start, now, zone)
        db.set_database(database)
        answer = execute(
            app.tasks["terms.apply"],
            {"terms": settings, "from": format_timestamp(valid_from), "staff": staff or getpass.getuser()},
            f"terms-{uuid.uuid4()}",
        )
        db.set_database(None)
    if answer["outcome"] != "done":
        problems = [f"  {problem['path']}: {problem['message']}" for problem in answer["errors"]]
        raise click.ClickException("\n".join(["These terms cannot be applied.", *problems]))
    click.echo(f"From {answer['effects']['from']} on:")
    for name, value in answer["effects"]["changed"].items():
        click.echo(f"  {name} = {_format_value(value)}")
    if not answer["effects"]["changed"]:
        click.echo("  nothing changes: these terms are in force already")


def _parse_start(start: str, now: datetime, zone: object) -> datetime:
    if start == "now":
        return now + NOW_MARGIN
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", start) and isinstance(zone, ZoneInfo):
            return datetime.combine(date.fromisoformat(start), time(), zone).astimezone(UTC)
        return parse_timestamp(start)
    except (ValueError, OverflowError):
        raise click.ClickException("--from takes a date such as 2027-01-01, a timestamp, or now.") from None


def _format_value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
