"""How does a promised reset or credit reach the ledger, exactly once?  (rules.md 7.3; R84, R90; C33, C34, C36)

The follower of a cancellation and the issuing of bills both come through here, so a late follower changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from sqlalchemy.exc import DBAPIError

from models import dead_jobs, ledger, outbox
from models.outbox import DueMessage
from models.unit_of_work import UnitOfWork, is_conflict
from policies import credits as policy
from policies.billing_months import format_month, parse_month
from policies.notices import notify_member
from policies.statuses import Role


@dataclass(frozen=True, slots=True)
class _Settlement:
    """A promise, read."""

    due: DueMessage
    kind: str
    seller_id: str
    order_id: int
    amount: Decimal
    month: date
    charged_month: date


class _Unpostable(Exception):
    """The promise cannot be kept by trying again; a person must look."""


def post_due(work: UnitOfWork[Any], promises: Sequence[DueMessage]) -> int:
    """Post what was promised, tell the sellers of credits, mark the promises kept; gives how many were.

    A promise that cannot be kept does not hold up the others: it is parked in `dead_jobs`, with its reason.
    """
    good: list[_Settlement] = []
    for due in promises:
        try:
            good.append(_read(due))
        except _Unpostable as error:
            _give_up(work, due, str(error))
    try:
        with work.conn.begin_nested():
            _post(work, good)
    except DBAPIError as error:
        if is_conflict(error) or error.connection_invalidated:
            raise
        if len(good) > 1:
            return sum(post_due(work, [one.due]) for one in good)
        _failed(work, good[0].due, error)
        return 0
    return len(good)


def _post(work: UnitOfWork[Any], settlements: Sequence[_Settlement]) -> None:
    sellers = {one.seller_id for one in settlements}
    if not sellers:
        return
    ledger.lock_open_months(work.conn, sellers)
    first_open = ledger.first_open_months(work.conn, sellers)
    lines = [_line(one, first_open[one.seller_id], work.now) for one in settlements if one.amount < 0]
    posted = ledger.post_lines(work.conn, lines)
    work.enqueue(
        [
            notify_member(
                Role.SELLER,
                "credit_posted",
                member_id=line.seller_id,
                order_id=line.order_id,
                occasion=str(line.order_id),
                amount=str(-line.amount),
                bill=format_month(line.billing_month),
                charged_month=format_month(line.charged_month) if line.charged_month else None,
            )
            for line in posted
            if line.kind == policy.CREDIT
        ]
    )
    outbox.mark_done(work.conn, [one.due for one in settlements], work.now)


def _line(one: _Settlement, first_open: date, now: datetime) -> ledger.LedgerLine:
    month = max(one.month, first_open)
    # A reset whose bill was made meanwhile stands beside no charge any more: on the following bill it is a credit.
    kind = policy.RESET if one.kind == policy.RESET and month == one.charged_month else policy.CREDIT
    note = (
        policy.reset_note(one.order_id, one.charged_month)
        if kind == policy.RESET
        else policy.credit_note(one.order_id, one.charged_month, one.month, month)
    )
    return ledger.LedgerLine(
        key=one.due.key,
        seller_id=one.seller_id,
        billing_month=month,
        kind=kind,
        amount=one.amount,
        at=now,
        note=note,
        order_id=one.order_id,
        charged_month=one.charged_month,
        credited_month=month,
    )


def _read(due: DueMessage) -> _Settlement:
    given = due.payload
    if given.get("kind") not in (policy.RESET, policy.CREDIT):
        raise _Unpostable(
            f"It is not known in which month the fee of order {due.order_id} was charged, so it was neither reset nor "
            "credited. Find the bill that has it and post a manual credit."
        )
    try:
        amount = Decimal(given["amount"])
        month, charged = parse_month(given["month"]), parse_month(given["charged_month"])
        seller_id = given["seller_id"]
    except (KeyError, TypeError, ValueError, InvalidOperation) as error:
        raise _Unpostable(f"The promise of order {due.order_id} cannot be read: {type(error).__name__}.") from error
    if due.order_id is None or not amount.is_finite() or amount > 0 or not isinstance(seller_id, str):
        raise _Unpostable(f"The promise of order {due.order_id} says what no cancellation can have promised.")
    return _Settlement(due, given["kind"], seller_id, due.order_id, amount, month, charged)


def _give_up(work: UnitOfWork[Any], due: DueMessage, reason: str) -> None:
    outbox.mark_dead(work.conn, [due.outbox_id], reason)
    _park(work, due, reason, due.first_error or reason, "IMPOSSIBLE")


def _failed(work: UnitOfWork[Any], due: DueMessage, error: DBAPIError) -> None:
    reason = f"{type(error).__name__}: {error.orig}"
    if first := outbox.record_failure(work.conn, [due.outbox_id], reason):
        _park(work, due, reason, first[due.outbox_id], "FAILED")


def _park(work: UnitOfWork[Any], due: DueMessage, error: str, first_error: str, reason: str) -> None:
    dead_jobs.park(
        work.conn,
        task=due.task,
        arguments={"order_id": due.order_id, "rows": [due.outbox_id]},
        error=error,
        first_error=first_error,
        reason=reason,
        attempts=due.attempts + 1,
        now=work.now,
        outbox_id=due.outbox_id,
    )
