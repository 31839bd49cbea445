"""Automation: the command for a seller's settings, and the sweeps that act in the seller's name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, ClassVar

from celery import shared_task
from pydantic import Field

from models import automation, members
from models.cases import CaseChange, CaseSet, lock_case_set
from models.db.selects import AnySelect, DuePosition, DueRow, find_due
from models.stored_answers import Answer
from models.unit_of_work import UnitOfWork, unit_of_work
from policies import automatic_acts
from policies import automation as policy
from policies import automation_settings as settings
from policies.cases import Actor, Case
from policies.members import member_unknown
from policies.statuses import Role
from policies.verdicts import Granted, Invalid, Refused
from tasks.cancellation import CancelOrder, cancel_batch_in
from tasks.cases import declare_case_command
from tasks.command import Command, Comment, MemberId, StaffName, TimestampText
from tasks.declarations import SELLER, command_task
from tasks.sweeps import DueSweep, TaskResult, sweep

BATCH_SIZE = 100
"""Automatic acts of one transaction; larger batches are not faster (docs/speed.md)."""


class SetAutomation(Command):
    """Arguments of `sellers.set_automation`. An omitted setting stays as it is; null switches it off."""

    task: ClassVar[str] = "sellers.set_automation"
    member_id: MemberId
    staff: StaffName | None = None
    file_npb_after: (
        Annotated[int, Field(strict=True, ge=settings.MIN_FILE_NPB_AFTER, le=settings.MAX_FILE_NPB_AFTER)] | None
    ) = None
    cancel_after_unlock: Annotated[int, Field(strict=True, ge=0, le=settings.MAX_CANCEL_AFTER_UNLOCK)] | None = None
    agree_to_requests_within: Annotated[int, Field(strict=True, ge=0, le=settings.MAX_AGREE_WITHIN)] | None = None
    exclude_buyers: Annotated[list[MemberId], Field(max_length=settings.MAX_EXCLUDED_BUYERS)] | None = None

    @property
    def fingerprint(self) -> bytes:
        # Null and left out mean different things.
        named = ",".join(sorted(self.model_fields_set))
        return hashlib.sha256(super().fingerprint + named.encode()).digest()


class AutomationCancel(CancelOrder):
    """A cancellation that a sweep makes in the seller's name; nobody sends it."""

    @property
    def actor(self) -> Actor:
        return Actor(self.member_id, automation=True)


@command_task(
    SetAutomation,
    example={
        "member_id": "s-881",
        "file_npb_after": 7,
        "cancel_after_unlock": 3,
        "agree_to_requests_within": 24,
        "exclude_buyers": ["b-77"],
    },
)
def set_automation(commands: list[SetAutomation]) -> list[Answer]:
    """Set which acts happen in a seller's name without human action, in open cases too (R114)."""
    with unit_of_work(commands) as work:
        known = members.load_members(work.conn, [c.member_id for c in work.pending], lock=members.FOR_UPDATE)
        for command in work.pending:
            if command.member_id not in known:
                work.answer(command, member_unknown(command.member_id))
            elif command.member_id in (command.exclude_buyers or ()):
                work.answer(command, Invalid("exclude_buyers", "must not contain the seller"))
            else:
                work.answer(command, Answer.done(command, _set_automation(work, command)))
    return work.answers


declare_case_command(
    "orders.hold_automation",
    policy.hold_automation,
    "Hold automation off an order, as its seller or staff, without end or until a time.",
    arguments={"until": (TimestampText | None, None), "comment": Comment},
    example=SELLER | {"comment": "the buyer is in hospital"},
    option="hold the order against automation",
)

declare_case_command(
    "orders.release_automation",
    policy.release_automation_hold,
    "End the hold on an order, as its seller or staff: automation may act on it again.",
    arguments={"comment": Comment},
    example=SELLER | {"comment": "no answer any more"},
    option="release the order for automation",
)


def _set_automation(work: UnitOfWork[SetAutomation], command: SetAutomation) -> dict[str, Any]:
    before = members.load_automation(work.conn, command.member_id)
    changes = command.model_dump(include=command.model_fields_set & set(settings.AUTOMATION_SETTINGS))
    after = settings.change_automation_settings(before, changes, command.exclude_buyers, work.now)
    if after != before:
        members.update_automation(work.conn, command.member_id, after)
        work.record_event(
            "sellers.automation_set",
            command,
            settings.describe_setting_changes(before, after),
            actor=f"staff:{command.staff}" if command.staff else command.member_id,
            role=Role.STAFF if command.staff else Role.SELLER,
            member_id=command.member_id,
            changes={"automation": settings.settings_to_json(after)},
        )
        automation.update_automation_deadlines(work.conn, command.member_id, work.now)
    return settings.settings_to_json(after)


