"""The `replay` command: play written histories through the simulation."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from datetime import datetime
from pathlib import Path

import click
import structlog

from models.db import database as db
from policies.timestamps import format_timestamp, parse_timestamp
from workers.cli.render import print_played, print_sweep
from workers.settings import normalize_postgres_url
from workers.simulation import replay as player
from workers.simulation.engine import Simulation


class InvalidHistory(click.ClickException):
    exit_code = 2


def _parse_instant(_context: click.Context, _option: click.Parameter, value: str | None) -> datetime | None:
    try:
        return None if value is None else parse_timestamp(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--until", metavar="T", callback=_parse_instant, help="Advance the clock to this time; skip later lines.")
@click.option("--answers", is_flag=True, help="Print one JSON object per line of input, and nothing else.")
@click.option("--database-url", metavar="URL", help="Play into this empty database and leave it ready for live work.")
@click.option("--allow-short", is_flag=True, help="Allow terms of a few seconds, for rehearsals.")
def replay(
    files: tuple[Path, ...], until: datetime | None, answers: bool, database_url: str | None, allow_short: bool
) -> None:
    """Play histories from FILES (one JSON object a line), each in a temporary database with a simulated clock.

    A line is {"at": "2026-03-28T10:00:00Z", "task": "orders.submit", "kwargs": {...}} or
    {"at": ..., "show": ["order", 1003]}.
    No sleeping, no broker, no emails sent; the same tasks and transactions as live. Exit code 2: a file is invalid and
    nothing ran.
    """
    if database_url is not None and len(files) > 1:
        raise InvalidHistory("--database-url takes exactly one file.")
    try:
        histories = [(path, player.read_history(path)) for path in files]
    except player.InvalidHistory as problem:
        raise InvalidHistory(str(problem)) from None
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),  # standard output is for answers
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    )
    with contextlib.ExitStack() as stack:
        if database_url is None:
            pool = stack.enter_context(player.simulation_pool())
        for path, lines in histories:
            at = player.start_time(lines, until)
            with contextlib.ExitStack() as simulation_stack:
                if database_url is None:
                    simulation = simulation_stack.enter_context(pool.fresh(at, allow_short=allow_short))
                else:
                    simulation = simulation_stack.enter_context(_open_simulation(database_url, at, allow_short))
                if not answers:
                    click.secho(path.name, bold=True)
                    simulation.on_sweep = print_sweep
                for played in player.play(lines, simulation, until=until):
                    if answers:
                        click.echo(json.dumps(played.as_json()))
                    else:
                        print_played(played)
                if database_url is not None:
                    _warn_if_in_future(simulation)


def _open_simulation(database_url: str, at: datetime, allow_short: bool) -> Simulation:
    try:
        return player.simulation_in_empty_database(normalize_postgres_url(database_url), at, allow_short=allow_short)
    except player.DatabaseNotEmpty as problem:
        raise click.ClickException(str(problem)) from None
    except ValueError as problem:
        raise InvalidHistory(f"--database-url: {problem}") from None


def _warn_if_in_future(simulation: Simulation) -> None:
    with simulation.database.transaction() as conn:
        present = db.DatabaseClock().now(conn)
    if simulation.clock.instant > present:
        click.echo(
            f"The history ends in the future, at {format_timestamp(simulation.clock.instant)}: "
            "until then, live work on its orders is dated from that time.",
            err=True,
        )
