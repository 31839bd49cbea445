"""What does a bill come to, which of its lines are shown, and is it paid?  (rules.md 7.2 to 7.4; R83, R87, R91, R92)

`total` is the sum of the month's lines and the opening credit, never below 0.00; what is left over is carried forward,
negative as a credit, positive when it stays below the minimum for which a bill is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from policies.billing_months import bill_issues_at, month_name, month_of, previous_month
from policies.fees import ZERO
from policies.terms import Terms
from policies.verdicts import Code, Invalid, Refused

OPEN, ISSUED, PAID, PAST_DUE = "open", "issued", "paid", "past_due"
MIN_MONTH = date(2000, 1, 1)


@dataclass(frozen=True, slots=True)
class BillLine:
    """A line as a bill shows it.  `amount` in USD; months are first days."""

    kind: str
    order_id: int | None
    amount: Decimal
    note: str
    at: datetime
    charged_month: date | None = None
    credited_month: date | None = None


@dataclass(frozen=True, slots=True)
class BillTotals:
    """What a bill comes to: `lines_sum + opening_credit = total + carried_forward`, always."""

    opening_credit: Decimal
    lines_sum: Decimal
    total: Decimal
    carried_forward: Decimal

    @property
    def is_empty(self) -> bool:
        """Nothing came in and nothing is carried on."""
        return self.opening_credit == 0 and self.lines_sum == 0


def calculate_totals(lines_sum: Decimal, opening_credit: Decimal, terms: Terms) -> BillTotals:
    """Close a month: floor at 0.00, credits and too small amounts are carried forward (R91, `MINIMUM_BILL`)."""
    left = lines_sum + opening_credit
    billed = left > 0 and left >= terms.minimum_bill
    return BillTotals(opening_credit, lines_sum, left if billed else ZERO, ZERO if billed else left)


def visible_lines(lines: Sequence[BillLine], month: date) -> list[BillLine]:
    """The lines of one bill without what came and went within the month (R83): a charge and its reset cancel out.

    Of an order that was reset, charges of this month that a batch or a removal took back in it are left out as well.
    """
    reset_orders = {line.order_id for line in lines if line.kind == "reset"}
    hidden: set[int] = set()
    for index, line in enumerate(lines):
        takes_back = line.kind == "reset" or (
            line.kind == "reversal" and line.order_id in reset_orders and line.charged_month == month
        )
        charge = _charge_taken_back(lines, index, hidden) if takes_back else None
        if charge is not None:
            hidden |= {charge, index}
    return [line for index, line in enumerate(lines) if index not in hidden]


def _charge_taken_back(lines: Sequence[BillLine], index: int, hidden: set[int]) -> int | None:
    """Where the charge is that this line takes back: the same order's, of the same amount, the nearest before it."""
    line = lines[index]
    for earlier in range(index - 1, -1, -1):
        other = lines[earlier]
        if earlier not in hidden and (other.kind, other.order_id, other.amount) == (
            "charge",
            line.order_id,
            -line.amount,
        ):
            return earlier
    return None


def bill_state(total: Decimal, paid: Decimal, past_due_at: datetime, now: datetime) -> str:
    """The state of an issued bill: a bill of 0.00 is paid at issue, an unpaid one past due after its day (R92)."""
    if paid >= total:
        return PAID
    return PAST_DUE if now >= past_due_at else ISSUED


def overpaid_amount(total: Decimal, paid_before: Decimal, amount: Decimal) -> Decimal:
    """How much of a payment is more than the bill still asked for."""
    return amount - min(amount, max(ZERO, total - paid_before))


def open_month(now: datetime, terms: Terms) -> date:
    """The earliest month whose bill is not due to be made yet: on 2 April that of March, from 5 April that of April."""
    month = month_of(now, terms)
    before = previous_month(month)
    return before if now < bill_issues_at(before, terms) else month


def is_known_month(month: date, now: datetime, terms: Terms) -> bool:
    """Whether a known seller has a bill for that month: for any month up to now (contract 4)."""
    return MIN_MONTH <= month <= month_of(now, terms)


def bill_not_issued(month: date) -> Refused:
    """Only an issued bill can be paid."""
    return Refused(
        Code.BILL_UNKNOWN,
        f"There is no issued bill of {month_name(month)} for this seller that could be paid.",
        unblocked_by="the bill being issued",
    )


def payment_already_recorded(payment_id: str) -> Refused:
    """The same payment comes again under another request."""
    return Refused(Code.ALREADY_EXISTS, f"The payment {payment_id} is recorded already; a payment counts once.")


def check_manual_credit(amount: Decimal) -> Invalid | None:
    """A credit by staff is in the seller's favour: nothing else may be booked by hand."""
    return None if amount > 0 else Invalid("amount", "must be more than 0.00: it is what the seller is given")


def payment_note(amount: Decimal, month: date, payment_id: str, over: Decimal, opens: date | None) -> str:
    """Why a payment is in the ledger."""
    more = f" {over} of it is more than was asked for and opens the bill of {month_name(opens)}." if opens else ""
    return f"Payment {payment_id} of {amount} for the bill of {month_name(month)}.{more}"


def manual_credit_note(order_id: int | None, staff: str, comment: str, month: date) -> str:
    """Why a credit by hand is on the bill."""
    about = f" for order {order_id}" if order_id is not None else ""
    return f"Credit{about} in {month_name(month)} by staff ({staff}): {comment}"
