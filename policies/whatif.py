"""Replays a recorded case under other conditions (terms and settings): how it ended, and how it would have ended.

A case is replayed by itself.  What people and the marketplace did is done again at the same time, and the policies of
the commands decide about it.  What they refuse did not happen, with two exceptions: an act that is too early is done
when it becomes possible, and an act on an alert that is filed later is done after its filing.  Automation acts when its
sweeps would; where the recorded deadline is the same, it acts when it did.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from operator import itemgetter
from typing import Any, NamedTuple

from policies import automatic_acts, orders
from policies.alerts import accused_role
from policies.automation_settings import NO_AUTOMATION, AutomationSettings
from policies.bills import format_month
from policies.cases import AUTOMATION_ACTOR, Actor, Alert, AlertState, Case, Member, Order
from policies.credits import decide_fee
from policies.fees import ZERO
from policies.recorded_cases import RECORDED_ACTS, RECORDED_ALERT_KINDS, RecordedCase, RecordedEvent
from policies.statuses import PaymentStatus, Role, Status
from policies.terms import Terms
from policies.timestamps import parse_optional_stored_timestamp, parse_stored_timestamp
from policies.verdicts import Code, Granted, Refused, Verdict


class WhatIfMemberChange(NamedTuple):
    """A member's account closed or opened, or the settings of a seller changed; what is None stays."""

    at: datetime
    terminated: bool | None = None
    automation: AutomationSettings | None = None


