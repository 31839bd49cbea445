"""The tables of bills, held bills and closed months: an issued bill never changes; open ones are computed (R86).

A month in which a seller has neither lines nor an opening credit has no row: its bill is 0.00 and carries nothing
forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import CheckConstraint, Connection, ForeignKey, Index, Row, UniqueConstraint, delete, func, select, text
from sqlalchemy.orm import Mapped, aliased, mapped_column

from models import ledger, terms
from models.db.arrays import is_any
from models.db.bulk import insert_rows
from models.db.row_mapping import from_row
from models.db.schema import Base, BigIntKey, Cents, check_finite, partial_index
from models.feed import WrittenIn
from models.ledger import LedgerLineRow
from models.members import MemberRow
from models.sql import load_sql
from policies import bills as policy
from policies.fees import ZERO
from policies.terms import TermsHistory


class BillRow(Base):
    __tablename__ = "bills"

    bill_id: Mapped[BigIntKey]
    seller_id: Mapped[str] = mapped_column(ForeignKey("unwind.members.member_id"))
    billing_month: Mapped[date]
    issued_at: Mapped[datetime]
    issued_on: Mapped[date]
    due_on: Mapped[date]
    grace_until: Mapped[date]
    past_due_at: Mapped[datetime]
    opening_credit: Mapped[Decimal] = mapped_column(Cents)
    lines_sum: Mapped[Decimal] = mapped_column(Cents)
    total: Mapped[Decimal] = mapped_column(Cents)
    carried_forward: Mapped[Decimal] = mapped_column(Cents)
    lines_hash: Mapped[str]
    written_in: Mapped[WrittenIn]

    __table_args__ = (
        Index("ix_bills_written_in", "written_in", "bill_id"),
        UniqueConstraint("seller_id", "billing_month"),
        *(check_finite(name) for name in ("opening_credit", "lines_sum", "total", "carried_forward")),
        CheckConstraint("lines_sum + opening_credit = total + carried_forward", name="sums_add_up"),
        CheckConstraint("total >= 0 AND (total = 0 OR carried_forward = 0)", name="floored_at_zero"),
        CheckConstraint("extract(day FROM billing_month) = 1", name="billing_month_is_a_month"),
        partial_index("ix_bills_carried", "billing_month", "seller_id", where="carried_forward <> 0"),
    )


class HeldBillRow(Base):
    __tablename__ = "held_bills"

    seller_id: Mapped[str] = mapped_column(ForeignKey("unwind.members.member_id"), primary_key=True)
    billing_month: Mapped[date] = mapped_column(primary_key=True)
    held_at: Mapped[datetime]

    __table_args__ = (CheckConstraint("extract(day FROM billing_month) = 1", name="billing_month_is_a_month"),)


class BillingMonthRow(Base):
    """A closed month, also recorded because a seller with nothing to bill has no row in `bills`."""

    __tablename__ = "billing_months"

    billing_month: Mapped[date] = mapped_column(primary_key=True)
    closed_at: Mapped[datetime]

    __table_args__ = (CheckConstraint("extract(day FROM billing_month) = 1", name="is_a_month"),)


def load_bill_json(conn: Connection, seller_id: str, month: date, now: datetime) -> dict[str, Any] | None:
    bill = load_bill(conn, seller_id, month, now)
    return bill.as_json() if bill else None


def load_bill(conn: Connection, seller_id: str, month: date, now: datetime) -> policy.Bill | None:
    terms_history = terms.load_terms(conn)
    known = conn.execute(select(MemberRow.member_id).where(MemberRow.member_id == seller_id)).scalar()
    if not known or not policy.MIN_BILLING_MONTH <= month <= policy.billing_month_of(now, terms_history.at(now)):
        return None
    lines = _bill_lines_of(conn, seller_id, month)
    paid, overpaid = ledger.sum_ledger_payments(conn, seller_id, month)
    row = conn.execute(
        select(BillRow).where(BillRow.seller_id == seller_id, BillRow.billing_month == month)
    ).one_or_none()
    if row is not None:
        days = (row.issued_on, row.due_on, row.grace_until)
        state = policy.bill_state(row.total, paid, row.past_due_at, now)
        return policy.Bill(seller_id, month, state, from_row(policy.BillTotals, row), lines, paid, overpaid, *days)
    opening = _opening_bill_credit(conn, terms_history, seller_id, month)
    month_terms = policy.terms_of_billing_month(terms_history, month)
    computed = policy.calculate_totals(sum((line.amount for line in lines), ZERO), opening, month_terms)
    if lines or opening or now < policy.bill_issues_at(month, month_terms):
        return policy.Bill(seller_id, month, policy.OPEN, computed, lines, paid, overpaid)
    due = policy.due_on(month, month_terms)
    days = (policy.issued_on(month, month_terms), due, policy.grace_until(due, month_terms))
    return policy.Bill(seller_id, month, policy.PAID, computed, lines, paid, overpaid, *days)


def next_bill_issue_at(conn: Connection) -> datetime | None:
    month, terms_history = first_unbilled_month(conn), terms.load_terms(conn)
    return None if month is None else policy.bill_issues_at(month, policy.terms_of_billing_month(terms_history, month))


def last_closed_billing_month(conn: Connection) -> date | None:
    return conn.execute(select(func.max(BillingMonthRow.billing_month))).scalar()


def first_unbilled_month(conn: Connection) -> date | None:
    """Return the earliest month with lines, an opening credit or a due credit that is on no issued bill."""
    closed = last_closed_billing_month(conn)
    month: date | None = conn.execute(_FIRST_UNBILLED_MONTH, {"closed": closed or policy.MIN_BILLING_MONTH}).scalar()
    return month if month is None or closed is None else max(month, policy.next_month(closed))


_FIRST_UNBILLED_MONTH = text(load_sql("first_pending_month"))


def load_billing_month_to_close(conn: Connection, now: datetime) -> date | None:
    terms_history = terms.load_terms(conn)
    closed = last_closed_billing_month(conn)
    month = policy.next_month(closed) if closed else first_unbilled_month(conn)
    month = month or policy.last_due_billing_month(now, terms_history)
    return month if now >= policy.bill_issues_at(month, policy.terms_of_billing_month(terms_history, month)) else None


_SELLERS_TO_BILL = text(load_sql("sellers_to_bill"))
_SUMS_TO_BILL = text(load_sql("sums_to_bill"))


def sellers_to_bill(
    conn: Connection, month: date, *, after: str = "", limit: int = 500, with_postings: bool = True
) -> list[str]:
    values = {
        "month": month,
        "before": policy.previous_month(month),
        "written_month": policy.format_month(month),
        "with_postings": with_postings,
        "after": after,
        "limit": limit,
    }
    return list(conn.execute(_SELLERS_TO_BILL, values).scalars())


def held_sellers_to_bill(conn: Connection, month: date, *, after: str = "", limit: int = 500) -> list[str]:
    """Return the sellers whose bill of the month is held, and none of their earlier ones."""
    earlier = aliased(HeldBillRow)
    is_earlier = (earlier.seller_id == HeldBillRow.seller_id, earlier.billing_month < month)
    held = select(HeldBillRow.seller_id).where(
        HeldBillRow.billing_month == month, HeldBillRow.seller_id > after, ~select(earlier).where(*is_earlier).exists()
    )
    return list(conn.execute(held.order_by(HeldBillRow.seller_id).limit(limit)).scalars())


def delete_held_bills(conn: Connection, month: date, seller_ids: Sequence[str]) -> None:
    held = (HeldBillRow.billing_month == month, is_any(HeldBillRow.seller_id, seller_ids))
    conn.execute(delete(HeldBillRow).where(*held))


def sums_to_bill(conn: Connection, month: date, seller_ids: Sequence[str]) -> Sequence[Row[Any]]:
    return conn.execute(_SUMS_TO_BILL, {"month": month, "sellers": list(seller_ids)}).all()


_HOLD_BILLS = text("""
    INSERT INTO unwind.held_bills (seller_id, billing_month, held_at)
    SELECT s, :month, :now
    FROM (SELECT unnest(CAST(:skipped AS text[])) AS s UNION SELECT seller_id FROM unwind.held_bills) AS held
    WHERE NOT EXISTS (SELECT FROM unwind.bills AS b WHERE b.seller_id = s AND b.billing_month = :month)
    ON CONFLICT DO NOTHING
