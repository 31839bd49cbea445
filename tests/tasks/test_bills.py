"""Issuing and payment of bills: every line is on exactly one bill, and an issued bill never changes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import DBAPIError

from models import bills
from models.bills import BillRow
from models.db import database as db
from models.ledger import LedgerLineRow
from models.notices import NoticeRow
from models.outbox import OutboxRow
from tests.plugins.market import Market


def instant(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%d %H:%M").replace(tzinfo=UTC)


def advance(market: Market, text: str) -> Market:
    market.simulation.advance(instant(text))
    return market


def bill(market: Market, month: str, seller_id: str = "seller") -> dict[str, Any]:
    simulation = market.simulation
    with simulation.database.transaction() as conn:
        bill_ = bills.load_bill_json(conn, seller_id, date.fromisoformat(f"{month}-01"), simulation.clock.instant)
    assert bill_ is not None
    return bill_


def amounts(bill_: dict[str, Any]) -> list[tuple[str, str]]:
    return [(line["kind"], line["amount"]) for line in bill_["lines"]]


def totals(bill_: dict[str, Any]) -> tuple[str, str, str]:
    return bill_["opening_credit"], bill_["total"], bill_["carried_forward"]


def priced(market: Market, order_id: int, dollars: str, **fields: Any) -> int:
    return market.order(order_id, [(market.lot(600_000 + order_id, unit_price=dollars), 1)], **fields)


def cancelled(market: Market, order_id: int) -> dict[str, Any]:
    market.done("ocr.file", order_id=order_id, member_id="seller", reason="S_MUTUAL", comment="gone")
    fee: dict[str, Any] = market.done("orders.cancel", order_id=order_id, member_id="seller")["fee"]
    return fee


@pytest.fixture
def billed(market: Market) -> Market:
    """An order of 750.00 on 28 March whose bill of 20.00 was issued on 5 April."""
    priced(market, 1003, "750")
    return advance(market, "2026-04-05 04:00")


def test_a_bill_is_issued_at_midnight_of_the_fifth_in_the_billing_zone(market: Market) -> None:
    """R92: 5 April 00:00 in New York is 04:00Z, and not a second before."""
    priced(market, 1003, "750")
    advance(market, "2026-04-05 03:59")
    assert bill(market, "2026-03") | {"lines": []} == {
        "seller_id": "seller",
        "billing_month": "2026-03",
        "state": "open",
        "issued_on": None,
        "due_on": None,
        "grace_until": None,
        "currency": "USD",
        "opening_credit": "0.00",
        "lines": [],
        "total": "20.00",
        "carried_forward": "0.00",
        "paid": "0.00",
        "overpaid": "0.00",
    }
    issued = bill(advance(market, "2026-04-05 04:00"), "2026-03")
    assert (issued["state"], issued["issued_on"], issued["due_on"], issued["grace_until"]) == (
        "issued",
        "2026-04-05",
        "2026-05-05",
        "2026-05-15",
    )
    assert amounts(issued) == [("charge", "20.00")]


def test_an_unpaid_bill_is_past_due_from_the_sixth(billed: Market) -> None:
    """R92: the due day is in time; past due changes only the state."""
    assert bill(advance(billed, "2026-05-06 03:59"), "2026-03")["state"] == "issued"
    assert bill(advance(billed, "2026-05-06 04:00"), "2026-03")["state"] == "past_due"


def test_a_known_seller_has_a_bill_for_any_month_up_to_now(billed: Market) -> None:
    assert bill(billed, "2025-11")["state"] == "paid"
    assert bill(billed, "2026-04")["state"] == "open"
    simulation = billed.simulation
    with simulation.database.transaction() as conn:
        assert bills.load_bill_json(conn, "seller", date(2026, 5, 1), simulation.clock.instant) is None
        assert bills.load_bill_json(conn, "nobody", date(2026, 3, 1), simulation.clock.instant) is None


def test_a_cancellation_in_the_month_of_the_charge_leaves_nothing_on_the_bill(market: Market) -> None:
    """R83, E1."""
    priced(market, 1003, "120")
    assert cancelled(market, 1003) == {"kind": "reset", "amount": "-3.60", "bill": "2026-03"}
    issued = bill(advance(market, "2026-04-05 04:00"), "2026-03")
    assert (issued["lines"], issued["total"], issued["state"]) == ([], "0.00", "paid")
    assert market.count(NoticeRow, event="bill_issued") == 0


def test_a_cancellation_after_the_month_is_one_credit_on_the_bill_of_its_month(billed: Market) -> None:
    """R84, R93, E2, E8: the old bill stays due in full."""
    before = bill(billed, "2026-03")
    assert cancelled(advance(billed, "2026-04-12 10:00"), 1003) == {
        "kind": "credit",
        "amount": "-20.00",
        "bill": "2026-04",
    }
    priced(billed, 1004, "1550")
    issued = bill(advance(billed, "2026-05-05 04:00"), "2026-04")
    assert amounts(issued) == [("credit", "-20.00"), ("charge", "30.50")]
    assert totals(issued) == ("0.00", "10.50", "0.00")
    assert issued["lines"][0]["note"] == (
        "Order 1003 was cancelled in April 2026; its fee, charged in March 2026, is credited in April 2026."
    )
    assert bill(billed, "2026-03") == before
    notices = billed.notices(NoticeRow.event.in_(("credit_posted", "bill_issued")))
    assert sorted((notice.event, notice.recipient) for notice in notices) == [
        ("bill_issued", "seller"),
        ("bill_issued", "seller"),
        ("credit_posted", "seller"),
    ]


def test_a_credit_that_is_more_than_the_bill_opens_the_following_bills(billed: Market) -> None:
    """R91, E5: carried forward until it is used up, over months without any line."""
    cancelled(advance(billed, "2026-04-12 10:00"), 1003)
    assert totals(bill(advance(billed, "2026-07-10 00:00"), "2026-04")) == ("0.00", "0.00", "-20.00")
    assert totals(bill(billed, "2026-05")) == ("-20.00", "0.00", "-20.00")
    assert totals(bill(billed, "2026-06")) == ("-20.00", "0.00", "-20.00")
    priced(billed, 1005, "800")
    assert totals(bill(billed, "2026-07")) == ("-20.00", "1.00", "0.00")
    assert bill(billed, "2026-05")["state"] == "paid"


def test_an_issued_bill_refuses_every_further_line(billed: Market) -> None:
    """R86: the database itself refuses."""
    line = (
        "INSERT INTO unwind.ledger_lines (key, seller_id, billing_month, kind, amount, note, at) "
        "VALUES ('x', 'seller', '2026-03-01', 'manual_credit', -1, '', '2026-04-06T00:00Z')"
    )
    with pytest.raises(DBAPIError, match="issued and never changes"), billed.simulation.database.transaction() as conn:
        conn.execute(text(line))


@pytest.mark.parametrize("table", ["ledger_lines", "bills", "billing_months"])
@pytest.mark.parametrize(
    "change", ["DELETE FROM unwind.{}", "UPDATE unwind.{} SET billing_month = '2020-01-01'", "TRUNCATE unwind.{}"]
)
def test_ledger_lines_bills_and_months_are_append_only(billed: Market, table: str, change: str) -> None:
    with (
        pytest.raises(DBAPIError, match=r"append-only|permission denied"),
        billed.simulation.database.transaction() as conn,
    ):
        conn.execute(text(change.format(table)))


def test_each_bill_is_issued_once_however_often_the_sweep_runs(billed: Market) -> None:
    """R103."""
    for _ in range(3):
        assert billed.done("bills.issue") == {"issued": 0}
    assert billed.count(BillRow) == 1
    assert billed.count(NoticeRow, event="bill_issued") == 1


def test_a_late_consumer_does_not_change_the_bill(market: Market) -> None:
    priced(market, 1003, "750")
    market.simulation.do("ocr.file", order_id=1003, member_id="seller", reason="S_MUTUAL", comment="gone")
    market.simulation.do("orders.cancel", order_id=1003, member_id="seller")
    market.at(instant("2026-04-09 12:00")).simulation.do("bills.issue")
    assert totals(bill(market, "2026-03")) == ("0.00", "0.00", "0.00")
    market.simulation.process_outbox()
    assert [line.kind for line in market.ledger_lines()] == ["charge", "reset"]


def set_outbox_state(market: Market, key: str, state: str) -> None:
    with market.simulation.database.transaction() as conn:
        conn.execute(update(OutboxRow).where(OutboxRow.key == key).values(state=state))


def test_a_line_after_the_issue_goes_on_the_next_bill(market: Market) -> None:
    priced(market, 1003, "750")
    market.simulation.do("ocr.file", order_id=1003, member_id="seller", reason="S_MUTUAL", comment="gone")
    market.simulation.do("orders.cancel", order_id=1003, member_id="seller")
    set_outbox_state(market, "fee:1003", "dead")
    before = bill(advance(market, "2026-04-06 00:00"), "2026-03")
    set_outbox_state(market, "fee:1003", "due")
    market.simulation.process_outbox()
    assert bill(market, "2026-03") == before
    assert amounts(bill(market, "2026-04")) == [("credit", "-20.00")]
    assert bill(market, "2026-04")["lines"][0]["note"].endswith(
        "The bill for March 2026 had already been issued, so the credit is on this one."
    )


def test_payments_in_parts_add_up_and_settle_the_bill(billed: Market) -> None:
    paid = {"seller_id": "seller", "billing_month": "2026-03"}
    billed.done("bills.record_payment", **paid, amount="5.00", payment_id="p-1")
    assert (bill(billed, "2026-03")["state"], bill(billed, "2026-03")["paid"]) == ("issued", "5.00")
    billed.done("bills.record_payment", **paid, amount="15.00", payment_id="p-2")
    issued = bill(billed, "2026-03")
    assert (issued["state"], issued["paid"], issued["total"], amounts(issued)) == (
        "paid",
        "20.00",
        "20.00",
        [("charge", "20.00")],
    )


def test_an_excess_payment_opens_the_next_bill(billed: Market) -> None:
    before = bill(billed, "2026-03")
    effects = billed.done(
        "bills.record_payment", seller_id="seller", billing_month="2026-03", amount="32.50", payment_id="p-1"
    )
    assert (effects["excess"], effects["opens"]) == ("12.50", "2026-04")
    after = bill(billed, "2026-03")
    assert after == before | {"state": "paid", "paid": "32.50", "overpaid": "12.50"}
    priced(billed, 1004, "100")
    assert totals(bill(billed, "2026-04")) == ("-12.50", "0.00", "-9.50")
    assert totals(bill(advance(billed, "2026-05-05 04:00"), "2026-04")) == ("-12.50", "0.00", "-9.50")
    assert totals(bill(billed, "2026-05")) == ("-9.50", "0.00", "-9.50")


def test_the_doctor_reports_bills_past_due(billed: Market) -> None:
    def bill_() -> list[tuple[str, date, Decimal]]:
        with billed.simulation.database.transaction() as conn:
            return bills.list_past_due_bills(conn, billed.simulation.clock.instant)

    paid = {"seller_id": "seller", "billing_month": "2026-03"}
    billed.done("bills.record_payment", **paid, amount="5.00", payment_id="p-1")
    advance(billed, "2026-05-06 03:59")
    assert bill_() == []
    advance(billed, "2026-05-06 04:00")
    assert bill_() == [("seller", date(2026, 3, 1), Decimal("15.00"))]
    billed.done("bills.record_payment", **paid, amount="15.00", payment_id="p-2")
    assert bill_() == []


def test_payments_at_the_same_moment_add_up(billed: Market, database_url: str) -> None:
    database = db.connect(database_url, pool_size=8)
    database.clock = billed.simulation.clock
    db.set_database(database)

    def pay(number: int) -> str:
        arguments = {"seller_id": "seller", "billing_month": "2026-03", "amount": "5.00", "payment_id": f"p-{number}"}
        outcome: str = billed.simulation.do("bills.record_payment", **arguments)["outcome"]
        return outcome

    try:
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(pay, range(8))) == {"done"}
    finally:
        db.set_database(billed.simulation.database)
        database.dispose()
    issued = bill(billed, "2026-03")
    assert (issued["paid"], issued["overpaid"], issued["state"]) == ("40.00", "20.00", "paid")
    assert bill(billed, "2026-04")["opening_credit"] == "-20.00"


def test_a_payment_id_counts_once(billed: Market) -> None:
    paid = {"seller_id": "seller", "billing_month": "2026-03", "amount": "5.00", "payment_id": "p-1"}
    billed.done("bills.record_payment", **paid, request_id="r-1")
    assert billed.do("bills.record_payment", **paid, request_id="r-1")["replayed"]
    assert billed.code("bills.record_payment", **paid, request_id="r-2") == "ALREADY_EXISTS"
    assert bill(billed, "2026-03")["paid"] == "5.00"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"seller_id": "nobody"}, "MEMBER_UNKNOWN"),
        ({"billing_month": "2026-04"}, "BILL_UNKNOWN"),
        ({"billing_month": "2030-01"}, "BILL_UNKNOWN"),
        ({"billing_month": "1999-12"}, "BILL_UNKNOWN"),
        ({"amount": "0.00"}, None),
        ({"amount": "-1"}, None),
        ({"amount": "1e2"}, None),
        ({"amount": "1.005"}, None),
        ({"amount": 5.0}, None),
        ({"amount": "NaN"}, None),
        ({"billing_month": "2026-13"}, None),
        ({"billing_month": "2026-3"}, None),
        ({"billing_month": "２０２６-03"}, None),
    ],
)
def test_a_payment_that_does_not_fit_changes_nothing(billed: Market, change: dict[str, Any], code: str | None) -> None:
    arguments = {"seller_id": "seller", "billing_month": "2026-03", "amount": "5.00", "payment_id": "p-1"} | change
    answer = billed.do("bills.record_payment", **arguments)
    assert (answer["outcome"], answer["code"]) == ("refused" if code else "invalid", code)
    assert billed.count(LedgerLineRow, kind="payment") == 0


def test_a_small_bill_is_carried_over_until_it_reaches_the_minimum(market: Market) -> None:
    market.simulation.clock.instant = instant("2026-03-01 00:00")
    with market.simulation.database.transaction() as conn:
        conn.execute(
            text(
                "INSERT INTO unwind.terms (valid_from, settings, applied_by, applied_at) VALUES "
                """(:now, '{"MINIMUM_BILL": "5.00"}', 'kim', :now)"""
            ),
            {"now": instant("2026-03-01 00:00")},
        )
    priced(market.at(instant("2026-03-10 00:00")), 1003, "100")
    advance(market, "2026-04-06 00:00")
    assert totals(bill(market, "2026-03")) == ("0.00", "0.00", "3.00")
    priced(market, 1004, "100")
    advance(market, "2026-05-06 00:00")
    assert totals(bill(market, "2026-04")) == ("3.00", "6.00", "0.00")


def test_a_sweep_after_a_long_outage_issues_all_missing_bills_in_order(market: Market) -> None:
    priced(market, 1003, "750")
    market.at(instant("2026-04-12 10:00"))
    cancelled(market, 1003)
    market.at(instant("2026-08-20 00:00"))
    assert market.done("bills.issue") == {"issued": 5}
    months = ["2026-03", "2026-04", "2026-05", "2026-06", "2026-07"]
    assert [bill(market, month)["total"] for month in months] == ["20.00", "0.00", "0.00", "0.00", "0.00"]
    assert bill(market, "2026-08")["opening_credit"] == "-20.00"
    assert Decimal(bill(market, "2026-07")["carried_forward"]) == -20
