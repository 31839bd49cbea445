"""Emails about a member's account: fee credits, bills and lost privileges (N13, N14, N15)."""

from __future__ import annotations

from datetime import date

from policies.bills import month_name, parse_month
from policies.emails.context import EmailContext, format_email_amount, format_email_day
from policies.emails.email import Email, email_paragraphs
from policies.texts import capital


def credit_posted(context: EmailContext) -> Email:
    amount, bill, charged = context.text("amount"), context.text("bill"), context.text("charged_month")
    credit = f"a credit of {format_email_amount(amount)}" if amount else "a credit"
    return Email(
        context.subject("your fee was refunded"),
        (
            f"{capital(context.order)} was cancelled, so we added {credit} to "
            + (f"your bill for {month_name(parse_month(bill))}." if bill else "your next bill."),
        ),
        None,
        email_paragraphs(
            f"It refunds the fee you were charged in {month_name(parse_month(charged))}. "
            "The bill for that month does not change."
            if charged
            else "It refunds the fee you were charged for the order."
        ),
        ("You don't need to do anything. The credit reduces what you owe on that bill.",),
    )


def bill_issued(context: EmailContext) -> Email:
    month, total, due = context.text("month"), context.text("total"), context.text("due_on")
    due_day = format_email_day(date.fromisoformat(due)) if due else ""
    bill = f"bill for {month_name(parse_month(month))}" if month else "bill"
    return Email(
        f"Your {bill}: {format_email_amount(total)}" if total else f"Your {bill}",
        (f"Your {bill} is ready" + (f". The total is {format_email_amount(total)}." if total else "."),),
        None,
        ("It includes the month's fees, any credits for cancelled orders, and any balance from earlier bills.",),
        (f"Please pay by {due_day}." if due_day else "Please pay by the due date.",),
    )


def privilege_revoked(context: EmailContext) -> Email:
    buying = context.text("privilege") != "selling"
    strikes = context.facts.get("strikes")
    orders = ", ".join(str(order) for order in strikes) if isinstance(strikes, list | tuple) else ""
    return Email(
        "You can no longer buy" if buying else "You can't sell for now",
        email_paragraphs(
            "We have revoked your right to buy, because too many of your orders were cancelled for non-payment."
            if buying
            else "We have suspended your right to sell, because too many of your orders were cancelled "
            "because you did not respond or did not ship.",
            f"These are the orders: {orders}." if orders else "",
        ),
        None,
        (
            "You can't place new orders. Your open orders continue, and you can still act on them."
            if buying
            else "Your store can't take new orders. Your open orders continue, and you can still act on them.",
        ),
        (
            "If you think that an order should not count, write to our staff. Tell us what happened with each of them, "
            + ("and attach proof of payment " if buying else "and attach proof of shipping or of the refund ")
            + "and the messages you exchanged.",
            f"Staff can withdraw a strike and restore your right to {'buy' if buying else 'sell'}.",
        ),
    )
