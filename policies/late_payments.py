"""Payments reported after their order was cancelled, until the seller or staff settles them (R107)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from policies.cases import Actor, Case, LatePayment
from policies.notices import notify_party
from policies.preconditions import check_comment, check_not_cancelled, check_role
from policies.statuses import PaymentStatus, Role
from policies.timestamps import describe_timestamp, format_timestamp
from policies.verdicts import Code, Event, Granted, Refused

SETTLEMENT_OVERDUE_AFTER = timedelta(days=3)
"""An unsettled late payment is reported to operators after this time."""


def record_late_payment(case: Case, payment: PaymentStatus, now: datetime) -> Granted | Refused:
    if payment is PaymentStatus.NONE:
        refused = check_not_cancelled(case)
        assert refused is not None
        return refused
    known = case.open_late_payment
    effects = {"status": case.order.status, "late_payment": payment}
    if payment is (known.payment_status if known else case.order.payment_status):
        return Granted(case, effects=effects)
    late = replace(known, payment_status=payment) if known else LatePayment(payment, now)
    after = replace(case, late_payment=late)
    is_news = known is None or (payment.is_paid and not known.payment_status.is_paid)
    told = (Role.SELLER, Role.BUYER) if is_news else ()
    note = f"A payment is {payment}, although the order is cancelled. The seller has to send the money back."
    return Granted(
        after,
        event=Event("orders.paid_after_cancellation", note),
        messages=tuple(notify_party(after, to, "payment_after_cancellation", payment_status=payment) for to in told),
        effects=effects,
    )


def settle_late_payment(case: Case, actor: Actor, comment: str, now: datetime) -> Granted | Refused:
    act = "say that a late payment was sent back"
    if refused := check_role(case, actor, Role.SELLER, Role.STAFF, act=act, may_be_cancelled=True):
        return refused
    late = case.open_late_payment
    if late is None:
        settled = case.late_payment.settled_at if case.late_payment else None
        return Refused(
            Code.NO_LATE_PAYMENT,
            f"The late payment for {case.label} was settled on {describe_timestamp(settled)}."
            if settled
            else f"No payment for {case.label} was recorded after a cancellation.",
            unblocked_by="a payment being recorded after the cancellation",
        )
    if refused := check_comment(comment):
        return refused
    after = replace(case, late_payment=replace(late, settled_at=now, settled_by=str(actor), comment=comment))
    return Granted(
        after,
        event=Event(
            "orders.late_payment_settled", f"The {case.role_of(actor)} says that the money was sent back: {comment}"
        ),
        effects={"settled_at": format_timestamp(now)},
    )
