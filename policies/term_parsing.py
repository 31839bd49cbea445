"""Terms as an operator writes them, such as `NPB_FILE_AFTER = "7d"`: parsing, validation and formatting.

The names and meanings of the settings are in `policies/terms.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

from policies.statuses import OPEN_FLOW, Status
from policies.terms import (
    DEFAULT_TERMS,
    MAX_AMOUNT,
    MAX_DURATION,
    MAX_STEPS,
    MIN_UNLOCK_DELAY,
    FeeSlice,
    OcrSilenceTerm,
    Terms,
)
from policies.texts import is_identifier
from policies.zones import validate_zone


@dataclass(frozen=True, slots=True)
class TermsProblem:
    path: str
    message: str


def terms_from_mapping(
    settings: Mapping[str, Any], *, base: Terms = DEFAULT_TERMS, allow_short: bool = False
) -> Terms | list[TermsProblem]:
    """Validate terms as written by a person: `NPB_FILE_AFTER`, durations as `7d`, `36h`, `90s`.

    Other settings keep the value of `base`.  Returns the terms, or all problems at once.  `allow_short` permits unlock
    periods below `MIN_UNLOCK_DELAY`, for simulations on a separate database.
    """
    names = {f.name for f in fields(Terms)}
    values: dict[str, Any] = {}
    problems: list[TermsProblem] = []
    for name, raw in settings.items():
        key = name.lower()
        if key not in names:
            problems.append(TermsProblem(name, "there is no such setting"))
            continue
        try:
            values[key] = _TERM_READERS[key](raw)
        except (ValueError, TypeError) as error:
            problems.append(TermsProblem(name, str(error)))
    if problems:
        return problems
    terms = replace(base, **values)
    contradictions = _terms_contradictions(terms, allow_short=allow_short)
    return [TermsProblem(name.upper(), message) for name, message in contradictions] or terms


def format_term(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def terms_to_mapping(terms: Terms) -> dict[str, Any]:
    return {f.name.upper(): _term_json(getattr(terms, f.name)) for f in fields(Terms)}


def format_silence_term(silence: OcrSilenceTerm) -> str:
    return f"{silence.name} {_term_json(silence.after)}"


def read_terms(settings: Mapping[str, Any]) -> Terms:
    return Terms(**{name.lower(): _TERM_READERS[name.lower()](raw) for name, raw in settings.items()})


def _terms_contradictions(terms: Terms, *, allow_short: bool) -> Iterator[tuple[str, str]]:
    yield from _duration_contradictions(terms, allow_short=allow_short)
    for name in ("bill_day", "bill_due_day"):
        if not 1 <= getattr(terms, name) <= 28:
            yield name, "must be a day that every month has: 1 to 28"
    if terms.minimum_bill < 0:
        yield "minimum_bill", "must not be negative"
    if not 1 <= terms.strike_limit <= 1000:
        yield "strike_limit", "must be 1 or more"
    if not terms.ocr_fileable_statuses:
        yield "ocr_fileable_statuses", "must name at least one status"
    if (message := _fee_slices_contradiction(terms.fee_slices)) is not None:
        yield "fee_slices", message


def _duration_contradictions(terms: Terms, *, allow_short: bool) -> Iterator[tuple[str, str]]:
    unlocks = {
        name: getattr(terms, name) for name in ("npb_unlock_no_response", "npb_unlock_response", "seller_alert_unlock")
    }
    if terms.ocr_silence is not None:
        unlocks["ocr_silence"] = terms.ocr_silence.after
    for name, delay in unlocks.items():
        if delay < MIN_UNLOCK_DELAY and not allow_short:
            yield name, f"must be at least {int(MIN_UNLOCK_DELAY.total_seconds())} seconds"
    for name in ("npb_file_after", "seller_alert_file_after", "past_due_grace"):
        if getattr(terms, name) < timedelta(0):
            yield name, "must not be negative"
    if terms.npb_unlock_response < terms.npb_unlock_no_response:
        yield "npb_unlock_response", "must not be shorter than NPB_UNLOCK_NO_RESPONSE"
    for name in ("ocr_remind_after", "unlock_remind_after"):
        steps = getattr(terms, name)
        if any(step <= timedelta(0) for step in steps) or list(steps) != sorted(set(steps)):
            yield name, "must be rising durations, each longer than the one before"


def _fee_slices_contradiction(slices: tuple[FeeSlice, ...]) -> str | None:
    if not slices or slices[-1].up_to is not None:
        return "the last slice must have no upper end"
    tops = [s.up_to for s in slices[:-1]]
    if any(top is None or top <= 0 for top in tops):
        return "only the last slice may be without an upper end, and ends are above zero"
    if tops != sorted(set(tops), key=lambda top: top or Decimal(0)):
        return "slices must rise: each upper end above the one before"
    if any(not 0 <= s.rate <= 1 for s in slices):
        return "a rate must be between 0 and 1"
    return None


_DURATION = re.compile(r"([0-9]{1,9}) ?([dhms])")  # the rule book writes `7 d`
_DURATION_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def _read_duration_term(raw: Any) -> timedelta:
    match = _DURATION.fullmatch(raw) if isinstance(raw, str) else None
    if match is None:
        raise ValueError("must be a duration such as 7d, 36h, 90m or 45s")
    duration = timedelta(seconds=int(match[1]) * _DURATION_UNITS[match[2]])
    if duration > MAX_DURATION:  # a deadline must stay within the calendar
        raise ValueError(f"must not be longer than {MAX_DURATION.days} days")
    return duration


def _read_durations_term(raw: Any) -> tuple[timedelta, ...]:
    if not isinstance(raw, list):
        raise TypeError("must be a list of durations such as ['2d', '5d']")
    if len(raw) > MAX_STEPS:
        raise ValueError(f"must not have more than {MAX_STEPS} steps")
    return tuple(_read_duration_term(item) for item in raw)


def _read_ocr_silence_term(raw: Any) -> OcrSilenceTerm | None:
    if raw == "none":
        return None
    if not isinstance(raw, dict) or len(raw) != 1 or not raw.keys() <= {"agree_after", "decline_after"}:
        raise TypeError('must be none, {agree_after = "5d"} or {decline_after = "5d"}')
    ((name, after),) = raw.items()
    return OcrSilenceTerm(agrees=name == "agree_after", after=_read_duration_term(after))


def _read_statuses_term(raw: Any) -> tuple[Status, ...]:
    if not isinstance(raw, list):
        raise TypeError("must be a list of order statuses")
    names = [str(item) for item in raw]
    allowed = {str(status) for status in OPEN_FLOW}
    if unknown := [name for name in names if name not in allowed]:
        raise ValueError(f"{len(unknown)} of these are no status in which an order is open")
    return tuple(status for status in Status if status in names)


def _read_int_term(raw: Any) -> int:
    if not isinstance(raw, int) or isinstance(raw, bool):
        raise TypeError("must be a whole number")
    return raw


def _read_amount_term(raw: Any) -> Decimal:
    if not isinstance(raw, str):
        raise TypeError('must be an amount written as text, such as "5.00"')
    amount = _read_number_term(raw, places=2)
    if amount > MAX_AMOUNT:
        raise ValueError(f"must not be above {MAX_AMOUNT}")
    return round(amount, 2)


_TERM_NUMBER = re.compile(r"-?[0-9]{1,12}(?:\.([0-9]{1,8}))?")


def _read_number_term(raw: str, *, places: int) -> Decimal:
    match = _TERM_NUMBER.fullmatch(raw)
    if match is None or len(match[1] or "") > places:
        raise ValueError(f"must be a number with at most {places} decimals, in digits and without blanks")
    return Decimal(raw)


def _read_bool_term(raw: Any) -> bool:
    if not isinstance(raw, bool):
        raise TypeError("must be true or false")
    return raw


def _read_late_response_term(raw: Any) -> str:
    if raw not in ("sticky", "relock"):
        raise ValueError("must be sticky or relock")
    return str(raw)


def _read_fee_slices_term(raw: Any) -> tuple[FeeSlice, ...]:
    if not isinstance(raw, list):
        raise TypeError(_FEE_SLICES_EXAMPLE)
    if len(raw) > MAX_STEPS:
        raise ValueError(f"must not have more than {MAX_STEPS} slices")
    return tuple(_read_fee_slice(item) for item in raw)


_FEE_SLICES_EXAMPLE = 'must be a list of slices such as [{up_to = "500", rate = "0.03"}, {rate = "0.02"}]'


def _read_fee_slice(raw: Any) -> FeeSlice:
    has_slice_keys = isinstance(raw, dict) and "rate" in raw and set(raw) <= {"up_to", "rate"}
    if not has_slice_keys or not all(isinstance(value, str | None) for value in raw.values()) or raw["rate"] is None:
        raise TypeError(_FEE_SLICES_EXAMPLE)
    top = None if raw.get("up_to") is None else _read_number_term(raw["up_to"], places=4)
    if top is not None and top > MAX_AMOUNT:
        raise ValueError(f"no slice may end above {MAX_AMOUNT}")
    return FeeSlice(top, _read_number_term(raw["rate"], places=8))


def _read_names_term(raw: Any) -> tuple[str, ...]:
    if not isinstance(raw, list) or not all(
        isinstance(item, str) and len(item) <= 64 and is_identifier(item) for item in raw
    ):
        raise TypeError("must be a list of member ids")
    return tuple(sorted(set(raw)))


_TERM_READERS: dict[str, Callable[[Any], Any]] = {
    "npb_file_after": _read_duration_term,
    "npb_unlock_no_response": _read_duration_term,
    "npb_unlock_response": _read_duration_term,
    "npb_late_response": _read_late_response_term,
    "seller_alert_file_after": _read_duration_term,
    "seller_alert_unlock": _read_duration_term,
    "ocr_fileable_statuses": _read_statuses_term,
    "ocr_remind_after": _read_durations_term,
    "ocr_silence": _read_ocr_silence_term,
    "unlock_remind_after": _read_durations_term,
    "billing_time_zone": validate_zone,
    "bill_day": _read_int_term,
    "bill_due_day": _read_int_term,
    "past_due_grace": _read_duration_term,
    "minimum_bill": _read_amount_term,
    "strike_limit": _read_int_term,
    "release_auto_stockroom": _read_bool_term,
    "fee_slices": _read_fee_slices_term,
    "fee_exempt_sellers": _read_names_term,
}


def _term_json(value: Any) -> Any:
    if isinstance(value, timedelta):
        seconds = int(value.total_seconds())
        unit = next(unit for unit, size in _DURATION_UNITS.items() if seconds % size == 0) if seconds else "s"
        return f"{seconds // _DURATION_UNITS[unit]}{unit}"
    if isinstance(value, tuple):
        return [_term_json(item) for item in value]
    if isinstance(value, FeeSlice):
        return {"up_to": None if value.up_to is None else str(value.up_to), "rate": str(value.rate)}
    if isinstance(value, OcrSilenceTerm):
        return {value.name: _term_json(value.after)}
    if value is None:
        return "none"
    if isinstance(value, Decimal | Status):
        return str(value)
    return value
