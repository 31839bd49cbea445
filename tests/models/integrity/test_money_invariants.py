"""Tests of the money invariants: they hold after random histories and find each inserted fault."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from models import bills
from models.bills import BillingMonthRow, BillRow
from models.integrity import month_audit
from models.integrity.invariants import ALWAYS
from models.ledger import LedgerLineRow
from policies.bills import billing_month_of, next_month
from policies.fees import ZERO
from policies.terms import DEFAULT_TERMS
from tests.plugins.market import Market

SELLERS = ("seller", "other_seller")


def broken(market: Market) -> dict[str, list[str]]:
    """The ids of each broken invariant, by its sentence."""
    with market.simulation.database.transaction() as conn:
        ids_by_sentence = {
            invariant.sentence: invariant.find_violations(conn, market.simulation.clock.instant)
            for invariant in ALWAYS
            if invariant.group == 5
        }
    return {sentence: ids for sentence, ids in ids_by_sentence.items() if ids}


class Trade:
    """A random history of two sellers' money."""

    def __init__(self, market: Market, seed: int) -> None:
        self.market = market
        self.chance = Random(seed)
        self.numbers = iter(range(1, 100_000))
        self.living: list[tuple[int, str]] = []
        self.issued: dict[tuple[str, date], str] = {}

    def step(self) -> None:
        """Run one random operation."""
        acts: list[Callable[[], Any]] = [self.order, self.order, self.batch, self.cancel, self.cancel]
        acts += [self.credit, self.pay, self.pay, self.wait, self.wait]
        self.chance.choice(acts)()

    def lot(self, seller: str) -> int:
        price = f"{self.chance.choice([0.05, 1, 12.3456, 99.99, 333.33, 500.25, 750, 1234.56]):.4f}"
        return self.market.lot(next(self.numbers), seller_id=seller, unit_price=price)

    def order(self) -> None:
        seller, order_id = self.chance.choice(SELLERS), next(self.numbers)
        rate = self.chance.choice(["1", "1.0825", "0.0067"])
        currency = "USD" if rate == "1" else "EUR"
        lines = [(self.lot(seller), self.chance.randint(1, 4))]
        self.market.order(order_id, lines, seller_id=seller, currency=currency, usd_rate=rate)
        self.living.append((order_id, seller))

    def batch(self) -> None:
        if self.living:
            order_id, seller = self.chance.choice(self.living)
            line = {"lot_id": self.lot(seller), "quantity": self.chance.randint(1, 3)}
            self.market.done("orders.add_batch", order_id=order_id, lines=[line])

    def cancel(self) -> None:
        if self.living:
            order_id, seller = self.living.pop(self.chance.randrange(len(self.living)))
            by = {"order_id": order_id, "member_id": seller}
            self.market.done("ocr.file", **by, reason="S_MUTUAL", comment="both agree")
            self.market.done("orders.cancel", **by)

    def credit(self) -> None:
        amount = f"{self.chance.randint(1, 900) / 100:.2f}"
        seller = self.chance.choice(SELLERS)
        self.market.done("credits.post_manual", seller_id=seller, amount=amount, staff="kim", comment="sorry")

    def pay(self) -> None:
        if self.issued:
            seller, month = self.chance.choice(sorted(self.issued))
            self.market.done(
                "bills.record_payment",
                seller_id=seller,
                billing_month=month.isoformat()[:7],
                amount=f"{self.chance.randint(1, 5000) / 100:.2f}",
                payment_id=f"p-{next(self.numbers)}",
            )

    def wait(self) -> None:
        days = self.chance.choice([1, 3, 10, 31])
        self.market.simulation.advance(self.market.simulation.clock.instant + timedelta(days=days))
        self.check_issued_bills()

    def check_issued_bills(self) -> None:
        """Check that issued bills have not changed except for payments."""
        now = self.market.simulation.clock.instant
        with self.market.simulation.database.transaction() as conn:
            for seller in SELLERS:
                month = date(2026, 3, 1)
                while month <= billing_month_of(now, DEFAULT_TERMS):
                    bill = bills.load_bill_json(conn, seller, month, now)
                    assert bill is not None
                    if bill["state"] != "open":
                        fixed = {k: v for k, v in bill.items() if k not in ("state", "paid", "overpaid")}
                        text = json.dumps(fixed, sort_keys=True)
                        assert self.issued.setdefault((seller, month), text) == text
                    month = next_month(month)


