"""How does an operator see and change the terms?  Dated; running cases keep those they were filed under."""

from __future__ import annotations

import getpass
import json
import re
import tomllib
import uuid
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import click

from workers.cli import data_option
from workers.cli.database import open_database

A_MOMENT = timedelta(seconds=2)
"""`--from now` must still lie ahead when the database decides."""


@click.group()
def terms() -> None:
    """Show the terms, or apply others from a date on."""


@terms.command("show")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@data_option
def show_terms(as_json: bool) -> None:
    """Show the terms in force now, and those that are to come."""
    from models.terms import load_terms
    from policies.terms import DEFAULT_TERMS, terms_to_mapping
    from policies.timestamps import format_timestamp

    with open_database() as database, database.transaction() as conn:
        now, held = database.clock.now(conn), load_terms(conn)
    current = terms_to_mapping(held.at(now))
    dated = [
        {"from": format_timestamp(one.valid_from), "applied_by": one.applied_by, "terms": terms_to_mapping(one.terms)}
        for one in held
    ]
    if as_json:
        click.echo(json.dumps({"now": current, "dated": dated}, indent=2))
        return
    usual = terms_to_mapping(DEFAULT_TERMS)
    for name, value in current.items():
        mark = "" if value == usual[name] else f"   (BrickLink: {_written(usual[name])})"
        click.echo(f"{name:<26} {_written(value)}{mark}")
    for one in held:
        if one.valid_from > now:
            click.echo(f"From {format_timestamp(one.valid_from)} others hold, applied by {one.applied_by}.")


@terms.command("apply")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--from", "start", required=True, metavar="DATE", help="2027-01-01 (billing zone), an instant, or now.")
@click.option("--staff", default=None, help="Who applies them; default: the name of the login.")
@data_option
def apply_terms(file: Path, start: str, staff: str | None) -> None:
    """Apply the settings of FILE (TOML, names as in the rule book) from a date on. What it does not name stays."""
    try:
        settings = tomllib.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # bad TOML, bad UTF-8, numbers without end, lists in lists in lists
        raise click.ClickException(f"{file} cannot be read: {error}") from None
    from models.db import database as db
    from models.terms import load_terms
    from policies.timestamps import format_timestamp
    from workers.app import app
    from workers.task import execute

    with open_database() as database:
        with database.transaction() as conn:
            now = database.clock.now(conn)
            zone = load_terms(conn).at(now).zone
        since = _instant(start, now, zone)
        db.set_database(database)
        answer = execute(
            app.tasks["terms.apply"],
            {"terms": settings, "from": format_timestamp(since), "staff": staff or getpass.getuser()},
            f"terms-{uuid.uuid4()}",
        )
        db.set_database(None)
    if answer["outcome"] != "done":
        problems = [f"  {problem['path']}: {problem['message']}" for problem in answer["errors"]]
        raise click.ClickException("\n".join(["These terms cannot be applied.", *problems]))
    click.echo(f"From {answer['effects']['from']} on:")
    for name, value in answer["effects"]["changed"].items():
        click.echo(f"  {name} = {_written(value)}")
    if not answer["effects"]["changed"]:
        click.echo("  nothing changes: they are in force already")


def _instant(start: str, now: datetime, zone: object) -> datetime:
    from zoneinfo import ZoneInfo

    from policies.timestamps import parse_timestamp

    if start == "now":
        return now + A_MOMENT
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", start) and isinstance(zone, ZoneInfo):
            return datetime.combine(date.fromisoformat(start), time(), zone).astimezone(UTC)
        return parse_timestamp(start)
    except (ValueError, OverflowError):
        raise click.ClickException("--from takes a date such as 2027-01-01, an instant, or now.") from None


def _written(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
