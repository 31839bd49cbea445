"""Emails about alerts against sellers, and about the unlock and the end of any alert (N7, N8, N9, N10, N17)."""

from __future__ import annotations

from policies.emails.automation import email_automatic_cancellation
from policies.emails.context import EmailContext
from policies.emails.email import Email
from policies.emails.npb import CANCEL_NOW, PAID_INSTEAD
from policies.statuses import ALERT_LABELS
from policies.texts import capital, join_sentences

NSS_GROUND_PHRASES = {
    "NOT_SHIPPED": "it was not shipped",
    "INCOMPLETE": "it arrived incomplete",
    "NOT_AS_DESCRIBED": "the items are not as described",
}
BUYER_CANCELS = (
    "You can now cancel the order on its page. The seller then gets a strike.",
    "If the seller has solved the problem in the meantime, remove the alert instead.",
    "Cancelling does not refund the payment. If you have paid, ask the seller or your payment service for a refund.",
)


def seller_alert_filed(context: EmailContext) -> Email:
    shipping, grounds = context.text("kind") == "NSS", NSS_GROUND_PHRASES.get(context.text("grounds"))
    complaint = (
        f"paid for {context.order} and reports a problem" + (f": {grounds}." if grounds else ".")
        if shipping
        else f"reports that you are not responding about {context.order}."
    )
    return context.email(
        "the buyer reports a shipping problem" if shipping else "the buyer is waiting for your answer",
        f"{capital(context.the_buyer)} {complaint}",
        (
            "While the alert is open, you can't change the status of the order.",
            context.when("unlocks_at", "If it stays open, the buyer can cancel the order from {}."),
            (
                "If the buyer cancels, you get a strike, no items return to your inventory, and the fee is not "
                "refunded. If you get too many strikes, you lose the right to sell."
            ),
        ),
        (
            "Ship the order, send what is missing, or refund the buyer, and say so on the order's page."
            if shipping
            else "Answer the buyer on the order's page.",
            "Then ask the buyer to remove the alert. If they don't, send proof to our staff, who can remove it.",
        ),
        quoted="the buyer",
    )


def seller_alert_responded(context: EmailContext) -> Email:
    return context.email(
        "the seller answered your alert",
        f"{capital(context.the_seller)} answered the {_alert_label(context)} for {context.order}.",
        context.when("unlocks_at", "The answer does not make you wait longer: you can cancel the order from {}."),
        "If the problem is solved, remove the alert on the order's page. The order then continues.",
        quoted="the seller",
    )


def alert_unlocked(context: EmailContext) -> Email:
    return context.email(
        "you can cancel now",
        f"The waiting period of your {_alert_label(context)} for {context.order} "
        + context.when("unlocks_at", "ended on {}.", "is over."),
        email_automatic_cancellation(context)
        or "The decision is yours. The order will not be cancelled automatically, and you can keep waiting.",
        _how_to_cancel(context),
    )


def alert_removed(context: EmailContext) -> Email:
    by = context.text("by")
    remover = {"seller": context.the_seller, "buyer": context.the_buyer, "staff": "our staff"}.get(by, "")
    against_buyer = context.text("kind") == "NPB"
    happened = (
        f"{capital(remover)} removed the {_alert_label(context)} for {context.order}."
        if remover
        else f"The {_alert_label(context)} for {context.order} was removed."
    )
    quoted = remover or "the member"
    if context.flag("was_completed"):
        return context.email(
            "the alert and its strike were withdrawn",
            happened,
            (
                "The strike for this order no longer counts against you.",
                "The order stays cancelled: a cancelled order cannot be reinstated.",
            ),
            quoted=quoted,
        )
    return context.email(
        "the alert was removed",
        happened,
        (
            "The order's status is PENDING again, and it continues as usual. This alert does not count against you.",
            "You can order from this store again, unless the seller has reported another order of yours."
            if against_buyer
            else "",
        ),
        "If you have not paid yet, please do so now." if against_buyer else "Please update the status of the order.",
        quoted=quoted,
    )


def unlock_reminder(context: EmailContext) -> Email:
    waited = context.days()
    return context.email(
        "you can still cancel",
        join_sentences(
            f"The buyer of {context.order} accepted the penalty, and the order is still open."
            if context.flag("penalty_accepted")
            else f"The waiting period of your {_alert_label(context)} for {context.order} is over, "
            "and the order is still open.",
            context.when("since", "You have been able to cancel it since {}" + (f", for {waited}." if waited else ".")),
        ),
        email_automatic_cancellation(context)
        or "The order will not be cancelled automatically, and it cannot continue while the alert is open.",
        (
            *_how_to_cancel(context),
            "This is our last reminder about this alert." if context.flag("last") else "",
        ),
    )


def _alert_label(context: EmailContext) -> str:
    return ALERT_LABELS.get(context.text("kind"), "alert")


def _how_to_cancel(context: EmailContext) -> tuple[str, ...]:
    return (CANCEL_NOW, PAID_INSTEAD) if context.text("kind") == "NPB" else BUYER_CANCELS
