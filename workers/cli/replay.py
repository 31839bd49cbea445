"""How is a written history played from the command line?  (contract 5)"""

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
from workers.cli.render import tell, tell_sweep
from workers.settings import normalize_postgres_url
from workers.simulation import replay as player
from workers.simulation.engine import Simulation


class WrongFile(click.ClickException):
    """What was given, not the playing of it, is what does not fit."""

    exit_code = 2


def instant(_context: click.Context, _option: click.Parameter, value: str | None) -> datetime | None:
    """An option that takes an instant."""
    try:
        return None if value is None else parse_timestamp(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--until", metavar="T", callback=instant, help="Let time pass up to this instant; later lines are left out."
)
@click.option("--answers", is_flag=True, help="One JSON object per line of input, and nothing else.")
@click.option("--database-url", metavar="URL", help="Play into this empty database and leave it ready for live work.")
@click.option("--allow-short", is_flag=True, help="Terms of seconds may be applied in it: for rehearsals.")
def replay(
    files: tuple[Path, ...], until: datetime | None, answers: bool, database_url: str | None, allow_short: bool
) -> None:
    """Play histories from FILES (one JSON object a line), each in a fresh throw-away database with a simulated clock.

    A line is {"at": "2026-03-28T10:00:00Z", "task": "orders.submit", "kwargs": {...}} or
    {"at": ..., "show": ["order", 1003]}.
    No sleeping, no broker, no mail; the same tasks and transactions as live. Exit 2: a file does not fit, nothing ran.
    """
    if database_url is not None and len(files) > 1:
        raise WrongFile("Into one database goes one file.")
    try:
        histories = [(path, player.read_history(path)) for path in files]
    except player.InvalidHistory as problem:
        raise WrongFile(str(problem)) from None
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),  # standard output is for answers
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    )
    with contextlib.ExitStack() as held:
        if database_url is None:
            simulations = held.enter_context(player.simulation_pool())
        for path, lines in histories:
            at = player.start_time(lines, until)
            with contextlib.ExitStack() as playing:
                if database_url is None:
                    simulation = playing.enter_context(simulations.fresh(at, allow_short=allow_short))
                else:
                    simulation = playing.enter_context(_theirs(database_url, at, allow_short))
                if not answers:
                    click.secho(path.name, bold=True)
                    simulation.on_sweep = tell_sweep
                for played in player.play(lines, simulation, until=until):
                    if answers:
                        click.echo(json.dumps(played.as_json()))
                    else:
                        tell(played)
                if database_url is not None:
                    _warn_of_the_future(simulation)


def _theirs(database_url: str, at: datetime, allow_short: bool) -> Simulation:
    try:
        return player.simulation_in_empty_database(normalize_postgres_url(database_url), at, allow_short=allow_short)
    except player.DatabaseNotEmpty as problem:
        raise click.ClickException(str(problem)) from None
    except ValueError as problem:
        raise WrongFile(f"--database-url: {problem}") from None


def _warn_of_the_future(simulation: Simulation) -> None:
    with simulation.database.transaction() as conn:
        present = db.DatabaseClock().now(conn)
    if simulation.clock.instant > present:
        click.echo(
            f"The history ends at {format_timestamp(simulation.clock.instant)}, which is still to come: live work on its orders is "
            "dated from there until then.",
            err=True,
        )
