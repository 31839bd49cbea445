"""How is a non-paying buyer alert told to buyer and seller?  (N4, N5, N6, N7, N18)"""

from __future__ import annotations

from policies.emails.context import EmailContext, capital, join_sentences, paragraphs
from policies.emails.email import Email

CANCEL_NOW = (
    "You can cancel the order now, on its page. The items go back into your inventory, the fee for the order is given "
    "back to you, and the buyer gets a strike."
)
PAID_INSTEAD = (
    "If the buyer has paid meanwhile, remove the alert instead: the order returns to PENDING and nobody gets a strike."
)


def filed(told: EmailContext) -> Email:
    """N4, to the buyer: please pay, and what happens otherwise."""
    unlocks, longer = told.when("unlocks_at"), told.when("unlocks_at_if_answered")
    return Email(
        told.subject("please pay, the seller reports it as unpaid"),
        (f"The seller of {told.order}{_named(told.seller)} reports that it has not been paid.",),
        told.quote("the seller"),
        paragraphs(
            f"If nothing happens, the seller may cancel the order from {unlocks}."
            if unlocks
            else "If nothing happens, the seller may cancel the order after a waiting time.",
            "An order cancelled this way counts as a strike against you. Too many strikes cost you the right to buy.",
            "Until this is settled you cannot place another order in this store.",
        ),
        paragraphs(
            "If you want the order, pay it now and tell the seller.",
            join_sentences(
                "If you have paid already, or need more time, answer on the order's page"
                + (f" before {unlocks}." if unlocks else "."),
                f"The seller then has to wait until {longer}." if longer else "",
                "An answer to this mail does not count.",
            ),
            "If you do not want to pay, you can accept the penalty there: the seller may then cancel at once and you get "
            "the strike.",
        ),
    )


def responded(told: EmailContext) -> Email:
    """N5, to the seller: the buyer's words, and from when cancelling is possible now."""
    unlocks = told.when("unlocks_at")
    return Email(
        told.subject("the buyer answered your alert"),
        (f"{capital(told.the_buyer)} answered the non-paying buyer alert for {told.order}.",),
        told.quote("the buyer"),
        paragraphs(
            "We told you that you can cancel. With this answer you have to wait again."
            if told.has("took_back")
            else "",
            f"If the order stays unpaid, you can cancel it from {unlocks}." if unlocks else "",
        ),
        (
            "If the payment has arrived, remove the alert on the order's page.",
            "Otherwise talk with the buyer. We tell you when cancelling becomes possible.",
        ),
    )


def penalty_accepted(told: EmailContext) -> Email:
    """N6, to the seller: no need to wait."""
    return Email(
        told.subject("you can cancel now, the buyer accepts the penalty"),
        (f"{capital(told.the_buyer)} will not pay {told.order} and accepts the penalty.",),
        None,
        ("You need not wait any longer. The order is not cancelled by itself, and the buyer may change their mind.",),
        (CANCEL_NOW, PAID_INSTEAD),
    )


def penalty_taken_back(told: EmailContext) -> Email:
    """N6, to the seller: waiting again."""
    unlocks = told.when("unlocks_at")
    return Email(
        told.subject("the buyer wants to pay after all"),
        (f"{capital(told.the_buyer)} takes back the accepted penalty for {told.order} and says that it will be paid.",),
        None,
        paragraphs(
            f"The usual waiting time counts again: if the order stays unpaid, you can cancel it from {unlocks}."
            if unlocks
            else "The usual waiting time counts again."
        ),
        ("When the payment arrives, remove the alert on the order's page.",),
    )


def unlocked(told: EmailContext) -> Email:
    """N7, to the seller: the waiting is over."""
    since = told.when("unlocks_at")
    return Email(
        told.subject("you can cancel now"),
        (
            f"The waiting time of your non-paying buyer alert for {told.order} "
            + (f"ended on {since}." if since else "is over."),
        ),
        None,
        ("Whether to cancel is your decision: the order is not cancelled by itself, and you may go on waiting.",),
        (CANCEL_NOW, PAID_INSTEAD),
    )


def payment_recorded(told: EmailContext) -> Email:
    """N18, to the seller: think before cancelling."""
    payment = f" (it is {told.word('payment_status')})" if told.word("payment_status") else ""
    return Email(
        told.subject("the buyer seems to have paid"),
        (f"A payment for {told.order} was recorded{payment} while your non-paying buyer alert is open.",),
        None,
        ("Cancelling through the alert now would cost the buyer a strike for an order that seems to be paid.",),
        (
            "Check whether the money has reached you. If it has, remove the alert on the order's page.",
            "The order then returns to PENDING and nobody gets a strike.",
        ),
    )


def _named(handle: str) -> str:
    return f" ({handle})" if handle else ""
