"""The `replay` command: play written histories through the simulation."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click
import structlog
from rich.text import Text

from models.db import database as db
from policies.texts import pluralize
from policies.timestamps import format_timestamp
from workers import show_queries
from workers.cli.options import zone_option
from workers.cli.show import describe_answer, describe_answer_errors, print_result, shorten_answer_value
from workers.cli.terminal_text import PeopleConsole, echo, escape_for_terminal
from workers.setting_types import normalize_postgres_url_setting
from workers.simulation import replay as player
from workers.simulation.engine import Simulation, simulation_in_empty_database, simulation_pool


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--until", metavar="T", type=show_queries.TIME, help="Advance the clock to this time; skip later lines.")
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
        raise player.InvalidHistory("--database-url takes exactly one file.")
    histories = [(path, player.read_history(path)) for path in files]
    for path, lines in histories if not allow_invalid else ():
        player.check_history_arguments(lines, str(path))
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),  # standard output is for answers
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    )
    all_done = True
    with contextlib.ExitStack() as servers:
        open_simulation: Callable[..., contextlib.AbstractContextManager[Simulation]] = (
            servers.enter_context(simulation_pool()).fresh
            if database_url is None
            else partial(simulation_in_empty_database, _normalize_database_url(database_url))
        )
        for path, lines in histories:
            start = lines[0].at if lines else until or datetime(2026, 1, 1, tzinfo=UTC)
            with open_simulation(start, allow_short=allow_short) as simulation:
                if not answers:
                    click.secho(path.name, bold=True)
                    simulation.on_sweep = _print_replayed_sweep
                undone = []
                for played in player.play(lines, simulation, until=until):
                    _print_played_line(played, as_json=answers)
                    if played.show is None and played.result["outcome"] != "done":
                        undone.append(played)
                all_done = all_done and not undone
                if undone and not answers:
                    _print_undone_lines(undone)
                if database_url is not None:
                    _warn_if_in_future(simulation)
    if strict and not all_done:
        raise click.exceptions.Exit(1)


def _print_played_line(line: player.HistoryLine, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(line.as_json()))
        return
    arguments, result = line.arguments, escape_for_terminal(line.result)
    words = ["show", *map(str, line.show)] if line.show is not None else [line.task]
    names = ("order_id", "removal_id", "draft_id", "seller_id", "member_id", "buyer_id", "staff", "status")
    words += [f"{name}={arguments[name]}" for name in names if isinstance(arguments.get(name), str | int)]
    console = PeopleConsole()
    console.write(Text.assemble((format_timestamp(line.at), "dim"), "  ", escape_for_terminal(" ".join(words))))
    if line.show is None:
        style = {"done": "green", "refused": "yellow"}.get(result["outcome"], "red")
        console.write(Text("    " + describe_answer(result), style=style))
    elif result is None:
        console.write("    Not found.")
    else:
        print_result(str(line.show[0]), result)


def _print_undone_lines(undone: list[player.HistoryLine]) -> None:
    console = PeopleConsole()
    console.write(Text(f"{pluralize(len(undone), 'answer is', 'answers are')} not done:", style="bold"))
    for played in undone:
        answer = escape_for_terminal(played.result)
        why = describe_answer_errors(answer) if answer["outcome"] == "invalid" else answer["message"]
        was = {"refused": "was refused", "invalid": "was invalid"}.get(answer["outcome"], "was a conflict")
        console.write(f"  line {played.number} {was}: {why}")


def _print_replayed_sweep(instant: datetime, sweep: str, effects: dict[str, Any]) -> None:
    counts = {name: count for name, count in effects.items() if count}
    if counts:
        text = ", ".join(f"{name}: {shorten_answer_value(count)}" for name, count in counts.items())
        PeopleConsole().write(Text.assemble((format_timestamp(instant), "dim"), f"  {sweep}\n    {text}"))


def _normalize_database_url(url: str) -> str:
    try:
        return normalize_postgres_url_setting(url)
    except ValueError as problem:
        raise player.InvalidHistory(f"--database-url: {problem}") from None


def _warn_if_in_future(simulation: Simulation) -> None:
    with simulation.database.transaction() as conn:
        present = db.DatabaseClock().now(conn)
    if simulation.clock.instant > present:
        echo(
            f"The history ends in the future, at {format_timestamp(simulation.clock.instant)}: "
            "until then, live work on its orders is dated from that time.",
            err=True,
        )
