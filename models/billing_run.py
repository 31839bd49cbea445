"""The billing run: find the month to close, issue its bills in batches of sellers, then close it.

A bill that cannot be issued is held and does not block the month. Each seller's due resets and credits are posted
first, so a late credit task changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, delete, exists, select, text
from sqlalchemy.orm import aliased

from models import credits as postings
from models import events, ledger, outbox, terms
from models.bills import BillRow, HeldBillRow, first_unbilled_month, last_closed_month, terms_for_month
from models.db.bulk import insert_rows
from models.db.locks import lock_ledger
from models.db.schema import is_any
from models.ledger import BillingMonthRow
from models.sql import load_sql
from models.unit_of_work import UnitOfWork
from policies import bills as policy
from policies.bills import (
    bill_issues_at,
    billing_month_of,
    due_on,
    format_month,
    grace_until,
    issued_on,
    month_name,
    next_month,
    past_due_from,
    previous_month,
)
from policies.credits import CREDIT_TASK
from policies.fees import ZERO
from policies.notices import notify_member
from policies.statuses import Role


def month_to_close(conn: Connection, now: datetime) -> date | None:
    terms_history = terms.load_terms(conn)
    closed = last_closed_month(conn)
    if closed is not None:
        month = next_month(closed)
    else:
        month = first_unbilled_month(conn) or _last_month_to_bill(now, terms_history)
    return month if now >= bill_issues_at(month, terms_for_month(terms_history, month)) else None


_SELLERS_TO_BILL = text(load_sql("sellers_to_bill"))
_SUMS_TO_BILL = text(load_sql("sums_to_bill"))


def sellers_to_bill(
    conn: Connection, month: date, *, after: str = "", limit: int = 500, with_postings: bool = True
) -> list[str]:
    values = {
        "month": month,
        "before": previous_month(month),
        "written_month": format_month(month),
        "with_postings": with_postings,
        "after": after,
        "limit": limit,
    }
    return list(conn.execute(_SELLERS_TO_BILL, values).scalars())


class BillingRun:
    """Issue the bills of one month in batches, sellers in order of id. One instance makes one pass."""

    def __init__(self, month: date) -> None:
        self.month = month
        self.skipped_sellers: list[str] = []
        """Sellers whose bill cannot be issued now."""
        self._after = self._handled_up_to = ""

    def __call__(self, work: UnitOfWork[Any], limit: int) -> tuple[int, int]:
        sellers = self._next_sellers_to_bill(work, limit)
        self._handled_up_to = sellers[-1] if sellers else self._after
        return len(sellers), issue_bills_of(work, self.month, sellers) if sellers else 0

    def committed(self) -> None:
        # Continues after these sellers: those without a bill would be selected again.
        self._after = self._handled_up_to

    def skip_next(self, work: UnitOfWork[Any]) -> str | None:
        for seller_id in self._next_sellers_to_bill(work, 1):
            self._after = seller_id
            self.skipped_sellers.append(seller_id)
            return f"seller {seller_id} in {format_month(self.month)}"
        return None

    def _next_sellers_to_bill(self, work: UnitOfWork[Any], limit: int) -> list[str]:
        return sellers_to_bill(work.conn, self.month, after=self._after, limit=limit)


class HeldBillingRun(BillingRun):
    """Issue the held bills of one month, each after the seller's earlier ones."""

    def __call__(self, work: UnitOfWork[Any], limit: int) -> tuple[int, int]:
        sellers = self._next_sellers_to_bill(work, limit)
        self._handled_up_to = sellers[-1] if sellers else self._after
        if not sellers:
            return 0, 0
        issued = issue_bills_of(work, self.month, sellers)
        held = (HeldBillRow.billing_month == self.month, is_any(HeldBillRow.seller_id, sellers))
        work.conn.execute(delete(HeldBillRow).where(*held))
        return len(sellers), issued

    def _next_sellers_to_bill(self, work: UnitOfWork[Any], limit: int) -> list[str]:
        earlier = aliased(HeldBillRow)
        has_earlier = exists().where(earlier.seller_id == HeldBillRow.seller_id, earlier.billing_month < self.month)
        held = select(HeldBillRow.seller_id).where(
            HeldBillRow.billing_month == self.month, HeldBillRow.seller_id > self._after, ~has_earlier
        )
        return list(work.conn.execute(held.order_by(HeldBillRow.seller_id).limit(limit)).scalars())


