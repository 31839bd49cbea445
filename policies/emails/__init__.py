"""The emails that members receive: one entry per event, with its rule, its recipients and its wording."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from policies.emails import accounts, automation, cancellations, npb, ocr, seller_alerts
from policies.emails.context import EmailContext
from policies.emails.email import Email
from policies.statuses import Role


@dataclass(frozen=True, slots=True)
class Notice:
    rule: str
    recipients: tuple[Role, ...]
    compose: Callable[[EmailContext], Email]


_SELLER, _BUYER, _EITHER = (Role.SELLER,), (Role.BUYER,), (Role.SELLER, Role.BUYER)

NOTICES: dict[str, Notice] = {
    "ocr_filed": Notice("N1", _SELLER, ocr.ocr_filed_by_buyer),
    "ocr_filed_by_seller": Notice("N2", _BUYER, ocr.ocr_filed_by_seller),
    "ocr_declined": Notice("N3", _BUYER, ocr.ocr_declined),
    "npb_filed": Notice("N4", _BUYER, npb.npb_filed),
    "npb_responded": Notice("N5", _SELLER, npb.npb_responded),
    "npx_accepted": Notice("N6", _SELLER, npb.penalty_accepted),
    "npx_taken_back": Notice("N6", _SELLER, npb.penalty_taken_back),
    "npb_unlocked": Notice("N7", _SELLER, seller_alerts.alert_unlocked),
    "seller_alert_filed": Notice("N8", _SELLER, seller_alerts.seller_alert_filed),
    "seller_alert_responded": Notice("R48", _BUYER, seller_alerts.seller_alert_responded),
    "seller_alert_unlocked": Notice("N9", _BUYER, seller_alerts.alert_unlocked),
    "alert_removed": Notice("N10", _EITHER, seller_alerts.alert_removed),
    "order_cancelled": Notice("N11", _EITHER, cancellations.order_cancelled),
    "removal_cancelled": Notice("N12", _EITHER, cancellations.removal_cancelled),
    "credit_posted": Notice("N13", _SELLER, accounts.credit_posted),
    "bill_issued": Notice("N14", _SELLER, accounts.bill_issued),
    "privilege_revoked": Notice("N15", _EITHER, accounts.privilege_revoked),
    "ocr_reminder": Notice("N16", _SELLER, ocr.ocr_reminder),
    "unlock_reminder": Notice("N17", _EITHER, seller_alerts.unlock_reminder),
    "payment_during_alert": Notice("N18", _SELLER, npb.npb_payment_recorded),
    "cancellation_coming": Notice("N20", _BUYER, automation.cancellation_coming),
    "npb_extended": Notice("N22", _BUYER, npb.npb_extended),
    "ocr_declined_automatically": Notice("N21", _SELLER, automation.ocr_declined_automatically),
    "npb_filed_automatically": Notice("N21", _SELLER, automation.npb_filed_automatically),
    "payment_after_cancellation": Notice("N19", _EITHER, cancellations.paid_late),
}
"""Every event that is emailed, by its public name."""


def compose_email(context: EmailContext) -> Email:
    return NOTICES[context.event].compose(context)
