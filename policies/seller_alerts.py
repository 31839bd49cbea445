"""Alerts against sellers who do not respond (NRS) or do not ship (NSS) (R45 to R52).

Both unlock 14 days after filing, whether the seller answers or not (A18).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from policies.alerts import change_alert, check_may_file_alert, file_alert, require_open_alert
from policies.cases import Actor, AlertKind, Case
from policies.preconditions import check_comment
from policies.statuses import ALERT_LABELS, Role
from policies.verdicts import Code, Event, Granted, Refused

NSS_GROUNDS = {
    "NOT_SHIPPED": "the order was not shipped",
    "INCOMPLETE": "the order is incomplete",
    "NOT_AS_DESCRIBED": "the items are not as described",
}


def file_seller_alert(
    case: Case, kind: AlertKind, actor: Actor, grounds: str | None, comment: str, now: datetime
) -> Granted | Refused:
    if refused := check_may_file_alert(case, kind, actor, now):
        return refused
    order = case.order
    if kind is AlertKind.NRS and order.payment_status.is_paid:
        return Refused(
            Code.ALREADY_PAID,
            f"{case.label.capitalize()} is paid; for a paid order the alert is the non-shipping seller alert (NSS).",
            unblocked_by="filing NSS instead",
        )
    if kind is AlertKind.NSS and not order.payment_status.is_paid:
        return Refused(
            Code.NOT_PAID,
            f"{case.label.capitalize()} is not paid; "
            "for an unpaid order the alert is the non-responding seller alert (NRS).",
            unblocked_by="the payment being recorded",
        )
    if refused := check_comment(comment):
        return refused
    why = f"{NSS_GROUNDS[grounds]}: {comment}" if grounds else comment
    note = f"The buyer complains about the seller: {why}"
    facts = {"kind": kind, "grounds": grounds}
    return file_alert(case, kind, comment, now, note=note, notice="seller_alert_filed", facts=facts, grounds=grounds)


def respond_to_seller_alert(
    case: Case, kind: AlertKind, actor: Actor, comment: str, now: datetime
) -> Granted | Refused:
    alert = require_open_alert(case, kind, actor, Role.SELLER, act=f"answer a {ALERT_LABELS[kind]}")
    if isinstance(alert, Refused):
        return alert
    if refused := check_comment(comment):
        return refused
    if alert.responded_at is None:
        alert = replace(alert, responded_at=now, response=comment)
    event = Event(f"{kind.lower()}.responded", f"The seller answered: {comment}")
    return change_alert(case, alert, event, Role.BUYER, "seller_alert_responded", kind=kind, comment=comment)
