"""The audit of a month's bills: recomputed from orders and events, independently of the billing code.

It shares nothing with posting or issuing: months come from the calendar of the time zone, fees from exact fractions,
and the content of each bill from the orders' events alone.  The result is a certificate with the differences.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, text

from models import terms
from policies.terms import Terms, TermsHistory

ZERO = Decimal("0.00")
MONTH_AUDIT_MARGIN = timedelta(days=2)
"""More than any zone's offset, so a month's events lie within its UTC days plus this margin."""

CHARGING = ("orders.submitted", "orders.batch_added", "removals.approved")
"""Events that change an order's items and so recompute its fee (A21)."""


class ExpectedBillLine(NamedTuple):
    seller_id: str
    month: date
    kind: str
    order_id: int | None
    amount: Decimal


@dataclass
class MonthCertificate:
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
        return {"month": self.month, "closed": self.closed, "holds": self.holds} | asdict(self)


def audit_month(conn: Connection, month: date) -> MonthCertificate:
    """Recompute the month and compare.  `month` is its first day; an open month is compared as it is now."""
    terms_history = terms.load_terms(conn)
    rows = conn.execute(text(_AUDITED_LEDGER_LINES), {"month": month}).all()
    actual = [row for row in rows if row.kind != "payment"]
    bills = {row.seller_id: row for row in conn.execute(text(_AUDITED_BILLS), {"month": month})}
    closed = bool(conn.execute(text(_AUDITED_MONTH_IS_CLOSED), {"month": month}).scalar())
    certificate = MonthCertificate(month.isoformat()[:7], closed)

    order_ids = [row.order_id for row in actual if row.order_id is not None]
    all_lines = _expected_lines(conn, terms_history, month, order_ids)
    all_lines += [ExpectedBillLine(*row) for row in conn.execute(text(_AUDITED_MANUAL_CREDITS))]
    expected = Counter(line for line in all_lines if line.month == month)
    actual_lines = Counter(ExpectedBillLine(row.seller_id, month, row.kind, row.order_id, row.amount) for row in actual)
    expected = _move_late_audited_lines(conn, certificate, all_lines, expected, actual_lines)
    for differing, what in ((expected - actual_lines, "missing"), (actual_lines - expected, "not expected")):
        for line in sorted(differing.elements(), key=str):
            certificate.differences.append(f"{_describe_expected_line(line)} is {what}")

    _compare_bills(conn, certificate, expected, bills, _written_lines(actual), terms_history, month)
    _compare_audited_payments(conn, certificate, [row for row in rows if row.kind == "payment"])
    sums: dict[str, Decimal] = defaultdict(lambda: ZERO)
    for line in expected.elements():
        sums[line.kind] += line.amount
    certificate.lines = expected.total()
    certificate.sums = {kind: str(amount) for kind, amount in sorted(sums.items())}
    return certificate


def months_to_audit(conn: Connection) -> list[date]:
    return list(conn.execute(text("SELECT billing_month FROM unwind.billing_months ORDER BY billing_month")).scalars())


def months_with_differences(conn: Connection, months: Iterable[date]) -> list[str]:
    certificates = (audit_month(conn, month) for month in months)
    return [certificate.month for certificate in certificates if not certificate.holds]


def _expected_lines(
    conn: Connection, terms_history: TermsHistory, month: date, order_ids: Iterable[int]
) -> list[ExpectedBillLine]:
    # Every line that the histories of the month's orders require, in whichever month it is.
    begin = datetime(month.year, month.month, 1, tzinfo=ZoneInfo("UTC")) - MONTH_AUDIT_MARGIN
    end = (begin + MONTH_AUDIT_MARGIN + timedelta(days=31)).replace(day=1) + MONTH_AUDIT_MARGIN
    rows = conn.execute(text(_AUDITED_ORDER_EVENTS), {"begin": begin, "end": end, "also": sorted(set(order_ids))})
    histories = [list(events) for _, events in groupby(rows, attrgetter("order_id"))]
    return [line for events in histories for line in _expected_lines_of_order(events, terms_history)]


