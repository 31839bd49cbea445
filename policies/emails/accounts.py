"""Emails about a member's account: fee credits, bills and lost privileges (N13, N14, N15)."""

from __future__ import annotations

from datetime import date

from policies.bills import month_name, parse_month
from policies.emails.context import EmailContext, format_email_amount, format_email_day
from policies.emails.email import Email, build_email
from policies.texts import capital


def credit_posted(context: EmailContext) -> Email:
    amount, bill, charged = context.text("amount"), context.text("bill"), context.text("charged_month")
    credit = f"a credit of {format_email_amount(amount)}" if amount else "a credit"
    where = f"your bill for {month_name(parse_month(bill))}" if bill else "your next bill"
    return context.email(
        "your fee was refunded",
        f"{capital(context.order)} was cancelled, so we added {credit} to {where}.",
        f"It refunds the fee you were charged in {month_name(parse_month(charged))}. "
        "The bill for that month does not change."
        if charged
        else "It refunds the fee you were charged for the order.",
        "You don't need to do anything. The credit reduces what you owe on that bill.",
    )


def bill_issued(context: EmailContext) -> Email:
    month, total, due = context.text("month"), context.text("total"), context.text("due_on")
    bill = f"bill for {month_name(parse_month(month))}" if month else "bill"
    return build_email(
        f"Your {bill}: {format_email_amount(total)}" if total else f"Your {bill}",
        f"Your {bill} is ready." + (f" The total is {format_email_amount(total)}." if total else ""),
        "It includes the month's fees, any credits for cancelled orders, and any balance from earlier bills.",
        f"Please pay by {format_email_day(date.fromisoformat(due)) if due else 'the due date'}.",
    )


def privilege_revoked(context: EmailContext) -> Email:
    buying = context.text("privilege") != "selling"
    strikes = context.facts.get("strikes")
    orders = ", ".join(str(order) for order in strikes) if isinstance(strikes, list | tuple) else ""
    proof = "payment" if buying else "shipping or of the refund"
    return build_email(
        "You can no longer buy" if buying else "You can't sell for now",
        (
            "We have revoked your right to buy, because too many of your orders were cancelled for non-payment."
            if buying
            else "We have suspended your right to sell, because too many of your orders were cancelled "
            "because you did not respond or did not ship.",
            f"These are the orders: {orders}." if orders else "",
        ),
        f"{'You' if buying else 'Your store'} can't {'place' if buying else 'take'} new orders. "
        "Your open orders continue, and you can still act on them.",
        (
            (
                "If you think that an order should not count, write to our staff. Tell us what happened with each of "
                f"them, and attach proof of {proof} and the messages you exchanged."
            ),
            f"Staff can withdraw a strike and restore your right to {'buy' if buying else 'sell'}.",
        ),
    )