def issue_bills_of(work: UnitOfWork[Any], month: date, seller_ids: Sequence[str]) -> int:
    conn = work.conn
    # Lock order: outbox before ledger. The lock waits for a running credit task.
    messages = outbox.lock_by_payload(conn, CREDIT_TASK, "seller_id", seller_ids)
    ledger.lock_for_issue(conn, seller_ids)
    postings.post_due_credits(work, [due for due in messages if str(due.payload.get("month")) <= format_month(month)])
    month_terms = terms_for_month(terms.load_terms(conn), month)
    due = due_on(month, month_terms)
    rows = [
        {
            "seller_id": row.seller_id,
            "billing_month": month,
            "issued_at": work.now,
            "issued_on": issued_on(month, month_terms),
            "due_on": due,
            "grace_until": grace_until(due, month_terms),
            "past_due_at": past_due_from(due, month_terms),
            "opening_credit": sums.opening_credit,
            "lines_sum": sums.lines_sum,
            "total": sums.total,
            "carried_forward": sums.carried_forward,
            "lines_hash": row.lines_hash,
        }
        for row in conn.execute(_SUMS_TO_BILL, {"month": month, "sellers": list(seller_ids)})
        if row.lines or row.opening != 0
        for sums in [policy.calculate_totals(row.lines_sum, row.opening, month_terms)]
    ]
    insert_rows(conn, BillRow, rows)
    _notify_billed_sellers(work, rows)
    return len(rows)


_HOLD_BILLS = text(
    """
    INSERT INTO unwind.held_bills (seller_id, billing_month, held_at)
    SELECT s, :month, :now
    FROM (SELECT unnest(CAST(:skipped AS text[])) AS s UNION SELECT seller_id FROM unwind.held_bills) AS held
    WHERE NOT EXISTS (SELECT FROM unwind.bills AS b WHERE b.seller_id = s AND b.billing_month = :month)
    ON CONFLICT DO NOTHING
    """
)


def close_billing_month(work: UnitOfWork[Any], month: date, skipped: Sequence[str] = ()) -> bool:
    """Close the month unless a seller has something unbilled in it; return whether it was closed.

    The bills of `skipped` sellers are held, and so are their later bills until the held one is issued.
    """
    lock_ledger(work.conn)
    if set(sellers_to_bill(work.conn, month, limit=len(skipped) + 1, with_postings=False)) - set(skipped):
        return False
    work.conn.execute(_HOLD_BILLS, {"month": month, "now": work.now, "skipped": list(skipped)})
    insert_rows(work.conn, BillingMonthRow, [{"billing_month": month, "closed_at": work.now}], skip_existing=True)
    return True


def _notify_billed_sellers(work: UnitOfWork[Any], rows: Sequence[dict[str, Any]]) -> None:
    events.append_events(
        work.conn,
        [
            events.event_row(
                "bills.issued",
                work.now,
                actor="system",
                role="system",
                member_id=row["seller_id"],
                note=(
                    f"The bill of {month_name(row['billing_month'])} is made: "
                    f"{row['total']} USD, due on {row['due_on']}."
                ),
                changes={"bill": {"month": format_month(row["billing_month"]), "total": str(row["total"])}},
            )
            for row in rows
        ],
    )
    work.enqueue(
        [
            notify_member(
                Role.SELLER,
                "bill_issued",
                member_id=row["seller_id"],
                order_id=None,
                occasion=format_month(row["billing_month"]),
                month=format_month(row["billing_month"]),
                total=str(row["total"]),
                due_on=row["due_on"].isoformat(),
            )
            for row in rows
            if row["total"] > ZERO
        ]
    )


def _last_month_to_bill(now: datetime, terms_history: terms.TermsHistory) -> date:
    month = previous_month(billing_month_of(now, terms_history.at(now)))
    return month if now >= bill_issues_at(month, terms_for_month(terms_history, month)) else previous_month(month)
