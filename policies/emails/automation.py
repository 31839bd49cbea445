"""Emails about automatic acts in a seller's name (N20, N21)."""

from __future__ import annotations

from policies.automation_settings import OCR_SILENCE_SETTING, format_setting_value
from policies.emails.context import EmailContext, format_email_timestamp
from policies.emails.email import Email
from policies.texts import capital, pluralize
from policies.timestamps import parse_timestamp

_AUTOMATION_EMAIL_SENTENCES = {
    "file_npb_after": "an unpaid order gets a non-paying buyer alert automatically {} after its date",
    "cancel_after_unlock": "an unpaid order is cancelled automatically {} after it can be cancelled",
    "agree_to_requests_within": "a buyer's cancel request is granted automatically if it is filed within {} of the "
    "order date",
}
_EMAIL_AUTOMATION_DELAY_UNITS = {"d": "day", "h": "hour", "m": "minute", "s": "second"}


def cancellation_coming(context: EmailContext) -> Email:
    return context.email(
        "please pay, or it will be cancelled",
        f"{capital(context.order)} has not been paid. "
        + context.when("cancels_at", "Unless you pay, it will be cancelled on {}.", "It is about to be cancelled."),
        "If the order is cancelled, you get a strike. If you get too many strikes, you lose the right to buy.",
        (
            context.when(
                "cancels_at",
                "Please pay before {}. Once the payment is recorded, the order will not be cancelled.",
                "Please pay now.",
            ),
            "If you have already paid, ask the seller to remove the alert, or send proof of the payment to our staff.",
            "You accepted the penalty. If you want to pay after all, withdraw your acceptance on the order's page."
            if context.flag("penalty_accepted")
            else "",
        ),
    )


def npb_filed_automatically(context: EmailContext) -> Email:
    return context.email(
        "a non-paying buyer alert was filed",
        (
            f"{capital(context.order)} has not been paid.",
            "Following your settings, we filed a non-paying buyer alert and asked the buyer to pay.",
        ),
        (
            context.when("unlocks_at", "If the buyer does not answer, you can cancel the order from {}."),
            email_automatic_cancellation(context),
        ),
        ("If the buyer has paid, remove the alert on the order's page.", email_automation_setting(context)),
    )


def ocr_declined_automatically(context: EmailContext) -> Email:
    status = context.text("status")
    return context.email(
        "the buyer's cancel request was declined",
        (
            f"You did not answer the buyer's request to cancel {context.order}, so it was declined automatically.",
            "We have told the buyer.",
        ),
        f"The order's status is {status} again, as it was before the request."
        if status
        else "The order goes on as before.",
        ("If you agree with the buyer after all, file a cancel request yourself.", email_automation_setting(context)),
    )


def email_automatic_cancellation(context: EmailContext) -> str:
    return context.when("cancels_at", "Following your settings, we will cancel the order on {} unless the buyer pays.")


def email_automation_delay(context: EmailContext) -> str:
    facts = context.facts.get("automation")
    duration = str(facts.get("value", "")).partition(" ")[2] if isinstance(facts, dict) else ""
    if not duration[:-1].isdecimal() or duration[-1] not in _EMAIL_AUTOMATION_DELAY_UNITS:
        return "some time"
    unit = _EMAIL_AUTOMATION_DELAY_UNITS[duration[-1]]
    return pluralize(int(duration[:-1]), unit, f"{unit}s")


def email_automation_setting(context: EmailContext) -> str:
    """Say under which setting something was done, and how to change it; empty if a person did it."""
    facts = context.facts.get("automation")
    if isinstance(facts, dict) and facts.get("setting") == OCR_SILENCE_SETTING:
        return (
            "If a seller does not answer a cancel request, this marketplace answers it for them "
            f"{email_automation_delay(context)} after it was filed. "
            "To decide yourself, answer earlier, or put automation on hold on the order's page."
        )
    if not isinstance(facts, dict) or facts.get("setting") not in _AUTOMATION_EMAIL_SENTENCES:
        return ""
    since = format_email_timestamp(parse_timestamp(facts["set_at"]), context.zone)
    value = format_setting_value(facts["setting"], facts["value"])
    return (
        f"Your setting since {since}: {_AUTOMATION_EMAIL_SENTENCES[facts['setting']].format(value)}. "
        "You can change it, switch it off, or exclude individual buyers in your store's settings."
    )
