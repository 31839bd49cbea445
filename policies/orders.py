"""Ordinary changes of an order: status changes by its parties, payment, and added items (T20, T21, T23)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from policies import late_payments
from policies.bills import billing_month_of
from policies.cases import Actor, AlertKind, Case, Order
from policies.fees import calculate_fee, to_usd
from policies.notices import notify_party
from policies.preconditions import check_no_problem, check_not_cancelled, check_party, check_status
from policies.statuses import ADDABLE_STATUSES, OPEN_FLOW, PaymentStatus, Role, Status
from policies.terms import Terms
from policies.verdicts import Code, Event, Granted, Refused

STATUSES_BY_SELLER = (Status.PROCESSING, Status.READY, Status.PAID, Status.PACKED, Status.SHIPPED, Status.COMPLETED)
STATUSES_BY_BUYER = {Status.RECEIVED: (Status.SHIPPED,), Status.COMPLETED: (Status.SHIPPED, Status.RECEIVED)}


def set_order_status(case: Case, actor: Actor, status: Status) -> Granted | Refused:
    if refused := check_party(case, actor) or check_not_cancelled(case):
        return refused
    role, order = case.role_of(actor), case.order
    allowed: Iterable[Status] = (
        STATUSES_BY_SELLER if role is Role.SELLER else STATUSES_BY_BUYER if role is Role.BUYER else ()
    )
    if role is Role.STAFF or (status in (*STATUSES_BY_SELLER, *STATUSES_BY_BUYER) and status not in allowed):
        return Refused(
            Code.WRONG_ROLE,
            f"The {role} cannot set an order to {status}.",
            unblocked_by="the other party setting it",
        )
    if refused := check_no_problem(case, "its status cannot be set by hand until that is closed"):
        return refused
    if status not in allowed:
        return Refused(Code.WRONG_STATUS, f"{status} is never set by hand.")
    sources = [s for s in OPEN_FLOW if s is not status] if role is Role.SELLER else STATUSES_BY_BUYER[status]
    if refused := check_status(case, sources, f"the {role} can set {status} from"):
        return refused
    after = replace(case, order=replace(order, status=status))
    return Granted(
        after, event=Event("orders.status_set", f"Set to {status} by the {role}."), effects={"status": status}
    )


def record_order_payment(case: Case, payment: PaymentStatus, now: datetime) -> Granted | Refused:
    """Record a payment.  A voided payment returns a PAID order to READY (T23); no other status changes."""
    order = case.order
    if order.status is Status.CANCELLED:
        return late_payments.record_late_payment(case, payment, now)
    if payment is order.payment_status:
        return Granted(case, effects={"status": order.status, "payment_status": payment})
    voided = order.status is Status.PAID and order.payment_status.is_paid and not payment.is_paid
    status = Status.READY if voided else order.status
    ready = " The payment was voided, so the order is READY again." if voided else ""
    after = replace(case, order=replace(order, payment_status=payment, status=status))
    alert = case.open_alert
    warn = payment.is_paid and not order.payment_status.is_paid and alert is not None and alert.kind is AlertKind.NPB
    return Granted(
        after,
        event=Event("orders.payment_recorded", f"The payment is {payment} (it was {order.payment_status}).{ready}"),
        messages=(notify_party(after, Role.SELLER, "payment_during_alert", payment_status=payment),) if warn else (),
        effects={"status": status, "payment_status": payment},
    )


def check_may_add_batch(case: Case) -> Refused | None:
    return (
        check_not_cancelled(case)
        or check_no_problem(case, "nothing can be added until that is closed")
        or check_status(case, ADDABLE_STATUSES, "items can be added in")
    )


def restart_order(case: Case, *, total: Decimal, event: Event | None, now: datetime) -> Granted:
    order = charge_order(
        replace(case.order, status=Status.UPDATED, order_date=now, payment_status=PaymentStatus.NONE, total=total),
        case.terms,
    )
    return Granted(replace(case, order=order), event=event, effects={"status": Status.UPDATED, "fee": str(order.fee)})


def charge_order(order: Order, terms: Terms) -> Order:
    return replace(
        order,
        fee=calculate_fee(to_usd(order.total, order.usd_rate), terms, order.seller_id),
        fee_month=billing_month_of(order.order_date, terms),
    )
