"""What did an event change, and what was the order at any instant?  Events fold back into rows (R100, promises.md 8)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from policies.cases import Alert, Case, Ocr, Order
from policies.instants import optional_text


def order_state(order: Order) -> dict[str, Any]:
    """The order's changing fields as JSON values."""
    return {
        "status": order.status,
        "previous_status": order.previous_status,
        "payment_status": order.payment_status,
        "order_date": optional_text(order.order_date),
        "total": str(order.total),
        "fee": str(order.fee),
        "fee_month": order.fee_month.isoformat()[:7] if order.fee_month else None,
        "cancelled_at": optional_text(order.cancelled_at),
        "basis": order.basis,
        "cancelled_by": order.cancelled_by,
    }


def alert_state(alert: Alert) -> dict[str, Any]:
    """The alert's fields as JSON values, in the shape people are shown."""
    return {
        "kind": alert.kind,
        "state": alert.state,
        "filed_at": optional_text(alert.filed_at),
        "grounds": alert.grounds,
        "responded_at": optional_text(alert.responded_at),
        "penalty_accepted_at": optional_text(alert.penalty_accepted_at),
        "penalty_withdrawn_at": optional_text(alert.penalty_withdrawn_at),
        "unlocks_at": optional_text(alert.unlocks_at),
        "unlocked_at": optional_text(alert.unlocked_at),
        "closed_at": optional_text(alert.closed_at),
    }


def ocr_state(ocr: Ocr) -> dict[str, Any]:
    """The cancel request's fields as JSON values, in the shape people are shown."""
    return {
        "filed_by": ocr.filed_by,
        "reason": ocr.reason,
        "state": ocr.state,
        "filed_at": optional_text(ocr.filed_at),
        "closed_at": optional_text(ocr.closed_at),
    }


def changes(before: Case | None, after: Case) -> dict[str, Any]:
    """What differs between two states of a case, by part; a part that is new is whole."""
    found: dict[str, Any] = {}
    order = _moved(order_state(before.order) if before else None, order_state(after.order))
    if order:
        found["order"] = order
    if after.alert is not None:
        # By id too: an alert that is not stored yet is a new one, though it be filed at the instant of the one before.
        old_alert = before.alert if before and before.alert and _named(before.alert) == _named(after.alert) else None
        if alert := _moved(alert_state(old_alert) if old_alert else None, alert_state(after.alert)):
            found["alert"] = alert
    if after.ocr is not None:
        old_ocr = before.ocr if before and before.ocr and _named(before.ocr) == _named(after.ocr) else None
        if ocr := _moved(ocr_state(old_ocr) if old_ocr else None, ocr_state(after.ocr)):
            found["ocr"] = ocr
    return found


def fold(changes_in_order: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The state that a sequence of event changes leads to: `{"order": …, "alert": …, "ocr": …}`, parts never seen are absent."""
    state: dict[str, dict[str, Any]] = {}
    for change in changes_in_order:
        for part in ("order", "alert", "ocr"):
            if part in change:
                state.setdefault(part, {}).update(change[part])
    return state


def _named(one: Alert | Ocr) -> tuple[int | None, datetime]:
    return (one.alert_id if isinstance(one, Alert) else one.ocr_id), one.filed_at


def _moved(before: dict[str, Any] | None, after: dict[str, Any]) -> dict[str, Any]:
    if before is None:
        return after
    return {name: value for name, value in after.items() if before[name] != value}
