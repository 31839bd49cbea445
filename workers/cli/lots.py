"""How does a store's own file come in, and go out again for upload?  (`import-lots`, `show lots SELLER --xml`)"""

from __future__ import annotations

from functools import partial
from itertools import islice
from pathlib import Path

import click

from workers.cli import data_option
from workers.cli.database import open_database

AT_ONCE = 500
"""Lots of one transaction: each holds a lock per item, and the server has room for some thousands."""
MOST_SHOWN = 20


@click.command("import-lots")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--seller", "seller_id", required=True, metavar="ID", help="Whose lots these are.")
@data_option
def import_lots(file: Path, seller_id: str) -> None:
    """Read lots from BrickLink's inventory XML or BrickStore's BSX.

    A lot whose number (LOTID) is known is updated, one without gets a number of ours. When an item is no lot, or the lot
    of another seller, it is named and nothing is imported.
    """
    from models import session
    from models.work import at_once
    from tasks.inventory import record_imported, refused_imports
    from workers.lot_files import NotAnInventory, read_lots

    try:
        with file.open("rb") as opened:
            lots, bad = read_lots(opened, seller_id)
    except NotAnInventory as problem:
        raise click.ClickException(f"{file.name}: {problem}") from None
    if bad:
        for one in bad[:MOST_SHOWN]:
            click.echo(f"{file.name}: {one}", err=True)
        more = f" ({len(bad) - MOST_SHOWN} more not shown)" if len(bad) > MOST_SHOWN else ""
        raise click.ClickException(
            f"{len(bad)} of {len(bad) + len(lots)} items are no lots{more}; nothing was imported."
        )
    new = known = units = 0
    with open_database() as database:
        session.bind(database)
        try:
            for some in (lots[at : at + AT_ONCE] for at in range(0, len(lots), AT_ONCE)):
                for refused in at_once(partial(refused_imports, some)):
                    raise click.ClickException(f"{refused.message} Nothing was imported.")
            rest = iter(lots)
            while some := list(islice(rest, AT_ONCE)):
                for told in at_once(partial(record_imported, some)):
                    if not isinstance(told, dict):
                        so_far = (
                            f"{new + known} lots before it were imported." if new or known else "Nothing was imported."
                        )
                        raise click.ClickException(f"{told.message} {so_far}")
                    new += told["recorded"]
                    known += not told["recorded"]
                    units += told["quantity"]
        finally:
            session.bind(None)
    click.echo(f"{new} lots imported, {known} known ones updated: {units} units of {seller_id}.")


def lots_as_xml(seller_id: str, *, returned: bool) -> None:
    """Write a seller's lots as BrickLink's XML to standard output; `returned`: only the units that came back."""
    from models.inventory import lots_of, units_returned
    from models.members import facts
    from workers.lot_files import with_quantities, write_lots

    with open_database() as database, database.transaction() as conn:
        if not facts(conn, [seller_id]):
            raise click.ClickException(f"There is no seller {seller_id}.")
        lots = iter(lots_of(conn, seller_id))
        if returned:
            lots = with_quantities(lots, units_returned(conn, seller_id))
        for line in write_lots(lots):
            click.echo(line, nl=False)
