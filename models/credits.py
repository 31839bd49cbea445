"""Post due resets and credits to the ledger, each exactly once (R84, R90).

The credit task and the billing run both post through this module, so the order in which they run does not matter.
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
    due: DueMessage
    kind: str
    seller_id: str
    order_id: int
    amount: Decimal
    month: date
    charged_month: date


class _Unpostable(Exception):
    pass


def post_due(work: UnitOfWork[Any], messages: Sequence[DueMessage]) -> int:
    """Post what the messages ask for, notify sellers of credits and mark the messages done; return the number done.

    A message that cannot be posted does not block the others: it is parked in `dead_jobs` with its reason.
    """
    valid: list[_Settlement] = []
    for due in messages:
        try:
            valid.append(_parse(due))
        except _Unpostable as error:
            _give_up(work, due, str(error))
    try:
        with work.conn.begin_nested():
            _post(work, valid)
    except DBAPIError as error:
        if is_conflict(error) or error.connection_invalidated:
            raise
        if len(valid) > 1:
            return sum(post_due(work, [settlement.due]) for settlement in valid)
        _record_failure(work, valid[0].due, error)
        return 0
    return len(valid)


def _post(work: UnitOfWork[Any], settlements: Sequence[_Settlement]) -> None:
    sellers = {settlement.seller_id for settlement in settlements}
    if not sellers:
        return
    ledger.lock_open_months(work.conn, sellers)
    first_open = ledger.first_open_months(work.conn, sellers)
    lines = [_line(s, first_open[s.seller_id], work.now) for s in settlements if s.amount < 0]
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
    outbox.mark_done(work.conn, [settlement.due for settlement in settlements], work.now)


def _line(settlement: _Settlement, first_open: date, now: datetime) -> ledger.LedgerLine:
    month = max(settlement.month, first_open)
    # If the bill with the charge was issued meanwhile, the reset goes on the next open bill and is a credit there.
    kind = policy.RESET if settlement.kind == policy.RESET and month == settlement.charged_month else policy.CREDIT
    note = (
        policy.reset_note(settlement.order_id, settlement.charged_month)
        if kind == policy.RESET
        else policy.credit_note(settlement.order_id, settlement.charged_month, settlement.month, month)
    )
    return ledger.LedgerLine(
        key=settlement.due.key,
        seller_id=settlement.seller_id,
        billing_month=month,
        kind=kind,
        amount=settlement.amount,
        at=now,
        note=note,
        order_id=settlement.order_id,
        charged_month=settlement.charged_month,
        credited_month=month,
    )


def _parse(due: DueMessage) -> _Settlement:
    payload = due.payload
    if payload.get("kind") not in (policy.RESET, policy.CREDIT):
        raise _Unpostable(
            f"It is not known in which month the fee of order {due.order_id} was charged, so it was neither reset nor "
            "credited. Find the bill that has it and post a manual credit."
        )
    try:
        amount = Decimal(payload["amount"])
        month, charged = parse_month(payload["month"]), parse_month(payload["charged_month"])
        seller_id = payload["seller_id"]
    except (KeyError, TypeError, ValueError, InvalidOperation) as error:
        raise _Unpostable(
            f"The credit message of order {due.order_id} cannot be parsed: {type(error).__name__}."
        ) from error
    if due.order_id is None or not amount.is_finite() or amount > 0 or not isinstance(seller_id, str):
        raise _Unpostable(f"The credit message of order {due.order_id} holds values that no cancellation writes.")
    return _Settlement(due, payload["kind"], seller_id, due.order_id, amount, month, charged)


def _give_up(work: UnitOfWork[Any], due: DueMessage, reason: str) -> None:
    outbox.mark_dead(work.conn, [due.outbox_id], reason)
    _park(work, due, reason, due.first_error or reason, "IMPOSSIBLE")


def _record_failure(work: UnitOfWork[Any], due: DueMessage, error: DBAPIError) -> None:
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
