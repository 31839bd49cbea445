"""What did an event change, and what was the order at any instant?  Events fold back into rows (R100, promises.md 8)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from typing import Any

from policies.cases import Alert, Case, Ocr, Order
from policies.timestamps import format_optional_timestamp


def _as_it_is(value: Any) -> Any:
    return value


def _month(value: date | None) -> str | None:
    return value.isoformat()[:7] if value else None


_Fields = Mapping[str, Callable[[Any], Any]]
_ORDER: _Fields = {
    "status": _as_it_is,
    "previous_status": _as_it_is,
    "payment_status": _as_it_is,
    "order_date": format_optional_timestamp,
    "total": str,
    "fee": str,
    "fee_month": _month,
    "cancelled_at": format_optional_timestamp,
    "basis": _as_it_is,
    "cancelled_by": _as_it_is,
}
_ALERT: _Fields = {
    "kind": _as_it_is,
    "state": _as_it_is,
    "filed_at": format_optional_timestamp,
    "grounds": _as_it_is,
    "responded_at": format_optional_timestamp,
    "penalty_accepted_at": format_optional_timestamp,
    "penalty_withdrawn_at": format_optional_timestamp,
    "unlocks_at": format_optional_timestamp,
    "unlocked_at": format_optional_timestamp,
    "closed_at": format_optional_timestamp,
}
_OCR: _Fields = {
    "filed_by": _as_it_is,
    "reason": _as_it_is,
    "state": _as_it_is,
    "filed_at": format_optional_timestamp,
    "closed_at": format_optional_timestamp,
}
"""What an event tells of each part, and how it is written as JSON."""


def order_state(order: Order) -> dict[str, Any]:
    """The order's changing fields as JSON values."""
    return _state(order, _ORDER)


def alert_state(alert: Alert) -> dict[str, Any]:
    """The alert's fields as JSON values, in the shape people are shown."""
    return _state(alert, _ALERT)


def ocr_state(ocr: Ocr) -> dict[str, Any]:
    """The cancel request's fields as JSON values, in the shape people are shown."""
    return _state(ocr, _OCR)


def diff_cases(before: Case | None, after: Case) -> dict[str, Any]:
    """What differs between two states of a case, by part; a part that is new is whole."""
    found: dict[str, Any] = {}
    if order := _moved(before.order if before else None, after.order, _ORDER):
        found["order"] = order
    if after.alert is not None:
        # By id too: an alert that is not stored yet is a new one, though it be filed at the instant of the one before.
        old_alert = before.alert if before and before.alert and _named(before.alert) == _named(after.alert) else None
        if alert := _moved(old_alert, after.alert, _ALERT):
            found["alert"] = alert
    if after.ocr is not None:
        old_ocr = before.ocr if before and before.ocr and _named(before.ocr) == _named(after.ocr) else None
        if ocr := _moved(old_ocr, after.ocr, _OCR):
            found["ocr"] = ocr
    return found


def fold_changes(changes_in_order: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The state that a sequence of event changes leads to: `{"order": …, "alert": …, "ocr": …}`, parts never seen are absent."""
    state: dict[str, dict[str, Any]] = {}
    for change in changes_in_order:
        for part in ("order", "alert", "ocr"):
            if part in change:
                state.setdefault(part, {}).update(change[part])
    return state


def _named(one: Alert | Ocr) -> tuple[int | None, datetime]:
    return (one.alert_id if isinstance(one, Alert) else one.ocr_id), one.filed_at


def _state(part: Order | Alert | Ocr, fields: _Fields) -> dict[str, Any]:
    return {name: write(getattr(part, name)) for name, write in fields.items()}


def _moved(before: Any, after: Any, fields: _Fields) -> dict[str, Any]:
    if before is None:
        return _state(after, fields)
    found = {}
    for name, write in fields.items():
        old, new = getattr(before, name), getattr(after, name)
        if old is not new and write(old) != (said := write(new)):  # most are untouched, and need not be written
            found[name] = said
    return found
