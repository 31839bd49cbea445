"""The changes that events record, and folding them back into the state of an order at any time (R100)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from typing import Any

from policies.cases import Alert, Case, LatePayment, Ocr, Order
from policies.timestamps import format_optional_timestamp


def _unchanged(value: Any) -> Any:
    return value


def _month(value: date | None) -> str | None:
    return value.isoformat()[:7] if value else None


_Fields = Mapping[str, Callable[[Any], Any]]
_ORDER_FIELDS: _Fields = {
    "status": _unchanged,
    "previous_status": _unchanged,
    "payment_status": _unchanged,
    "order_date": format_optional_timestamp,
    "total": str,
    "fee": str,
    "fee_month": _month,
    "cancelled_at": format_optional_timestamp,
    "basis": _unchanged,
    "cancelled_by": _unchanged,
    "npb_filed_at": format_optional_timestamp,
    "held_at": format_optional_timestamp,
    "held_until": format_optional_timestamp,
}
_ALERT_FIELDS: _Fields = {
    "kind": _unchanged,
    "state": _unchanged,
    "filed_at": format_optional_timestamp,
    "grounds": _unchanged,
    "responded_at": format_optional_timestamp,
    "penalty_accepted_at": format_optional_timestamp,
    "penalty_withdrawn_at": format_optional_timestamp,
    "extended_until": format_optional_timestamp,
    "unlocks_at": format_optional_timestamp,
    "unlocked_at": format_optional_timestamp,
    "closed_at": format_optional_timestamp,
}
_OCR_FIELDS: _Fields = {
    "filed_by": _unchanged,
    "reason": _unchanged,
    "state": _unchanged,
    "filed_at": format_optional_timestamp,
    "closed_at": format_optional_timestamp,
}
_LATE_PAYMENT_FIELDS: _Fields = {
    "payment_status": _unchanged,
    "recorded_at": format_optional_timestamp,
    "settled_at": format_optional_timestamp,
    "settled_by": _unchanged,
}
"""The recorded fields of each part, and how they are written as JSON."""


def order_state(order: Order) -> dict[str, Any]:
    return _part_state(order, _ORDER_FIELDS)


def alert_state(alert: Alert) -> dict[str, Any]:
    return _part_state(alert, _ALERT_FIELDS)


def ocr_state(ocr: Ocr) -> dict[str, Any]:
    return _part_state(ocr, _OCR_FIELDS)


def late_payment_state(late: LatePayment) -> dict[str, Any]:
    return _part_state(late, _LATE_PAYMENT_FIELDS)


def diff_cases(before: Case | None, after: Case) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if order := _changed_fields(before.order if before else None, after.order, _ORDER_FIELDS):
        changes["order"] = order
    if after.alert is not None:
        # By id too: an unstored alert is a new one even if it was filed at the same time as the last one.
        old_alert = (
            before.alert
            if before and before.alert and _part_identity(before.alert) == _part_identity(after.alert)
            else None
        )
        if alert := _changed_fields(old_alert, after.alert, _ALERT_FIELDS):
            changes["alert"] = alert
    if after.ocr is not None:
        old_ocr = (
            before.ocr if before and before.ocr and _part_identity(before.ocr) == _part_identity(after.ocr) else None
        )
        if ocr := _changed_fields(old_ocr, after.ocr, _OCR_FIELDS):
            changes["ocr"] = ocr
    if after.late_payment is not None:
        known = before.late_payment if before else None
        is_same = known is not None and _part_identity(known) == _part_identity(after.late_payment)
        if late := _changed_fields(known if is_same else None, after.late_payment, _LATE_PAYMENT_FIELDS):
            changes["late_payment"] = late
    return changes


def fold_changes(changes_in_order: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    state: dict[str, dict[str, Any]] = {}
    for change in changes_in_order:
        for part in ("order", "alert", "ocr", "late_payment"):
            if part in change:
                state.setdefault(part, {}).update(change[part])
    return state


def _part_identity(part: Alert | Ocr | LatePayment) -> tuple[int | None, datetime]:
    if isinstance(part, LatePayment):
        return part.late_payment_id, part.recorded_at
    return (part.alert_id if isinstance(part, Alert) else part.ocr_id), part.filed_at


def _part_state(part: Order | Alert | Ocr | LatePayment, fields: _Fields) -> dict[str, Any]:
    return {name: write(getattr(part, name)) for name, write in fields.items()}


def _changed_fields(before: Any, after: Any, fields: _Fields) -> dict[str, Any]:
    if before is None:
        return _part_state(after, fields)
    changes = {}
    for name, write in fields.items():
        old, new = getattr(before, name), getattr(after, name)
        if old is not new and write(old) != (value := write(new)):  # avoids writing untouched fields
            changes[name] = value
    return changes
