"""The append-only ledger: what each seller owes, line by line (R86).

A line is on the bill of one seller and one month. Lines are posted under a lock that prevents that seller's bills from
being issued meanwhile; a line for an issued bill goes on the next open one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal

from sqlalchemy import CheckConstraint, Connection, Index, exists, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column

from models.db.arrays import is_any
from models.db.bulk import insert_rows
from models.db.row_mapping import to_row
from models.db.schema import Base, BigInt, BigIntKey, Cents, check_finite, check_in, partial_index
from models.feed import WrittenIn
from policies.bills import next_month
from policies.cases import Order
from policies.credits import charge_note, recharge_note, reversal_note
from policies.fees import ZERO


class LedgerLineRow(Base):
    """A line of the ledger.  The trigger `ledger_lines_have_parties` does what foreign keys would do row by row."""

    __tablename__ = "ledger_lines"

    written_in: Mapped[WrittenIn] = mapped_column(primary_key=True)
    line_id: Mapped[BigIntKey]
    key: Mapped[str] = mapped_column(unique=True)
    seller_id: Mapped[str]
    billing_month: Mapped[date]
    kind: Mapped[str]
    amount: Mapped[Decimal] = mapped_column(Cents)
    order_id: Mapped[BigInt | None]
    charged_month: Mapped[date | None]
    credited_month: Mapped[date | None]
    payment_id: Mapped[str | None]
    excess: Mapped[Decimal | None] = mapped_column(Cents)
    excess_credit_month: Mapped[date | None]
    note: Mapped[str]
    at: Mapped[datetime]

    __table_args__ = (
        check_in("kind", ("charge", "reset", "credit", "reversal", "payment", "manual_credit")),
        check_finite("amount"),
        CheckConstraint("CASE WHEN kind = 'charge' THEN amount > 0 ELSE amount < 0 END", name="amount_sign"),
        CheckConstraint("kind IN ('payment', 'manual_credit') OR order_id IS NOT NULL", name="has_order"),
        CheckConstraint("(kind = 'payment') = (payment_id IS NOT NULL)", name="payment_id_only_of_payment"),
        CheckConstraint(
            "(excess IS NULL) = (excess_credit_month IS NULL) "
            "AND (excess IS NULL OR (kind = 'payment' AND excess > 0 AND excess <= -amount))",
            name="excess_only_of_payment",
        ),
        CheckConstraint("extract(day FROM billing_month) = 1", name="billing_month_is_a_month"),
        Index("ix_ledger_lines_bill", "seller_id", "billing_month"),
        Index("ix_ledger_lines_billing_month", "billing_month"),
        Index("ix_ledger_lines_order_id", "order_id"),
        partial_index(
            "ix_ledger_lines_excess_credit_month", "excess_credit_month", where="excess_credit_month IS NOT NULL"
        ),
        # Lines of other kinds have no entry in it.
        partial_index("uq_ledger_lines_payment_id", "payment_id", unique=True, where="payment_id IS NOT NULL"),
        # R57, R90: a cancellation has at most one reset or credit, whichever code posts it.
        partial_index(
            "uq_ledger_lines_one_reset_or_credit", "order_id", unique=True, where="kind IN ('reset', 'credit')"
        ),
    )


class LedgerLockRow(Base):
    __tablename__ = "ledger_locks"

    seller_id: Mapped[str] = mapped_column(primary_key=True)


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """A line to post. `amount` in USD: positive is owed by the seller; negative is owed to them or was paid."""

    key: str
    seller_id: str
    billing_month: date
    kind: str
    amount: Decimal
    at: datetime
    note: str
    order_id: int | None = None
    charged_month: date | None = None
    credited_month: date | None = None
    payment_id: str | None = None
    excess: Decimal | None = None
    excess_credit_month: date | None = None


def charge_lines(order: Order, at: datetime, *, before: Order | None = None, reason: str = "") -> list[LedgerLine]:
    """Return the line that charges an order's fee in its `fee_month`; a fee of 0.00 has none.

    If the order was changed for a `reason`, the whole is charged again and the charge `before` is reversed, both in the
    month of the change (A21, E6).
    """
    month = order.fee_month
    assert month is not None  # policies.orders.charge_order sets both
    if before is None:
        seq = 1
        fees = [("charge", order.fee, order, charge_note(order.order_id, month))]
    else:
        seq = before.version + 1  # the number of the event that changed the order
        fees = [
            ("reversal", -before.fee, before, reversal_note(order.order_id, before.fee_month, reason)),
            ("charge", order.fee, order, recharge_note(order.order_id, month, reason)),
        ]
    return [
        LedgerLine(
            key=f"{kind}:{order.order_id}:{seq}",
            seller_id=order.seller_id,
            billing_month=month,
            kind=kind,
            amount=amount,
            at=at,
            note=note,
            order_id=order.order_id,
            charged_month=charged.fee_month,
            credited_month=month if kind == "reversal" else None,
        )
        for kind, amount, charged, note in fees
        if amount
    ]


def post_fee_lines(conn: Connection, lines: Sequence[LedgerLine]) -> None:
    """Post charges and reversals to open bills.  Call it after the orders are written: the ledger is last in the lock
    order."""
    if lines:
        first_open = lock_open_ledger_months(conn, {line.seller_id for line in lines})
        post_ledger_lines(
            conn, [replace(x, billing_month=max(x.billing_month, first_open[x.seller_id])) for x in lines]
        )


def post_ledger_lines(conn: Connection, lines: Sequence[LedgerLine]) -> list[LedgerLine]:
    """Post lines to open bills; hold `lock_open_ledger_months`. Return the lines that were not posted before (R90)."""
    rows = [to_row(line, LedgerLine.__slots__) for line in lines]
    written = set(insert_rows(conn, LedgerLineRow, rows, skip_existing=True, returning="key"))
    return [line for line in lines if line.key in written]


def ledger_has_payment(conn: Connection, payment_id: str) -> bool:
    return bool(conn.execute(select(exists().where(LedgerLineRow.payment_id == payment_id))).scalar())


def sum_ledger_payments(conn: Connection, seller_id: str, month: date) -> tuple[Decimal, Decimal]:
    """Return (total paid for the bill, the part of it in excess of the bill)."""
    line = LedgerLineRow
    of_bill = (line.seller_id == seller_id, line.billing_month == month, line.kind == "payment")
    paid, excess = conn.execute(select(func.sum(line.amount), func.sum(line.excess)).where(*of_bill)).one()
    return -(paid or ZERO), excess or ZERO


def lock_open_ledger_months(conn: Connection, seller_ids: Collection[str]) -> dict[str, date]:
    """Prevent these sellers' bills from being issued until the transaction ends; return each one's first open month.

    The lock is shared.
    """
    lock_ledgers_of_sellers(conn, seller_ids, shared=True)
    return first_open_ledger_months(conn, seller_ids)


def lock_ledgers_of_sellers(conn: Connection, seller_ids: Iterable[str], *, shared: bool = False) -> None:
    """Prevent all postings to these sellers' bills, to issue one or to compare a payment with it."""
    # Missing rows are inserted first, then all are locked by ascending id, so that no deadlock is possible.
    ids = sorted(set(seller_ids))
    if not ids:
        return
    conn.execute(insert(LedgerLockRow).values([{"seller_id": i} for i in ids]).on_conflict_do_nothing())
    rows = select(LedgerLockRow).where(is_any(LedgerLockRow.seller_id, ids)).order_by(LedgerLockRow.seller_id)
    conn.execute(rows.with_for_update(read=shared))


def lock_all_ledgers(conn: Connection) -> None:
    """Lock the ledgers of all sellers; the table lock conflicts with every row lock of one seller's ledger."""
    conn.execute(text("LOCK TABLE unwind.ledger_locks IN EXCLUSIVE MODE"))


def first_open_ledger_months(conn: Connection, seller_ids: Iterable[str]) -> dict[str, date]:
    """Return the month after each seller's last issued bill, the earliest to post to. Lock the sellers first."""
    rows = conn.execute(
        text(
            "SELECT s AS seller_id, GREATEST("
            "(SELECT max(billing_month) FROM unwind.bills b WHERE b.seller_id = s), "
            "(SELECT max(billing_month) FROM unwind.billing_months)) AS issued FROM unnest(CAST(:sellers AS text[])) s"
        ),
        {"sellers": sorted(seller_ids)},
    )
    return {r.seller_id: next_month(r.issued) if r.issued else date.min for r in rows}
