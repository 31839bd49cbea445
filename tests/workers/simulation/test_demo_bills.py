"""A test that the demo's bills add up, with credit that is carried from one month to the next."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise

from rich.console import Console

from tests.plugins.market import FILED, Market
from workers.simulation.demo.dashboard import bills_table

ROW = re.compile(r"│ \d{4}-\d{2} +│ \w+ +│" + r" +(-?\d+\.\d{2}) │" * 5)


def read_bills(shown: str) -> list[list[Decimal]]:
    """Charges, credits, carried in, total and carried out of each month, read from the table; they must add up."""
    bills = [[Decimal(amount) for amount in row] for row in ROW.findall(shown)]
    for charged, credited, carried_in, total, carried_out in bills:
        assert charged + credited + carried_in == total + carried_out, shown
    for before, after in pairwise(bills):
        assert before[-1] == after[2], shown
    return bills


def test_bills_of_the_demo_add_up_when_credit_is_carried(market: Market) -> None:
    """An order of March, its fee credited in April, and the credit used in May."""
    market.order(1003, [(market.lot(1, unit_price="5.0000"), 100)])
    market.at(FILED).done("ocr.file", order_id=1003, member_id="seller", reason="S_MUTUAL", comment="agreed by mail")
    market.done("orders.cancel", order_id=1003, member_id="seller")
    now = datetime(2026, 5, 20, tzinfo=UTC)
    market.at(now).order(1004, [(market.lot(2, unit_price="9.0000"), 100)])
    screen = Console(file=io.StringIO(), width=80)
    screen.print(bills_table(market.simulation.database, "seller", now))
    assert isinstance(screen.file, io.StringIO)
    march, april, may = read_bills(screen.file.getvalue())
    assert march[0] == march[3] == -april[1] == -april[4] == -may[2] > 0
    assert 0 < may[3] < may[0]
