"""Post due resets and credits to the ledger, each exactly once (R84, R90).

The credit task and the billing run both post through this module, so the order in which they run does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

from sqlalchemy.exc import DBAPIError

from models import dead_jobs, ledger, outbox
from models.outbox import DueMessage
from models.unit_of_work import UnitOfWork, is_conflict
from policies import credits as policy
from policies.bills import format_month
from policies.credits import FeeSettlement
from policies.notices import notify_member
from policies.statuses import Role


def post_due_credits(work: UnitOfWork[Any], messages: Sequence[DueMessage]) -> int:
    """Post the requested credits, notify sellers of credits and mark the messages done; return the number done.

    A message that cannot be posted does not block the others: it is parked in `dead_jobs` with its reason.
    """
    valid: list[tuple[DueMessage, FeeSettlement]] = []
    for due in messages:
        settlement = policy.read_fee_message(due.order_id, due.payload)
        if isinstance(settlement, FeeSettlement):
            valid.append((due, settlement))
        else:
            _record_posting_failure(work, due, settlement, "IMPOSSIBLE", is_final=True)
    try:
        with work.conn.begin_nested():
            _post_fee_settlements(work, valid)
    except DBAPIError as error:
        if is_conflict(error) or error.connection_invalidated:
            raise
        if len(valid) > 1:
            return sum(post_due_credits(work, [due]) for due, _ in valid)
        _record_posting_failure(work, valid[0][0], f"{type(error).__name__}: {error.orig}", "FAILED")
        return 0
    return len(valid)


def _post_fee_settlements(work: UnitOfWork[Any], settlements: Sequence[tuple[DueMessage, FeeSettlement]]) -> None:
    if not settlements:
        return
    first_open = ledger.lock_open_months(work.conn, {settlement.seller_id for _, settlement in settlements})
    posted = ledger.post_lines(
        work.conn, [_credit_line(due, s, first_open[s.seller_id], work.now) for due, s in settlements if s.amount < 0]
    )
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
    outbox.mark_messages_done(work.conn, [due for due, _ in settlements], work.now)


def _credit_line(due: DueMessage, settlement: FeeSettlement, first_open: date, now: datetime) -> ledger.LedgerLine:
    kind, month = policy.choose_credit_bill(settlement, first_open)
    return ledger.LedgerLine(
        key=due.key,
        seller_id=settlement.seller_id,
        billing_month=month,
        kind=kind,
        amount=settlement.amount,
        at=now,
        note=policy.settlement_note(settlement, kind, month),
        order_id=settlement.order_id,
        charged_month=settlement.charged_month,
        credited_month=month,
    )


def _record_posting_failure(
    work: UnitOfWork[Any], due: DueMessage, error: str, reason: str, *, is_final: bool = False
) -> None:
    dead = outbox.record_outbox_failure(work.conn, [due.outbox_id], error, is_final=is_final)
    if dead:
        dead_jobs.park_job(
            work.conn,
            task=due.task,
            arguments={"order_id": due.order_id, "rows": [due.outbox_id]},
            error=error,
            first_error=dead[due.outbox_id],
            reason=reason,
            attempts=due.attempts + 1,
            now=work.now,
            outbox_id=due.outbox_id,
        )
