"""Checks for what needs a human: unanswered requests, late payments, webhooks, bills. None triggers an action."""

from __future__ import annotations

from collections.abc import Iterator

from models import alerts, bills, late_payments, reminders, webhooks
from workers.monitoring.doctor.context import Context
from workers.monitoring.doctor.findings import Finding, finding_names, note, warning

MANY_ALERTS = 3
"""Open alerts against one member that the doctor reports (R98)."""


def check_many_alerts(context: Context) -> Iterator[Finding]:
    if accused := alerts.count_open_alerts_by_accused(context.conn, MANY_ALERTS):
        members = finding_names(f"{who} as {role.value} ({n})" for who, role, n in accused)
        message = f"{MANY_ALERTS} or more alerts are open at once against {members}."
        fix = "look at ./run show member ID and decide whether staff should step in; nothing happens automatically."
        yield warning("MANY_ALERTS", message, fix)


def check_unanswered_requests(context: Context) -> Iterator[Finding]:
    """List requests past their last reminder: time alone never cancels an order (R16, A13)."""
    if orders := reminders.list_finally_reminded_orders(context.conn):
        message = (
            "Sellers have not answered the cancel requests of these orders after the last reminder: "
            f"{finding_names(orders)}."
        )
        fix = "look at ./run explain order ID and ask the seller; time alone never cancels an order."
        yield note("REQUESTS_UNANSWERED", message, fix)


def check_late_payments(context: Context) -> Iterator[Finding]:
    if orders := late_payments.list_overdue_late_payments(context.conn, context.now()):
        message = (
            f"Payments for these cancelled orders were not settled for three days or longer: {finding_names(orders)}."
        )
        fix = (
            "look at ./run show late-payments and ask the seller to send the money back; "
            "orders.settle_late_payment settles it."
        )
        yield warning("LATE_PAYMENTS", message, fix)


def check_webhooks_disabled(context: Context) -> Iterator[Finding]:
    listed = webhooks.list_webhooks(context.conn)
    if disabled := [f"{row.webhook_id} ({row.url})" for row in listed if row.disabled_at is not None]:
        message = f"These webhooks failed for three days or are gone, and get nothing: {finding_names(disabled)}."
        fix = "./run webhooks list shows their last errors; ./run webhooks replay ID continues where one stopped."
        yield warning("WEBHOOKS_DISABLED", message, fix)


def check_bills_held(context: Context) -> Iterator[Finding]:
    if held := bills.list_held_bills(context.conn):
        names = finding_names(f"{seller} {month:%Y-%m}" for seller, month in held)
        message = f"These bills could not be issued when their month was closed: {names}. All other bills are issued."
        fix = "look for bills.issue in the workers' log: it is retried every minute and logs its error."
        yield warning("BILLS_HELD", message, fix)


def check_bills_past_due(context: Context) -> Iterator[Finding]:
    if due := bills.list_past_due_bills(context.conn, context.now()):
        names = finding_names(f"{seller} {month:%Y-%m} ({owed} USD)" for seller, month, owed in due)
        fix = "look at ./run show bill SELLER MONTH and ask the seller to pay."
        yield note("BILLS_PAST_DUE", f"Bills are past due: {names}.", fix)
