"""Memory and time limits for showing and importing a store of 200,000 lots."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest

from models.db import database as db
from models.integrity.invariants import query_invariants
from models.inventory import LotRow
from tests.plugins.market import Market
from tests.plugins.servers import libpq_url

LOTS = 200_000
STEP = 20_000
"""Lots between two progress messages."""
MAX_MEMORY_MB = 150
"""An idle process takes 60 to 80 MB."""
MAX_SECONDS = 60
MEASURED = """
import pathlib, sys
from workers.cli import main
try:
    main(sys.argv[2:])
finally:
    peak = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
    pathlib.Path(sys.argv[1]).write_text(peak[0])
"""
"""The command line, which prints its own peak: what a parent learns of a child includes the parent's own memory."""
STOCK = """
    INSERT INTO unwind.lots (lot_id, seller_id, item_type, item_no, color_id, new_or_used, quantity, unit_price,
        bind_id,
        description, remarks, bulk, is_retain, is_stock_room, auto_stockroom, sale_rate)
    SELECT n, 'seller', 'PART', n::text, 5, 'N', 10, 1.0, 0, repeat('d', 100), 'Box ' || n, 1, false, false, false, 0
    FROM generate_series(1, %s) n
"""
RECORDED = """
    INSERT INTO unwind.stock_moves (seller_id, item_type, item_no, color_id, new_or_used, lot_id, delta, kind, at)
    SELECT seller_id, item_type, item_no, color_id, new_or_used, lot_id, quantity, 'recorded', now() FROM unwind.lots
"""


class Run(NamedTuple):
    """The output, errors, exit code, peak memory and duration of a command."""

    output: Path
    errors: str
    code: int
    megabytes: float
    seconds: float


@pytest.fixture
def command(market: Market, database_url: str, tmp_path: Path) -> Any:
    """Runs the command line in a process of its own and measures it."""
    output, peak = tmp_path / "output", tmp_path / "peak"

    def run(*words: str) -> Run:
        began = time.monotonic()
        with output.open("wb") as out, tempfile.TemporaryFile() as err:
            environment = os.environ | {"DATABASE_URL": database_url}
            measured = (sys.executable, "-c", MEASURED, str(peak), *words)
            code = subprocess.run(measured, stdout=out, stderr=err, env=environment, check=False).returncode
            err.seek(0)
            errors = err.read().decode()
        return Run(output, errors, code, int(peak.read_text()) / 1024, time.monotonic() - began)

    return run


@pytest.mark.long
def test_large_store_is_printed_while_it_is_read(market: Market, command: Any, database_url: str) -> None:
    """In each of the three formats."""
    with psycopg.connect(libpq_url(database_url), autocommit=True) as owner:
        owner.execute(STOCK, [LOTS])
        owner.execute(RECORDED)
    shapes = {(): LOTS + 1, ("--json",): None, ("--xml",): LOTS + 3}
    for options, lines in shapes.items():
        ran = command("show", "lots", "seller", *options)
        assert (ran.code, ran.errors) == (0, "")
        assert ran.megabytes < MAX_MEMORY_MB, (options, ran)
        assert ran.seconds < MAX_SECONDS, (options, ran)
        with ran.output.open() as file_:
            if lines is not None:
                assert sum(1 for _ in file_) == lines
            else:
                assert [lot["lot_id"] for lot in json.load(file_)] == list(range(1, LOTS + 1))


@pytest.mark.long
def test_large_file_is_imported_in_constant_memory(
    market: Market, command: Any, tmp_path: Path, database_url: str
) -> None:
    """With progress messages of each pass. docs/files.md has the measured figures."""
    file = tmp_path / "store.xml"
    item = (
        "<ITEM><ITEMTYPE>P</ITEMTYPE><ITEMID>{n}</ITEMID><COLOR>5</COLOR><QTY>10</QTY><PRICE>1.0</PRICE>"
        "<CONDITION>N</CONDITION><REMARKS>{text}</REMARKS></ITEM>\n"
    )
    with file.open("w") as file_:
        file_.write("<INVENTORY>\n")
        file_.writelines(item.format(n=n, text=hashlib.sha256(b"%d" % n).hexdigest() * 10) for n in range(LOTS))
        file_.write("</INVENTORY>\n")
    ran = command("import-lots", str(file), "--seller", "seller")
    counts = [f"{count:,} lots" for count in range(STEP, LOTS + 1, STEP)]
    progress = [f"{count} {done}." for done in ("read", "checked", "imported") for count in counts]
    assert (ran.code, ran.errors.splitlines()) == (0, progress)
    assert ran.output.read_text() == f"{LOTS} lots imported, 0 updated: {LOTS * 10} units of seller.\n"
    assert ran.megabytes < MAX_MEMORY_MB, ran
    assert market.count(LotRow) == LOTS
    with db.current_database().transaction() as conn:
        assert query_invariants(conn, market.simulation.clock.instant) == {}