""")


def close_billing_month(conn: Connection, month: date, now: datetime, skipped: Sequence[str] = ()) -> bool:
    """Close the month unless a seller has something unbilled in it; return whether it was closed.

    The bills of `skipped` sellers are held, and so are their later bills until the held one is issued.
    """
    ledger.lock_all_ledgers(conn)
    if set(sellers_to_bill(conn, month, limit=len(skipped) + 1, with_postings=False)) - set(skipped):
        return False
    conn.execute(_HOLD_BILLS, {"month": month, "now": now, "skipped": list(skipped)})
    insert_rows(conn, BillingMonthRow, [{"billing_month": month, "closed_at": now}], skip_existing=True)
    return True


def list_held_bills(conn: Connection) -> list[tuple[str, date]]:
    rows = conn.execute(select(HeldBillRow).order_by(HeldBillRow.billing_month, HeldBillRow.seller_id))
    return [(row.seller_id, row.billing_month) for row in rows]


def list_past_due_bills(conn: Connection, now: datetime) -> list[tuple[str, date, Decimal]]:
    """Return (seller, month, amount owed) of every past-due bill, oldest first, for operators.

    A past-due bill changes no privilege of the member.
    """
    return [(row.seller_id, row.billing_month, row.owed) for row in conn.execute(_PAST_DUE_BILLS, {"now": now})]


_PAST_DUE_BILLS = text("""
    SELECT b.seller_id, b.billing_month, b.total + coalesce(sum(l.amount), 0) AS owed
    FROM unwind.bills AS b LEFT JOIN unwind.ledger_lines AS l
        ON (l.seller_id, l.billing_month, l.kind) = (b.seller_id, b.billing_month, 'payment')
    WHERE b.total > 0 AND b.past_due_at <= :now
    GROUP BY b.bill_id HAVING b.total + coalesce(sum(l.amount), 0) > 0 ORDER BY b.billing_month, b.seller_id
