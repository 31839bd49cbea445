"""How are the bills of a month made?  Seller by seller in sets, in the order of months, and then the month is closed.

A seller whose bill cannot be made holds up nobody else: the month is closed without them, and theirs is made when it can be.
Each seller's promised resets and credits are posted first, so that a late follower changes nothing (rules.md 7.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, text

from models import credits as postings
from models import events, ledger, outbox, terms
from models.bills import LINES_HASH, BillRow, first_unbilled_month, last_closed_month, terms_for_month
from models.db.bulk import insert_rows
from models.unit_of_work import UnitOfWork
from policies import bills as policy
from policies.billing_months import (
    bill_issues_at,
    due_on,
    format_month,
    grace_until,
    issued_on,
    month_name,
    month_of,
    next_month,
    past_due_from,
    previous_month,
)
from policies.credits import TASK
from policies.fees import ZERO
from policies.notices import notify_member
from policies.statuses import Role


def month_to_close(conn: Connection, now: datetime) -> date | None:
    """The earliest month that is not closed although the day of its bills has come."""
    book = terms.load_terms(conn)
    closed = last_closed_month(conn)
    if closed is not None:
        month = next_month(closed)
    else:
        month = first_unbilled_month(conn) or _last_elapsed(now, book)
    return month if now >= bill_issues_at(month, terms_for_month(book, month)) else None


def sellers_to_bill(conn: Connection, month: date, *, after: str = "", limit: int = 500) -> list[str]:
    """Whoever has lines, an opening credit or a promised posting in that month, and no bill, not even one held; by id."""
    return list(
        conn.execute(
            text(
                f"SELECT seller_id FROM ({_TO_BILL} UNION SELECT o.payload ->> 'seller_id' FROM unwind.outbox o "  # noqa: S608 - a constant
                "WHERE o.state = 'due' AND o.task = :task AND o.payload ->> 'month' <= :text) AS wanted "
                "WHERE seller_id > :after AND NOT EXISTS (SELECT FROM unwind.bills b "
                "WHERE b.seller_id = wanted.seller_id AND b.billing_month = :month) AND NOT EXISTS (SELECT "
                "FROM unwind.held_bills h WHERE h.seller_id = wanted.seller_id) ORDER BY seller_id LIMIT :limit"
            ),
            {
                "month": month,
                "before": previous_month(month),
                "task": TASK,
                "text": format_month(month),
                "after": after,
                "limit": limit,
            },
        ).scalars()
    )


_TO_BILL = """
    SELECT l.seller_id FROM unwind.ledger_lines l WHERE l.billing_month = :month AND l.kind <> 'payment'
    UNION SELECT b.seller_id FROM unwind.bills b WHERE b.billing_month = :before AND b.carried_forward <> 0
    UNION SELECT l.seller_id FROM unwind.ledger_lines l WHERE l.excess_credit_month = :month
"""


class BillingSweep:
    """Makes the bills of one month, batch by batch of sellers, by id.  One of these goes through all of them once."""

    def __init__(self, month: date) -> None:
        self.month = month
        self.skipped_sellers: list[str] = []
        """Sellers whose bill cannot be made as things are."""
        self._after = self._handled_up_to = ""

    def __call__(self, work: UnitOfWork[Any], limit: int) -> tuple[int, int]:
        """Make the bills of at most `limit` sellers; gives how many sellers that was, and how many bills."""
        sellers = self._next(work, limit)
        self._handled_up_to = sellers[-1] if sellers else self._after
        return len(sellers), issue_bills(work, self.month, sellers) if sellers else 0

    def committed(self) -> None:
        """Go on behind these sellers: some need no bill and would come again."""
        self._after = self._handled_up_to

    def skip_next(self, work: UnitOfWork[Any]) -> str | None:
        """Go on behind the seller who comes next, and says who that is."""
        for seller_id in self._next(work, 1):
            self._after = seller_id
            self.skipped_sellers.append(seller_id)
            return f"seller {seller_id} in {format_month(self.month)}"
        return None

    def _next(self, work: UnitOfWork[Any], limit: int) -> list[str]:
        return sellers_to_bill(work.conn, self.month, after=self._after, limit=limit)


class HeldBillingSweep(BillingSweep):
    """Makes the bills of one month that were held when it was closed, once the seller's earlier ones are made."""

    def __call__(self, work: UnitOfWork[Any], limit: int) -> tuple[int, int]:
        """Make the bills of at most `limit` sellers; gives how many sellers that was, and how many bills."""
        sellers = self._next(work, limit)
        self._handled_up_to = sellers[-1] if sellers else self._after
        if not sellers:
            return 0, 0
        made = issue_bills(work, self.month, sellers)
        work.conn.execute(
            text("DELETE FROM unwind.held_bills WHERE billing_month = :month AND seller_id = ANY(:sellers)"),
            {"month": self.month, "sellers": sellers},
        )
        return len(sellers), made

    def _next(self, work: UnitOfWork[Any], limit: int) -> list[str]:
        return list(
            work.conn.execute(
                text(
                    "SELECT seller_id FROM unwind.held_bills h WHERE billing_month = :month AND seller_id > :after "
                    "AND NOT EXISTS (SELECT FROM unwind.held_bills e WHERE e.seller_id = h.seller_id "
                    "AND e.billing_month < h.billing_month) ORDER BY seller_id LIMIT :limit"
                ),
                {"month": self.month, "after": self._after, "limit": limit},
            ).scalars()
        )


