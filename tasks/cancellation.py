"""The command `orders.cancel`: a batch of orders is cancelled with all that follows.

Status, stock, alert, strike and answer change in one transaction, in as many statements for one order as for many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date, datetime
from typing import Any, ClassVar

from models import drafts, ledger, members
from models.cases import CaseChange
from models.db.conflicts import Conflict
from models.db.pipeline import pipeline
from models.returns import NeedsPlan
from models.stored_answers import Answer, IdempotentCommand
from models.unit_of_work import UnitOfWork, unit_of_work
from policies import cancellation as policy
from policies.bills import may_be_billed
from policies.cases import Case
from policies.options import option_to_cancel
from policies.preconditions import effective_time
from policies.returns import ReturnTotals
from policies.statuses import STRIKE_RECIPIENTS
from policies.verdicts import Granted, Invalid, Refused
from tasks.cases import case_at_effective_time, find_command_case
from tasks.command import Comment, Reason
from tasks.declarations import SELLER, DeclaredOption, command_task
from tasks.returns import Cancellation, PlannedReturn, ReturnCommand, SetBasedReturn

Decide = Callable[["CancelOrder", Case, datetime], Granted | Refused]


class CancelOrder(ReturnCommand):
    task: ClassVar[str] = "orders.cancel"
    reason: Reason | None = None
    comment: Comment | None = None


@command_task(
    CancelOrder,
    example=SELLER,
    option=DeclaredOption("cancel the order", lambda c, o, now: option_to_cancel(c.task, o.case, c.actor, now)),
)
def cancel_orders(commands: list[CancelOrder]) -> list[Answer]:
    """Cancel an order: agree to a buyer's request, or use any ground that is open."""
    return cancel_batch(commands)


def cancel_batch(
    commands: Sequence[CancelOrder],
    *,
    parent: IdempotentCommand | None = None,
    before_commit: Callable[[UnitOfWork[CancelOrder]], None] = lambda _work: None,
) -> list[Answer]:
    """Cancel different orders in one transaction. If one statement can't return the items, start over with plans."""
    if not any(c.draft_id is not None or c.dry_run for c in commands):
        with suppress(NeedsPlan), unit_of_work(commands, parent=parent) as work:
            _cancel_in(work, SetBasedReturn, _decide_by_command, before_write=before_commit)
            return work.answers
    with unit_of_work(commands, parent=parent) as work:
        _cancel_in(work, PlannedReturn, _decide_by_command, before_write=before_commit)
    return work.answers


def _decide_by_command(command: CancelOrder, case: Case, now: datetime) -> Granted | Refused:
    return policy.cancel(case, command.actor, command.reason, command.comment, now)


def cancel_batch_in(work: UnitOfWork[CancelOrder], decide: Decide) -> None:
    try:
        with work.conn.begin_nested():
            _cancel_in(work, SetBasedReturn, decide)
    except NeedsPlan:
        _cancel_in(work, PlannedReturn, decide)


def _cancel_in(
    work: UnitOfWork[CancelOrder],
    strategy: type[SetBasedReturn | PlannedReturn],
    decide: Decide,
    *,
    before_write: Callable[[UnitOfWork[CancelOrder]], None] = lambda _work: None,
) -> None:
    batch = strategy.lock(work)
    cancellations = _decide_cancellations(work, batch, decide)
    returned = batch.return_items(cancellations)
    _notify_cancelled(work, batch, cancellations, returned)
    before_write(work)
    _write_cancellations(work, batch, cancellations)


def _decide_cancellations(
    work: UnitOfWork[CancelOrder], batch: SetBasedReturn | PlannedReturn, decide: Decide
) -> list[Cancellation]:
    # In order, each seeing the effects of the ones before it.
    cancellations = []
    for command in work.pending:
        decided = _decide_cancellation(work, batch, command, decide)
        if not isinstance(decided, Cancellation):
            work.answer(command, decided)
            continue
        cancellations.append(decided)
        if not command.dry_run:
            batch.cases.add(decided.change)
    return cancellations


def _decide_cancellation(
    work: UnitOfWork[CancelOrder], batch: SetBasedReturn | PlannedReturn, command: CancelOrder, decide: Decide
) -> Cancellation | Refused | Invalid:
    case = find_command_case(batch.cases, command.order_id, command.member_id, work.now)
    if not isinstance(case, Case):
        return case
    if refused := batch.check_draft(command):
        return refused
    effective_at = effective_time(case, command.occurred_at, command.accepted_at, work.now)
    if isinstance(effective_at, Invalid):
        return effective_at
    case = case_at_effective_time(case, effective_at, batch.cases.terms_history)
    verdict = decide(command, case, effective_at)
    if not isinstance(verdict, Granted):
        return verdict
    if not work.parties.accused and case.open_alert is not None:
        raise Conflict("an alert was filed between the read and the locks")
    verdict = policy.add_cancellation_strike(case, verdict)
    request_id = None if command.actor.automation else command.request_id
    cancellation = Cancellation(command, CaseChange(case, verdict, effective_at, command.actor, request_id))
    return batch.plan(cancellation) or cancellation


def _notify_cancelled(
    work: UnitOfWork[Any],
    batch: SetBasedReturn | PlannedReturn,
    cancellations: Sequence[Cancellation],
    returned: Sequence[ReturnTotals],
) -> None:
    first_open = _lock_bills_of_cancellations(work, cancellations)
    for cancellation, totals in zip(cancellations, returned, strict=True):
        command, change = cancellation.command, cancellation.change
        change.granted = policy.add_cancellation_effects(
            change.before,
            change.granted,
            totals,
            by=change.before.role_of(command.actor),
            at=change.at,
            pending_removals=batch.pending_removals.get(command.order_id, 0),
            first_open=first_open.get(change.before.order.seller_id),
        )
        work.answer(command, _cancellation_answer(cancellation), store=not command.dry_run)


def _lock_bills_of_cancellations(work: UnitOfWork[Any], cancellations: Sequence[Cancellation]) -> dict[str, date]:
    sellers = {
        c.change.before.order.seller_id
        for c in cancellations
        if may_be_billed(c.change.at, work.now, c.change.before.terms)
    }
    return ledger.lock_open_ledger_months(work.conn, sellers) if sellers else {}


def _cancellation_answer(cancellation: Cancellation) -> Answer:
    answer = Answer.done(cancellation.command, cancellation.change.granted.effects)
    if not cancellation.command.dry_run:
        return answer
    warning = policy.warn_of_payment(cancellation.change.before, cancellation.basis)
    return replace(answer, message=f"It can be cancelled. {warning}") if warning else answer


def _write_cancellations(
    work: UnitOfWork[CancelOrder], batch: SetBasedReturn | PlannedReturn, cancellations: Sequence[Cancellation]
) -> None:
    cancelled = [c for c in cancellations if not c.command.dry_run]
    strikes = [
        (c.command.order_id, c.after.member(role).member_id, role, c.change.at)
        for c in cancelled
        if (role := STRIKE_RECIPIENTS.get(c.basis)) is not None
    ]
    with pipeline(work.conn):
        members.insert_strikes(work.conn, strikes)
        drafts.mark_drafts_used(
            work.conn, [c.command.draft_id for c in cancelled if c.command.draft_id is not None], work.now
        )
        batch.cases.write(work)
        work.send_answers()