@shared_task(name="automation.file_alerts")
def file_alerts() -> TaskResult:
    """File the NPB alerts that are due by their sellers' settings (R115, R124)."""
    return {"filed": sweep("automation.file_alerts", FilingSweep(), limit=BATCH_SIZE)}


@shared_task(name="automation.cancel")
def cancel_due_orders() -> TaskResult:
    """Warn of automatic cancellations a day before, and make those that are due (R116, R120, R124)."""
    warned = sweep("automation.cancel", WarningSweep(), record=False)
    return {"warned": warned, "cancelled": sweep("automation.cancel", CancelSweep(), limit=BATCH_SIZE)}


@shared_task(name="automation.resolve_requests")
def resolve_requests() -> TaskResult:
    """Agree to the buyers' cancel requests, or decline them, that are due to be answered (R117, R123, R124)."""
    agreed = sweep("automation.resolve_requests", AgreementSweep(), limit=BATCH_SIZE, record=False)
    declined = sweep("automation.resolve_requests", DeclineSweep(), limit=BATCH_SIZE, found=agreed)
    return {"agreed": agreed, "declined": declined}


class WarningSweep(DueSweep[DueRow]):
    """Warn the buyers of automatic cancellations that are a day away or less; else nothing is cancelled."""

    skips_failing = False

    def find(self, work: UnitOfWork[Any], after: DuePosition, limit: int) -> Sequence[DueRow]:
        until = work.now + policy.WARN_BEFORE_CANCELLATION
        return find_due(work.conn, automation.DUE_WARNINGS, until, after, limit)

    def handle(self, work: UnitOfWork[Any], rows: Sequence[DueRow]) -> int:
        messages = [policy.automatic_cancellation_warning(row, work.now) for row in rows]
        automation.mark_buyers_warned(work.conn, rows)
        work.enqueue([message for message in messages if message is not None])
        return len(rows)


class AutomaticActSweep(DueSweep[DueRow]):
    """Handle what is due in batches, oldest first."""

    statement: ClassVar[AnySelect]
    decide: ClassVar[Callable[[Case, datetime], Granted | Refused]]

    def find(self, work: UnitOfWork[Any], after: DuePosition, limit: int) -> Sequence[DueRow]:
        rows = find_due(work.conn, self.statement, work.now, after, limit)
        if rows:
            work.advance_now()
        return rows

    def handle(self, work: UnitOfWork[Any], rows: Sequence[DueRow]) -> int:
        cases = lock_case_set(work.conn, [row.order_id for row in rows])
        handled = [self._decide_case(cases, row.order_id, work.now) for row in rows]
        cases.write(work)
        cases.update_deadlines(work.now)  # other terms may be in force than when they were stored
        return sum(handled)

    def _decide_case(self, cases: CaseSet, order_id: int, now: datetime) -> bool:
        case = cases.get(order_id, now)
        assert case is not None
        at = max(now, case.order.last_event_at or now)
        verdict = type(self).decide(case, at)
        if isinstance(verdict, Granted):
            cases.add(CaseChange(case, verdict, at, automatic_acts.automatic_act_actor(case)))
        return isinstance(verdict, Granted)


class FilingSweep(AutomaticActSweep):
    statement, decide = automation.DUE_FILINGS, automatic_acts.file_automatically


class DeclineSweep(AutomaticActSweep):
    statement, decide = automation.DUE_DECLINES, automatic_acts.decline_automatically


class CancelSweep(AutomaticActSweep):
    statement, decide = automation.DUE_CANCELLATIONS, automatic_acts.cancel_automatically

    def handle(self, work: UnitOfWork[Any], rows: Sequence[DueRow]) -> int:
        # Nobody sends these, so they are not validated.
        work.take(
            [
                AutomationCancel.model_construct(
                    request_id=f"automation:{row.order_id}", order_id=row.order_id, member_id=row.seller_id
                )
                for row in rows
            ]
        )
        cancel_batch_in(work, lambda _command, case, now: type(self).decide(case, now))
        return sum(answer.outcome == "done" for answer in work.answers)


class AgreementSweep(CancelSweep):
    statement, decide = automation.DUE_AGREEMENTS, automatic_acts.agree_automatically