def _expected_lines_of_order(events: list[Any], terms_history: TermsHistory) -> list[ExpectedBillLine]:
    # Charged when submitted, reversed and charged again when its items change, reset or credited when cancelled.
    lines: list[ExpectedBillLine] = []
    total, fee, charged = Decimal(0), ZERO, None
    order_id, seller = events[0].order_id, events[0].seller_id
    for event in events:
        changes = event.changes
        total = Decimal(changes.get("total", total))
        terms_then = terms_history.at(event.at)
        month = event.at.astimezone(ZoneInfo(terms_then.billing_time_zone)).date().replace(day=1)
        if event.type in CHARGING:
            if fee:
                lines.append(ExpectedBillLine(seller, month, "reversal", order_id, -fee))
            fee, charged = _expected_fee(total * event.usd_rate, terms_then, seller), month
            if fee:
                lines.append(ExpectedBillLine(seller, month, "charge", order_id, fee))
        if changes.get("status") == "CANCELLED" and changes.get("basis") not in ("NRS", "NSS") and fee:
            billing_month = max(month, charged or month)  # a cancellation is never before its charge
            kind = "reset" if billing_month == charged else "credit"
            lines.append(ExpectedBillLine(seller, billing_month, kind, order_id, -fee))
    return lines


def _move_late_audited_lines(
    conn: Connection,
    certificate: MonthCertificate,
    all_lines: list[ExpectedBillLine],
    expected: Counter[ExpectedBillLine],
    actual: Counter[ExpectedBillLine],
) -> Counter[ExpectedBillLine]:
    # Only lines written after their bill was issued may be on a later bill.
    differing = (expected - actual) + (actual - expected)
    order_ids = [line.order_id for line in differing if line.kind in ("reset", "credit")]
    rows = conn.execute(text(_AUDITED_LATE_CREDITS), {"orders": order_ids})
    late = {(row.order_id, row.amount): row for row in rows}
    result = Counter(expected)
    for line in all_lines:
        row = late.get((line.order_id, line.amount))
        if line.kind not in ("reset", "credit") or row is None or row.intended_month != line.month:
            continue
        if result[line] > 0 and actual[line] == 0:
            result[line] -= 1
            certificate.moved_on += 1
        moved_line = line._replace(month=row.billing_month, kind="credit")
        if actual[moved_line] > result[moved_line]:
            result[moved_line] += 1
    return +result


def _compare_bills(
    conn: Connection,
    certificate: MonthCertificate,
    expected: Counter[ExpectedBillLine],
    bills: dict[str, Any],
    written_lines: dict[str, list[str]],
    terms_history: TermsHistory,
    month: date,
) -> None:
    sums: dict[str, Decimal] = defaultdict(lambda: ZERO)
    for line in expected.elements():
        sums[line.seller_id] += line.amount
    opening: dict[str, Decimal] = defaultdict(lambda: ZERO)
    opening |= {row.seller_id: row.opening for row in conn.execute(text(_AUDITED_OPENING_CREDITS), {"month": month})}
    terms_then = terms_history.at(
        (datetime(month.year, month.month, 1, tzinfo=ZoneInfo("UTC")) + timedelta(days=31)).replace(day=1)
    )
    summaries, billed, carried = [], ZERO, ZERO
    for seller in sorted({*sums, *opening, *bills}):
        amount = sums[seller] + opening[seller]
        total = amount if amount > 0 and amount >= terms_then.minimum_bill else ZERO
        summaries.append(f"{seller}|{opening[seller]}|{sums[seller]}|{total}|{amount - total}")
        billed, carried = billed + total, carried + amount - total
        bill = bills.get(seller)
        if bill is None:
            if certificate.closed:
                certificate.differences.append(f"the bill of {seller} is missing: it must come to {total}")
            continue
        for name, value in (
            ("opening_credit", opening[seller]),
            ("lines_sum", sums[seller]),
            ("total", total),
            ("carried_forward", amount - total),
            ("lines_hash", _hash_of(written_lines[seller])),
        ):
            if getattr(bill, name) != value:
                certificate.differences.append(
                    f"the bill of {seller} has {name} {getattr(bill, name)} instead of {value}"
                )
    certificate.sellers, certificate.bills = len(summaries), len(bills)
    certificate.billed, certificate.carried_forward = str(billed), str(carried)
    certificate.hash = _hash_of([certificate.month, *summaries])


def _compare_audited_payments(conn: Connection, certificate: MonthCertificate, lines: Iterable[Any]) -> None:
    expected = Counter(
        (row.seller_id, Decimal(row.amount))
        for row in conn.execute(text(_AUDITED_PAYMENT_EVENTS), {"month": certificate.month})
    )
    actual = Counter((row.seller_id, -row.amount) for row in lines)
    for seller, amount in sorted(((expected - actual) + (actual - expected)).elements()):
        certificate.differences.append(f"a payment of {amount} by {seller} is not both in the events and in the ledger")
    certificate.paid = str(sum((amount for _, amount in expected.elements()), ZERO))