@dataclass(frozen=True)
class WhatIfConditions:
    """The terms and settings of a replay.

    `periods` are terms with the times from which they are in force, earliest first; `settings` are those of all
    sellers from `settings_from`.
    """

    periods: Sequence[tuple[datetime, Terms]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    settings_from: datetime | None = None

    def terms_at(self, instant: datetime) -> Terms:
        return next((terms for begin, terms in reversed(self.periods) if begin <= instant), self.periods[0][1])

    def terms_after(self, instant: datetime) -> tuple[tuple[datetime, Terms], ...]:
        return tuple(period for period in self.periods if period[0] > instant)

    def automation_at(self, recorded: AutomationSettings, instant: datetime) -> AutomationSettings:
        if not self.settings or (self.settings_from is not None and instant < self.settings_from):
            return recorded
        return replace(recorded, **self.settings)


class AlertOutcome(NamedTuple):
    """An alert that was filed; `unlocked_at` is the time from which it let its filer cancel, if it did."""

    kind: str
    filed_at: datetime
    unlocked_at: datetime | None


@dataclass(frozen=True, slots=True)
class CaseOutcome:
    """The result of a case.  `fee` is what the order costs its seller in the end, `fee_month` where it is charged."""

    alerts: tuple[AlertOutcome, ...] = ()
    cancelled_at: datetime | None = None
    basis: str | None = None
    strike: Role | None = None
    fee: Decimal = ZERO
    fee_month: str | None = None


def outcome_without_replay(case: RecordedCase, until: datetime) -> CaseOutcome:
    """Return the result of the case from its events alone, without a policy."""
    order: dict[str, Any] = {}
    filed: list[dict[str, Any]] = []
    credit = ZERO
    for event in case.events:
        order |= event.changes.get("order", {})
        if (part := event.changes.get("alert")) is not None:
            if "kind" in part:
                filed.append(dict(part))
            else:
                filed[-1] |= part
        if event.type == "orders.cancelled":
            credit = Decimal(event.changes["fee"]["amount"])
    struck = filed and filed[-1]["state"] == AlertState.COMPLETED
    return CaseOutcome(
        alerts=tuple(
            _alert_outcome(
                alert["kind"],
                parse_stored_timestamp(alert["filed_at"]),
                parse_optional_stored_timestamp(alert["unlocks_at"]),
                parse_optional_stored_timestamp(alert["closed_at"]),
                until,
            )
            for alert in filed
        ),
        cancelled_at=parse_optional_stored_timestamp(order["cancelled_at"]),
        basis=order["basis"],
        strike=accused_role(filed[-1]["kind"]) if struck else None,
        fee=Decimal(order["fee"]) + credit,
        fee_month=order["fee_month"],
    )


class CaseReplay:
    """Replays a case under `conditions`; `recorded` are those under which it happened."""

    def __init__(
        self,
        recorded_case: RecordedCase,
        members: Mapping[str, Sequence[WhatIfMemberChange]],
        conditions: WhatIfConditions,
        recorded: WhatIfConditions,
    ) -> None:
        self._events = recorded_case.events
        self._conditions, self._recorded = conditions, recorded
        parties = ((Role.BUYER, recorded_case.buyer_id), (Role.SELLER, recorded_case.seller_id))
        changes = [(change.at, role, change) for role, member_id in parties for change in members.get(member_id, ())]
        if conditions.settings_from is not None:  # `conditions` have other settings from then on
            changes.append((conditions.settings_from, Role.SELLER, WhatIfMemberChange(conditions.settings_from)))
        self._changes = sorted(changes, key=itemgetter(0))
        self._recorded_automation = NO_AUTOMATION
        self._state: dict[str, dict[str, Any]] = {"order": {}, "alert": {}, "ocr": {}}
        self._follows_record = True
        """Whether the case is still as recorded, so that automation acts when it did."""
        self._deferred: list[tuple[datetime, int, RecordedEvent]] = []
        self._is_stuck = False
        self._alerts: list[AlertOutcome] = []
        self._credit = ZERO
        self._clock = at = recorded_case.events[0].at
        terms = conditions.terms_at(at)
        order = Order(
            order_id=recorded_case.order_id,
            buyer_id=recorded_case.buyer_id,
            seller_id=recorded_case.seller_id,
            status=Status.PENDING,
            payment_status=PaymentStatus.NONE,
            order_date=at,
            usd_rate=recorded_case.usd_rate,
            total=Decimal(recorded_case.events[0].changes["order"]["total"]),
        )
        self.case = Case(
            orders.charge_order(order, terms),
            Member(recorded_case.buyer_id),
            Member(recorded_case.seller_id),
            terms,
            later_terms=conditions.terms_after(at),
        )
        self._change_members(at)

    def run(self, until: datetime) -> CaseOutcome:
        self._note_divergence_from_record(self._events[0])
        for number, event in enumerate(self._events[1:]):
            self._advance(event.at)
            self._set_time(event.at)
            if event.actor == AUTOMATION_ACTOR:
                if self._follows_record:
                    self._act_as_recorded(event.at)
            elif (act := RECORDED_ACTS.get(event.type)) is not None:
                self._do(act, event, number)
            self._note_divergence_from_record(event)
        self._advance(until)
        return self._outcome(until)

    # -- time ----------------------------------------------------------------------------------------------------------

    def _advance(self, until: datetime) -> None:
        # Do what comes before the next recorded event: changes of members, deferred acts, and automation.
        while True:
            change_at = self._changes[0][0] if self._changes else None
            deferred_at = self._deferred[0][0] if self._deferred else None
            due = self._next_automatic_act()
            times = [at for at in (change_at, deferred_at, due[0] if due else None) if at is not None and at <= until]
            if not times:
                return
            now = min(times)
            self._set_time(now)
            if change_at == now:
                self._change_members(now)
            elif deferred_at == now:
                _, number, event = self._deferred.pop(0)
                if event.type != "orders.cancelled" or self.case.open_alert is not None:
                    self._do(RECORDED_ACTS[event.type], event, number)
            elif due is not None:
                again = self._next_automatic_act()  # under the terms of now
                if again is not None and again[0] <= now:
                    self._is_stuck = not self._apply(again[1](self.case, now), now)

    def _set_time(self, now: datetime) -> None:
        self._clock, self._is_stuck = now, False
        terms = self._conditions.terms_at(now)
        if terms is not self.case.terms:
            self.case = replace(self.case, terms=terms, later_terms=self._conditions.terms_after(now))

    def _change_members(self, now: datetime) -> None:
        while self._changes and self._changes[0][0] <= now:
            _, role, change = self._changes.pop(0)
            if change.terminated is not None:
                self._change_member(role, terminated=change.terminated)
            if change.automation is not None and role is Role.SELLER:
                self._recorded_automation = change.automation
        settings = self._conditions.automation_at(self._recorded_automation, now)
        if settings is not self.case.seller.automation:
            self._change_member(Role.SELLER, automation=settings)

    def _change_member(self, role: Role, **changes: Any) -> None:
        self.case = self.case.with_member(role, replace(self.case.member(role), **changes))

    # -- automation ----------------------------------------------------------------------------------------------------

    def _next_automatic_act(self) -> tuple[datetime, Callable[[Case, datetime], Verdict]] | None:
        case = self.case
        if self._is_stuck or (case.seller.automation is NO_AUTOMATION and case.open_ocr is None):
            return None
        dues = [
            (max(due, self._clock), act)
            for due_at, act in automatic_acts.AUTOMATIC_ACTS
            if (due := due_at(case)) is not None and not (self._follows_record and due == self._recorded_due(due_at))
        ]
        return min(dues, key=lambda entry: entry[0], default=None)

    def _recorded_due(self, due_at: Callable[[Case], datetime | None]) -> datetime | None:
        case, request = self.case, self.case.open_ocr
        if self._recorded_automation is NO_AUTOMATION and request is None:
            return None
        if request is not None:
            request = replace(request, terms=self._recorded.terms_at(request.filed_at))
        seller = replace(case.seller, automation=self._recorded_automation)
        terms, later_terms = self._recorded.terms_at(self._clock), self._recorded.terms_after(self._clock)
        return due_at(replace(case, seller=seller, terms=terms, later_terms=later_terms, ocr=request or case.ocr))

    def _act_as_recorded(self, now: datetime) -> None:
        for due_at, act in automatic_acts.AUTOMATIC_ACTS:
            due = due_at(self.case)
            if due is not None and due <= now and due == self._recorded_due(due_at):
                self._apply(act(self.case, now), now)
                return

    # -- acts ----------------------------------------------------------------------------------------------------------

    def _do(self, act: Callable[..., Verdict], event: RecordedEvent, number: int) -> None:
        now = self._clock
        if event.role == Role.STAFF:
            actor = Actor(staff=event.actor.removeprefix("staff:"))
        else:
            actor = Actor(event.actor)
        verdict = act(self.case, actor, event, now)
        if self._apply(verdict, now) or not isinstance(verdict, Refused):
            return
        kind, _, verb = event.type.partition(".")
        if verdict.code is Code.TOO_EARLY and verdict.possible_from is not None:
            insort(self._deferred, (verdict.possible_from, number, event), key=lambda entry: entry[:2])
        elif verb == "removed":
            self._deferred = [entry for entry in self._deferred if entry[2].type != f"{kind}.filed"]
        elif event.type == "orders.cancelled" or kind in RECORDED_ALERT_KINDS:
            # The alert that this act is about will be filed later.
            filings = [at for at, _, later in self._deferred if later.type.endswith(".filed")]
            if filings and verdict.code in (Code.NO_OPEN_ALERT, Code.NO_OPEN_REQUEST) and filings[0] > now:
                insort(self._deferred, (filings[0], number, event), key=lambda entry: entry[:2])

    def _apply(self, verdict: Verdict, now: datetime) -> bool:
        if not isinstance(verdict, Granted):
            return False
        before, after = self.case, verdict.case
        if before.alert is not None and before.open_alert is None and after.open_alert is not None:
            self._add_alert_outcome(before.alert, now)  # the case has its latest alert only
        self.case = after
        if after.order.cancelled_at is not None and before.order.cancelled_at is None:
            assert after.order.basis is not None
            self._credit = decide_fee(after.order, after.order.basis, now, after.terms).amount
        return True

    # -- the record ----------------------------------------------------------------------------------------------------

    def _note_divergence_from_record(self, event: RecordedEvent) -> None:
        # Compare the case with the recorded one; only automation needs to know.
        if not self._follows_record:
            return
        for part, changed in event.changes.items():
            if part in self._state:
                self._state[part] |= changed
        order, alert, request = self.case.order, self.case.alert, self.case.ocr
        automations = (self.case.seller.automation, self._recorded_automation)
        if self._state["order"]["status"] != order.status:
            self._follows_record = False
        elif request or any(automation is not NO_AUTOMATION for automation in automations):
            recorded = self._state
            self._follows_record = (
                parse_stored_timestamp(recorded["order"]["order_date"]) == order.order_date
                and recorded["order"]["payment_status"] == order.payment_status
                and (alert is not None) == bool(recorded["alert"])
                and (alert is None or parse_stored_timestamp(recorded["alert"]["unlocks_at"]) == alert.unlocks_at)
                and (request is not None) == bool(recorded["ocr"])
            )

    def _add_alert_outcome(self, alert: Alert, until: datetime) -> None:
        self._alerts.append(_alert_outcome(alert.kind, alert.filed_at, alert.unlocks_at, alert.closed_at, until))

    def _outcome(self, until: datetime) -> CaseOutcome:
        order, alert = self.case.order, self.case.alert
        if alert is not None:
            self._add_alert_outcome(alert, until)
        return CaseOutcome(
            alerts=tuple(self._alerts),
            cancelled_at=order.cancelled_at,
            basis=order.basis,
            strike=accused_role(alert.kind) if alert is not None and alert.state is AlertState.COMPLETED else None,
            fee=order.fee + self._credit,
            fee_month=format_month(order.fee_month) if order.fee_month else None,
        )


def _alert_outcome(
    kind: str, filed_at: datetime, unlocks_at: datetime | None, closed_at: datetime | None, until: datetime
) -> AlertOutcome:
    unlocked = unlocks_at is not None and unlocks_at <= min(closed_at or until, until)
    return AlertOutcome(kind, filed_at, unlocks_at if unlocked else None)
