"""Which cases should a person look at, although everything works?  Nothing follows from these by itself."""

from __future__ import annotations

from workers.monitoring.doctor.context import Context
from workers.monitoring.doctor.findings import Finding, abbreviate, note, warning

MANY_ALERTS = 3
"""Open against one member at once (R98)."""


def check_many_alerts(place: Context) -> list[Finding]:
    """An ops warning and no automatic action: only completed alerts are strikes (R98, A20)."""
    from models import alerts

    against = [f"{who} as {role.value} ({n})" for who, role, n in alerts.count_open_by_accused(place.conn, MANY_ALERTS)]
    if not against:
        return []
    said = f"{MANY_ALERTS} or more alerts are open at once against {abbreviate(against)}."
    return [
        warning(
            "MANY_ALERTS", said, "./run show member ID, and decide whether staff steps in; nothing happens by itself."
        )
    ]


def check_unanswered_requests(place: Context) -> list[Finding]:
    """Time alone never cancels, so somebody may have to (R16, A13)."""
    from models import reminders

    orders = reminders.list_unanswered_orders(place.conn)
    if not orders:
        return []
    said = f"Sellers left these orders' cancel requests unanswered past the last reminder: {abbreviate(orders)}."
    return [note("REQUESTS_UNANSWERED", said, "./run explain order ID, and ask the seller; time alone never cancels.")]


def check_bills_held(place: Context) -> list[Finding]:
    """The sweep tries them every minute; what is wrong stands in its log."""
    from models import bills

    held = [f"{seller} {month:%Y-%m}" for seller, month in bills.list_held_bills(place.conn)]
    if not held:
        return []
    said = f"Bills could not be made when their month was closed: {abbreviate(held)}. All others are made."
    return [warning("BILLS_HELD", said, "Find `bills.issue` in the workers' log, which names the error at each sweep.")]


def check_bills_past_due(place: Context) -> list[Finding]:
    """It changes nothing of what the seller may do (rules.md 7.2)."""
    from models import bills

    due = [
        f"{seller} {month:%Y-%m} ({owed} USD)" for seller, month, owed in bills.list_past_due(place.conn, place.now())
    ]
    if not due:
        return []
    said = f"Bills are past due: {abbreviate(due)}."
    return [note("BILLS_PAST_DUE", said, "./run show bill SELLER MONTH, and ask for the money.")]
