"""What happens to an order's fee when the order is cancelled (R83 to R90, R93).

In the billing month of the charge the fee is reset and the bill shows nothing.  In a later month the earlier bill
stands and the stored amount is credited on the bill of the cancellation's month.  Through NRS and NSS the fee stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from policies.billing_months import format_month, month_name, month_of
from policies.cases import Order
from policies.fees import ZERO
from policies.statuses import Basis
from policies.terms import Terms
from policies.timestamps import format_timestamp
from policies.verdicts import OutboxMessage

TASK = "credits.post_to_next_invoice"
RESET, CREDIT, NONE, UNDECIDED = "reset", "credit", "none", "undecided"


@dataclass(frozen=True, slots=True)
class FeeDecision:
    """The decision: `kind`, the signed `amount` (USD, negative or 0.00) and the month whose bill shows it.

    `undecided`: the month of the charge is unknown, so that staff must decide between reset and credit.
    """

    kind: str
    amount: Decimal = ZERO
    month: date | None = None


def decide_fee(order: Order, basis: Basis, cancelled_at: datetime, terms: Terms) -> FeeDecision:
    """Decide from the stored charge, which is copied and never recalculated (R93)."""
    if basis in (Basis.NRS, Basis.NSS):
        return FeeDecision(NONE)  # R85
    if order.fee_month is None:
        return FeeDecision(UNDECIDED)  # never guessed
    # A charge is after its cancellation only if the billing zone changed between them; then it is a reset.
    month = max(month_of(cancelled_at, terms), order.fee_month)
    return FeeDecision(RESET if month == order.fee_month else CREDIT, ZERO - order.fee, month)


def fee_message(decision: FeeDecision, order: Order, cancelled_at: datetime) -> OutboxMessage | None:
    if decision.kind == NONE:
        return None
    return OutboxMessage(
        task=TASK,
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


def fee_effects(decision: FeeDecision) -> dict[str, Any]:
    return {
        "kind": decision.kind,
        "amount": str(decision.amount),
        "bill": format_month(decision.month) if decision.month else None,
    }


def charge_note(order_id: int, month: date) -> str:
    return f"Fee for order {order_id}, charged in {month_name(month)}."


def recharge_note(order_id: int, month: date, why: str) -> str:
    return f"Fee for the whole of order {order_id}, charged in {month_name(month)} because {why}."


def reversal_note(order_id: int, charged: date | None, why: str) -> str:
    when = f"charged in {month_name(charged)}" if charged else "charged earlier"
    return f"The fee for order {order_id} {when} is taken back because {why}; the whole order is charged again."


def reset_note(order_id: int, charged: date) -> str:
    return f"Order {order_id} was cancelled in {month_name(charged)}, in which its fee was charged: the fee is reset."


def credit_note(order_id: int, charged: date, cancelled: date, bill: date) -> str:
    late = "" if bill == cancelled else f" The bill of {month_name(cancelled)} was made already, so it is on this one."
    return (
        f"Order {order_id} was cancelled in {month_name(cancelled)}; its fee, charged in {month_name(charged)}, "
        f"is credited in {month_name(bill)}.{late}"
    )
