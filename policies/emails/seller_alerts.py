"""How are complaints about a seller told, and how the end of any complaint?  (N8, N9, N10, N17)"""

from __future__ import annotations

from policies.emails.context import EmailContext, capital, join_sentences, paragraphs, pluralize
from policies.emails.email import Email
from policies.emails.npb import CANCEL_NOW, PAID_INSTEAD

NAMES = {
    "NPB": "non-paying buyer alert",
    "NRS": "non-responding seller alert",
    "NSS": "non-shipping seller alert",
}
GROUNDS = {
    "NOT_SHIPPED": "it was not shipped",
    "INCOMPLETE": "it came incomplete",
    "NOT_AS_DESCRIBED": "the items are not as described",
}
BUYER_CANCELS = (
    "You can cancel the order now, on its page. The seller then gets a strike.",
    "If the seller has put things right meanwhile, remove the alert instead.",
    "Cancelling moves no money: if you have paid, ask the seller or your payment service for the refund.",
)


def filed(told: EmailContext) -> Email:
    """N8, to the seller: answer or ship, and what happens otherwise."""
    shipping, unlocks = told.word("kind") == "NSS", told.when("unlocks_at")
    grounds = GROUNDS.get(told.word("grounds"), "")
    what = (
        f"reports that {told.order} is paid but went wrong" + (f": {grounds}." if grounds else ".")
        if shipping
        else f"of {told.order} reports that you do not answer."
    )
    return Email(
        told.subject("the buyer reports a shipping problem" if shipping else "the buyer waits for your answer"),
        (f"{capital(told.the_buyer)} {what}",),
        told.quote("the buyer"),
        paragraphs(
            "While the alert is open you cannot change the status of the order.",
            f"If it stays open, the buyer may cancel the order from {unlocks}." if unlocks else "",
            "An order cancelled this way counts as a strike against you, its items are not put back into your inventory, "
            "and its fee is not given back. Too many strikes suspend your right to sell.",
        ),
        (
            "Ship the order, complete it, or refund the buyer, and say so on the order's page."
            if shipping
            else "Answer the buyer, and say so on the order's page.",
            "Then ask the buyer to remove the alert. If the buyer does not, our staff can remove it when you show proof.",
        ),
    )


def responded(told: EmailContext) -> Email:
    """To the buyer: what the seller says; no date moves (R48)."""
    unlocks = told.when("unlocks_at")
    return Email(
        told.subject("the seller answered your alert"),
        (f"{capital(told.the_seller)} answered the {_name(told)} for {told.order}.",),
        told.quote("the seller"),
        paragraphs(f"The answer changes no date: you can cancel the order from {unlocks}." if unlocks else ""),
        ("If the problem is solved, remove the alert on the order's page: the order then goes on.",),
    )


def unlocked(told: EmailContext) -> Email:
    """N9, to the buyer: the waiting is over."""
    since = told.when("unlocks_at")
    return Email(
        told.subject("you can cancel now"),
        (
            f"The waiting time of your {_name(told)} for {told.order} "
            + (f"ended on {since}." if since else "is over."),
        ),
        None,
        ("Whether to cancel is your decision: the order is not cancelled by itself, and you may go on waiting.",),
        BUYER_CANCELS,
    )


def removed(told: EmailContext) -> Email:
    """N10, to the accused party: it is over."""
    by = told.word("by")
    who = {"seller": told.the_seller, "buyer": told.the_buyer, "staff": "our staff"}.get(by, "")
    against_buyer = told.word("kind") == "NPB"
    happened = f"The {_name(told)} for {told.order} was removed" + (f" by {who}." if who else ".")
    if told.has("was_completed"):
        return Email(
            told.subject("the alert and its strike are withdrawn"),
            (happened,),
            told.quote(who or "the reason"),
            (
                "The strike that came from this order no longer counts against you.",
                "The order itself stays cancelled: a cancelled order cannot be reinstated.",
            ),
        )
    return Email(
        told.subject("the alert is removed"),
        (happened,),
        told.quote(who or "the reason"),
        (
            "The order is PENDING again and goes on as usual. This alert does not count against you.",
            *(("You can order in this store again, unless another order is reported there.",) if against_buyer else ()),
        ),
        ("If you have not paid yet, please do.",)
        if against_buyer
        else ("Please set the status of the order to where it really is.",),
    )


def reminded(told: EmailContext) -> Email:
    """N17, to the filer: a decision is still open."""
    kind, days = told.word("kind"), told.word("days")
    accepted = told.has("penalty_accepted")
    since = told.when("since")
    waited = pluralize(int(days), "day", "days") if days.isdecimal() and days != "0" else ""
    return Email(
        told.subject("you can still cancel"),
        (
            join_sentences(
                f"The buyer of {told.order} accepted the penalty, and the order is still open."
                if accepted
                else f"The waiting time of your {_name(told)} for {told.order} is over, and the order is still open.",
                f"You have been able to cancel it since {since}" + (f", for {waited}." if waited else ".")
                if since
                else "",
            ),
        ),
        None,
        ("The order is not cancelled by itself. While the alert is open, both sides wait.",),
        paragraphs(
            *((CANCEL_NOW, PAID_INSTEAD) if kind == "NPB" else BUYER_CANCELS),
            "This is our last reminder about this alert." if told.has("last") else "",
        ),
    )


def _name(told: EmailContext) -> str:
    return NAMES.get(told.word("kind"), "alert")
