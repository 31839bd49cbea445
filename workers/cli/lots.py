"""The `import-lots` command and the output of `show lots`.

Stores have hundreds of thousands of lots, so everything here streams in batches.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from textwrap import indent
from typing import BinaryIO, TypeVar

import click
from sqlalchemy import Connection, text

from models.db import database as db
from models.inventory import count_returned_units, stream_lots
from models.members import load_facts
from models.unit_of_work import retry_on_conflict
from policies.lots import Lot
from tasks.inventory import check_imported_lots, record_imported_lots
from workers.cli import data_option
from workers.cli.bricklink_xml import (
    MAX_FILE_BYTES,
    BadItem,
    NotAnInventory,
    read_lots,
    with_quantities,
    write_lots,
)
from workers.cli.database import open_database

BATCH_SIZE = 500
"""Lots per transaction: each takes a lock per item, and the server has room for some thousands."""
PROGRESS_INTERVAL = 20_000
"""Lots between two progress lines of an import."""
MAX_SHOWN = 20
MAX_PAUSE = "15min"
"""How long a reader of the output may pause, in `less` for example: lots are read as they are printed."""

T = TypeVar("T")


@click.command("import-lots")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--seller", "seller_id", required=True, metavar="ID", help="The seller who owns these lots.")
@data_option
def import_lots(file: Path, seller_id: str) -> None:
    """Import lots from BrickLink's inventory XML or BrickStore's BSX.

    A lot with a known number (LOTID) is updated; one without gets a new number. When an item is not a valid lot, or
    belongs to another seller, it is named and nothing is imported.
    """
    try:
        with _private_copy(file) as copy:
            _validate_items(copy, file.name, seller_id)
            with open_database() as database:
                db.set_database(database)
                try:
                    _check_import(copy, seller_id)
                    new, known, units = _import(copy, seller_id)
                finally:
                    db.set_database(None)
    except NotAnInventory as problem:
        raise click.ClickException(f"{file.name}: {problem}") from None
    click.echo(f"{_count_lots(new)} imported, {known} updated: {_count_units(units)} of {seller_id}.")


def _count_lots(count: int) -> str:
    return "1 lot" if count == 1 else f"{count} lots"


def _count_units(count: int) -> str:
    return "1 unit" if count == 1 else f"{count} units"


@contextmanager
def _private_copy(file: Path) -> Iterator[BinaryIO]:
    # Nobody else can change a copy between the passes over it. Of a file that is too large, it holds enough to detect
    # that.
    with file.open("rb") as source, tempfile.TemporaryFile() as copy:
        left = MAX_FILE_BYTES + 1
        while left > 0 and (chunk := source.read(min(left, 1024 * 1024))):
            copy.write(chunk)
            left -= len(chunk)
        yield copy


def _lots_in(copy: BinaryIO, seller_id: str) -> Iterator[Lot]:
    copy.seek(0)
    return (item for item in read_lots(copy, seller_id) if not isinstance(item, BadItem))


def _validate_items(copy: BinaryIO, name: str, seller_id: str) -> None:
    copy.seek(0)
    good = bad = 0
    for item in read_lots(copy, seller_id):
        if isinstance(item, BadItem):
            bad += 1
            if bad <= MAX_SHOWN:
                click.echo(f"{name}: {item}", err=True)
        else:
            good += 1
    if bad:
        more = f" ({bad - MAX_SHOWN} more not shown)" if bad > MAX_SHOWN else ""
        verb = "is not a valid lot" if bad == 1 else "are not valid lots"
        raise click.ClickException(f"{bad} of {good + bad} items {verb}{more}; nothing was imported.")


def _check_import(copy: BinaryIO, seller_id: str) -> None:
    for lots in _batches(_lots_in(copy, seller_id), BATCH_SIZE):
        for refusal in retry_on_conflict(partial(check_imported_lots, lots)):
            raise click.ClickException(f"{refusal.message} Nothing was imported.")


def _import(copy: BinaryIO, seller_id: str) -> tuple[int, int, int]:
    # Import the lots; returns how many were new, how many were known, and how many units they have.
    new = known = units = 0
    for lots in _batches(_lots_in(copy, seller_id), BATCH_SIZE):
        for result in retry_on_conflict(partial(record_imported_lots, lots)):
            if not isinstance(result, dict):
                done = new + known
                before = f"The {_count_lots(done)} before it were imported." if done else "Nothing was imported."
                raise click.ClickException(f"{result.message} {before}")
            new += result["recorded"]
            known += not result["recorded"]
            units += result["quantity"]
        if (new + known) % PROGRESS_INTERVAL == 0:
            click.echo(f"{new + known:,} lots so far.", err=True)
    return new, known, units


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def print_lots_as_xml(seller_id: str, *, returned: bool) -> None:
    with _lots_of(seller_id) as opened:
        if opened is None:
            raise click.ClickException(f"There is no seller {seller_id}.")
        conn, lots = opened
        if returned:
            lots = with_quantities(lots, count_returned_units(conn, seller_id))
        for chunks in _batches(write_lots(lots), BATCH_SIZE):
            click.echo("".join(chunks), nl=False)


def print_lots_as_json(seller_id: str) -> None:
    with _lots_of(seller_id) as opened:
        if opened is None:
            click.echo("null")
            return
        before = "[\n"
        for lots in _batches(opened[1], BATCH_SIZE):
            objects = (indent(json.dumps(lot.snapshot(), indent=2), "  ") for lot in lots)
            click.echo(before + ",\n".join(objects), nl=False)
            before = ",\n"
        click.echo("\n]" if before == ",\n" else "[]")


def print_lots(seller_id: str) -> None:
    with _lots_of(seller_id) as opened:
        if opened is None:
            raise click.ClickException(f"There is no member {seller_id}.")
        heading = _format_columns("Lot", "Item", "Colour", "Condition", "Quantity", "Price", "Where")
        for lots in _batches(opened[1], BATCH_SIZE):
            click.echo("\n".join([*([heading] if heading else []), *(_format_row(lot) for lot in lots)]))
            heading = ""
        if heading:
            click.echo("No lots.")


def _format_row(lot: Lot) -> str:
    where = f"stockroom {lot.stock_room_id or ''}".rstrip() if lot.is_stock_room else "for sale"
    price = f"{lot.unit_price:.4f}"
    return _format_columns(lot.lot_id, lot.item_no, lot.color_id, lot.new_or_used, lot.quantity, price, where)


def _format_columns(
    lot: object, item: object, colour: object, condition: object, quantity: object, price: object, where: str
) -> str:
    return f"{lot!s:>14}  {item!s:<16}  {colour!s:>6}  {condition!s:<9}  {quantity!s:>10}  {price!s:>12}  {where}"


@contextmanager
def _lots_of(seller_id: str) -> Iterator[tuple[Connection, Iterator[Lot]] | None]:
    # A connection and a seller's lots in one snapshot; None when there is no such seller.
    with open_database() as database, database.transaction() as conn:
        db.use_snapshot_isolation(conn)
        conn.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = '{MAX_PAUSE}'"))
        yield (conn, stream_lots(conn, seller_id)) if load_facts(conn, [seller_id]) else None