@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(3, 40))])
def test_ledger_invariants_hold_after_random_histories(market: Market, seed: int) -> None:
    """P5, R86: all equations hold, issued bills never change, and every month passes its audit."""
    trade = Trade(market, seed)
    for _ in range(60):
        trade.step()
    market.simulation.advance(market.simulation.clock.instant + timedelta(days=45))
    trade.check_issued_bills()
    assert broken(market) == {}
    month = date(2026, 3, 1)
    with market.simulation.database.transaction() as conn:
        while month <= billing_month_of(market.simulation.clock.instant, DEFAULT_TERMS):
            assert month_audit.audit_month(conn, month).differences == []
            month = next_month(month)
    assert sum_of_billed_lines(market) == sum_of_bills(market) + excess_credited(market)


def sum_of_billed_lines(market: Market) -> Decimal:
    """Of the lines on issued bills."""
    issued = {(bill.seller_id, bill.billing_month) for bill in market.stored(BillRow)}
    lines = market.ledger_lines(LedgerLineRow.kind != "payment")
    return sum((line.amount for line in lines if (line.seller_id, line.billing_month) in issued), ZERO)


def sum_of_bills(market: Market) -> Decimal:
    """Of all totals, and of what each seller's last bill carries forward."""
    bills_in_order = sorted(market.stored(BillRow), key=lambda bill: bill.billing_month)
    last_bills = {bill.seller_id: bill for bill in bills_in_order}
    totals = sum((bill.total for bill in bills_in_order), ZERO)
    return totals + sum((bill.carried_forward for bill in last_bills.values()), ZERO)


def excess_credited(market: Market) -> Decimal:
    """Of the payments whose excess a closed month credited."""
    last_month = max(market.column(BillingMonthRow.billing_month))
    payments = market.ledger_lines(LedgerLineRow.excess_credit_month <= last_month)
    return sum((payment.excess for payment in payments if payment.excess is not None), ZERO)


CHARGE = "UPDATE unwind.ledger_lines SET {} WHERE order_id = 1 AND kind = 'charge'"
CORRUPTIONS = [
    (CHARGE.format("amount = 19.99"), "Per order", "1"),
    (CHARGE.format("amount = 19.99"), "On every issued bill, lines and", "seller 2026-03"),
    (CHARGE.format("note = 'x'"), "The lines of an issued bill", "seller 2026-03"),
    (CHARGE.format("charged_month = '2026-04-01'"), "No charge is on an earlier", "1"),
    ("UPDATE unwind.orders SET basis = 'NSS' WHERE order_id = 1", "A cancellation through NRS", "1"),
    (
        "UPDATE unwind.bills SET opening_credit = -1, carried_forward = -1 WHERE billing_month = '2026-05-01'",
        "Every bill opens with the amount",
        "seller 2026-05",
    ),
    ("DELETE FROM unwind.bills WHERE billing_month = '2026-05-01'", "No month is skipped: a bill", "seller 2026-04"),
    ("DELETE FROM unwind.bills WHERE billing_month = '2026-03-01'", "Every line of a closed month", "seller 2026-03"),
    (
        "UPDATE unwind.ledger_lines SET excess_credit_month = '2026-03-01' WHERE payment_id = 'p-1'",
        "A payment's excess is at most",
        "p-1",
    ),
]


@pytest.mark.breaks_invariants("corrupts the ledger")
@pytest.mark.parametrize(("statement", "sentence", "reported_id"), CORRUPTIONS)
def test_corruption_is_reported_by_its_invariant(
    market: Market, database_url: str, statement: str, sentence: str, reported_id: str
) -> None:
    market.order(1, [(market.lot(501, unit_price="750"), 1)])
    market.simulation.advance(datetime(2026, 4, 12, tzinfo=UTC))
    market.done("ocr.file", order_id=1, member_id="seller", reason="S_MUTUAL", comment="both agree")
    market.done("orders.cancel", order_id=1, member_id="seller")
    market.done("bills.record_payment", seller_id="seller", billing_month="2026-03", amount="25.00", payment_id="p-1")
    market.simulation.advance(datetime(2026, 6, 10, tzinfo=UTC))
    assert broken(market) == {}
    engine = create_engine(database_url)
    with engine.begin() as conn:
        conn.execute(text("SET LOCAL session_replication_role = replica"))
        assert conn.execute(text(statement)).rowcount > 0
    engine.dispose()
    ids_by_sentence = {name: ids for name, ids in broken(market).items() if name.startswith(sentence)}
    assert list(ids_by_sentence.values()) == [[reported_id]]
