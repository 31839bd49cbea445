"""The text that people read, command by command, as a terminal of 80 columns shows it.

`SNAPSHOTS=write ./run test tests/workers/cli/test_snapshots.py` writes the file again; read the difference.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from models import pauses
from models.db import database as db
from policies.options import ACTIONS
from policies.timestamps import format_timestamp
from tests.plugins.market import FILED, ORDERED, WEEK, Market
from workers.cli import group

FILE = Path(__file__).with_name("snapshots.txt")
COLUMNS = 80
EXPLAINED = {
    *("ocr.file", "ocr.decline", "ocr.withdraw"),
    *("npb.file", "npb.respond", "npb.accept_penalty", "npb.take_back", "npb.remove"),
    *(f"{kind}.{verb}" for kind in ("nrs", "nss") for verb in ("file", "respond", "remove")),
    *("orders.cancel", "drafts.open", "orders.settle_late_payment", "orders.set_status"),
    *(f"removals.{verb}" for verb in ("request", "approve", "deny", "withdraw")),
}
"""The actions in the file: a new command does not need to change it."""
COMMANDS = (
    f"explain order 1002 --at {format_timestamp(ORDERED)}",
    f"explain order 1002 --at {format_timestamp(ORDERED)} --zone Europe/Berlin",
    f"explain order 1003 --all --at {format_timestamp(FILED)}",
    f"explain order 1004 --at {format_timestamp(FILED + WEEK)}",
    "show order 1003",
    "show order 1004",
    "show order 1004 --at 2026-03-29T00:00:00Z --zone America/New_York",
    "show order 9",
    "show bill seller 2026-04",
    "show lots seller",
    "show member buyer",
    "show notices --order 1003",
    "show alerts --due-before 2026-05-01T00:00:00Z",
    "show request r-1",
    "show request r-2",
    "show sweeps",
    "show late-payments",
    "credits seller",
    "terms show",
    "whatif whatif.toml",
    "pause",
    "jobs dead",
)


@pytest.fixture
def story(market: Market, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An order without anything, one in NPB, and one that was cancelled and paid after that."""
    for order_id in (1002, 1003, 1004):
        market.order(order_id)
    market.at(FILED).done("npb.file", order_id=1003, member_id="seller", request_id="r-1")
    market.do("orders.cancel", order_id=1003, member_id="seller", request_id="r-2")
    market.done("ocr.file", order_id=1004, member_id="seller", reason="S_MUTUAL", comment="agreed by mail")
    market.done("orders.cancel", order_id=1004, member_id="seller")
    market.at(FILED + WEEK).simulation.do("npb.scan_open_alerts")
    market.done("orders.record_payment", order_id=1004, payment_status="Received")
    with market.simulation.database.transaction() as conn:
        pauses.pause(conn, "queue", "notices", FILED, reason="The mail server moves to another house this week.")
    for action in set(ACTIONS) - EXPLAINED:
        monkeypatch.delitem(ACTIONS, action)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    monkeypatch.chdir(FILE.parent)


@pytest.mark.usefixtures("story")
def test_printed_text_matches_its_snapshot_and_fits_80_columns(market: Market) -> None:
    shown = []
    for command in COMMANDS:
        output = CliRunner().invoke(group, shlex.split(command)).output
        shown.append(f"$ ./run {command}\n{output.rstrip()}\n")
    db.set_database(market.simulation.database)
    text = "\n".join(shown)
    if os.environ.get("SNAPSHOTS") == "write":
        FILE.write_text(text, encoding="utf-8")
    assert [line for line in text.splitlines() if len(line) > COLUMNS and not line.startswith("$ ")] == []
    assert text == FILE.read_text(encoding="utf-8")
