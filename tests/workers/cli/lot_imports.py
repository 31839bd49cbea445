"""What the tests of `import-lots` share: the command, its files, and the stock afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from models import inventory
from models.db import database as db
from models.integrity.invariants import query_invariants
from policies.lots import Lot
from tests.plugins.market import Market
from workers.cli import group

CASES = Path(__file__).parent / "files" / "cases"
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run_import(market: Market, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Imports a case, or this text as a file, for the market's seller; returns the exit code and all output."""
    monkeypatch.setenv("DATABASE_URL", database_url)

    def command(content: str, *options: str) -> tuple[int, str]:
        file = CASES / content
        if content.startswith(("<", "[")):
            file = tmp_path / "store.xml"
            file.write_text(content)
        result = CliRunner().invoke(group, ["import-lots", str(file), "--seller", "seller", *options])
        db.set_database(market.simulation.database)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.output

    return command


def stock(market: Market) -> list[Lot]:
    with market.simulation.database.transaction() as conn:
        assert query_invariants(conn, market.simulation.clock.instant) == {}
        return list(inventory.stream_lots(conn, "seller"))


def show(*words: str) -> str:
    result = CliRunner().invoke(group, ["show", "lots", "seller", *words])
    assert result.exit_code == 0, result.output
    return result.stdout


def part(values: str = "", *, item: str = "3001", quantity: int = 10) -> str:
    return (
        f"<ITEM><ITEMTYPE>P</ITEMTYPE><ITEMID>{item}</ITEMID><COLOR>5</COLOR><QTY>{quantity}</QTY><PRICE>0.5</PRICE>"
        f"<CONDITION>N</CONDITION>{values}</ITEM>"
    )


def inventory_of(*items: str) -> str:
    return f"<INVENTORY>{''.join(items)}</INVENTORY>"
