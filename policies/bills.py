"""Billing months and their days, and a bill: its totals, visible lines, state and JSON (A6, R83, R87, R89, R91, R92).

A billing month is the calendar month of a time in the billing zone, written as the date of its first day.  Months are
counted and never added as durations, so February and clock changes have no effect.

`total` is the month's lines plus the opening credit, never below 0.00.  The rest is carried forward: negative as a
credit, positive when it stays below the minimum bill.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from policies.fees import ZERO
from policies.terms import Terms, TermsHistory
from policies.timestamps import format_timestamp
from policies.verdicts import Code, Refused

OPEN, ISSUED, PAID, PAST_DUE = "open", "issued", "paid", "past_due"
MIN_BILLING_MONTH = date(2000, 1, 1)
BILL_COMMIT_MARGIN = timedelta(hours=1)
"""No transaction takes that long."""


def billing_month_of(instant: datetime, terms: Terms) -> date:
    return _month_in_zone(instant, terms.billing_time_zone)


@lru_cache(maxsize=1024)  # a batch asks for one instant hundreds of times
def _month_in_zone(instant: datetime, zone: str) -> date:
    return instant.astimezone(ZoneInfo(zone)).date().replace(day=1)


def next_month(month: date) -> date:
    return date(month.year + month.month // 12, month.month % 12 + 1, 1)


def previous_month(month: date) -> date:
    return date(month.year - (month.month == 1), (month.month - 2) % 12 + 1, 1)


def issued_on(month: date, terms: Terms) -> date:
    return next_month(month).replace(day=terms.bill_day)


def bill_issues_at(month: date, terms: Terms) -> datetime:
    return start_of_billing_day(issued_on(month, terms), terms)


def due_on(month: date, terms: Terms) -> date:
    return next_month(next_month(month)).replace(day=terms.bill_due_day)


def past_due_from(due: date, terms: Terms) -> datetime:
    return start_of_billing_day(due + timedelta(days=1), terms)


def grace_until(due: date, terms: Terms) -> date:
    return due + terms.past_due_grace


def terms_of_billing_month(terms_history: TermsHistory, month: date) -> Terms:
    """Return the terms in force at the end of the month in UTC; the billing zone is itself a term."""
    return terms_history.at(datetime.combine(next_month(month), time(), tzinfo=UTC))


def start_of_billing_day(day: date, terms: Terms) -> datetime:
    """The start of a day in the billing zone, in UTC.

    Where clocks skip midnight, the offset before the change (fold 0) gives the time of the change.
    """
    return datetime.combine(day, time(), tzinfo=terms.zone).astimezone(UTC)


def format_month(month: date) -> str:
    return month.isoformat()[:7]


def parse_month(text: str) -> date:
    if not re.fullmatch(r"[1-8][0-9]{3}-(0[1-9]|1[0-2])", text):
        raise ValueError("must be a month such as 2026-03")
    return date.fromisoformat(f"{text}-01")


def month_name(month: date) -> str:
    return f"{MONTH_NAMES[month.month - 1]} {month.year}"


MONTH_NAMES = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class BillLine:
    kind: str
    order_id: int | None
    amount: Decimal
    note: str
    at: datetime
    charged_month: date | None = None
    credited_month: date | None = None


@dataclass(frozen=True, slots=True)
class BillTotals:
    opening_credit: Decimal
    lines_sum: Decimal
    total: Decimal
    carried_forward: Decimal


@dataclass(frozen=True, slots=True)
class Bill:
    seller_id: str
    month: date
    state: str
    sums: BillTotals
    lines: tuple[BillLine, ...]
    paid: Decimal
    overpaid: Decimal
    issued_on: date | None = None
    due_on: date | None = None
    grace_until: date | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "seller_id": self.seller_id,
            "billing_month": format_month(self.month),
            "state": self.state,
            "issued_on": self.issued_on and self.issued_on.isoformat(),
            "due_on": self.due_on and self.due_on.isoformat(),
            "grace_until": self.grace_until and self.grace_until.isoformat(),
            "currency": "USD",
            "opening_credit": str(self.sums.opening_credit),
            "lines": [
                {
                    "kind": line.kind,
                    "order_id": line.order_id,
                    "amount": str(line.amount),
                    "note": line.note,
                    "at": format_timestamp(line.at),
                    "charged_month": format_month(line.charged_month) if line.charged_month else None,
                    "credited_month": format_month(line.credited_month) if line.credited_month else None,
                }
                for line in visible_bill_lines(self.lines, self.month)
            ],
            "total": str(self.sums.total),
            "carried_forward": str(self.sums.carried_forward),
            "paid": str(self.paid),
            "overpaid": str(self.overpaid),
        }


def calculate_totals(lines_sum: Decimal, opening_credit: Decimal, terms: Terms) -> BillTotals:
    balance = lines_sum + opening_credit
    billed = balance > 0 and balance >= terms.minimum_bill
    return BillTotals(opening_credit, lines_sum, balance if billed else ZERO, ZERO if billed else balance)


def visible_bill_lines(lines: Sequence[BillLine], month: date) -> list[BillLine]:
    """Leave out charges that were reset within the month, with their resets (R83).

    For an order that was reset, charges of this month that a batch or a removal reversed are left out as well.
    """
    reset_orders = {line.order_id for line in lines if line.kind == "reset"}
    hidden: set[int] = set()
    for index, line in enumerate(lines):
        reverses = line.kind == "reset" or (
            line.kind == "reversal" and line.order_id in reset_orders and line.charged_month == month
        )
        charge = _reversed_charge(lines, index, hidden) if reverses else None
        if charge is not None:
            hidden |= {charge, index}
    return [line for index, line in enumerate(lines) if index not in hidden]


def _reversed_charge(lines: Sequence[BillLine], index: int, hidden: set[int]) -> int | None:
    charge = ("charge", lines[index].order_id, -lines[index].amount)
    for earlier in range(index - 1, -1, -1):
        other = lines[earlier]
        if earlier not in hidden and (other.kind, other.order_id, other.amount) == charge:
            return earlier
    return None


def bill_state(total: Decimal, paid: Decimal, past_due_at: datetime, now: datetime) -> str:
    if paid >= total:
        return PAID
    return PAST_DUE if now >= past_due_at else ISSUED


def overpaid_bill_amount(total: Decimal, paid_before: Decimal, amount: Decimal) -> Decimal:
    return amount - min(amount, max(ZERO, total - paid_before))


def open_billing_month(now: datetime, terms: Terms) -> date:
    month = billing_month_of(now, terms)
    before = previous_month(month)
    return before if now < bill_issues_at(before, terms) else month


def last_due_billing_month(now: datetime, terms_history: TermsHistory) -> date:
    month = previous_month(billing_month_of(now, terms_history.at(now)))
    issues_at = bill_issues_at(month, terms_of_billing_month(terms_history, month))
    return month if now >= issues_at else previous_month(month)


def may_be_billed(cancelled_at: datetime, now: datetime, terms: Terms) -> bool:
    """Whether the bill of the cancellation's month may be issued before a transaction that runs `now` commits."""
    return now + BILL_COMMIT_MARGIN >= start_of_billing_day(next_month(billing_month_of(cancelled_at, terms)), terms)


def bill_not_issued(month: date) -> Refused:
    return Refused(
        Code.BILL_UNKNOWN,
        f"There is no issued bill of {month_name(month)} for this seller that could be paid.",
        unblocked_by="the bill being issued",
    )


def bill_payment_note(amount: Decimal, month: date, payment_id: str, excess: Decimal, opens: date | None) -> str:
    more = f" {excess} of it exceeds the bill and is credited on the bill of {month_name(opens)}." if opens else ""
    return f"Payment {payment_id} of {amount} for the bill of {month_name(month)}.{more}"
