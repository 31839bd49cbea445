"""The audit of a month's bills: recomputed from orders and events, independently of the billing code.

It shares nothing with posting or issuing: months come from the calendar of the time zone, fees from exact fractions,
and the content of each bill from the orders' events alone.  The result is a certificate with the differences.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, text

from models import terms
from models.terms import TermsHistory
from policies.terms import Terms

ZERO = Decimal("0.00")
UTC_MARGIN = timedelta(days=2)
"""More than any zone's offset, so a month's events lie within its UTC days plus this margin."""

CHARGING = ("orders.submitted", "orders.batch_added", "removals.approved")
"""Events that change an order's items and so recompute its fee (A21)."""


class ExpectedLine(NamedTuple):
    seller_id: str
    month: date
    kind: str
    order_id: int | None
    amount: Decimal


@dataclass
class Certificate:
    month: str
    closed: bool
    sellers: int = 0
    bills: int = 0
    lines: int = 0
    sums: dict[str, str] = field(default_factory=dict)
    billed: str = "0.00"
    carried_forward: str = "0.00"
    paid: str = "0.00"
    moved_on: int = 0
    hash: str = ""
    differences: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not self.differences

    def as_json(self) -> dict[str, Any]:
        return {
            "month": self.month,
            "closed": self.closed,
            "holds": self.holds,
            "sellers": self.sellers,
            "bills": self.bills,
            "lines": self.lines,
            "sums": self.sums,
            "billed": self.billed,
            "carried_forward": self.carried_forward,
            "paid": self.paid,
            "moved_on": self.moved_on,
            "hash": self.hash,
            "differences": self.differences,
        }


def audit_month(conn: Connection, month: date) -> Certificate:
    """Recompute the month and compare.  `month` is its first day; an open month is compared as it is now."""
    book = terms.load_terms(conn)
    actual = conn.execute(text(_LINES), {"month": month}).all()
    bills = {row.seller_id: row for row in conn.execute(text(_BILLS), {"month": month})}
    closed = bool(conn.execute(text(_CLOSED), {"month": month}).scalar())
    found = Certificate(month.isoformat()[:7], closed)

    everything = _of_orders(conn, book, month, [row.order_id for row in actual if row.order_id is not None])
    everything += _by_hand(conn)
    wanted = Counter(one for one in everything if one.month == month)
    there = Counter(ExpectedLine(row.seller_id, month, row.kind, row.order_id, row.amount) for row in actual)
    wanted = _with_late_ones(conn, found, everything, wanted, there)
    for one in sorted((wanted - there).elements(), key=str):
        found.differences.append(f"{_named(one)} is missing")
    for one in sorted((there - wanted).elements(), key=str):
        found.differences.append(f"{_named(one)} is there and should not be")

    _compare_bills(conn, found, wanted, bills, book, month)
    _compare_payments(conn, found, month)
    _count(found, wanted)
    return found


def closed_months(conn: Connection) -> list[date]:
    return list(conn.execute(text("SELECT billing_month FROM unwind.billing_months ORDER BY billing_month")).scalars())


def months_with_differences(conn: Connection, months: Iterable[date]) -> list[str]:
    """Return those of these months, as `2026-03`, in which some row differs."""
    found = (audit_month(conn, month) for month in months)
    return [one.month for one in found if not one.holds]


def _of_orders(conn: Connection, book: TermsHistory, month: date, also: Iterable[int]) -> list[ExpectedLine]:
    # Every line that the histories of the month's orders require, in whichever month it is.
    begin = datetime(month.year, month.month, 1, tzinfo=ZoneInfo("UTC")) - UTC_MARGIN
    end = (begin + UTC_MARGIN + timedelta(days=31)).replace(day=1) + UTC_MARGIN
    rows = conn.execute(text(_EVENTS), {"begin": begin, "end": end, "also": sorted(set(also))})
    demanded: list[ExpectedLine] = []
    histories: dict[int, list[Any]] = defaultdict(list)
    for row in rows:
        histories[row.order_id].append(row)
    for events in histories.values():
        demanded += _of_order(events, book)
    return demanded


def _of_order(events: list[Any], book: TermsHistory) -> list[ExpectedLine]:
    # Charged when submitted, reversed and charged again when its items change, reset or credited when cancelled.
    demanded: list[ExpectedLine] = []
    total, fee, charged = Decimal(0), ZERO, None
    order_id, seller = events[0].order_id, events[0].seller_id
    for event in events:
        moved = event.moved
        total = Decimal(moved.get("total", total))
        held = book.at(event.at)
        month = _month(event.at, held)
        if event.type in CHARGING:
            if fee:
                demanded.append(ExpectedLine(seller, month, "reversal", order_id, -fee))
            fee, charged = _fee(total * event.usd_rate, held, seller), month
            if fee:
                demanded.append(ExpectedLine(seller, month, "charge", order_id, fee))
        if moved.get("status") == "CANCELLED" and moved.get("basis") not in ("NRS", "NSS") and fee:
            on = max(month, charged or month)  # a charge is never after its cancellation
            demanded.append(ExpectedLine(seller, on, "reset" if on == charged else "credit", order_id, -fee))
    return demanded


