"""The credit or reset of a cancelled order's fee, credits by staff, and the notes that explain them (R83 to R90, R93).

In the billing month of the charge the fee is reset and the bill shows nothing.  In a later month the earlier bill
stands and the stored amount is credited on the bill of the cancellation's month.  Through NRS and NSS the fee stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from policies.bills import billing_month_of, format_month, month_name, parse_month
from policies.cases import Order
from policies.fees import ZERO
from policies.members import member_unknown
from policies.preconditions import check_comment, order_unknown
from policies.statuses import CancelBasis
from policies.terms import Terms
from policies.timestamps import format_timestamp
from policies.verdicts import Code, Invalid, OutboxMessage, Refused

CREDIT_TASK = "credits.post_to_next_invoice"
RESET, CREDIT, NONE, UNDECIDED = "reset", "credit", "none", "undecided"


@dataclass(frozen=True, slots=True)
class FeeDecision:
    """The decision: `kind`, the signed `amount` (USD, negative or 0.00) and the month of the cancellation.

    `bill` is the month whose bill shows it: a later one if the bill of `month` was issued before the commit (R113).
    `undecided`: the month of the charge is unknown, so that staff must decide between reset and credit.
    """

    kind: str
    amount: Decimal = ZERO
    month: date | None = None
    bill: date | None = None


def decide_fee(
    order: Order, basis: CancelBasis, cancelled_at: datetime, terms: Terms, first_open: date | None = None
) -> FeeDecision:
    """Decide from the stored charge, which is copied and never recalculated (R93).

    `first_open` is the seller's first month without an issued bill, where `may_be_billed`.
    """
    if basis in (CancelBasis.NRS, CancelBasis.NSS):
        return FeeDecision(NONE)  # R85
    if order.fee_month is None:
        return FeeDecision(UNDECIDED)  # never guessed
    # A charge is after its cancellation only if the billing zone changed between them; then it is a reset.
    month = max(billing_month_of(cancelled_at, terms), order.fee_month)
    bill = max(month, first_open) if first_open else month
    return FeeDecision(RESET if bill == order.fee_month else CREDIT, ZERO - order.fee, month, bill)


def fee_credit_message(decision: FeeDecision, order: Order, cancelled_at: datetime) -> OutboxMessage | None:
    if decision.kind == NONE:
        return None
    return OutboxMessage(
        task=CREDIT_TASK,
        key=f"fee:{order.order_id}",
        order_id=order.order_id,
        payload={
            "kind": decision.kind,
            "amount": str(decision.amount),
            "seller_id": order.seller_id,
            "month": format_month(decision.month) if decision.month else None,
            "charged_month": format_month(order.fee_month) if order.fee_month else None,
            "cancelled_at": format_timestamp(cancelled_at),
        },
    )


def fee_credit_effects(decision: FeeDecision) -> dict[str, Any]:
    return {
        "kind": decision.kind,
        "amount": str(decision.amount),
        "bill": format_month(decision.bill) if decision.bill else None,
    }


@dataclass(frozen=True, slots=True)
class FeeSettlement:
    """The posting that a fee credit message asks for: a signed `amount`, on the bill of the cancellation's `month`."""

    order_id: int
    seller_id: str
    kind: str
    amount: Decimal
    month: date
    charged_month: date


def decide_fee_settlement(order_id: int | None, payload: Mapping[str, Any]) -> FeeSettlement | str:
    """Return the posting the message asks for; if it cannot be posted, a sentence for staff."""
    if payload.get("kind") not in (RESET, CREDIT):
        return (
            f"It is not known in which month the fee of order {order_id} was charged, so it was neither reset nor "
            "credited. Find the bill that has it and post a manual credit."
        )
    try:
        amount = Decimal(payload["amount"])
        month, charged = parse_month(payload["month"]), parse_month(payload["charged_month"])
        seller_id = payload["seller_id"]
    except (KeyError, TypeError, ValueError, InvalidOperation) as error:
        return f"The credit message of order {order_id} cannot be parsed: {type(error).__name__}."
    if order_id is None or not amount.is_finite() or amount > 0 or not isinstance(seller_id, str):
        return f"The credit message of order {order_id} holds values that no cancellation writes."
    return FeeSettlement(order_id, seller_id, payload["kind"], amount, month, charged)


def choose_credit_bill(settlement: FeeSettlement, first_open: date) -> tuple[str, date]:
    """Choose the line's kind and bill: that of the cancellation's month, or the seller's first open one after it.

    If the bill with the charge was issued meanwhile, the fee can no longer be reset and is credited.
    """
    month = max(settlement.month, first_open)
    return RESET if settlement.kind == RESET and month == settlement.charged_month else CREDIT, month


def settlement_note(settlement: FeeSettlement, kind: str, bill: date) -> str:
    order, charged = f"Order {settlement.order_id}", month_name(settlement.charged_month)
    if kind == RESET:
        return f"{order} was cancelled in {charged}, in which its fee was charged: the fee is reset."
    cancelled = month_name(settlement.month)
    note = f"{order} was cancelled in {cancelled}; its fee, charged in {charged}, is credited in {month_name(bill)}."
    if bill == settlement.month:
        return note
    return f"{note} The bill for {cancelled} had already been issued, so the credit is on this one."


def charge_note(order_id: int, month: date) -> str:
    return f"Fee for order {order_id}, charged in {month_name(month)}."


def recharge_note(order_id: int, month: date, why: str) -> str:
    return f"Fee for the whole of order {order_id}, charged in {month_name(month)} because {why}."


def reversal_note(order_id: int, charged: date | None, why: str) -> str:
    when = f"charged in {month_name(charged)}" if charged else "charged earlier"
    return f"The fee for order {order_id} {when} is reversed because {why}; the whole order is charged again."


def check_manual_credit(
    seller_id: str,
    amount: Decimal,
    comment: str,
    order_id: int | None,
    *,
    seller_known: bool,
    seller_of_order: str | None,
) -> Refused | Invalid | None:
    if amount <= 0:
        return Invalid("amount", "must be more than 0.00: it is what the seller is given")
    if not seller_known:
        return member_unknown(seller_id)
    if order_id is not None and seller_of_order is None:
        return order_unknown(order_id)
    if order_id is not None and seller_of_order != seller_id:
        return Refused(Code.NOT_A_PARTY, f"Order {order_id} is not one of this seller's.")
    return check_comment(comment)


def manual_credit_note(order_id: int | None, staff: str, comment: str, month: date) -> str:
    about = f" for order {order_id}" if order_id is not None else ""
    return f"Credit{about} in {month_name(month)} by staff ({staff}): {comment}"


def fee_credit_note(fee: Mapping[str, Any]) -> str:
    amount = str(fee["amount"]).removeprefix("-")
    bill = month_name(parse_month(fee["bill_month"])) if fee["bill_month"] else "a bill that is not known"
    if fee["state"] == "stays":
        return "The fee stays: a cancellation through NRS or NSS gives no credit."
    if fee["state"] == "given_up":
        return "It could not be posted and waits for staff: ./run jobs dead."
    if fee["state"] == "promised":
        return f"{amount} USD will be on the bill for {bill}; it is being posted."
    if fee["kind"] == "reset":
        return f"The fee of {amount} USD was removed from the bill for {bill}, the month in which it was charged."
    if fee["bill_issued_on"]:
        return f"{amount} USD is on the bill for {bill}, issued on {fee['bill_issued_on']}."
    return f"{amount} USD is on the bill for {bill}, which is still open."