def _written_lines(rows: Iterable[Any]) -> dict[str, list[str]]:
    written: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        parts = (row.line_id, row.kind, row.amount, row.order_id, row.charged_month, row.credited_month, row.note)
        written[row.seller_id].append("|".join(str(part) for part in parts if part is not None))
    return written


def _hash_of(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _expected_fee(dollars: Decimal, terms_then: Terms, seller: str) -> Decimal:
    # Exact fractions, then rounded to cents: floor(x + 1/2).
    if seller in terms_then.fee_exempt_sellers:
        return ZERO
    owed, bottom = Fraction(0), Fraction(0)
    for slice_ in terms_then.fee_slices:
        top = Fraction(dollars) if slice_.up_to is None else min(Fraction(dollars), Fraction(slice_.up_to))
        owed += max(Fraction(0), top - bottom) * Fraction(slice_.rate)
        bottom = max(bottom, top)
    cents = (owed * 200 + 1) // 2
    return Decimal(cents).scaleb(-2)


def _describe_expected_line(line: ExpectedBillLine) -> str:
    about = f" for order {line.order_id}" if line.order_id is not None else ""
    return f"the {line.kind} of {line.amount}{about} on the bill of {line.seller_id}"


_AUDITED_LEDGER_LINES = "SELECT * FROM unwind.ledger_lines WHERE billing_month = :month ORDER BY line_id"
_AUDITED_BILLS = "SELECT * FROM unwind.bills WHERE billing_month = :month"
_AUDITED_MONTH_IS_CLOSED = "SELECT EXISTS (SELECT FROM unwind.billing_months WHERE billing_month >= :month)"
_AUDITED_ORDER_EVENTS = """
    SELECT e.order_id, e.at, e.type, COALESCE(e.changes -> 'order', '{}') AS changes, o.seller_id, o.usd_rate
    FROM unwind.events e JOIN unwind.orders o USING (order_id)
    WHERE e.order_id IN (
        SELECT order_id FROM unwind.events WHERE at >= :begin AND at < :end AND order_id IS NOT NULL
        UNION SELECT unnest(CAST(:also AS bigint[])))
    ORDER BY e.order_id, e.seq
"""
_AUDITED_MANUAL_CREDITS = """
    SELECT e.member_id, to_date(e.changes #>> '{credit,month}', 'YYYY-MM'), 'manual_credit',
        CAST(e.changes #>> '{credit,order_id}' AS bigint), CAST(e.changes #>> '{credit,amount}' AS numeric)
    FROM unwind.events e WHERE e.type = 'credits.posted_by_hand'
"""
_AUDITED_PAYMENT_EVENTS = """
    SELECT e.member_id AS seller_id, e.changes -> 'payment' ->> 'amount' AS amount FROM unwind.events e
    WHERE e.type = 'bills.payment_recorded' AND e.changes -> 'payment' ->> 'month' = :month
"""
_AUDITED_OPENING_CREDITS = """
    SELECT seller_id, sum(amount) AS opening FROM (
        (SELECT DISTINCT ON (seller_id) seller_id, carried_forward AS amount FROM unwind.bills
         WHERE billing_month < :month ORDER BY seller_id, billing_month DESC)
        UNION ALL
        SELECT e.member_id, -CAST(e.changes -> 'payment' ->> 'excess' AS numeric) FROM unwind.events e
        WHERE e.type = 'bills.payment_recorded'
            AND e.changes -> 'payment' ->> 'opens' = to_char(CAST(:month AS timestamp), 'YYYY-MM')
    ) carried GROUP BY seller_id HAVING sum(amount) <> 0
"""
_AUDITED_LATE_CREDITS = """
    SELECT l.order_id, l.amount, l.billing_month, to_date(o.payload ->> 'month', 'YYYY-MM') AS intended_month
    FROM unwind.ledger_lines l
    JOIN unwind.outbox o ON o.key = l.key
    LEFT JOIN unwind.bills b
        ON b.seller_id = l.seller_id AND b.billing_month = to_date(o.payload ->> 'month', 'YYYY-MM')
    LEFT JOIN unwind.billing_months m ON m.billing_month = to_date(o.payload ->> 'month', 'YYYY-MM')
    WHERE l.order_id = ANY(:orders) AND l.kind = 'credit' AND l.at >= LEAST(b.issued_at, m.closed_at)
        AND l.billing_month > to_date(o.payload ->> 'month', 'YYYY-MM')
"""
