"""The changes that events record, and folding them back into the state of an order at any time (R100)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from enum import StrEnum
from operator import attrgetter
from typing import Any, NamedTuple

from policies.bills import format_month, parse_month
from policies.cases import AlertKind, AlertState, Case, OcrState
from policies.statuses import CancelBasis, PaymentStatus, Role, Status
from policies.timestamps import format_optional_timestamp, parse_timestamp


class _HistoryFieldFormat(NamedTuple):
    write: Callable[[Any], Any]
    read: Callable[[Any], Any]


def _optional_history_value(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else convert(value)


def _history_code_format(codes: type[StrEnum]) -> _HistoryFieldFormat:
    return _HistoryFieldFormat(_unchanged_history_value, _optional_history_value(codes))


def _unchanged_history_value(value: Any) -> Any:
    return value


_HISTORY_TEXT = _HistoryFieldFormat(_unchanged_history_value, _unchanged_history_value)
_HISTORY_INSTANT = _HistoryFieldFormat(format_optional_timestamp, _optional_history_value(parse_timestamp))
_HISTORY_AMOUNT = _HistoryFieldFormat(str, Decimal)
_HISTORY_MONTH = _HistoryFieldFormat(_optional_history_value(format_month), _optional_history_value(parse_month))
_HISTORY_PARTS: dict[str, dict[str, _HistoryFieldFormat]] = {
    "order": {
        "status": _history_code_format(Status),
        "previous_status": _history_code_format(Status),
        "payment_status": _history_code_format(PaymentStatus),
        "order_date": _HISTORY_INSTANT,
        "total": _HISTORY_AMOUNT,
        "fee": _HISTORY_AMOUNT,
        "fee_month": _HISTORY_MONTH,
        "cancelled_at": _HISTORY_INSTANT,
        "basis": _history_code_format(CancelBasis),
        "cancelled_by": _HISTORY_TEXT,
        "npb_filed_at": _HISTORY_INSTANT,
        "held_at": _HISTORY_INSTANT,
        "held_until": _HISTORY_INSTANT,
    },
    "alert": {
        "kind": _history_code_format(AlertKind),
        "state": _history_code_format(AlertState),
        "filed_at": _HISTORY_INSTANT,
        "grounds": _HISTORY_TEXT,
        "responded_at": _HISTORY_INSTANT,
        "penalty_accepted_at": _HISTORY_INSTANT,
        "penalty_withdrawn_at": _HISTORY_INSTANT,
        "extended_until": _HISTORY_INSTANT,
        "unlocks_at": _HISTORY_INSTANT,
        "unlocked_at": _HISTORY_INSTANT,
        "closed_at": _HISTORY_INSTANT,
    },
    "ocr": {
        "filed_by": _history_code_format(Role),
        "reason": _HISTORY_TEXT,
        "state": _history_code_format(OcrState),
        "filed_at": _HISTORY_INSTANT,
        "closed_at": _HISTORY_INSTANT,
    },
    "late_payment": {
        "payment_status": _history_code_format(PaymentStatus),
        "recorded_at": _HISTORY_INSTANT,
        "settled_at": _HISTORY_INSTANT,
        "settled_by": _HISTORY_TEXT,
    },
}
"""The recorded fields of each part of a case, and how they are written as JSON."""
_HISTORY_FIELD_VALUES = {part: attrgetter(*fields) for part, fields in _HISTORY_PARTS.items()}
_HISTORY_IDENTITY = {
    "order": ("order_id",),
    # By id too: an unstored alert is a new one even if it was filed at the same time as the last one.
    "alert": ("alert_id", "filed_at"),
    "ocr": ("ocr_id", "filed_at"),
    "late_payment": ("late_payment_id", "recorded_at"),
}


def write_history_part(part: str, value: Any) -> dict[str, Any]:
    return {name: field.write(getattr(value, name)) for name, field in _HISTORY_PARTS[part].items()}


def read_history_part(part: str, state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: field.read(state[name]) for name, field in _HISTORY_PARTS[part].items()}


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
        for (name, field), old, new in zip(_HISTORY_PARTS[part].items(), values(before), values(after), strict=True)
        if old is not new and field.write(old) != (written := field.write(new))  # avoids writing untouched fields
    }
