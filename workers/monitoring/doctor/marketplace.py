"""Checks for cases that need a human: unanswered requests, late payments, bills. None of them triggers an action."""

from __future__ import annotations

from models import alerts, bills, late_payments, reminders
from workers.monitoring.doctor.context import Context
from workers.monitoring.doctor.findings import Finding, abbreviate, note, warning

MANY_ALERTS = 3
"""Open alerts against one member that the doctor reports (R98)."""


def check_many_alerts(context: Context) -> list[Finding]:
    accused = [
        f"{who} as {role.value} ({n})"
        for who, role, n in alerts.count_open_alerts_by_accused(context.conn, MANY_ALERTS)
    ]
    if not accused:
        return []
    message = f"{MANY_ALERTS} or more alerts are open at once against {abbreviate(accused)}."
    return [
        warning(
            "MANY_ALERTS",
            message,
            "look at ./run show member ID and decide whether staff should step in; nothing happens automatically.",
        )
    ]


def check_unanswered_requests(context: Context) -> list[Finding]:
    """List requests past their last reminder: time alone never cancels an order (R16, A13)."""
    orders = reminders.list_finally_reminded_orders(context.conn)
    if not orders:
        return []
    message = (
        f"Sellers have not answered the cancel requests of these orders after the last reminder: {abbreviate(orders)}."
    )
    return [
        note(
            "REQUESTS_UNANSWERED",
            message,
            "look at ./run explain order ID and ask the seller; time alone never cancels an order.",
        )
    ]


def check_late_payments(context: Context) -> list[Finding]:
    orders = [str(order_id) for order_id in late_payments.list_overdue_late_payments(context.conn, context.now())]
    if not orders:
        return []
    message = f"Payments for these cancelled orders were not settled for three days or longer: {abbreviate(orders)}."
    return [
        warning(
            "LATE_PAYMENTS",
            message,
            "look at ./run show late-payments and ask the seller to send the money back; "
            "orders.settle_late_payment settles it.",
        )
    ]


def check_bills_held(context: Context) -> list[Finding]:
    held = [f"{seller} {month:%Y-%m}" for seller, month in bills.list_held_bills(context.conn)]
    if not held:
        return []
    message = (
        f"These bills could not be issued when their month was closed: {abbreviate(held)}. All other bills are issued."
    )
    return [
        warning(
            "BILLS_HELD",
            message,
            "look for bills.issue in the workers' log: it is retried every minute and logs its error.",
        )
    ]


def check_bills_past_due(context: Context) -> list[Finding]:
    due = [
        f"{seller} {month:%Y-%m} ({owed} USD)"
        for seller, month, owed in bills.list_past_due(context.conn, context.now())
    ]
    if not due:
        return []
    message = f"Bills are past due: {abbreviate(due)}."
    return [note("BILLS_PAST_DUE", message, "look at ./run show bill SELLER MONTH and ask the seller to pay.")]
