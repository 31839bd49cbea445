"""Emails about non-paying buyer alerts (N4, N5, N6, N18)."""

from __future__ import annotations

from policies.emails.automation import email_automatic_cancellation
from policies.emails.context import EmailContext
from policies.emails.email import Email
from policies.texts import capital, join_sentences

CANCEL_NOW = (
    "You can now cancel the order on its page. The items then return to your inventory, the fee for the order is "
    "refunded to you, and the buyer gets a strike."
)
PAID_INSTEAD = (
    "If the buyer has paid in the meantime, remove the alert instead. The order returns to PENDING and nobody gets a "
    "strike."
)


def npb_filed(context: EmailContext) -> Email:
    return context.email(
        "the seller reports that you have not paid",
        f"{capital(context.the_seller)} reports that {context.order} has not been paid.",
        (
            "If you don't pay or answer, the seller can cancel the order "
            + context.when("unlocks_at", "from {}.", "after a waiting period."),
            "If the seller cancels, you get a strike. If you get too many strikes, you lose the right to buy.",
            "Until this is settled, you can't place another order in this store.",
        ),
        (
            "If you want the items, please pay now and let the seller know.",
            join_sentences(
                "If you have already paid or need more time, answer on the order's page"
                + context.when("unlocks_at", " before {}.", "."),
                context.when("unlocks_at_if_answered", "The seller then has to wait until {}."),
                "A reply to this email does not count as an answer.",
            ),
            (
                "If you don't want to pay, you can accept the penalty on the order's page. "
                "The seller can then cancel immediately, and you get a strike."
            ),
        ),
        quoted="the seller",
    )


def npb_responded(context: EmailContext) -> Email:
    return context.email(
        "the buyer answered your alert",
        f"{capital(context.the_buyer)} answered the non-paying buyer alert for {context.order}.",
        (
            "We had told you that you could cancel. Because the buyer has now answered, you have to wait again."
            if context.flag("took_back")
            else "",
            context.when("unlocks_at", "If the order stays unpaid, you can cancel it from {}."),
        ),
        (
            "If the payment has arrived, remove the alert on the order's page.",
            "If not, write to the buyer. We'll email you when you can cancel.",
        ),
        quoted="the buyer",
    )


def penalty_accepted(context: EmailContext) -> Email:
    return context.email(
        "the buyer accepts the penalty, so you can cancel now",
        f"{capital(context.the_buyer)} will not pay for {context.order} and has accepted the penalty.",
        (
            "You don't have to wait any longer.",
            email_automatic_cancellation(context)
            or "The order will not be cancelled automatically. Until you cancel it, the buyer can still decide to pay.",
        ),
        (CANCEL_NOW, PAID_INSTEAD),
    )


def npb_extended(context: EmailContext) -> Email:
    return context.email(
        "you have more time to pay",
        (
            context.when("unlocks_at", "You now have until {} to pay for ", "You have more time to pay for ")
            + f"{context.order}.",
            "Until then, the order can't be cancelled for non-payment.",
        ),
        (
            "The non-paying buyer alert stays open.",
            "If you don't pay in time, the seller can cancel, and you get a strike.",
        ),
        "Please pay in time. If you have already paid, tell the seller and keep proof of the payment.",
        quoted="the seller",
    )


def penalty_taken_back(context: EmailContext) -> Email:
    return context.email(
        "the buyer wants to pay after all",
        f"{capital(context.the_buyer)} no longer accepts the penalty for {context.order} and says they will pay.",
        join_sentences(
            "The usual waiting period applies again.",
            context.when("unlocks_at", "If the order stays unpaid, you can cancel it from {}."),
        ),
        "When the payment arrives, remove the alert on the order's page.",
    )


def npb_payment_recorded(context: EmailContext) -> Email:
    return context.email(
        "the buyer seems to have paid",
        f"The payment for {context.order} was {context.payment_recorded()} while your non-paying buyer alert was open.",
        "If you cancel now, the buyer gets a strike for an order that seems to be paid.",
        (
            "Check whether you have received the money. If you have, remove the alert on the order's page.",
            "The order then returns to PENDING and nobody gets a strike.",
        ),
    )
