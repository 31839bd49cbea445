"""Emails about order cancel requests (N1, N2, N3, N16, N21)."""

from __future__ import annotations

from policies.emails.automation import describe_setting
from policies.emails.context import EmailContext, capital, join_sentences, paragraphs, pluralize
from policies.emails.email import Email
from policies.reasons import describe_reason

HOW_TO_ANSWER = (
    "To agree, cancel the order on its page.",
    "To disagree, decline the request there. The order then returns to the status it had before.",
)
NO_PENALTY = (
    "If you agree, the items return to your inventory and the fee for the order is refunded to you. "
    "Neither of you gets a penalty."
)
REFUND = (
    "If you have already paid, arrange the refund with the seller. Cancelling an order does not refund the payment."
)


def ocr_filed_by_buyer(context: EmailContext) -> Email:
    return Email(
        context.subject("the buyer asks to cancel"),
        (
            join_sentences(
                f"{capital(context.the_buyer)} asks you to cancel {context.order}.", _reason_sentence(context)
            ),
        ),
        context.quote("the buyer"),
        (
            _decision(context, "The order waits while the request is open and is never cancelled automatically."),
            NO_PENALTY,
        ),
        ("You don't need to do anything.",)
        if context.flag("agreed_by_setting")
        else (*HOW_TO_ANSWER, "Please answer soon, the buyer is waiting. We'll remind you while the request is open."),
    )


def ocr_filed_by_seller(context: EmailContext) -> Email:
    return Email(
        context.subject("the seller wants to cancel"),
        (
            join_sentences(
                f"{capital(context.the_seller)} filed a request to cancel {context.order}.", _reason_sentence(context)
            ),
        ),
        context.quote("the seller"),
        (
            "The seller can now cancel the order at any time. A cancelled order cannot be reinstated.",
            "A cancel request has no penalty for you or for the seller.",
        ),
        (
            "If you agree, you don't need to do anything.",
            "If you disagree, write to the seller now. They can withdraw the request until the order is cancelled.",
            REFUND,
        ),
    )


def ocr_declined(context: EmailContext) -> Email:
    status, request = context.text("status"), f"your request to cancel {context.order}"
    if context.facts.get("automation"):
        subject = "your cancel request is declined"
        sentence = f"{capital(context.the_seller)} did not answer {request}, so it is declined."
    else:
        subject = "the seller declined your cancel request"
        sentence = f"{capital(context.the_seller)} declined {request}."
    return Email(
        context.subject(subject),
        (sentence,),
        None,
        (
            join_sentences(
                f"The order is {status} again, as it was before your request." if status else "",
                "It is still a binding purchase.",
            ),
        ),
        (
            "Please continue with the order, or write to the seller about the problem.",
            "If you don't pay, the seller can file a non-paying buyer alert, which can cost you a strike.",
        ),
    )


def ocr_declined_automatically(context: EmailContext) -> Email:
    status = context.text("status")
    return Email(
        context.subject("the buyer's cancel request is declined"),
        (
            f"The buyer's request to cancel {context.order} had no answer.",
            "It was declined automatically, and the buyer was told.",
        ),
        None,
        (f"The order is {status} again, as it was before the request." if status else "The order goes on as before.",),
        ("If you agree with the buyer after all, file a cancel request yourself.", describe_setting(context)),
    )


def ocr_reminder(context: EmailContext) -> Email:
    days, since = context.text("days"), context.timestamp("filed_at")
    waiting = f"for {pluralize(int(days), 'day', 'days')}" if days.isdecimal() and days != "0" else "for some time"
    return Email(
        context.subject("the buyer is still waiting for your answer"),
        (
            join_sentences(
                f"{capital(context.the_buyer)} asked you to cancel {context.order}.",
                _reason_sentence(context),
                f"The request was filed on {since} and has been open {waiting}." if since else "",
            ),
        ),
        None,
        (
            _decision(context, "The order waits for your answer and is never cancelled automatically."),
            NO_PENALTY,
        ),
        paragraphs(
            *HOW_TO_ANSWER,
            "This is our last reminder about this request. Our staff may look into orders that stay unanswered."
            if context.flag("last")
            else "",
        ),
    )


def _decision(context: EmailContext, without_automation: str) -> str:
    agrees, declines = context.timestamp("agrees_at"), context.timestamp("declines_at")
    if agrees and context.flag("agreed_by_setting"):
        return f"By your settings you agree to this request, and the order is cancelled automatically on {agrees}."
    if agrees:
        outcome = f"Without your answer, the order is cancelled automatically on {agrees}."
    elif declines:
        outcome = f"Without your answer, the request is declined automatically on {declines}."
    else:
        outcome = without_automation
    return f"The decision is yours. {outcome}"


def _reason_sentence(context: EmailContext) -> str:
    reason = context.text("reason")
    return f"Reason: {describe_reason(reason)}." if reason and describe_reason(reason) != reason else ""
