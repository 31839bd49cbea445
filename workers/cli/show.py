"""The commands that read: `show`, `explain`, `forecast` and `credits`, for people or as JSON."""

from __future__ import annotations

import json
from typing import Any

import click

from models.queries import show as queries
from models.queries.forecast import DEFAULT_DAYS
from policies.timestamps import format_timestamp
from workers.cli import data_option
from workers.cli.bill_page import render_html as render_bill_page
from workers.cli.database import open_database
from workers.cli.lots import print_lots, print_lots_as_json, print_lots_as_xml
from workers.cli.render import print_result

QUERY_ARGUMENTS = {"ignore_unknown_options": True}
"""Options such as `--at` belong to the query and are parsed with it."""


class NotFound(click.ClickException):
    pass


class InvalidArguments(click.ClickException):
    exit_code = 2


@click.command(context_settings=QUERY_ARGUMENTS)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--xml", "as_xml", is_flag=True, help="Lots only: BrickLink's inventory XML.")
@click.option("--returned", is_flag=True, help="With --xml: only the units that came back.")
@click.option("--html", "as_html", is_flag=True, help="Bills only: a page that can be sent to the seller.")
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED)
@data_option
def show(as_json: bool, as_xml: bool, returned: bool, as_html: bool, words: tuple[str, ...]) -> None:
    """Show something as it is now; an order with --at T as it was at any time.

    \b
      show order ID [--at T]            show lots SELLER [--xml [--returned]]
      show bill SELLER 2026-03 [--html] show member ID
      show notices --order ID           show alerts --due-before T
      show request REQUEST_ID           show sweeps
      show credits SELLER               show forecast --days N
      show late-payments
    """
    if as_html and (words[0] != "bill" or as_json or as_xml):
        raise InvalidArguments("--html is for bills: show bill SELLER 2026-03 --html.")
    if not as_xml and not returned:
        _run_query(words, as_json, as_html=as_html)
        return
    if len(words) != 2 or words[0] != "lots" or not as_xml or as_json:
        raise InvalidArguments("--xml is for lots: show lots SELLER --xml [--returned].")
    print_lots_as_xml(words[1], returned=returned)


@click.command(context_settings=QUERY_ARGUMENTS)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED)
@data_option
def explain(as_json: bool, words: tuple[str, ...]) -> None:
    """Explain `order ID [--at T]`: what its seller and its buyer can do, and why the rest is refused."""
    _run_query(("explain", *words), as_json)


@click.command()
@click.option(
    "--days",
    default=DEFAULT_DAYS,
    show_default=True,
    type=click.IntRange(1, queries.MAX_DAYS),
    help="Days to look ahead.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@data_option
def forecast(days: int, as_json: bool) -> None:
    """Show when alerts will unlock, hour by hour, with the overdue ones on top."""
    _run_query(("forecast", "--days", str(days)), as_json)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.argument("seller")
@data_option
def credits(seller: str, as_json: bool) -> None:  # noqa: A001 - the command's name
    """Show the fee of each cancelled order of SELLER: reset or credited, and on which bill."""
    _run_query(("credits", seller), as_json)


def _run_query(words: tuple[str, ...], as_json: bool, *, as_html: bool = False) -> None:
    try:
        query = queries.parse_query(words)
    except queries.InvalidQuery as problem:
        raise InvalidArguments(f"{str(problem)[:1].upper()}{str(problem)[1:]}.") from None
    if query.noun == "lots" and not as_html:
        (print_lots_as_json if as_json else print_lots)(query.arguments[0])
        return
    with open_database() as database, database.transaction() as conn:
        queries.use_snapshot_isolation(conn)
        now = database.clock.now(conn)
        result: Any = queries.run_query(conn, words, now=now)
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    if result is None:
        raise NotFound(_describe_missing(query))
    if as_html:
        click.echo(render_bill_page(result), nl=False)
        return
    if query.noun == "order" and query.at is not None:  # `explain` names its time itself, and can look ahead
        click.echo(
            f"As of {format_timestamp(query.at)}:"
            if query.at <= now
            else "That time is in the future. This is the order now:"
        )
    print_result(query.noun, result)


def _describe_missing(query: queries.Query) -> str:
    name = query.arguments[0]
    if query.noun in ("order", "explain", "notices"):
        when = f" at {format_timestamp(query.at)}" if query.at else ""
        return f"There {'was' if query.at else 'is'} no order {name}{when}."
    if query.noun == "bill":
        month = f"{query.arguments[1]:%Y-%m}"
        return f"There is no bill of {name} for {month}: the seller is unknown or the month has not begun."
    if query.noun == "request":
        return (
            f"There is no answer for request {name}: it has not been answered yet, it was invalid (such requests are "
            "not stored), it was never made, or its answer was pruned."
        )
    return f"There is no member {name}."
