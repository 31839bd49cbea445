"""How are buyer and seller told that an order is cancelled, and what became of its items and its fee?  (N11, N12)"""

from __future__ import annotations

from policies.emails.context import (
    EmailContext,
    capital,
    format_amount,
    format_month,
    join_sentences,
    paragraphs,
    pluralize,
)
from policies.emails.email import Email
from policies.emails.ocr import REFUND

GROUNDS = {
    "OCR_SELLER": "on the ground of the seller's cancel request",
    "OCR_BUYER": "on the ground of the buyer's cancel request, to which the seller agreed",
    "NPB": "through the non-paying buyer alert, whose waiting time was over",
    "NPX": "after the buyer had accepted the penalty for not paying",
    "NRS": "through the non-responding seller alert, whose waiting time was over",
    "NSS": "through the non-shipping seller alert, whose waiting time was over",
    "BUYER_TERMINATED": "because the buyer's account is closed",
    "SELLER_TERMINATED": "because the seller's account is closed",
}
STRUCK = {"NPB": "buyer", "NPX": "buyer", "NRS": "seller", "NSS": "seller"}


def cancelled(told: EmailContext) -> Email:
    """N11, to either party; items and fee only to the seller."""
    seller = told.role == "seller"
    return Email(
        told.subject("cancelled"),
        (join_sentences(_who(told), "A cancelled order is final and cannot be reinstated."),),
        None,
        paragraphs(_items(told), _fee(told)) + _strike(told) if seller else _strike(told),
        (
            "If the buyer has paid, please send the money back: cancelling an order moves no money between you."
            if seller
            else REFUND,
        ),
    )


def removal_cancelled(told: EmailContext) -> Email:
    """N12, to whoever asked for a removal and whoever was asked: there is nothing left to decide."""
    ids = told.facts.get("removal_ids")
    number = len(ids) if isinstance(ids, list | tuple) else 1
    which = f"{number} open requests" if number > 1 else "The open request"
    were = "were" if number > 1 else "was"
    return Email(
        told.subject("item removal request closed"),
        (f"{which} to take items out of {told.order} {were} closed, because the order was cancelled.",),
        None,
        ("Nothing more can be taken out of the order, and nobody has to answer.",),
        ("There is nothing you have to do.",),
    )


def _who(told: EmailContext) -> str:
    by, ground = told.word("by"), GROUNDS.get(told.word("basis"), "")
    if by == told.role == "seller":
        ground = ground.replace("the seller's cancel request", "your cancel request").replace(
            "the seller agreed", "you agreed"
        )
    named = {"seller": told.the_seller, "buyer": told.the_buyer}.get(by, "")
    if not named:
        return f"{capital(told.order)} was cancelled {ground}".rstrip() + "."
    return f"{'You' if by == told.role else capital(named)} cancelled {told.order} {ground}".rstrip() + "."


def _items(told: EmailContext) -> str:
    if told.facts.get("returns") is False:
        return (
            "No items were put back into your inventory: that does not happen when an order is cancelled on this ground. "
            "If you still have them, add them yourself."
        )
    units, lines = told.facts.get("units_returned"), told.facts.get("lines_returned")
    if not isinstance(units, int) or not isinstance(lines, int):
        return ""
    if units == 0:
        return "No items went back into your inventory."
    items = f"{pluralize(units, 'item', 'items')} from {pluralize(lines, 'line', 'lines')}"
    return f"{items} of the order went back into your inventory."


def _fee(told: EmailContext) -> str:
    fee = told.facts.get("fee")
    if not isinstance(fee, dict):
        return ""
    kind, bill = fee.get("kind"), fee.get("bill")
    amount = format_amount(str(fee.get("amount", "")))
    if kind == "reset":
        return f"The fee of {amount} for this order was taken off again and will not be on your bill."
    if kind == "credit":
        where = f"your bill for {format_month(str(bill))}" if bill else "your next bill"
        return f"The fee of {amount} for this order was charged in an earlier month; you get it back as a credit on {where}."
    if STRUCK.get(told.word("basis")) == "seller":
        return "The fee for this order is not given back, because the order was cancelled through an alert against you."
    return "There is no fee to give back for this order."


def _strike(told: EmailContext) -> tuple[str, ...]:
    struck = STRUCK.get(told.word("basis"), "") if told.facts.get("strike") is not False else ""
    if struck == told.role:
        right = "buy" if struck == "buyer" else "sell"
        return (
            f"This cancellation counts as a strike against you. Too many strikes cost you the right to {right}.",
            "If you think the alert was wrong, write to our staff and add proof.",
        )
    if struck:
        return (f"The cancellation counts as a strike against the {struck}, not against you.",)
    return ("Nobody gets a strike for this cancellation.",)
