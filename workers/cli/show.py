"""The commands that read: `show`, `explain` and `credits`, for people or as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click

from models.db.database import use_snapshot_isolation
from policies.timestamps import format_timestamp
from workers import show_queries
from workers.cli import data_option
from workers.cli.bill_page import render_html as render_bill_page
from workers.cli.database import open_database
from workers.cli.render import print_result
from workers.cli.show_lots import print_lots, print_lots_as_json, print_lots_as_xml
from workers.cli.terminal_text import echo, for_people, zone_option

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class NotFound(click.ClickException):
    pass


@click.group()
@json_option
@data_option
def show(as_json: bool) -> None:
    """Show something as it is now; an order with --at T as it was at any time."""


@click.group()
@json_option
@data_option
def explain(as_json: bool) -> None:
    """Explain what the parties of an order can do, and why the rest is refused."""


@click.command()
@json_option
@click.argument("seller", type=show_queries.NAME)
@zone_option
@data_option
def credits(seller: str, as_json: bool) -> None:  # noqa: A001 - the command's name
    """Show the fee of each cancelled order of SELLER: reset or credited, and on which bill."""
    print_query_result(show_queries.show_credits_query(seller), as_json)


def _print_lots(
    _query: show_queries.Query,
    as_json: bool,
    *,
    seller: str,
    as_xml: bool,
    returned: bool,
    as_update: bool,
    only_new: bool,
) -> None:
    if (returned and not as_xml) or (as_xml and as_json) or ((as_update or only_new) and not returned):
        raise click.UsageError(
            "It is: show lots SELLER [--json], or show lots SELLER --xml [--returned [--as-update | --new]]."
        )
    if as_update and only_new:
        raise click.UsageError("--as-update is for the lots that BrickLink has, --new for the others.")
    if as_xml:
        print_lots_as_xml(seller, returned=returned, as_update=as_update, only_new=only_new)
    else:
        (print_lots_as_json if as_json else print_lots)(seller)


def print_query_result(query: show_queries.Query, as_json: bool, *, as_html: bool = False, **options: Any) -> None:
    if as_html and as_json:
        raise click.UsageError("A bill is printed with --html or with --json.")
    with open_database() as database, database.transaction() as conn:
        use_snapshot_isolation(conn)
        now = database.clock.now(conn)
        result: Any = query.read(conn, now)
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    if result is None:
        raise NotFound(for_people(query.missing))
    if as_html:
        click.echo(render_bill_page(result), nl=False)
        return
    if query.noun == "order" and query.at is not None:  # `explain` names its time itself, and can look ahead
        echo(
            f"As of {format_timestamp(query.at)}:"
            if query.at <= now
            else "That time is in the future. This is the order now:"
        )
    print_result(query.noun, result, **options)


def _add_printing(group: click.Group, noun: click.Command, print_query: Callable[..., None], *options: Any) -> None:
    of_query = {param.name for param in noun.params}

    def run(as_json: bool, **arguments: Any) -> None:
        assert noun.callback is not None
        query = noun.callback(**{name: arguments[name] for name in of_query})
        parent = click.get_current_context().parent
        as_json = as_json or (parent is not None and parent.params["as_json"])
        print_query(query, as_json, **{name: value for name, value in arguments.items() if name in printed})

    for option in (data_option, zone_option, *reversed(options), json_option):
        run = option(run)
    command = click.command(noun.name, context_settings=noun.context_settings, help=noun.help)(run)
    printed = {param.name for param in command.params} | ({"seller"} if noun.name == "lots" else set())
    command.params = [*noun.params, *command.params]
    group.add_command(command)


LOTS_OPTIONS = (
    click.option("--xml", "as_xml", is_flag=True, help="Print BrickLink's inventory XML."),
    click.option("--returned", is_flag=True, help="With --xml: only the units that came back, to upload at BrickLink."),
    click.option("--as-update", is_flag=True, help="With --returned: as a mass update of lots that BrickLink has."),
    click.option("--new", "only_new", is_flag=True, help="With --returned: only lots that BrickLink does not have."),
)
BILL_OPTIONS = (click.option("--html", "as_html", is_flag=True, help="Print a page that can be sent to the seller."),)
EXPLAIN_OPTIONS = (
    click.option("--all", "show_all", is_flag=True, help="Also list impossible actions, grouped by the reason."),
)

for _name, _noun in show_queries.nouns.commands.items():
    if isinstance(_noun, click.Group):
        _add_printing(explain, _noun.commands["order"], print_query_result, *EXPLAIN_OPTIONS)
    elif _name == "lots":
        _add_printing(show, _noun, _print_lots, *LOTS_OPTIONS)
    else:
        _add_printing(show, _noun, print_query_result, *(BILL_OPTIONS if _name == "bill" else ()))
