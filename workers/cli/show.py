"""How does one look at things from the command line?  The looks of contract 4, for people or as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from policies.timestamps import format_timestamp
from workers.cli import data_option
from workers.cli.database import open_database

if TYPE_CHECKING:
    from models.queries.show import Query

DAYS, MAX_DAYS = (
    14,
    366,
)  # of a forecast, as models.queries.forecast and models.queries.show have them: importing those is slow

WORDS = {"ignore_unknown_options": True}  # the options of a look are words of the look


class NothingThere(click.ClickException):
    """What was asked for does not exist."""


class WrongWords(click.ClickException):
    """There is no such look."""

    exit_code = 2


@click.command(context_settings=WORDS)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--xml", "as_xml", is_flag=True, help="Lots only: as BrickLink's inventory XML.")
@click.option("--returned", is_flag=True, help="With --xml: only the units that came back.")
@click.option("--html", "as_html", is_flag=True, help="A bill only: as the page that a seller could be sent.")
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED)
@data_option
def show(as_json: bool, as_xml: bool, returned: bool, as_html: bool, words: tuple[str, ...]) -> None:
    """Show something: what it is now, or with --at T what an order was at any instant.

    \b
      show order ID [--at T]            show lots SELLER [--xml [--returned]]
      show bill SELLER 2026-03 [--html] show member ID
      show notices --order ID           show alerts --due-before T
      show request REQUEST_ID           show sweeps
      show credits SELLER               show forecast --days N
    """
    if as_html and (words[0] != "bill" or as_json or as_xml):
        raise WrongWords("HTML is for bills: show bill SELLER 2026-03 --html.")
    if not as_xml and not returned:
        _see(words, as_json, as_html=as_html)
        return
    if len(words) != 2 or words[0] != "lots" or not as_xml or as_json:
        raise WrongWords("XML is for lots: show lots SELLER --xml [--returned].")
    from workers.cli.lots import lots_as_xml

    lots_as_xml(words[1], returned=returned)


@click.command(context_settings=WORDS)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED)
@data_option
def explain(as_json: bool, words: tuple[str, ...]) -> None:
    """Explain order ID [--at T]: what its seller and its buyer can do, and why not all else."""
    _see(("explain", *words), as_json)


@click.command()
@click.option("--days", default=DAYS, show_default=True, type=click.IntRange(1, MAX_DAYS), help="How far to look.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@data_option
def forecast(days: int, as_json: bool) -> None:
    """Show when alerts will unlock, hour by hour, with the overdue ones on top."""
    _see(("forecast", "--days", str(days)), as_json)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.argument("seller")
@data_option
def credits(seller: str, as_json: bool) -> None:  # noqa: A001 - the command's name
    """Show what became of the fee of each cancelled order of SELLER: reset, credited, on which bill."""
    _see(("credits", seller), as_json)


def _see(words: tuple[str, ...], as_json: bool, *, as_html: bool = False) -> None:
    from models.queries import show as looks

    try:
        wanted = looks.parse_query(words)
    except looks.InvalidQuery as problem:
        raise WrongWords(f"{str(problem)[:1].upper()}{str(problem)[1:]}.") from None
    if wanted.noun == "lots" and not as_html:
        from workers.cli.lots import lots_as_json, lots_for_people

        (lots_as_json if as_json else lots_for_people)(wanted.which[0])
        return
    with open_database() as database, database.transaction() as conn:
        looks.use_snapshot_isolation(conn)
        now = database.clock.now(conn)
        seen: Any = looks.run_query(conn, words, now=now)
    if as_json:
        click.echo(json.dumps(seen, indent=2))
        return
    if seen is None:
        raise NothingThere(_nothing(wanted))
    if as_html:
        from workers.cli.bill_page import render_html as page

        click.echo(page(seen), nl=False)
        return
    from workers.cli.render import show_to_people

    if wanted.noun == "order" and wanted.at is not None:  # `explain` says its instant itself, and can look ahead
        come = wanted.at <= now
        click.echo(
            f"As of {format_timestamp(wanted.at)}:" if come else "Nobody knows yet what will be then. This is now:"
        )
    show_to_people(wanted.noun, seen)


def _nothing(wanted: Query) -> str:
    """What there is not, and where that is not plain, why one may have expected it."""
    first = wanted.which[0]
    if wanted.noun in ("order", "explain", "notices"):
        return (
            f"There was no order {first} at {format_timestamp(wanted.at)}."
            if wanted.at
            else f"There is no order {first}."
        )
    if wanted.noun == "bill":
        return f"There is no bill of {first} for {wanted.which[1]:%Y-%m}: the seller is unknown or the month has not begun."
    if wanted.noun == "request":
        return (
            f"No answer is kept for request {first}: it is still to come, or the request was invalid (those are not kept), "
            "was never made, or was pruned."
        )
    return f"There is no member {first}."