""")


def _opening_bill_credit(conn: Connection, terms_history: TermsHistory, seller_id: str, month: date) -> Decimal:
    # The opening credit of an open bill, carried through the months that are not issued yet.
    last = conn.execute(
        select(BillRow.billing_month, BillRow.carried_forward)
        .where(BillRow.seller_id == seller_id, BillRow.billing_month < month)
        .order_by(BillRow.billing_month.desc())
        .limit(1)
    ).one_or_none()
    since = last.billing_month if last else date.min
    rows = conn.execute(
        text(
            "SELECT billing_month AS month, sum(amount) AS lines, 0.00 AS excess FROM unwind.ledger_lines "
            "WHERE seller_id = :seller AND kind <> 'payment' AND billing_month > :since AND billing_month < :month "
            "GROUP BY billing_month UNION ALL "
            "SELECT excess_credit_month, 0.00, sum(excess) FROM unwind.ledger_lines "
            "WHERE seller_id = :seller AND excess_credit_month > :since AND excess_credit_month <= :month "
            "GROUP BY excess_credit_month"
        ),
        {"seller": seller_id, "since": since, "month": month},
    ).all()
    carried = last.carried_forward if last else ZERO
    at = policy.next_month(last.billing_month) if last else min((row.month for row in rows), default=month)
    while at < month:
        opening = carried - sum((row.excess for row in rows if row.month == at), ZERO)
        lines_sum = sum((row.lines for row in rows if row.month == at), ZERO)
        month_terms = policy.terms_of_billing_month(terms_history, at)
        carried = policy.calculate_totals(lines_sum, opening, month_terms).carried_forward
        at = policy.next_month(at)
    opening = carried - sum((row.excess for row in rows if row.month == month), ZERO)
    return ZERO if opening.is_zero() else opening


def _bill_lines_of(conn: Connection, seller_id: str, month: date) -> tuple[policy.BillLine, ...]:
    c = LedgerLineRow
    rows = conn.execute(
        select(c.kind, c.order_id, c.amount, c.note, c.at, c.charged_month, c.credited_month)
        .where(c.seller_id == seller_id, c.billing_month == month, c.kind != "payment")
        .order_by(c.line_id)
    ).all()
    return tuple(policy.BillLine(*row) for row in rows)
