"""The `terms` commands: show and apply dated terms. Running cases keep the terms they were filed under."""

from __future__ import annotations

import getpass
import json
import textwrap
import tomllib
import uuid
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import click

from models.db import database as db
from models.terms import load_terms
from policies.term_parsing import format_term, terms_to_mapping
from policies.terms import DEFAULT_TERMS, TERM_INFO
from policies.timestamps import format_timestamp, parse_day_or_time
from workers.app import app
from workers.cli.database import open_database, open_transaction
from workers.cli.options import json_option, zone_option
from workers.cli.terminal_text import echo


@click.group()
def terms() -> None:
    """Show the terms, or apply new ones with effect from a date."""


@terms.command("show")
@json_option
@zone_option
def show_terms(as_json: bool) -> None:
    """Show the terms in force now, and those that start later."""
    with open_transaction() as (conn, now):
        terms_history = load_terms(conn)
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
        note = "" if value == defaults[name] else f"   (BrickLink: {format_term(defaults[name])})"
        echo(f"{name:<26} {format_term(value)}{note}")
        echo(_terms_help_text(name))
    for entry in terms_history:
        if entry.valid_from > now:
            echo(f"New terms apply from {format_timestamp(entry.valid_from)}, set by {entry.applied_by}.")


class _TermsApplyCommand(click.Command):
    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        with formatter.section("Settings"):
            for name, default in terms_to_mapping(DEFAULT_TERMS).items():
                formatter.write(f"  {name} (default {format_term(default)})\n")
                formatter.write(f"{_terms_help_text(name)}\n")


@terms.command("apply", cls=_TermsApplyCommand)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--from",
    "start",
    required=True,
    metavar="DATE",
    help="2027-01-01 (midnight in the billing zone), a timestamp, or now.",
)
@click.option("--staff", default=None, help="Who applies them; default: your login name.")
@zone_option
def apply_terms(file: Path, start: str, staff: str | None) -> None:
    """Apply the settings of FILE (TOML; listed below and in docs/terms.md) from a date. Others stay."""
    settings = read_terms_file(file)
    with open_database() as database:
        with database.transaction() as conn:
            now = database.clock.now(conn)
            zone = load_terms(conn).at(now).zone
        valid_from = (
            now + timedelta(seconds=2)  # it must still be in the future when the task decides
            if start == "now"
            else parse_start(start, zone, "--from", "a date such as 2027-01-01, a timestamp, or now")
        )
        db.set_database(database)
        answer = app.tasks["terms.apply"].validate_and_run(
            {"terms": settings, "from": format_timestamp(valid_from), "staff": staff or getpass.getuser()},
            f"terms-{uuid.uuid4()}",
        )
    if answer["outcome"] != "done":
        problems = [f"  {problem['path']}: {problem['message']}" for problem in answer["errors"]]
        raise click.ClickException("\n".join(["These terms cannot be applied.", *problems]))
    echo(f"From {format_timestamp(valid_from)} on:")
    for name, value in answer["effects"]["changed"].items():
        echo(f"  {name} = {format_term(value)}")
    if not answer["effects"]["changed"]:
        echo("  nothing changes: these terms are in force already")


def read_terms_file(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # bad TOML, bad UTF-8, endless numbers, deeply nested lists
        raise click.ClickException(f"{file} cannot be read: {error}") from None


def parse_start(
    written: str, zone: tzinfo, option: str, allowed: str = "a date such as 2027-01-01, or a timestamp"
) -> datetime:
    try:
        return parse_day_or_time(written, zone)
    except (ValueError, OverflowError):
        raise click.BadParameter(f"takes {allowed}", param_hint=option) from None


def _terms_help_text(name: str) -> str:
    info = TERM_INFO[name]
    return textwrap.indent(
        textwrap.fill(f"{info.about} {info.unit[:1].upper()}{info.unit[1:]}; {info.allowed}.", 76), "    "
    )
