"""The terms that an operator can set: their meaning, allowed values, BrickLink's defaults, and history by date.

`Terms` holds every duration, fee slice and limit.  An operator's terms are a dated row in the database, and a case
keeps the terms under which it was filed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from policies.statuses import OCR_FILEABLE_BY_DEFAULT, OPEN_FLOW, Status

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


@dataclass(frozen=True, slots=True)
class TermInfo:
    """Documentation of a setting for operators: a sentence, the unit, and the allowed values."""

    about: str
    unit: str
    allowed: str


def _term(default: Any, about: str, unit: str, allowed: str) -> Any:
    return field(default=default, metadata={"info": TermInfo(about, unit, allowed)})


_DURATIONS = "duration: 7d, 36h, 90m or 45s"
_ALLOWED_UNLOCK = f"{int(MIN_UNLOCK_DELAY.total_seconds())}s to {MAX_DURATION.days}d"
_ALLOWED_WAIT = f"0s to {MAX_DURATION.days}d"
_ALLOWED_STEPS = f"up to {MAX_STEPS} rising durations, each above 0s"


@dataclass(frozen=True, slots=True)
class Terms:
    npb_file_after: timedelta = _term(
        timedelta(days=7),
        "How long after the order date a seller can file a non-paying buyer alert.",
        _DURATIONS,
        _ALLOWED_WAIT,
    )
    npb_unlock_no_response: timedelta = _term(
        timedelta(days=7),
        "How long after the filing the seller can cancel if the buyer does not answer.",
        _DURATIONS,
        _ALLOWED_UNLOCK,
    )
    npb_unlock_response: timedelta = _term(
        timedelta(days=14),
        "How long after the filing the seller can cancel if the buyer answers in time.",
        _DURATIONS,
        f"{_ALLOWED_UNLOCK}, not shorter than NPB_UNLOCK_NO_RESPONSE",
    )
    npb_late_response: str = _term(  # A1
        "sticky",
        "What an answer after the unlock does: nothing (sticky), or the longer wait counts again (relock).",
        "word",
        "sticky or relock",
    )
    seller_alert_file_after: timedelta = _term(
        timedelta(days=7),
        "How long after the order date a buyer can file an alert against the seller.",
        _DURATIONS,
        _ALLOWED_WAIT,
    )
    seller_alert_unlock: timedelta = _term(
        timedelta(days=14),
        "How long after the filing of such an alert the buyer can cancel.",
        _DURATIONS,
        _ALLOWED_UNLOCK,
    )
    ocr_fileable_statuses: tuple[Status, ...] = _term(
        OCR_FILEABLE_BY_DEFAULT,
        "The statuses in which either party can file a cancel request.",
        "list of statuses",
        f"at least one of {', '.join(OPEN_FLOW)}",
    )
    ocr_remind_after: tuple[timedelta, ...] = _term(
        (timedelta(days=2), timedelta(days=5), timedelta(days=10)),
        "When the other party is reminded of an open cancel request, counted from its filing.",
        "list of durations",
        _ALLOWED_STEPS,
    )
    ocr_silence: OcrSilenceTerm | None = _term(  # noqa: RUF009 - frozen, as all values are
        None,
        "What answers a buyer's cancel request, in the seller's name, if the seller does not answer for so long.",
        'none, {agree_after = "5d"} or {decline_after = "5d"}',
        f"{_ALLOWED_UNLOCK}, or none",
    )
    unlock_remind_after: tuple[timedelta, ...] = _term(
        (timedelta(days=3), timedelta(days=10)),
        "When the filer is reminded that the order can be cancelled, counted from the unlock.",
        "list of durations",
        _ALLOWED_STEPS,
    )
    billing_time_zone: str = _term(  # A5, A6
        "America/New_York",
        "The zone in which billing months and days begin.",
        "name of a time zone",
        "a zone of the tz database",
    )
    bill_day: int = _term(5, "The day of the next month on which a month's bills are issued.", "day", "1 to 28")
    bill_due_day: int = _term(5, "The day of the month after the issue on which a bill is due.", "day", "1 to 28")
    past_due_grace: timedelta = _term(
        timedelta(days=10),
        "How long after its due day an unpaid bill's grace period ends; it is past due from the day after its due day.",
        _DURATIONS,
        _ALLOWED_WAIT,
    )
    minimum_bill: Decimal = _term(
        Decimal("0.00"),
        "The smallest total for which a bill is due; a smaller one is carried over.",
        'US dollars as text, such as "5.00"',
        f"0.00 to {MAX_AMOUNT}",
    )
    strike_limit: int = _term(
        3, "How many orders with strikes cost a member the right to buy or to sell.", "orders", "1 to 1000"
    )
    release_auto_stockroom: bool = _term(
        False,
        "Whether a lot that a sale moved to the stockroom is for sale again when its items come back.",
        "true or false",
        "true or false",
    )
    fee_slices: tuple[FeeSlice, ...] = _term(
        BRICKLINK_FEE_SLICES,
        "The fee, by slices of the order total: each slice has its own rate.",
        'list such as [{up_to = "500", rate = "0.03"}, {rate = "0.02"}], in US dollars',
        f"up to {MAX_STEPS} rising slices, rates 0 to 1, the last one without an end",
    )
    fee_exempt_sellers: tuple[str, ...] = _term(
        (),
        "Sellers who are charged no fee.",
        "list of member ids",
        "any",  # low-volume regions
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
        self._by_id = {d.terms_id: d.terms for d in dated} | {BRICKLINK_TERMS_ID: DEFAULT_TERMS}
        self._ids = {terms: terms_id for terms_id, terms in self._by_id.items()}

    def at(self, instant: datetime) -> Terms:
        current = DEFAULT_TERMS
        for dated in self._dated:
            if dated.valid_from <= instant:
                current = dated.terms
        return current

    def after(self, instant: datetime) -> tuple[tuple[datetime, Terms], ...]:
        return tuple({d.valid_from: d.terms for d in self._dated if d.valid_from > instant}.items())

    def by_id(self, terms_id: int) -> Terms:
        return self._by_id[terms_id]

    def id_of(self, terms: Terms) -> int:
        return self._ids[terms]

    def by_ids(self) -> dict[int, Terms]:
        return dict(self._by_id)

    def __iter__(self) -> Iterator[DatedTerms]:
        return iter(self._dated)
