"""Recorded cases (the events of one order), and the act behind each event, which `whatif` puts to its policy again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from policies import alerts, automation, cancellation, npb, ocr, orders, removals, seller_alerts
from policies.cases import Actor, AlertKind, Case
from policies.statuses import PaymentStatus, Status
from policies.timestamps import parse_optional_stored_timestamp, parse_stored_timestamp
from policies.verdicts import Event, Granted, Verdict


class RecordedEvent(NamedTuple):
    type: str
    at: datetime
    actor: str
    role: str
    to_status: str | None
    changes: Mapping[str, Any]


class RecordedCase(NamedTuple):
    order_id: int
    buyer_id: str
    seller_id: str
    usd_rate: Decimal
    events: Sequence[RecordedEvent]


NO_COMMENT = "-"
"""In place of comments, which decide nothing but must not be blank."""


def _repeat_recorded_restart(case: Case, event: RecordedEvent, now: datetime) -> Granted:
    total = Decimal(event.changes["order"].get("total", case.order.total))
    return orders.restart_order(case, total=total, event=Event(event.type), now=now)


def _repeat_recorded_payment(case: Case, _actor: Actor, event: RecordedEvent, now: datetime) -> Verdict:
    part = event.changes.get("order") or event.changes["late_payment"]
    return orders.record_order_payment(case, PaymentStatus(part["payment_status"]), now)


def _repeat_recorded_hold(case: Case, actor: Actor, event: RecordedEvent, now: datetime) -> Verdict:
    written = event.changes.get("order", {})  # a hold that was repeated changes nothing
    until = parse_optional_stored_timestamp(written["held_until"]) if "held_until" in written else case.order.held_until
    return automation.hold_automation(case, actor, until, NO_COMMENT, now)


def _repeat_recorded_filing(case: Case, actor: Actor, event: RecordedEvent, now: datetime) -> Verdict:
    alert = event.changes["alert"]
    return seller_alerts.file_seller_alert(case, AlertKind(alert["kind"]), actor, alert["grounds"], NO_COMMENT, now)


def _repeat_recorded_alert_removal(case: Case, actor: Actor, event: RecordedEvent, now: datetime) -> Verdict:
    return alerts.remove_alert(case, AlertKind(event.type[:3].upper()), actor, None, now)


def _repeat_recorded_response(case: Case, actor: Actor, event: RecordedEvent, now: datetime) -> Verdict:
    return seller_alerts.respond_to_seller_alert(case, AlertKind(event.type[:3].upper()), actor, NO_COMMENT, now)


RECORDED_ALERT_KINDS = tuple(kind.lower() for kind in AlertKind)
RECORDED_ACTS: dict[str, Callable[[Case, Actor, RecordedEvent, datetime], Verdict]] = {
    "orders.batch_added": lambda case, _a, e, now: (
        orders.check_may_add_batch(case) or _repeat_recorded_restart(case, e, now)
    ),
    "removals.approved": lambda case, _a, e, now: (
        removals.check_removal_possible(case) or _repeat_recorded_restart(case, e, now)
    ),
    "orders.status_set": lambda case, actor, e, _n: orders.set_order_status(case, actor, Status(str(e.to_status))),
    "orders.payment_recorded": _repeat_recorded_payment,
    "orders.paid_after_cancellation": _repeat_recorded_payment,
    "orders.automation_held": _repeat_recorded_hold,
    "orders.automation_released": lambda case, actor, _e, now: automation.release_automation_hold(
        case, actor, NO_COMMENT, now
    ),
    "ocr.filed": lambda case, actor, e, now: ocr.file_ocr(case, actor, e.changes["ocr"]["reason"], NO_COMMENT, now),
    "ocr.declined": lambda case, actor, _e, now: ocr.decline_ocr(case, actor, now),
    "ocr.withdrawn": lambda case, actor, _e, now: ocr.withdraw_ocr(case, actor, now),
    "npb.filed": lambda case, actor, _e, now: npb.file_npb(case, actor, None, now),
    "npb.responded": lambda case, actor, _e, now: npb.respond_to_npb(case, actor, NO_COMMENT, now),
    "npb.responded_again": lambda case, actor, _e, now: npb.respond_to_npb(case, actor, NO_COMMENT, now),
    "npb.extended": lambda case, actor, e, now: npb.extend_npb(
        case, actor, parse_stored_timestamp(e.changes["alert"]["extended_until"]), NO_COMMENT, now
    ),
    "npb.penalty_accepted": lambda case, actor, _e, now: npb.accept_penalty(case, actor, now),
    "npb.taken_back": lambda case, actor, _e, now: npb.take_back(case, actor, now),
    **{f"{kind}.filed": _repeat_recorded_filing for kind in ("nrs", "nss")},
    **{f"{kind}.responded": _repeat_recorded_response for kind in ("nrs", "nss")},
    **{f"{kind}.removed": _repeat_recorded_alert_removal for kind in RECORDED_ALERT_KINDS},
    "orders.cancelled": lambda case, actor, _e, now: cancellation.cancel(case, actor, None, None, now),
}
"""What a party or the marketplace did, by the event that records it.  Other events change no outcome."""
