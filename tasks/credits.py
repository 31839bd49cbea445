"""Credits of sellers' fees: posted after a cancellation, or manually by staff."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, ClassVar

from celery import shared_task

from models import ledger, members, outbox, terms
from models.db.conflicts import is_error_without_conflict
from models.outbox import DueMessage
from models.stored_answers import Answer
from models.unit_of_work import UnitOfWork, unit_of_work
from policies import credits as policy
from policies.bills import billing_month_of, format_month
from policies.credits import CREDIT_TASK, FeeSettlement
from policies.notices import notify_member
from policies.statuses import Role
from tasks.command import Amount, Command, Comment, MemberId, OrderId, StaffName
from tasks.declarations import command_task


class PostManual(Command):
    task: ClassVar[str] = "credits.post_manual"
    seller_id: MemberId
    amount: Amount
    order_id: OrderId | None = None
    staff: StaffName
    comment: Comment


@shared_task(name=CREDIT_TASK)
def post_to_next_invoice(rows: list[int] | None = None, order_id: int | None = None) -> dict[str, Any]:
    """Reset or credit the fees of cancelled orders, each exactly once (R90). Return how many were posted."""
    with unit_of_work() as work:
        due = work.claim_messages(CREDIT_TASK, rows, order_id)
        posted = post_due_credits(work, due)
    return {"posted": posted}


def post_due_credits(
    work: UnitOfWork[Any], messages: Sequence[DueMessage], *, first_open: Mapping[str, date] | None = None
) -> int:
    """Post the requested credits, notify sellers of credits and mark the messages done; return the number done.

    A message that cannot be posted does not block the others: it is parked in `dead_jobs` with its reason.
    `first_open`: the sellers' first open months, if the caller has locked their ledgers.
    """
    valid: list[tuple[DueMessage, FeeSettlement]] = []
    for due in messages:
        settlement = policy.decide_fee_settlement(due.order_id, due.payload)
        if isinstance(settlement, FeeSettlement):
            valid.append((due, settlement))
        else:
            _record_posting_failure(work, due, settlement, is_final=True)
    try:
        with work.conn.begin_nested():
            _post_fee_settlements(work, valid, first_open)
    except Exception as error:
        if not is_error_without_conflict(error):
            raise
        if len(valid) > 1:
            return sum(post_due_credits(work, [due], first_open=first_open) for due, _ in valid)
        _record_posting_failure(work, valid[0][0], f"{type(error).__name__}: {error.orig}")
        return 0
    return len(valid)


def _post_fee_settlements(
    work: UnitOfWork[Any],
    settlements: Sequence[tuple[DueMessage, FeeSettlement]],
    first_open: Mapping[str, date] | None,
) -> None:
    if not settlements:
        return
    if first_open is None:
        first_open = ledger.lock_open_ledger_months(work.conn, {settlement.seller_id for _, settlement in settlements})
    posted = ledger.post_ledger_lines(
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


def _record_posting_failure(work: UnitOfWork[Any], due: DueMessage, error: str, *, is_final: bool = False) -> None:
    arguments = {"order_id": due.order_id}
    outbox.record_outbox_failure(work.conn, due.outbox_id, error, work.now, is_final=is_final, arguments=arguments)


@command_task(
    PostManual,
    example={
        "seller_id": "s-881",
        "amount": "3.00",
        "order_id": 1003,
        "staff": "Kim, support",
        "comment": "fee of an order cancelled by telephone",
    },
)
def post_manual(commands: list[PostManual]) -> list[Answer]:
    """Post a manual credit by staff to the seller's open bill."""
    with unit_of_work(commands) as work:
        sellers = members.load_members(work.conn, [c.seller_id for c in work.pending])
        first_open = ledger.lock_open_ledger_months(work.conn, sellers)
        this_month = billing_month_of(work.now, terms.load_terms(work.conn).at(work.now))
        lines = []
        for command in work.pending:
            parties = work.parties.by_order.get(command.order_id or 0)
            if rejection := policy.check_manual_credit(
                command.seller_id,
                command.amount,
                command.comment,
                command.order_id,
                seller_known=command.seller_id in sellers,
                seller_of_order=parties[1] if parties else None,
            ):
                work.answer(command, rejection)
                continue
            line = _manual_credit_line(work, command, max(this_month, first_open[command.seller_id]))
            lines.append(line)
            effects = {
                "seller_id": line.seller_id,
                "amount": str(line.amount),
                "bill": format_month(line.billing_month),
            }
            work.answer(command, Answer.done(command, effects))
        ledger.post_ledger_lines(work.conn, lines)
    return work.answers


def _manual_credit_line(work: UnitOfWork[PostManual], command: PostManual, month: date) -> ledger.LedgerLine:
    note = policy.manual_credit_note(command.order_id, command.staff, command.comment, month)
    credit = {"month": format_month(month), "amount": str(-command.amount), "order_id": command.order_id}
    work.record_event(
        "credits.posted_by_hand",
        command,
        note,
        actor=f"staff:{command.staff}",
        role="staff",
        member_id=command.seller_id,
        changes={"credit": credit},
    )
    return ledger.LedgerLine(
        key=f"manual:{command.request_id}",
        seller_id=command.seller_id,
        billing_month=month,
        kind="manual_credit",
        amount=-command.amount,
        at=work.now,
        note=note,
        order_id=command.order_id,
        credited_month=month,
    )
