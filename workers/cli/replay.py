"""The `replay` command: play written histories through the simulation."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import click
import structlog

from models.db import database as db
from policies.timestamps import format_timestamp, parse_timestamp
from workers.cli.render import print_played, print_sweep, print_undone
from workers.cli.terminal_text import echo, zone_option
from workers.setting_types import normalize_postgres_url_setting
from workers.simulation import databases
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
@click.option("--strict", is_flag=True, help="Exit with 1 if an answer is not done.")
@click.option("--allow-invalid", is_flag=True, help="Play commands with unknown or missing arguments, too.")
@zone_option
def replay(
    files: tuple[Path, ...],
    until: datetime | None,
    answers: bool,
    database_url: str | None,
    allow_short: bool,
    strict: bool,
    allow_invalid: bool,
) -> None:
    """Play histories from FILES (one JSON object a line), each in a temporary database with a simulated clock.

    A line is {"at": "2026-03-28T10:00:00Z", "task": "orders.submit", "kwargs": {...}} or
    {"at": ..., "show": ["order", 1003]}.
    docs/histories.md has the format. No sleeping, no broker, no emails sent; the same tasks and transactions as live.
    Exit code 2: a file is invalid and nothing ran.
    """
    if database_url is not None and len(files) > 1:
        raise InvalidHistory("--database-url takes exactly one file.")
    histories = _read_histories(files, allow_invalid)
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),  # standard output is for answers
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    )
    all_done = True
    with _simulations(database_url, allow_short) as open_simulation:
        for path, lines in histories:
            with open_simulation(player.start_time(lines, until)) as simulation:
                if not answers:
                    click.secho(path.name, bold=True)
                    simulation.on_sweep = print_sweep
                undone = _play_history(lines, simulation, until, answers)
                all_done = all_done and not undone
                if undone and not answers:
                    print_undone(undone)
                if database_url is not None:
                    _warn_if_in_future(simulation)
    if strict and not all_done:
        raise click.exceptions.Exit(1)


def _read_histories(files: tuple[Path, ...], allow_invalid: bool) -> list[tuple[Path, list[player.HistoryLine]]]:
    try:
        histories = [(path, player.read_history(path)) for path in files]
        for path, lines in histories if not allow_invalid else ():
            player.check_arguments(lines, str(path))
    except player.InvalidHistory as problem:
        raise InvalidHistory(str(problem)) from None
    return histories


@contextlib.contextmanager
def _simulations(
    database_url: str | None, allow_short: bool
) -> Iterator[Callable[[datetime], contextlib.AbstractContextManager[Simulation]]]:
    if database_url is not None:
        yield lambda at: _open_simulation(database_url, at, allow_short)
        return
    with databases.simulation_pool() as pool:
        yield lambda at: pool.fresh(at, allow_short=allow_short)


def _play_history(
    lines: list[player.HistoryLine], simulation: Simulation, until: datetime | None, answers: bool
) -> list[player.PlayedLine]:
    # Print each line and return those that were not done.
    undone = []
    for played in player.play(lines, simulation, until=until):
        if answers:
            click.echo(json.dumps(played.as_json()))
        else:
            print_played(played)
        if not played.done:
            undone.append(played)
    return undone


def _open_simulation(database_url: str, at: datetime, allow_short: bool) -> Simulation:
    try:
        return databases.simulation_in_empty_database(
            normalize_postgres_url_setting(database_url), at, allow_short=allow_short
        )
    except databases.DatabaseNotEmpty as problem:
        raise click.ClickException(str(problem)) from None
    except ValueError as problem:
        raise InvalidHistory(f"--database-url: {problem}") from None


def _warn_if_in_future(simulation: Simulation) -> None:
    with simulation.database.transaction() as conn:
        present = db.DatabaseClock().now(conn)
    if simulation.clock.instant > present:
        echo(
            f"The history ends in the future, at {format_timestamp(simulation.clock.instant)}: "
            "until then, live work on its orders is dated from that time.",
            err=True,
        )
