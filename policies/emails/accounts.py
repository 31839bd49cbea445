"""How is a seller told of credits and bills, and a member of a privilege that was lost?  (N13, N14, N15)"""

from __future__ import annotations

from datetime import date

from policies.emails.context import EmailContext, format_amount, format_day, format_month, paragraphs
from policies.emails.email import Email


def credit_posted(told: EmailContext) -> Email:
    """N13, to the seller: how much, and on which bill."""
    amount, bill, charged = told.word("amount"), told.word("bill"), told.word("charged_month")
    what = f"A credit of {format_amount(amount)}" if amount else "A credit"
    return Email(
        told.subject("fee credited"),
        (
            f"{what} for the cancelled {told.order} was booked"
            + (f" on your bill for {format_month(bill)}." if bill else " on your next bill."),
        ),
        None,
        paragraphs(
            f"It gives back the fee that was charged in {format_month(charged)}. That month's bill stays as it was issued."
            if charged
            else "It gives back the fee that was charged for the order."
        ),
        ("There is nothing you have to do: the credit lowers what you owe on that bill.",),
    )


def bill_issued(told: EmailContext) -> Email:
    """N14, to the seller: how much, and until when."""
    month, total, due = told.word("month"), told.word("total"), told.word("due_on")
    due_day = format_day(date.fromisoformat(due)) if due else ""
    named = f"bill for {format_month(month)}" if month else "bill"
    return Email(
        f"Your {named}: {format_amount(total)}" if total else f"Your {named}",
        (f"Your {named} is ready" + (f". Its total is {format_amount(total)}." if total else "."),),
        None,
        ("It holds the fees of that month, less credits for cancelled orders, and what was left from earlier bills.",),
        (f"Please pay it by {due_day}." if due_day else "Please pay it by its due date.",),
    )


def privilege_revoked(told: EmailContext) -> Email:
    """N15, to that member: why, and what to send."""
    buying = told.word("privilege") != "selling"
    strikes = told.facts.get("strikes")
    orders = ", ".join(str(order) for order in strikes) if isinstance(strikes, list | tuple) else ""
    return Email(
        "You can no longer buy" if buying else "You can no longer sell for now",
        paragraphs(
            "Your right to buy was revoked, because too many of your orders were cancelled as unpaid."
            if buying
            else "Your right to sell was suspended, because too many of your orders were cancelled after you had not "
            "answered or not shipped.",
            f"These orders count: {orders}." if orders else "",
        ),
        None,
        (
            "You cannot place new orders. Orders that are open already go on, and you can still act on them."
            if buying
            else "No new orders can be placed in your store. Orders that are open already go on, and you can still act on them.",
        ),
        (
            "If you think that an order should not count, write to our staff. For each order please send: what happened, "
            + ("proof of payment, " if buying else "proof of shipping or of the refund, ")
            + "and the messages you exchanged.",
            "Staff can withdraw a strike, and can give you the right back.",
        ),
    )
