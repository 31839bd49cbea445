"""Emails about a cancelled order: items, fee, strike, removal requests and late payments (N11, N12, N19)."""

from __future__ import annotations

from policies.automation_settings import OCR_SILENCE_SETTING
from policies.bills import month_name, parse_month
from policies.emails.automation import email_automation_delay, email_automation_setting
from policies.emails.context import EmailContext, format_email_amount
from policies.emails.email import Email
from policies.statuses import ALERT_LABELS, STRIKE_RECIPIENTS, Role
from policies.texts import capital, pluralize

REFUND = "If you have already paid, ask the seller for a refund. Cancelling an order does not refund the payment."
EMAIL_BASIS_PHRASES = {
    "OCR_SELLER": "after the seller's cancel request",
    "OCR_BUYER": "at the buyer's request",
    **{kind: f"after the waiting period of the {label} ended" for kind, label in ALERT_LABELS.items()},
    "NPX": "after the buyer accepted the penalty for not paying",
    "BUYER_TERMINATED": "because the buyer's account was closed",
    "SELLER_TERMINATED": "because the seller's account was closed",
}


def order_cancelled(context: EmailContext) -> Email:
    to_seller = context.role == "seller"
    returned = (_cancelled_items_sentences(context), _cancelled_fee_sentences(context)) if to_seller else ()
    return context.email(
        "cancelled",
        f"{_order_cancelled_sentence(context)} This is final: a cancelled order cannot be reinstated.",
        (*returned, *_cancelled_strike_sentences(context)),
        (
            "If the buyer has paid, please send the money back. Cancelling an order does not refund the payment."
            if to_seller
            else REFUND,
            email_automation_setting(context) if to_seller else "",
        ),
    )


def paid_late(context: EmailContext) -> Email:
    return context.email(
        "paid after the cancellation",
        f"The payment for {context.order} was {context.payment_recorded()} after the order had been cancelled.",
        "The order stays cancelled: a cancelled order cannot be reinstated.",
        (
            "Check whether you have received the money. If you have, send it back through the payment service.",
            "Then mark the payment as settled on the order's page. Until then, it stays on our list of open cases.",
        )
        if context.role == "seller"
        else (
            "We asked the seller to send the money back. We cannot refund payments ourselves.",
            "If the refund does not arrive, write to the seller first and then to our staff.",
            "If you still want the items, please place a new order.",
        ),
    )


def removal_cancelled(context: EmailContext) -> Email:
    ids = context.facts.get("removal_ids")
    count = len(ids) if isinstance(ids, list | tuple) else 1
    requests, verb = (f"{count} open requests", "were") if count > 1 else ("The open request", "was")
    return context.email(
        "item removal request closed",
        f"{requests} to remove items from {context.order} {verb} closed because the order was cancelled.",
        "No more items can be removed from the order.",
        "You don't need to do anything.",
    )


def _order_cancelled_sentence(context: EmailContext) -> str:
    by, ground = context.text("by"), EMAIL_BASIS_PHRASES.get(context.text("basis"), "")
    ground = ground.replace(f"the {context.role}'s", "your").replace(f"the {context.role} accepted", "you accepted")
    automation = context.facts.get("automation")
    if isinstance(automation, dict) and automation.get("setting") == OCR_SILENCE_SETTING:
        who, whose = ("you", "the buyer's") if context.role == "seller" else (context.the_seller, "your")
        return (
            f"{capital(context.order)} was cancelled automatically because {who} did not answer {whose} cancel "
            f"request within {email_automation_delay(context)}."
        )
    if automation:
        whose = "your settings" if context.role == "seller" else "the seller's settings"
        return f"Following {whose}, {context.order} was cancelled automatically {ground}".rstrip() + "."
    member = {"seller": context.the_seller, "buyer": context.the_buyer}.get(by, "")
    if not member:
        return f"{capital(context.order)} was cancelled {ground}".rstrip() + "."
    return f"{'You' if by == context.role else capital(member)} cancelled {context.order} {ground}".rstrip() + "."


def _cancelled_items_sentences(context: EmailContext) -> str:
    if context.facts.get("returns") is False:
        return (
            "No items were returned to your inventory: this kind of cancellation does not return any. "
            "If you still have the items, please add them back yourself."
        )
    units, lines = context.facts.get("units_returned"), context.facts.get("lines_returned")
    if not isinstance(units, int) or not isinstance(lines, int):
        return ""
    if units == 0:
        return "No items were returned to your inventory."
    items = f"{pluralize(units, 'item', 'items')} from {pluralize(lines, 'order line', 'order lines')}"
    return f"{items} {'was' if units == 1 else 'were'} returned to your inventory."


def _cancelled_fee_sentences(context: EmailContext) -> str:
    fee = context.facts.get("fee")
    if not isinstance(fee, dict):
        return ""
    kind, bill = fee.get("kind"), fee.get("bill")
    amount = format_email_amount(str(fee.get("amount", "")))
    if kind == "reset":
        return f"The fee of {amount} for this order will not be charged."
    if kind == "credit":
        where = f"your bill for {month_name(parse_month(bill))}" if bill else "your next bill"
        return f"The fee of {amount} for this order was charged in an earlier month. It will be credited on {where}."
    if STRIKE_RECIPIENTS.get(context.text("basis")) is Role.SELLER:
        return "The fee for this order is not refunded, because the order was cancelled after an alert against you."
    return "There is no fee to refund for this order."


def _cancelled_strike_sentences(context: EmailContext) -> tuple[str, ...]:
    recipient = STRIKE_RECIPIENTS.get(context.text("basis")) if context.facts.get("strike") is not False else None
    if recipient == context.role:
        right = "buy" if recipient is Role.BUYER else "sell"
        return (
            f"You get a strike for this cancellation. If you get too many strikes, you lose the right to {right}.",
            "If you think the alert was wrong, write to our staff and attach proof.",
        )
    if recipient:
        return (f"The {recipient} gets a strike for this cancellation; you don't.",)
    return ("Nobody gets a strike for this cancellation.",)
