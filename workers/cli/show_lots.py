"""The output of `show lots`: a seller's lots as a table, as JSON and as BrickLink's XML."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from textwrap import indent
from typing import Any

import click

from models.db.session_settings import lift_time_limits, set_local
from models.inventory import stream_lots
from models.members import load_members
from models.returns import count_returned_units
from policies.lots import Lot, is_marketplace_number
from policies.texts import pluralize
from workers.cli.database import open_transaction
from workers.cli.files.lot_writer import write_store, write_updates, write_upload
from workers.cli.terminal_text import echo_literally
from workers.show_queries import Query

MAX_PAUSE = "15min"  # of a reader, in `less` for example: lots are read as they are printed
LOT_ROW = "{!s:>12}  {!s:<12}  {!s:>6}  {!s:<9}  {!s:>8}  {!s:>10}  {}"

LOTS_OPTIONS = (
    click.option("--xml", "as_xml", is_flag=True, help="Print BrickLink's inventory XML."),
    click.option("--returned", is_flag=True, help="With --xml: only the units that came back, to upload at BrickLink."),
    click.option("--as-update", is_flag=True, help="With --returned: as a mass update of lots that BrickLink has."),
    click.option("--new", "only_new", is_flag=True, help="With --returned: only lots that BrickLink does not have."),
)


def print_lots(_query: Query, as_json: bool, *, as_xml: bool, returned: bool, as_update: bool, only_new: bool) -> None:
    seller = click.get_current_context().params["seller_id"]
    if (returned and not as_xml) or (as_xml and as_json) or ((as_update or only_new) and not returned):
        raise click.UsageError(
            "It is: show lots SELLER [--json], or show lots SELLER --xml [--returned [--as-update | --new]]."
        )
    if as_update and only_new:
        raise click.UsageError("--as-update is for the lots that BrickLink has, --new for the others.")
    with open_transaction(snapshot=True) as (conn, _):
        lift_time_limits(conn)
        set_local(conn, idle_in_transaction_session_timeout=MAX_PAUSE)
        if load_members(conn, [seller]):
            lots = stream_lots(conn, seller)
            if as_xml:
                units = count_returned_units(conn, seller) if returned else None
                _print_lots_as_xml(lots, units, as_update=as_update, only_new=only_new)
            else:
                rows = (f"{row}\n" for row in lot_rows(lot.snapshot() for lot in lots))
                sys.stdout.writelines(_lots_as_json(lots) if as_json else rows)
                sys.stdout.flush()
        elif as_json:
            click.echo("null")
        else:
            raise click.ClickException(f"There is no {'seller' if as_xml else 'member'} {seller}.")


def _print_lots_as_xml(
    lots: Iterable[Lot], returned: Mapping[int, int] | None, *, as_update: bool, only_new: bool
) -> None:
    # Write a seller's lots to standard output as BrickLink's XML. `returned`: only these units that came back, as an
    # upload file. `as_update`: those of lots that BrickLink has, as a mass-update file. `only_new`: those of lots that
    # BrickLink does not have.
    counts: Counter[str] = Counter()

    def selected(units: Mapping[int, int]) -> Iterator[Lot]:
        for lot in lots:
            quantity, is_known = min(units.get(lot.lot_id, 0), lot.quantity), is_marketplace_number(lot.lot_id)
            if quantity > 0:
                counts["new"] += not is_known
                if not (only_new if is_known else as_update):
                    counts["custom"] += not lot.has_catalogue_item
                    yield replace(lot, quantity=quantity)

    write = write_updates if as_update else write_store if returned is None else write_upload
    sys.stdout.writelines(write(lots if returned is None else selected(returned)))
    sys.stdout.flush()
    if as_update and counts["new"]:
        are, them = ("is", "it") if counts["new"] == 1 else ("are", "them")
        what = f"{pluralize(counts['new'], 'lot', 'lots')} {are} new to BrickLink and not in this file"
        echo_literally(f"{what}: upload {them} with --returned --new.", err=True)
    if not as_update and counts["custom"]:
        what = f"{pluralize(counts['custom'], 'lot', 'lots')} of custom items"
        echo_literally(f"{what}: add their CATEGORY, which Unwind does not keep.", err=True)


def _lots_as_json(lots: Iterable[Lot]) -> Iterator[str]:
    before = "[\n"
    for lot in lots:
        yield before + indent(json.dumps(lot.snapshot(), indent=2), "  ")
        before = ",\n"
    yield "\n]\n" if before == ",\n" else "[]\n"


def lot_rows(lots: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    heading = LOT_ROW.format("Lot", "Item", "Colour", "Condition", "Quantity", "Price", "Where")
    for lot in lots:
        if heading:
            yield heading
        heading = ""
        where = f"stockroom {lot['stock_room_id'] or ''}".rstrip() if lot["is_stock_room"] else "for sale"
        values = (lot[name] for name in ("color_id", "new_or_used", "quantity", "unit_price"))
        yield LOT_ROW.format(lot["lot_id"], lot["item"]["no"], *values, where)
    if heading:
        yield "No lots."
