"""How is a cancel request told to the other side, and how is its answer?  (N1, N2, N3, N16)"""

from __future__ import annotations

from policies.emails.context import EmailContext, capital, join_sentences, paragraphs, pluralize
from policies.emails.email import Email
from policies.reasons import describe_reason

HOW_TO_ANSWER = (
    "To agree, cancel the order on its page.",
    "To disagree, decline the request there. The order then returns to the status it had before the request.",
)
NO_PENALTY = (
    "If you agree, the items go back into your inventory and the fee for the order is given back to you. "
    "There is no penalty for either side."
)
REFUND = "If you have paid already, settle the refund with the seller: cancelling an order moves no money between you."


def filed_by_buyer(told: EmailContext) -> Email:
    """N1, to the seller: what the buyer wants, and how to answer."""
    return Email(
        told.subject("the buyer asks to cancel"),
        (join_sentences(f"{capital(told.the_buyer)} asks you to cancel {told.order}.", _reason(told)),),
        told.quote("the buyer"),
        (
            "The decision is yours. While the request is open the order waits; it is never cancelled by itself.",
            NO_PENALTY,
        ),
        (*HOW_TO_ANSWER, "Please answer soon: the buyer is waiting. We remind you while the request is open."),
    )


def filed_by_seller(told: EmailContext) -> Email:
    """N2, to the buyer: the order may be cancelled from now on."""
    return Email(
        told.subject("the seller wants to cancel"),
        (join_sentences(f"{capital(told.the_seller)} has filed a request to cancel {told.order}.", _reason(told)),),
        told.quote("the seller"),
        (
            "The seller may cancel the order at any time from now on. A cancelled order cannot be reinstated.",
            "Nothing is held against you: a cancel request has no penalty for either side.",
        ),
        (
            "If you agree, there is nothing you have to do.",
            "If you do not agree, write to the seller now: the seller can withdraw the request until the order is cancelled.",
            REFUND,
        ),
    )


def declined(told: EmailContext) -> Email:
    """N3, to the buyer: the order stands."""
    status = told.word("status")
    return Email(
        told.subject("the seller does not agree to cancel"),
        (f"{capital(told.the_seller)} has declined your request to cancel {told.order}.",),
        None,
        (
            join_sentences(
                f"The order is {status} again, as before your request." if status else "",
                "It remains a binding purchase.",
            ),
        ),
        (
            "Please go on with the order, or talk with the seller about what stands in the way.",
            "An order that is not paid may lead to a non-paying buyer alert, which can cost you a strike.",
        ),
    )


def reminded(told: EmailContext) -> Email:
    """N16, to the seller: somebody waits for an answer."""
    days, since = told.word("days"), told.when("filed_at")
    waiting = f"for {pluralize(int(days), 'day', 'days')}" if days.isdecimal() and days != "0" else "for some time"
    return Email(
        told.subject("the buyer still waits for your answer"),
        (
            join_sentences(
                f"{capital(told.the_buyer)} asked you to cancel {told.order}.",
                _reason(told),
                f"The request was filed on {since} and has been open {waiting}." if since else "",
            ),
        ),
        None,
        (
            "The order waits for your decision; it is never cancelled by itself.",
            NO_PENALTY,
        ),
        paragraphs(
            *HOW_TO_ANSWER,
            "This is our last reminder about this request. Our staff may look at orders that stay unanswered."
            if told.has("last")
            else "",
        ),
    )


def _reason(told: EmailContext) -> str:
    reason = told.word("reason")
    return f"Reason given: {describe_reason(reason)}." if reason and describe_reason(reason) != reason else ""
