"""Emails about order cancel requests (N1, N2, N3, N16)."""

from __future__ import annotations

from policies.emails.cancellations import REFUND
from policies.emails.context import EmailContext
from policies.emails.email import Email
from policies.reasons import describe_reason
from policies.texts import capital, join_sentences

HOW_TO_ANSWER = (
    "To agree, cancel the order on its page.",
    "To disagree, decline the request there. The order then returns to the status it had before.",
)
OCR_NO_PENALTY = (
    "If you agree, the items return to your inventory and the fee for the order is refunded to you. "
    "Neither of you gets a strike."
)


def ocr_filed_by_buyer(context: EmailContext) -> Email:
    return context.email(
        "the buyer asks to cancel",
        join_sentences(
            f"{capital(context.the_buyer)} has asked you to cancel {context.order}.", _reason_sentence(context)
        ),
        (
            _ocr_decision_sentence(
                context, "While the request is open, the order waits. It is never cancelled automatically."
            ),
            OCR_NO_PENALTY,
        ),
        "You don't need to do anything."
        if context.flag("agreed_by_setting")
        else (*HOW_TO_ANSWER, "Please answer soon: the buyer is waiting. We'll remind you while the request is open."),
        quoted="the buyer",
    )


def ocr_filed_by_seller(context: EmailContext) -> Email:
    return context.email(
        "the seller wants to cancel",
        join_sentences(f"{capital(context.the_seller)} wants to cancel {context.order}.", _reason_sentence(context)),
        (
            "The seller can now cancel the order at any time. A cancelled order cannot be reinstated.",
            "Neither you nor the seller gets a strike for it.",
        ),
        (
            "If you agree, you don't need to do anything.",
            "If you disagree, write to the seller now. Until they cancel, they can withdraw the request.",
            REFUND,
        ),
        quoted="the seller",
    )


def ocr_declined(context: EmailContext) -> Email:
    status, request = context.text("status"), f"your request to cancel {context.order}"
    if context.facts.get("automation"):
        news = "your cancel request was declined"
        sentence = f"{capital(context.the_seller)} did not answer {request}, so it was declined."
    else:
        news = "the seller declined your cancel request"
        sentence = f"{capital(context.the_seller)} declined {request}."
    return context.email(
        news,
        sentence,
        join_sentences(
            f"The order's status is {status} again, as it was before your request." if status else "",
            "The purchase is still binding.",
        ),
        (
            "Please continue with the order, or write to the seller about the problem.",
            "If you don't pay, the seller can file a non-paying buyer alert, which can lead to a strike against you.",
        ),
    )


def ocr_reminder(context: EmailContext) -> Email:
    waiting = context.days() or "some time"
    return context.email(
        "the buyer is still waiting for your answer",
        join_sentences(
            f"{capital(context.the_buyer)} asked you to cancel {context.order}.",
            _reason_sentence(context),
            context.when("filed_at", f"The request was filed on {{}} and has been open for {waiting}."),
        ),
        (
            _ocr_decision_sentence(context, "The order waits for your answer. It is never cancelled automatically."),
            OCR_NO_PENALTY,
        ),
        (
            *HOW_TO_ANSWER,
            "This is our last reminder about this request. Our staff may look into orders that stay unanswered."
            if context.flag("last")
            else "",
        ),
    )


def _ocr_decision_sentence(context: EmailContext, without_automation: str) -> str:
    agrees, declines = context.timestamp("agrees_at"), context.timestamp("declines_at")
    if agrees and context.flag("agreed_by_setting"):
        return f"Following your settings, we will agree to this request for you and cancel the order on {agrees}."
    if agrees:
        outcome = f"If you don't answer, the order will be cancelled automatically on {agrees}."
    elif declines:
        outcome = f"If you don't answer, the request will be declined automatically on {declines}."
    else:
        outcome = without_automation
    return f"The decision is yours. {outcome}"


def _reason_sentence(context: EmailContext) -> str:
    reason = context.text("reason")
    return f"Reason: {describe_reason(reason)}." if reason and describe_reason(reason) != reason else ""