def issue_bills(work: UnitOfWork[Any], month: date, seller_ids: Sequence[str]) -> int:
    """Make the bills of these sellers for one month and promise to tell them; gives how many were made."""
    conn = work.conn
    # The promises before the ledger, as everywhere: a follower at work is waited for, not passed by (C34).
    promised = outbox.lock_by_payload(conn, TASK, "seller_id", seller_ids)
    ledger.lock_for_issue(conn, seller_ids)
    postings.post_due(work, [due for due in promised if str(due.payload.get("month")) <= format_month(month)])
    ruling = terms_for_month(terms.load_terms(conn), month)
    due = due_on(month, ruling)
    rows = [
        {
            "seller_id": row.seller_id,
            "billing_month": month,
            "issued_at": work.now,
            "issued_on": issued_on(month, ruling),
            "due_on": due,
            "grace_until": grace_until(due, ruling),
            "past_due_at": past_due_from(due, ruling),
            "opening_credit": made.opening_credit,
            "lines_sum": made.lines_sum,
            "total": made.total,
            "carried_forward": made.carried_forward,
            "lines_hash": row.lines_hash,
        }
        for row in conn.execute(text(_SUMS), {"month": month, "sellers": list(seller_ids)})
        if row.lines or row.opening != 0
        for made in [policy.calculate_totals(row.lines_sum, row.opening, ruling)]
    ]
    insert_rows(conn, BillRow, rows)
    _tell(work, rows)
    return len(rows)


_SUMS = f"""
    SELECT s AS seller_id, sums.lines, sums.lines_sum, sums.lines_hash,
        COALESCE((SELECT b.carried_forward FROM unwind.bills b WHERE b.seller_id = s AND b.billing_month < :month
                  ORDER BY b.billing_month DESC LIMIT 1), 0.00)
        - COALESCE((SELECT sum(p.excess) FROM unwind.ledger_lines p
                    WHERE p.seller_id = s AND p.excess_credit_month = :month), 0.00) AS opening
    FROM unnest(CAST(:sellers AS text[])) s
    CROSS JOIN LATERAL (
        SELECT count(*) AS lines, COALESCE(sum(l.amount), 0.00) AS lines_sum, {LINES_HASH} AS lines_hash
        FROM unwind.ledger_lines l WHERE l.seller_id = s AND l.billing_month = :month AND l.kind <> 'payment'
    ) sums
    WHERE NOT EXISTS (SELECT FROM unwind.bills b WHERE b.seller_id = s AND b.billing_month = :month)
    ORDER BY s
"""  # noqa: S608 - the hash is an expression of ours


def close_month(work: UnitOfWork[Any], month: date, passed_over: Sequence[str] = ()) -> bool:
    """Close the month when nobody has anything unbilled in it; False when somebody came in between.

    `passed_over`: sellers whose bill cannot be made as things are.  It is held, as are all later ones of theirs until it is made.
    """
    ledger.lock_all_months(work.conn)
    given = {"month": month, "before": previous_month(month), "now": work.now, "passed": list(passed_over)}
    left = work.conn.execute(
        text(
            f"SELECT EXISTS (SELECT FROM ({_TO_BILL}) AS wanted WHERE NOT EXISTS (SELECT FROM unwind.bills b "  # noqa: S608 - a constant
            "WHERE b.seller_id = wanted.seller_id AND b.billing_month = :month) AND NOT seller_id = ANY(:passed) "
            "AND NOT EXISTS (SELECT FROM unwind.held_bills h WHERE h.seller_id = wanted.seller_id))"
        ),
        given,
    ).scalar()
    if left:
        return False
    work.conn.execute(
        text(
            "INSERT INTO unwind.held_bills (seller_id, billing_month, held_at) SELECT s, :month, :now FROM ("
            "SELECT unnest(CAST(:passed AS text[])) AS s UNION SELECT seller_id FROM unwind.held_bills) AS held "
            "WHERE NOT EXISTS (SELECT FROM unwind.bills b WHERE b.seller_id = s AND b.billing_month = :month) "
            "ON CONFLICT DO NOTHING"
        ),
        given,
    )
    work.conn.execute(
        text(
            "INSERT INTO unwind.billing_months (billing_month, closed_at) VALUES (:month, :now) ON CONFLICT DO NOTHING"
        ),
        given,
    )
    return True


def _tell(work: UnitOfWork[Any], rows: Sequence[dict[str, Any]]) -> None:
    events.append(
        work.conn,
        [
            events.event_row(
                "bills.issued",
                work.now,
                actor="system",
                role="system",
                member_id=row["seller_id"],
                note=f"The bill of {month_name(row['billing_month'])} is made: {row['total']} USD, due on {row['due_on']}.",
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


def _last_elapsed(now: datetime, book: terms.TermsHistory) -> date:
    month = previous_month(month_of(now, book.at(now)))
    return month if now >= bill_issues_at(month, terms_for_month(book, month)) else previous_month(month)
