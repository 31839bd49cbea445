"""What if a worker dies at any statement while money is posted or bills are made?  (promises.md, crash at every statement)"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest
from sqlalchemy import event

from models import bills
from tests.plugins.market import Market
from workers.app import app


class Died(BaseException):
    """The worker is gone."""


@contextlib.contextmanager
def dying(market: Market, moment: str, number: int) -> Iterator[list[bool]]:
    """Die right before or after the `number`th statement; gives whether that came."""
    count, died = itertools.count(1), [False]

    def strike(*_: Any) -> None:
        if next(count) == number:
            died[0] = True
            raise Died

    engine = market.stage.database.engine
    event.listen(engine, moment, strike)
    try:
        with contextlib.suppress(Died):
            yield died
    finally:
        event.remove(engine, moment, strike)


def until_it_lives(market: Market, moment: str, body: Callable[[], Any]) -> int:
    """Run, dying one statement later each time, until it comes to its end; gives how often it died."""
    for number in itertools.count(1):
        with dying(market, moment, number) as died:
            body()
        if not died[0]:
            return number - 1
        assert number < 1000
    raise AssertionError


@pytest.mark.parametrize("moment", ["before_cursor_execute", "after_cursor_execute"])
def test_dying_at_any_statement_posts_once_and_makes_each_bill_once(market: Market, moment: str) -> None:
    """P2, P4: whatever was committed stays, whatever was not is done by the next one, nothing is doubled."""
    market.order(1003, [(market.lot(501, unit_price="750"), 1)])
    market.order(1004, [(market.lot(502, unit_price="100", seller_id="other_seller"), 1)], seller_id="other_seller")
    market.stage.advance(datetime(2026, 4, 12, tzinfo=UTC))
    market.stage.do("ocr.file", order_id=1003, member_id="seller", reason="S_MUTUAL", comment="both agree")
    market.stage.do("orders.cancel", order_id=1003, member_id="seller")

    assert until_it_lives(market, moment, app.tasks["credits.post_to_next_invoice"].run) > 3
    assert _lines(market) == ["charge 20.00", "charge 3.00", "credit -20.00"]

    market.at(datetime(2026, 6, 10, tzinfo=UTC))
    assert until_it_lives(market, moment, app.tasks["bills.issue"].run) > 10
    market.stage.settle()
    made = market.rows("SELECT seller_id, billing_month, total, carried_forward FROM unwind.bills ORDER BY 2, 1")
    assert [(r.seller_id, r.billing_month.month, str(r.total), str(r.carried_forward)) for r in made] == [
        ("other_seller", 3, "3.00", "0.00"),
        ("seller", 3, "20.00", "0.00"),
        ("seller", 4, "0.00", "-20.00"),
        ("seller", 5, "0.00", "-20.00"),
    ]
    told = market.rows("SELECT event, count(*) AS n FROM unwind.notices WHERE event LIKE '%bill%' GROUP BY 1")
    assert [(r.event, r.n) for r in told] == [("bill_issued", 2)]


@pytest.mark.parametrize("moment", ["before_cursor_execute", "after_cursor_execute"])
def test_dying_while_a_payment_is_recorded_counts_it_once(market: Market, moment: str) -> None:
    """P2: the same message comes again until it is answered."""
    market.order(1003, [(market.lot(501, unit_price="750"), 1)])
    market.stage.advance(datetime(2026, 4, 5, 4, tzinfo=UTC))
    paid = {"seller_id": "seller", "billing_month": "2026-03", "amount": "25.00", "payment_id": "p-1"}

    def pay() -> None:
        market.stage.do("bills.record_payment", **paid, request_id="r-1")

    assert until_it_lives(market, moment, pay) > 5
    with market.stage.database.transaction() as conn:
        found = bills.bill(conn, "seller", date(2026, 3, 1), market.stage.clock.instant)
    assert found is not None
    assert (found["paid"], found["overpaid"], found["state"]) == ("25.00", "5.00", "paid")


def _lines(market: Market) -> list[str]:
    rows = market.rows("SELECT kind, amount FROM unwind.ledger_lines ORDER BY kind, amount DESC")
    return [f"{row.kind} {row.amount}" for row in rows]