def _by_hand(conn: Connection) -> list[ExpectedLine]:
    return [
        ExpectedLine(row.seller_id, _day(row.month), "manual_credit", row.order_id, Decimal(row.amount))
        for row in conn.execute(text(_HAND))
    ]


def _with_late_ones(
    conn: Connection,
    found: Certificate,
    everything: list[ExpectedLine],
    wanted: Counter[ExpectedLine],
    there: Counter[ExpectedLine],
) -> Counter[ExpectedLine]:
    """Allow for lines written after their bill was issued, which go on a later bill, and for nothing else."""
    astray = {one.order_id for one in ((wanted - there) + (there - wanted)) if one.kind in ("reset", "credit")}
    if not astray:
        return wanted
    moved = conn.execute(text(_LATE), {"orders": sorted(one for one in astray if one is not None)}).all()
    late = {(row.order_id, row.amount): row for row in moved}
    result = Counter(wanted)
    for one in everything:
        row = late.get((one.order_id, one.amount))
        if one.kind not in ("reset", "credit") or row is None or row.promised_month != one.month:
            continue
        if result[one] > 0 and there[one] == 0:
            result[one] -= 1
            found.moved_on += 1
        came = one._replace(month=row.billing_month, kind="credit")
        if there[came] > result[came]:
            result[came] += 1
    return +result


def _compare_bills(
    conn: Connection,
    found: Certificate,
    wanted: Counter[ExpectedLine],
    bills: dict[str, Any],
    book: TermsHistory,
    month: date,
) -> None:
    sums: dict[str, Decimal] = defaultdict(lambda: ZERO)
    for one in wanted.elements():
        sums[one.seller_id] += one.amount
    opening = {row.seller_id: row.opening for row in conn.execute(text(_OPENING), {"month": month})}
    minimum = book.at(
        (datetime(month.year, month.month, 1, tzinfo=ZoneInfo("UTC")) + timedelta(days=31)).replace(day=1)
    )
    hashes = _hashes(conn, month)
    said, billed, carried = [], ZERO, ZERO
    for seller in sorted({*sums, *opening, *bills}):
        left = sums[seller] + opening.get(seller, ZERO)
        total = left if left > 0 and left >= minimum.minimum_bill else ZERO
        said.append(f"{seller}|{opening.get(seller, ZERO)}|{sums[seller]}|{total}|{left - total}")
        billed, carried = billed + total, carried + left - total
        bill = bills.get(seller)
        if bill is None:
            if found.closed:
                found.differences.append(f"the bill of {seller} is missing: it must come to {total}")
            continue
        for name, value in (
            ("opening_credit", opening.get(seller, ZERO)),
            ("lines_sum", sums[seller]),
            ("total", total),
            ("carried_forward", left - total),
            ("lines_hash", hashes.get(seller, hashlib.sha256(b"").hexdigest())),
        ):
            if getattr(bill, name) != value:
                found.differences.append(f"the bill of {seller} has {name} {getattr(bill, name)} instead of {value}")
    found.sellers, found.bills = len(said), len(bills)
    found.billed, found.carried_forward = str(billed), str(carried)
    found.hash = hashlib.sha256("\n".join([found.month, *said]).encode()).hexdigest()


def _compare_payments(conn: Connection, found: Certificate, month: date) -> None:
    wanted = Counter((row.seller_id, Decimal(row.amount)) for row in conn.execute(text(_PAID), {"month": found.month}))
    there = Counter((row.seller_id, -row.amount) for row in conn.execute(text(_PAYMENTS), {"month": month}))
    for seller, amount in sorted(((wanted - there) + (there - wanted)).elements()):
        found.differences.append(f"a payment of {amount} by {seller} is not both in the events and in the ledger")
    found.paid = str(sum((amount for _, amount in wanted.elements()), ZERO))


def _hashes(conn: Connection, month: date) -> dict[str, str]:
    written: dict[str, list[str]] = defaultdict(list)
    for row in conn.execute(text(_LINES), {"month": month}):
        parts = (row.line_id, row.kind, row.amount, row.order_id, row.charged_month, row.credited_month, row.note)
        written[row.seller_id].append("|".join(str(part) for part in parts if part is not None))
    return {seller: hashlib.sha256("\n".join(lines).encode()).hexdigest() for seller, lines in written.items()}


