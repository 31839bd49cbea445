"""How does a store's own file come in, and go out again for upload?  (`import-lots`, `show lots SELLER`)

Stores have hundreds of thousands of lots, so nothing here holds more than some hundred of them at once.
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
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import click

from workers.cli import data_option
from workers.cli.database import open_database

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from policies.lots import Lot

AT_ONCE = 500
"""Lots of one transaction: each holds a lock per item, and the server has room for some thousands."""
PROGRESS_INTERVAL = 20_000
"""Lots between two words of how far an import is."""
MAX_SHOWN = 20
MAX_PAUSE = "15min"
"""How long whoever reads the output may pause, in `less` for example: the lots come as they are read."""

T = TypeVar("T")


@click.command("import-lots")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--seller", "seller_id", required=True, metavar="ID", help="Whose lots these are.")
@data_option
def import_lots(file: Path, seller_id: str) -> None:
    """Read lots from BrickLink's inventory XML or BrickStore's BSX.

    A lot whose number (LOTID) is known is updated, one without gets a number of ours. When an item is no lot, or the lot
    of another seller, it is named and nothing is imported.
    """
    from models.db import database as db
    from workers.cli.bricklink_xml import NotAnInventory

    try:
        with _kept(file) as kept:
            _all_are_lots(kept, file.name, seller_id)
            with open_database() as database:
                db.set_database(database)
                try:
                    _may_all_be_imported(kept, seller_id)
                    new, known, units = _imported(kept, seller_id)
                finally:
                    db.set_database(None)
    except NotAnInventory as problem:
        raise click.ClickException(f"{file.name}: {problem}") from None
    click.echo(f"{new} lots imported, {known} known ones updated: {units} units of {seller_id}.")


@contextmanager
def _kept(file: Path) -> Iterator[BinaryIO]:
    """A copy of the file that nobody else changes while it is read more than once; of what is too large, as much as shows it."""
    from workers.cli.bricklink_xml import MAX_FILE_BYTES

    with file.open("rb") as opened, tempfile.TemporaryFile() as kept:
        left = MAX_FILE_BYTES + 1
        while left > 0 and (piece := opened.read(min(left, 1024 * 1024))):
            kept.write(piece)
            left -= len(piece)
        yield kept


def _lots_in(kept: BinaryIO, seller_id: str) -> Iterator[Lot]:
    """The lots of a file in which every item is one."""
    from workers.cli.bricklink_xml import BadItem, read_lots

    kept.seek(0)
    return (one for one in read_lots(kept, seller_id) if not isinstance(one, BadItem))


def _all_are_lots(kept: BinaryIO, name: str, seller_id: str) -> None:
    from workers.cli.bricklink_xml import BadItem, read_lots

    kept.seek(0)
    good = bad = 0
    for one in read_lots(kept, seller_id):
        if isinstance(one, BadItem):
            bad += 1
            if bad <= MAX_SHOWN:
                click.echo(f"{name}: {one}", err=True)
        else:
            good += 1
    if bad:
        more = f" ({bad - MAX_SHOWN} more not shown)" if bad > MAX_SHOWN else ""
        raise click.ClickException(f"{bad} of {good + bad} items are no lots{more}; nothing was imported.")


def _may_all_be_imported(kept: BinaryIO, seller_id: str) -> None:
    from models.unit_of_work import retry_on_conflict
    from tasks.inventory import check_imported_lots

    for some in _batches(_lots_in(kept, seller_id), AT_ONCE):
        for refused in retry_on_conflict(partial(check_imported_lots, some)):
            raise click.ClickException(f"{refused.message} Nothing was imported.")


def _imported(kept: BinaryIO, seller_id: str) -> tuple[int, int, int]:
    """How many lots were new, how many were known, and how many units they have."""
    from models.unit_of_work import retry_on_conflict
    from tasks.inventory import record_imported_lots

    new = known = units = 0
    for some in _batches(_lots_in(kept, seller_id), AT_ONCE):
        for told in retry_on_conflict(partial(record_imported_lots, some)):
            if not isinstance(told, dict):
                so_far = f"{new + known} lots before it were imported." if new or known else "Nothing was imported."
                raise click.ClickException(f"{told.message} {so_far}")
            new += told["recorded"]
            known += not told["recorded"]
            units += told["quantity"]
        if (new + known) % PROGRESS_INTERVAL == 0:
            click.echo(f"{new + known:,} lots so far.", err=True)
    return new, known, units


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some


def lots_as_xml(seller_id: str, *, returned: bool) -> None:
    """Write a seller's lots as BrickLink's XML to standard output; `returned`: only the units that came back."""
    from models.inventory import count_returned_units
    from workers.cli.bricklink_xml import with_quantities, write_lots

    with _lots_of(seller_id) as found:
        if found is None:
            raise click.ClickException(f"There is no seller {seller_id}.")
        conn, lots = found
        if returned:
            lots = with_quantities(lots, count_returned_units(conn, seller_id))
        for some in _batches(write_lots(lots), AT_ONCE):
            click.echo("".join(some), nl=False)


def lots_as_json(seller_id: str) -> None:
    """Write a seller's lots as a list in JSON to standard output; `null` when there is no such seller."""
    with _lots_of(seller_id) as found:
        if found is None:
            click.echo("null")
            return
        before = "[\n"
        for some in _batches(found[1], AT_ONCE):
            click.echo(
                before + ",\n".join(indent(json.dumps(lot.snapshot(), indent=2), "  ") for lot in some), nl=False
            )
            before = ",\n"
        click.echo("\n]" if before == ",\n" else "[]")


def lots_for_people(seller_id: str) -> None:
    """Write a seller's lots as a table to standard output."""
    with _lots_of(seller_id) as found:
        if found is None:
            raise click.ClickException(f"There is no member {seller_id}.")
        heading = _row("Lot", "Item", "Colour", "Condition", "Quantity", "Price", "Where")
        for some in _batches(found[1], AT_ONCE):
            click.echo("\n".join([*([heading] if heading else []), *(_shown(lot) for lot in some)]))
            heading = ""
        if heading:
            click.echo("No lots.")


def _shown(lot: Lot) -> str:
    where = f"stockroom {lot.stock_room_id or ''}".rstrip() if lot.is_stock_room else "for sale"
    return _row(lot.lot_id, lot.item_no, lot.color_id, lot.new_or_used, lot.quantity, f"{lot.unit_price:.4f}", where)


def _row(
    lot: object, item: object, colour: object, condition: object, quantity: object, price: object, where: str
) -> str:
    return f"{lot!s:>14}  {item!s:<16}  {colour!s:>6}  {condition!s:<9}  {quantity!s:>10}  {price!s:>12}  {where}"


@contextmanager
def _lots_of(seller_id: str) -> Iterator[tuple[Connection, Iterator[Lot]] | None]:
    """A seller's lots, all as they were at one moment; None when there is no such seller."""
    from sqlalchemy import text

    from models.inventory import stream_lots
    from models.members import load_facts
    from models.queries.show import use_snapshot_isolation

    with open_database() as database, database.transaction() as conn:
        use_snapshot_isolation(conn)
        conn.execute(text(f"SET LOCAL idle_in_transaction_session_timeout = '{MAX_PAUSE}'"))
        yield (conn, stream_lots(conn, seller_id)) if load_facts(conn, [seller_id]) else None
