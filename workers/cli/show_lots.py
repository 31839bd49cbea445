"""The output of `show lots`: a seller's lots as a table, as JSON and as BrickLink's XML."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from textwrap import indent
from typing import Any

import click
from rich.table import Table
from sqlalchemy import Connection, text

from models.db import database as db
from models.inventory import stream_lots
from models.members import load_members
from models.returns import count_returned_units
from policies.lots import Lot
from policies.texts import pluralize
from workers.cli.database import open_database
from workers.cli.files.lot_writer import (
    is_known_to_marketplace,
    write_store,
    write_updates,
    write_upload,
)
from workers.cli.import_lots import split_into_batches
from workers.cli.terminal_text import PeopleConsole, echo_literally
from workers.show_queries import Query

BATCH_SIZE = 500
MAX_PAUSE = "15min"
"""How long a reader of the output may pause, in `less` for example: lots are read as they are printed."""

LOTS_OPTIONS = (
    click.option("--xml", "as_xml", is_flag=True, help="Print BrickLink's inventory XML."),
    click.option("--returned", is_flag=True, help="With --xml: only the units that came back, to upload at BrickLink."),
    click.option("--as-update", is_flag=True, help="With --returned: as a mass update of lots that BrickLink has."),
    click.option("--new", "only_new", is_flag=True, help="With --returned: only lots that BrickLink does not have."),
)


def print_lots(
    _query: Query,
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
        _print_lots_as_xml(seller, returned=returned, as_update=as_update, only_new=only_new)
    else:
        (_print_lots_as_json if as_json else _print_lots_as_rows)(seller)


def _print_lots_as_xml(seller_id: str, *, returned: bool, as_update: bool, only_new: bool) -> None:
    """Write a seller's lots to standard output as BrickLink's XML.

    `returned`: only the units that came back, as an upload file. `as_update`: those of lots that BrickLink has, as a
    mass-update file. `only_new`: those of lots that BrickLink does not have.
    """
    counts: Counter[str] = Counter()

    def selected(lots: Iterable[Lot]) -> Iterator[Lot]:
        for lot in lots:
            is_known = is_known_to_marketplace(lot)
            counts["new"] += not is_known
            if not (only_new if is_known else as_update):
                counts["custom"] += not lot.has_catalogue_item
                yield lot

    with _open_lots_of(seller_id) as opened:
        if opened is None:
            raise click.ClickException(f"There is no seller {seller_id}.")
        conn, lots = opened
        if returned:
            lots = selected(_lots_with_returned_units(lots, count_returned_units(conn, seller_id)))
        write = write_updates if as_update else write_upload if returned else write_store
        for batch in split_into_batches(write(lots), BATCH_SIZE):
            click.echo("".join(batch), nl=False)
    if as_update and counts["new"]:
        are, them = ("is", "it") if counts["new"] == 1 else ("are", "them")
        what = f"{pluralize(counts['new'], 'lot', 'lots')} {are} new to BrickLink and not in this file"
        echo_literally(f"{what}: upload {them} with --returned --new.", err=True)
    if not as_update and counts["custom"]:
        what = f"{pluralize(counts['custom'], 'lot', 'lots')} of custom items"
        echo_literally(f"{what}: add their CATEGORY, which Unwind does not keep.", err=True)


def _lots_with_returned_units(lots: Iterable[Lot], units: Mapping[int, int]) -> Iterator[Lot]:
    quantities = ((lot, min(units.get(lot.lot_id, 0), lot.quantity)) for lot in lots)
    return (replace(lot, quantity=quantity) for lot, quantity in quantities if quantity > 0)


def _print_lots_as_json(seller_id: str) -> None:
    with _open_lots_of(seller_id) as opened:
        if opened is None:
            click.echo("null")
            return
        before = "[\n"
        for lots in split_into_batches(opened[1], BATCH_SIZE):
            objects = (indent(json.dumps(lot.snapshot(), indent=2), "  ") for lot in lots)
            click.echo(before + ",\n".join(objects), nl=False)
            before = ",\n"
        click.echo("\n]" if before == ",\n" else "[]")


def _print_lots_as_rows(seller_id: str) -> None:
    with _open_lots_of(seller_id) as opened:
        if opened is None:
            raise click.ClickException(f"There is no member {seller_id}.")
        heading = _format_lot_columns("Lot", "Item", "Colour", "Condition", "Quantity", "Price", "Where")
        for lots in split_into_batches(opened[1], BATCH_SIZE):
            click.echo("\n".join([*([heading] if heading else []), *(_format_lot_row(lot) for lot in lots)]))
            heading = ""
        if heading:
            click.echo("No lots.")


def print_lots_table(console: PeopleConsole, result: list[dict[str, Any]]) -> None:
    table = Table("Lot", "Item", "Colour", "Condition", "Quantity", "Price", "Where")
    for lot in result:
        where = f"stockroom {lot['stock_room_id'] or ''}" if lot["is_stock_room"] else "for sale"
        table.add_row(
            *(str(value) for value in (lot["lot_id"], lot["item"]["no"], lot["color_id"], lot["new_or_used"])),
            *(str(value) for value in (lot["quantity"], lot["unit_price"], where)),
        )
    console.print(table) if result else console.write("No lots.")


def _format_lot_row(lot: Lot) -> str:
    where = f"stockroom {lot.stock_room_id or ''}".rstrip() if lot.is_stock_room else "for sale"
    price = f"{lot.unit_price:.4f}"
    return _format_lot_columns(lot.lot_id, lot.item_no, lot.color_id, lot.new_or_used, lot.quantity, price, where)


def _format_lot_columns(
    lot: object, item: object, colour: object, condition: object, quantity: object, price: object, where: str
) -> str:
    return f"{lot!s:>12}  {item!s:<12}  {colour!s:>6}  {condition!s:<9}  {quantity!s:>8}  {price!s:>10}  {where}"


@contextmanager
def _open_lots_of(seller_id: str) -> Iterator[tuple[Connection, Iterator[Lot]] | None]:
    # A connection and a seller's lots in one snapshot; None when there is no such seller.
    with open_database() as database, database.transaction() as conn:
        db.use_snapshot_isolation(conn)
        conn.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = '{MAX_PAUSE}'"))
        yield (conn, stream_lots(conn, seller_id)) if load_members(conn, [seller_id]) else None