def _count(found: Certificate, wanted: Counter[ExpectedLine]) -> None:
    by_kind: dict[str, Decimal] = defaultdict(lambda: ZERO)
    for one in wanted.elements():
        by_kind[one.kind] += one.amount
    found.lines = wanted.total()
    found.sums = {kind: str(amount) for kind, amount in sorted(by_kind.items())}


def _fee(dollars: Decimal, held: Terms, seller: str) -> Decimal:
    # Exact fractions, then rounded to cents: floor(x + 1/2).
    if seller in held.fee_exempt_sellers:
        return ZERO
    owed, from_ = Fraction(0), Fraction(0)
    for piece in held.fee_slices:
        top = Fraction(dollars) if piece.up_to is None else min(Fraction(dollars), Fraction(piece.up_to))
        owed += max(Fraction(0), top - from_) * Fraction(piece.rate)
        from_ = max(from_, top)
    whole = (owed * 200 + 1) // 2
    return Decimal(whole).scaleb(-2)


def _month(instant: datetime, held: Terms) -> date:
    local = instant.astimezone(ZoneInfo(held.billing_time_zone))
    return date(local.year, local.month, 1)


def _day(month: str) -> date:
    return date.fromisoformat(f"{month}-01")


def _named(one: ExpectedLine) -> str:
    about = f" for order {one.order_id}" if one.order_id is not None else ""
    return f"the {one.kind} of {one.amount}{about} on the bill of {one.seller_id}"


_LINES = "SELECT * FROM unwind.ledger_lines WHERE billing_month = :month AND kind <> 'payment' ORDER BY line_id"
_PAYMENTS = "SELECT seller_id, amount FROM unwind.ledger_lines WHERE billing_month = :month AND kind = 'payment'"
_BILLS = "SELECT * FROM unwind.bills WHERE billing_month = :month"
_CLOSED = "SELECT EXISTS (SELECT FROM unwind.billing_months WHERE billing_month >= :month)"
_EVENTS = """
    SELECT e.order_id, e.at, e.type, COALESCE(e.changes -> 'order', '{}') AS moved, o.seller_id, o.usd_rate
    FROM unwind.events e JOIN unwind.orders o USING (order_id)
    WHERE e.order_id IN (
        SELECT order_id FROM unwind.events WHERE at >= :begin AND at < :end AND order_id IS NOT NULL
        UNION SELECT unnest(CAST(:also AS bigint[])))
    ORDER BY e.order_id, e.seq
"""
_HAND = """
    SELECT e.member_id AS seller_id, e.changes -> 'credit' ->> 'month' AS month,
        e.changes -> 'credit' ->> 'amount' AS amount, CAST(e.changes -> 'credit' ->> 'order_id' AS bigint) AS order_id
    FROM unwind.events e WHERE e.type = 'credits.posted_by_hand'
"""
_PAID = """
    SELECT e.member_id AS seller_id, e.changes -> 'payment' ->> 'amount' AS amount FROM unwind.events e
    WHERE e.type = 'bills.payment_recorded' AND e.changes -> 'payment' ->> 'month' = :month
"""
_OPENING = """
    SELECT seller_id, sum(amount) AS opening FROM (
        (SELECT DISTINCT ON (seller_id) seller_id, carried_forward AS amount FROM unwind.bills
         WHERE billing_month < :month ORDER BY seller_id, billing_month DESC)
        UNION ALL
        SELECT e.member_id, -CAST(e.changes -> 'payment' ->> 'excess' AS numeric) FROM unwind.events e
        WHERE e.type = 'bills.payment_recorded'
            AND e.changes -> 'payment' ->> 'opens' = to_char(CAST(:month AS timestamp), 'YYYY-MM')
    ) carried GROUP BY seller_id HAVING sum(amount) <> 0
"""
_LATE = """
    SELECT l.order_id, l.amount, l.billing_month, to_date(o.payload ->> 'month', 'YYYY-MM') AS promised_month
    FROM unwind.ledger_lines l
    JOIN unwind.outbox o ON o.key = l.key
    LEFT JOIN unwind.bills b
        ON b.seller_id = l.seller_id AND b.billing_month = to_date(o.payload ->> 'month', 'YYYY-MM')
    LEFT JOIN unwind.billing_months m ON m.billing_month = to_date(o.payload ->> 'month', 'YYYY-MM')
    WHERE l.order_id = ANY(:orders) AND l.kind = 'credit' AND l.at >= LEAST(b.issued_at, m.closed_at)
        AND l.billing_month > to_date(o.payload ->> 'month', 'YYYY-MM')
"""
