"""The terms that an operator can set: meaning, allowed values, how they are read, defaults, and history by date.

`Terms` holds every duration, fee slice and limit.  An operator's terms are a dated row in the database, and a case
keeps the terms under which it was filed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from policies.statuses import OCR_FILEABLE_BY_DEFAULT, OPEN_FLOW, Status
from policies.texts import is_identifier
from policies.zones import validate_zone

MIN_UNLOCK_DELAY = timedelta(seconds=60)
"""Shortest allowed unlock period, far above the interval of the sweeps that act on it."""

MAX_DURATION = timedelta(days=3650)
MAX_AMOUNT = Decimal(10) ** 9
MAX_STEPS = 50
"""Maximum number of reminders or fee slices."""


@dataclass(frozen=True, slots=True)
class FeeSlice:
    """The part of an order total (USD) up to `up_to` (None: unlimited), charged at `rate` (0.03 is 3 %)."""

    up_to: Decimal | None
    rate: Decimal


@dataclass(frozen=True, slots=True)
class OcrSilenceTerm:
    """The answer, in the seller's name, to a buyer's cancel request left unanswered for so long (R123)."""

    agrees: bool
    after: timedelta

    @property
    def name(self) -> str:
        return "agree_after" if self.agrees else "decline_after"


BRICKLINK_FEE_SLICES = (
    FeeSlice(Decimal(500), Decimal("0.03")),
    FeeSlice(Decimal(1000), Decimal("0.02")),
    FeeSlice(None, Decimal("0.01")),
)


_DURATION = re.compile(r"([0-9]{1,9}) ?([dhms])")  # the rule book writes `7 d`
DURATION_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def _read_duration_term(raw: Any) -> timedelta:
    match = _DURATION.fullmatch(raw) if isinstance(raw, str) else None
    if match is None:
        raise ValueError("must be a duration such as 7d, 36h, 90m or 45s")
    duration = timedelta(seconds=int(match[1]) * DURATION_UNITS[match[2]])
    if duration > MAX_DURATION:  # a deadline must stay within the calendar
        raise ValueError(f"must not be longer than {MAX_DURATION.days} days")
    return duration


def _read_steps(raw: Any, read: Callable[[Any], Any], example: str, noun: str) -> tuple[Any, ...]:
    if not isinstance(raw, list):
        raise TypeError(f"must be a list of {example}")
    if len(raw) > MAX_STEPS:
        raise ValueError(f"must not have more than {MAX_STEPS} {noun}")
    return tuple(read(item) for item in raw)


def _read_durations_term(raw: Any) -> tuple[timedelta, ...]:
    return _read_steps(raw, _read_duration_term, "durations such as ['2d', '5d']", "steps")


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


def _reader_of(kind: type, sentence: str) -> Callable[[Any], Any]:
    def read(raw: Any) -> Any:
        if type(raw) is not kind:  # True is an int, too
            raise TypeError(f"must be {sentence}")
        return raw

    return read


_read_int_term = _reader_of(int, "a whole number")


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


def _read_late_response_term(raw: Any) -> str:
    if raw not in ("sticky", "relock"):
        raise ValueError("must be sticky or relock")
    return str(raw)


_FEE_SLICES_EXAMPLE = 'slices such as [{up_to = "500", rate = "0.03"}, {rate = "0.02"}]'


def _read_fee_slice(raw: Any) -> FeeSlice:
    has_slice_keys = isinstance(raw, dict) and "rate" in raw and set(raw) <= {"up_to", "rate"}
    if not has_slice_keys or not all(isinstance(value, str | None) for value in raw.values()) or raw["rate"] is None:
        raise TypeError(f"must be a list of {_FEE_SLICES_EXAMPLE}")
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


@dataclass(frozen=True, slots=True)
class TermInfo:
    """How a setting is written and read, its allowed values, and a sentence about it for operators."""

    unit: str
    allowed: str
    read: Callable[[Any], Any]
    about: str = ""


_ALLOWED_UNLOCK = f"{int(MIN_UNLOCK_DELAY.total_seconds())}s to {MAX_DURATION.days}d"
_WAIT = TermInfo("duration: 7d, 36h, 90m or 45s", f"0s to {MAX_DURATION.days}d", _read_duration_term)
_UNLOCK = replace(_WAIT, allowed=_ALLOWED_UNLOCK)
_STEPS = TermInfo("list of durations", f"up to {MAX_STEPS} rising durations, each above 0s", _read_durations_term)
_DAY = TermInfo("day", "1 to 28", _read_int_term)


def _term(default: Any, info: TermInfo, about: str, **changes: Any) -> Any:
    return field(default=default, metadata={"info": replace(info, about=about, **changes)})


@dataclass(frozen=True, slots=True)
class Terms:
    npb_file_after: timedelta = _term(
        timedelta(days=7), _WAIT, "How long after the order date a seller can file a non-paying buyer alert."
    )
    npb_unlock_no_response: timedelta = _term(
        timedelta(days=7), _UNLOCK, "How long after the filing the seller can cancel if the buyer does not answer."
    )
    npb_unlock_response: timedelta = _term(
        timedelta(days=14),
        _UNLOCK,
        "How long after the filing the seller can cancel if the buyer answers in time.",
        allowed=f"{_ALLOWED_UNLOCK}, not shorter than NPB_UNLOCK_NO_RESPONSE",
    )
    npb_late_response: str = _term(  # A1
        "sticky",
        TermInfo("word", "sticky or relock", _read_late_response_term),
        "What an answer after the unlock does: nothing (sticky), or the longer wait counts again (relock).",
    )
    seller_alert_file_after: timedelta = _term(
        timedelta(days=7), _WAIT, "How long after the order date a buyer can file an alert against the seller."
    )
    seller_alert_unlock: timedelta = _term(
        timedelta(days=14), _UNLOCK, "How long after the filing of such an alert the buyer can cancel."
    )
    ocr_fileable_statuses: tuple[Status, ...] = _term(
        OCR_FILEABLE_BY_DEFAULT,
        TermInfo("list of statuses", f"at least one of {', '.join(OPEN_FLOW)}", _read_statuses_term),
        "The statuses in which either party can file a cancel request.",
    )
    ocr_remind_after: tuple[timedelta, ...] = _term(
        (timedelta(days=2), timedelta(days=5), timedelta(days=10)),
        _STEPS,
        "When the other party is reminded of an open cancel request, counted from its filing.",
    )
    ocr_silence: OcrSilenceTerm | None = _term(  # noqa: RUF009 - frozen, as all values are
        None,
        TermInfo(
            'none, {agree_after = "5d"} or {decline_after = "5d"}',
            f"{_ALLOWED_UNLOCK}, or none",
            _read_ocr_silence_term,
        ),
        "What answers a buyer's cancel request, in the seller's name, if the seller does not answer for so long.",
    )
    unlock_remind_after: tuple[timedelta, ...] = _term(
        (timedelta(days=3), timedelta(days=10)),
        _STEPS,
        "When the filer is reminded that the order can be cancelled, counted from the unlock.",
    )
    billing_time_zone: str = _term(  # A5, A6
        "America/New_York",
        TermInfo("name of a time zone", "a zone of the tz database", validate_zone),
        "The zone in which billing months and days begin.",
    )
    bill_day: int = _term(5, _DAY, "The day of the next month on which a month's bills are issued.")
    bill_due_day: int = _term(5, _DAY, "The day of the month after the issue on which a bill is due.")
    past_due_grace: timedelta = _term(
        timedelta(days=10),
        _WAIT,
        "How long after its due day an unpaid bill's grace period ends; it is past due from the day after its due day.",
    )
    minimum_bill: Decimal = _term(
        Decimal("0.00"),
        TermInfo('US dollars as text, such as "5.00"', f"0.00 to {MAX_AMOUNT}", _read_amount_term),
        "The smallest total for which a bill is due; a smaller one is carried over.",
    )
    strike_limit: int = _term(
        3,
        TermInfo("orders", "1 to 1000", _read_int_term),
        "How many orders with strikes cost a member the right to buy or to sell.",
    )
    release_auto_stockroom: bool = _term(
        False,
        TermInfo("true or false", "true or false", _reader_of(bool, "true or false")),
        "Whether a lot that a sale moved to the stockroom is for sale again when its items come back.",
    )
    fee_slices: tuple[FeeSlice, ...] = _term(
        BRICKLINK_FEE_SLICES,
        TermInfo(
            'list such as [{up_to = "500", rate = "0.03"}, {rate = "0.02"}], in US dollars',
            f"up to {MAX_STEPS} rising slices, rates 0 to 1, the last one without an end",
            lambda raw: _read_steps(raw, _read_fee_slice, _FEE_SLICES_EXAMPLE, "slices"),
        ),
        "The fee, by slices of the order total: each slice has its own rate.",
    )
    fee_exempt_sellers: tuple[str, ...] = _term(
        (), TermInfo("list of member ids", "any", _read_names_term), "Sellers who are charged no fee."
    )

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.billing_time_zone)


DEFAULT_TERMS = Terms()
TERM_INFO: dict[str, TermInfo] = {f.name.upper(): f.metadata["info"] for f in fields(Terms)}
BRICKLINK_TERMS_ID = 0


@dataclass(frozen=True, slots=True)
class DatedTerms:
    terms_id: int
    valid_from: datetime
    terms: Terms
    applied_by: str


class TermsHistory:
    def __init__(self, dated: Sequence[DatedTerms]) -> None:
        self._dated = sorted(dated, key=lambda d: (d.valid_from, d.terms_id))
        self.by_id = {d.terms_id: d.terms for d in dated} | {BRICKLINK_TERMS_ID: DEFAULT_TERMS}
        self.ids = {terms: terms_id for terms_id, terms in self.by_id.items()}

    def at(self, instant: datetime) -> Terms:
        current = DEFAULT_TERMS
        for dated in self._dated:
            if dated.valid_from <= instant:
                current = dated.terms
        return current

    def after(self, instant: datetime) -> tuple[tuple[datetime, Terms], ...]:
        return tuple({d.valid_from: d.terms for d in self._dated if d.valid_from > instant}.items())

    def __iter__(self) -> Iterator[DatedTerms]:
        return iter(self._dated)
