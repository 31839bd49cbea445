"""The emails that members receive: one entry per event, with its rule and its wording."""

from __future__ import annotations

from collections.abc import Callable

from policies.emails import accounts, automation, cancellations, npb, ocr, seller_alerts
from policies.emails.context import EmailContext
from policies.emails.email import Email

NOTICES: dict[str, Callable[[EmailContext], Email]] = {
    "ocr_filed": ocr.ocr_filed_by_buyer,  # N1
    "ocr_filed_by_seller": ocr.ocr_filed_by_seller,  # N2
    "ocr_declined": ocr.ocr_declined,  # N3
    "npb_filed": npb.npb_filed,  # N4
    "npb_responded": npb.npb_responded,  # N5
    "npx_accepted": npb.penalty_accepted,  # N6
    "npx_taken_back": npb.penalty_taken_back,  # N6
    "npb_unlocked": seller_alerts.alert_unlocked,  # N7
    "seller_alert_filed": seller_alerts.seller_alert_filed,  # N8
    "seller_alert_responded": seller_alerts.seller_alert_responded,  # R48
    "seller_alert_unlocked": seller_alerts.alert_unlocked,  # N9
    "alert_removed": seller_alerts.alert_removed,  # N10
    "order_cancelled": cancellations.order_cancelled,  # N11
    "removal_cancelled": cancellations.removal_cancelled,  # N12
    "credit_posted": accounts.credit_posted,  # N13
    "bill_issued": accounts.bill_issued,  # N14
    "privilege_revoked": accounts.privilege_revoked,  # N15
    "ocr_reminder": ocr.ocr_reminder,  # N16
    "unlock_reminder": seller_alerts.unlock_reminder,  # N17
    "payment_during_alert": npb.npb_payment_recorded,  # N18
    "cancellation_coming": automation.cancellation_coming,  # N20
    "npb_extended": npb.npb_extended,  # N22
    "ocr_declined_automatically": automation.ocr_declined_automatically,  # N21
    "npb_filed_automatically": automation.npb_filed_automatically,  # N21
    "payment_after_cancellation": cancellations.paid_late,  # N19
}
"""Every event that is emailed, by its public name."""


def compose_email(context: EmailContext) -> Email:
    return NOTICES[context.event](context)
