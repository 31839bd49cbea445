"""Cases, from which policies decide: an order with members, cancel request, alert, late payment, terms; actors.

Policies take a `Case` and return a verdict; a granted verdict has the case as it is afterwards.  Datetimes are aware
and UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum

from policies.automation_settings import NO_AUTOMATION, AutomationSettings
from policies.copies import replace
from policies.statuses import CancelBasis, PaymentStatus, Role, Status
from policies.terms import Terms


class AlertKind(StrEnum):
    """Non-paying buyer, non-responding seller, non-shipping seller."""

    NPB = "NPB"
    NRS = "NRS"
    NSS = "NSS"


class AlertState(StrEnum):
    OPEN = "open"
    COMPLETED = "completed"
    REMOVED = "removed"
    SUPERSEDED = "superseded"


class OcrState(StrEnum):
    OPEN = "open"
    AGREED = "agreed"
    DECLINED = "declined"
    WITHDRAWN = "withdrawn"
    SUPERSEDED = "superseded"


AUTOMATION_ACTOR = "automation"


@dataclass(frozen=True, slots=True)
class Actor:
    """The issuer of a command: a member by id or staff by name, exactly one of the two.

    `automation` marks acts in the member's name by a setting of that member (R119).
    """

    member_id: str | None = None
    staff: str | None = None
    automation: bool = False

    def __str__(self) -> str:
        if self.automation:
            return AUTOMATION_ACTOR
        return f"staff:{self.staff}" if self.staff is not None else str(self.member_id)


@dataclass(frozen=True)
class Member:
    """A member.  Strikes are the orders that count now, oldest first, by role."""

    member_id: str
    handle: str = ""
    terminated: bool = False
    can_buy: bool = True
    can_sell: bool = True
    strikes_as_buyer: tuple[int, ...] = ()
    strikes_as_seller: tuple[int, ...] = ()
    automation: AutomationSettings = NO_AUTOMATION

    def strikes(self, role: Role) -> tuple[int, ...]:
        return self.strikes_as_buyer if role is Role.BUYER else self.strikes_as_seller


@dataclass(frozen=True)
class Order:
    """An order.  `fee` is the stored charge in USD, `fee_month` the first day of the month it is charged in.

    `total` is the price of its goods. `credit` and `coupon` are what the buyer pays less; they change no fee.
    `npb_filed_at` is when its last NPB was filed, and `files_npb_at` when automation files the next, as `cancels_at`
    of an alert.  `held_at` is set while automation must not touch the order, until `held_until` if that is set.
    `version` is the number of the order's last event.  `last_event_at` is the time of the last event other than an
    unlock: no command may be earlier.
    """

    order_id: int
    buyer_id: str
    seller_id: str
    status: Status
    payment_status: PaymentStatus
    order_date: datetime
    previous_status: Status | None = None
    currency: str = "USD"
    usd_rate: Decimal = Decimal(1)
    total: Decimal = Decimal(0)
    credit: Decimal = Decimal(0)
    coupon: Decimal = Decimal(0)
    fee: Decimal = Decimal("0.00")
    fee_month: date | None = None
    cancelled_at: datetime | None = None
    basis: CancelBasis | None = None
    cancelled_by: str | None = None
    npb_filed_at: datetime | None = None
    files_npb_at: datetime | None = None
    held_at: datetime | None = None
    held_until: datetime | None = None
    version: int = 0
    last_event_at: datetime | None = None


@dataclass(frozen=True)
class Alert:
    """An alert.  `unlocks_at` is computed when it is filed or answered; `alert_id` is None until stored.

    `cancels_at` is the time of its automatic cancellation, if the seller's settings and nothing else in the case
    lead to one.  Before `extended_until` it does not unlock (R122).  `terms` are the terms under which it was filed;
    they apply until it ends.  `unlock_seq` is the number of the event that unlocked it.
    """

    kind: AlertKind
    filed_at: datetime
    unlocks_at: datetime
    terms: Terms
    state: AlertState = AlertState.OPEN
    alert_id: int | None = None
    grounds: str | None = None
    comment: str | None = None
    previous_status: Status | None = None
    responded_at: datetime | None = None
    response: str | None = None
    penalty_accepted_at: datetime | None = None
    penalty_withdrawn_at: datetime | None = None
    unlocked_at: datetime | None = None
    cancels_at: datetime | None = None
    extended_until: datetime | None = None
    closed_at: datetime | None = None
    unlock_seq: int | None = None

    @property
    def penalty_stands(self) -> bool:
        return self.penalty_accepted_at is not None and self.penalty_withdrawn_at is None


@dataclass(frozen=True)
class Ocr:
    """An order cancel request.  A decline or a withdrawal returns the order to `previous_status` (R10, R12).

    `agrees_at` or `declines_at` is when automation answers it, as `cancels_at` of an alert; never are both set.
    """

    filed_by: Role
    reason: str
    comment: str
    filed_at: datetime
    previous_status: Status
    terms: Terms
    state: OcrState = OcrState.OPEN
    ocr_id: int | None = None
    agrees_at: datetime | None = None
    declines_at: datetime | None = None
    closed_at: datetime | None = None


@dataclass(frozen=True)
class LatePayment:
    payment_status: PaymentStatus
    recorded_at: datetime
    late_payment_id: int | None = None
    settled_at: datetime | None = None
    settled_by: str | None = None
    comment: str | None = None


@dataclass(frozen=True)
class Case:
    """An order and its facts: the latest `ocr`, `alert` and `late_payment` in any state, and `terms` for new ones.

    `later_terms` are those that are known to come into force later, in order, with their times.
    """

    order: Order
    buyer: Member
    seller: Member
    terms: Terms
    ocr: Ocr | None = None
    alert: Alert | None = None
    late_payment: LatePayment | None = None
    later_terms: tuple[tuple[datetime, Terms], ...] = ()

    @property
    def open_ocr(self) -> Ocr | None:
        return self.ocr if self.ocr is not None and self.ocr.state is OcrState.OPEN else None

    @property
    def open_alert(self) -> Alert | None:
        return self.alert if self.alert is not None and self.alert.state is AlertState.OPEN else None

    @property
    def open_late_payment(self) -> LatePayment | None:
        return self.late_payment if self.late_payment is not None and self.late_payment.settled_at is None else None

    def role_of(self, actor: Actor) -> Role | None:
        if actor.staff is not None:
            return Role.STAFF
        if actor.member_id == self.order.buyer_id:
            return Role.BUYER
        if actor.member_id == self.order.seller_id:
            return Role.SELLER
        return None

    def member(self, role: Role) -> Member:
        return self.buyer if role is Role.BUYER else self.seller

    def with_member(self, role: Role, member: Member) -> Case:
        return replace(self, buyer=member) if role is Role.BUYER else replace(self, seller=member)

    @property
    def label(self) -> str:
        return f"order {self.order.order_id}"
