"""The changes that events record, and folding them back into the state of an order at any time (R100)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from operator import attrgetter
from typing import Any, get_args, get_type_hints

from policies.bills import format_month, parse_month
from policies.cases import Alert, Case, LatePayment, Ocr, Order
from policies.timestamps import format_timestamp, parse_timestamp

_HISTORY_READERS: dict[type, Callable[[Any], Any]] = {datetime: parse_timestamp, date: parse_month}
"""How values are read that their type does not read itself."""


def _history_readers(kind: type, *names: str) -> dict[str, Callable[[Any], Any]]:
    annotations = get_type_hints(kind)
    types = {name: (get_args(annotations[name]) or (annotations[name],))[0] for name in names}
    return {name: _HISTORY_READERS.get(of, of) for name, of in types.items()}


_HISTORY_PARTS: dict[str, dict[str, Callable[[Any], Any]]] = {
    "order": _history_readers(
        Order, "status", "previous_status", "payment_status", "order_date", "total", "fee", "fee_month",
        "cancelled_at", "basis", "cancelled_by", "npb_filed_at", "held_at", "held_until",
    ),
    "alert": _history_readers(
        Alert, "kind", "state", "filed_at", "grounds", "responded_at", "penalty_accepted_at", "penalty_withdrawn_at",
        "extended_until", "unlocks_at", "unlocked_at", "closed_at",
    ),
    "ocr": _history_readers(Ocr, "filed_by", "reason", "state", "filed_at", "closed_at"),
    "late_payment": _history_readers(LatePayment, "payment_status", "recorded_at", "settled_at", "settled_by"),
}  # fmt: skip
"""The recorded fields of each part of a case, and how they are read from JSON."""
_HISTORY_FIELD_VALUES = {part: attrgetter(*fields) for part, fields in _HISTORY_PARTS.items()}
_HISTORY_IDENTITY = {
    "order": ("order_id",),
    # By id too: an unstored alert is a new one even if it was filed at the same time as the last one.
    "alert": ("alert_id", "filed_at"),
    "ocr": ("ocr_id", "filed_at"),
    "late_payment": ("late_payment_id", "recorded_at"),
}


def write_history_part(part: str, value: Any) -> dict[str, Any]:
    return {name: _write_history_value(getattr(value, name)) for name in _HISTORY_PARTS[part]}


def read_history_part(part: str, state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: None if state[name] is None else read(state[name]) for name, read in _HISTORY_PARTS[part].items()}


def _write_history_value(value: Any) -> Any:
    # Codes and texts are written as they are.
    if isinstance(value, datetime):
        return format_timestamp(value)
    if isinstance(value, date):
        return format_month(value)
    return str(value) if isinstance(value, Decimal) else value


def diff_cases(before: Case | None, after: Case) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for part in _HISTORY_PARTS:
        old, new = getattr(before, part, None), getattr(after, part)
        if new is None or new is old:
            continue
        is_same = old is not None and all(getattr(old, name) == getattr(new, name) for name in _HISTORY_IDENTITY[part])
        if changed := _changed_history_fields(part, old, new) if is_same else write_history_part(part, new):
            changes[part] = changed
    return changes


def fold_changes(changes_in_order: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    state: dict[str, dict[str, Any]] = {}
    for change in changes_in_order:
        for part in _HISTORY_PARTS:
            if part in change:
                state.setdefault(part, {}).update(change[part])
    return state


def _changed_history_fields(part: str, before: Any, after: Any) -> dict[str, Any]:
    values = _HISTORY_FIELD_VALUES[part]
    return {
        name: written
        for name, old, new in zip(_HISTORY_PARTS[part], values(before), values(after), strict=True)
        if old is not new  # avoids writing untouched fields
        and _write_history_value(old) != (written := _write_history_value(new))
    }
