"""Emails about automatic acts in a seller's name (N20, N21)."""

from __future__ import annotations

from policies.emails.context import EmailContext, capital, paragraphs, pluralize
from policies.emails.email import Email

_SETTING_SENTENCES = {
    "file_npb_after": ("day", "{} after its date, an unpaid order gets a non-paying buyer alert automatically"),
    "cancel_after_unlock": ("day", "{} after it can be cancelled, an unpaid order is cancelled automatically"),
    "agree_to_requests_within": (
        "hour",
        "a buyer's request to cancel that is filed within {} of the order date is agreed to automatically",
    ),
}
_UNITS = {"d": "day", "h": "hour", "m": "minute", "s": "second"}


def cancellation_coming(context: EmailContext) -> Email:
    until = context.timestamp("cancels_at")
    return Email(
        context.subject("pay now, or the order is cancelled"),
        (
            f"{capital(context.order)} is not paid. "
            + (f"If that does not change, it is cancelled on {until}." if until else "It is about to be cancelled."),
        ),
        None,
        ("This cancellation counts as a strike against you. With too many strikes you lose the right to buy.",),
        paragraphs(
            f"Pay before {until}. A recorded payment stops the cancellation." if until else "Please pay now.",
            "If you have paid already, ask the seller to remove the alert, or send proof of the payment to our staff.",
            "If you still want to pay after accepting the penalty, take the acceptance back on the order's page."
            if context.flag("penalty_accepted")
            else "",
        ),
    )


def npb_filed_automatically(context: EmailContext) -> Email:
    unlocks = context.timestamp("unlocks_at")
    return Email(
        context.subject("a non-paying buyer alert is filed"),
        (
            f"{capital(context.order)} is not paid.",
            "By your settings we filed a non-paying buyer alert, and the buyer was asked to pay.",
        ),
        None,
        paragraphs(
            f"If the buyer does not answer, you can cancel the order from {unlocks}." if unlocks else "",
            automatic_cancellation(context),
        ),
        paragraphs("If the buyer has paid, remove the alert on the order's page.", describe_setting(context)),
    )


def automatic_cancellation(context: EmailContext) -> str:
    due = context.timestamp("cancels_at")
    return f"By your settings the order is cancelled automatically on {due}, unless the buyer pays." if due else ""


def describe_silence(context: EmailContext) -> str:
    facts = context.facts.get("automation")
    duration = str(facts.get("value", "")).partition(" ")[2] if isinstance(facts, dict) else ""
    if not duration[:-1].isdecimal() or duration[-1] not in _UNITS:
        return "some time"
    unit = _UNITS[duration[-1]]
    return pluralize(int(duration[:-1]), unit, f"{unit}s")


def describe_setting(context: EmailContext) -> str:
    """Say under which setting something was done, and how to change it; empty if a person did it."""
    facts = context.facts.get("automation")
    if isinstance(facts, dict) and facts.get("setting") == "OCR_SILENCE":
        return (
            f"This marketplace answers a buyer's request in the seller's name {describe_silence(context)} after it "
            "was filed. Answer earlier, or hold the order with orders.hold_automation, and it does not."
        )
    if not isinstance(facts, dict) or facts.get("setting") not in _SETTING_SENTENCES:
        return ""
    unit, means = _SETTING_SENTENCES[facts["setting"]]
    context = EmailContext(context.event, context.role, context.order_id, facts, context.zone)
    duration = pluralize(int(context.text("value")), unit, f"{unit}s")
    return (
        f"Your setting {context.text('setting')}, in force since {context.timestamp('set_at')}, says: "
        f"{means.format(duration)}. "
        "You can change it or switch it off with sellers.set_automation, and exclude single buyers from it."
    )
