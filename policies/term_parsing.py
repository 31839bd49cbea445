"""Terms as an operator writes them, such as `NPB_FILE_AFTER = "7d"`: all of them read, validated and formatted.

The names, meanings and readers of the settings are in `policies/terms.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

from policies.statuses import Status
from policies.terms import DEFAULT_TERMS, DURATION_UNITS, MIN_UNLOCK_DELAY, TERM_INFO, FeeSlice, OcrSilenceTerm, Terms

_TERM_READERS = {name.lower(): info.read for name, info in TERM_INFO.items()}


def terms_from_mapping(
    settings: Mapping[str, Any], *, base: Terms = DEFAULT_TERMS, allow_short: bool = False
) -> Terms | list[tuple[str, str]]:
    """Validate terms as written by a person: `NPB_FILE_AFTER`, durations as `7d`, `36h`, `90s`.

    Other settings keep the value of `base`.  Returns the terms, or all problems at once with their settings.
    `allow_short` permits unlock periods below `MIN_UNLOCK_DELAY`, for simulations on a separate database.
    """
    values: dict[str, Any] = {}
    problems: list[tuple[str, str]] = []
    for name, raw in settings.items():
        key = name.lower()
        if key not in _TERM_READERS:
            problems.append((name, "there is no such setting"))
            continue
        try:
            values[key] = _TERM_READERS[key](raw)
        except (ValueError, TypeError) as error:
            problems.append((name, str(error)))
    if problems:
        return problems
    terms = replace(base, **values)
    contradictions = _terms_contradictions(terms, allow_short=allow_short)
    return [(name.upper(), message) for name, message in contradictions] or terms


def format_term(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def terms_to_mapping(terms: Terms) -> dict[str, Any]:
    return {name: _term_json(getattr(terms, name.lower())) for name in TERM_INFO}


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


def _term_json(value: Any) -> Any:
    if isinstance(value, timedelta):
        seconds = int(value.total_seconds())
        unit = next(unit for unit, size in DURATION_UNITS.items() if seconds % size == 0) if seconds else "s"
        return f"{seconds // DURATION_UNITS[unit]}{unit}"
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
