"""Credits of sellers' fees: posted after a cancellation, or manually by staff."""

from __future__ import annotations

from datetime import date
from typing import Any, ClassVar

from celery import shared_task

from models import credits as postings
from models import events, ledger, members, outbox, terms
from models.stored_answers import Answer, done
from models.unit_of_work import UnitOfWork, unit_of_work
from policies import bills as policy
from policies.bills import billing_month_of, format_month
from policies.cases import Member
from policies.credits import CREDIT_TASK
from policies.preconditions import check_comment
from policies.verdicts import Code, Invalid, Refused
from tasks.cases import member_unknown, order_unknown
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
        due = outbox.claim_messages(work.conn, CREDIT_TASK, rows=rows, order_id=order_id)
        posted = postings.post_due_credits(work, due)
    return {"posted": posted}


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
        first_open = ledger.lock_open_months(work.conn, sellers)
        this_month = billing_month_of(work.now, terms.load_terms(work.conn).at(work.now))
        lines = []
        for command in work.pending:
            if rejection := _validate_manual_credit(command, sellers, work.parties.by_order):
                work.answer(command, rejection)
                continue
            line = _manual_credit_line(work, command, max(this_month, first_open[command.seller_id]))
            lines.append(line)
            effects = {
                "seller_id": line.seller_id,
                "amount": str(line.amount),
                "bill": format_month(line.billing_month),
            }
            work.answer(command, done(command, effects))
        ledger.post_lines(work.conn, lines)
    return work.answers


def _validate_manual_credit(
    command: PostManual, sellers: dict[str, Member], parties: dict[int, tuple[str, str]]
) -> Refused | Invalid | None:
    if invalid_amount := policy.check_manual_credit(command.amount):
        return invalid_amount
    if command.seller_id not in sellers:
        return member_unknown(command.seller_id)
    if command.order_id is not None and command.order_id not in parties:
        return order_unknown(command.order_id)
    if command.order_id is not None and parties[command.order_id][1] != command.seller_id:
        return Refused(Code.NOT_A_PARTY, f"Order {command.order_id} is not one of this seller's.")
    return check_comment(command.comment)


def _manual_credit_line(work: UnitOfWork[PostManual], command: PostManual, month: date) -> ledger.LedgerLine:
    note = policy.manual_credit_note(command.order_id, command.staff, command.comment, month)
    event = events.event_row(
        "credits.posted_by_hand",
        work.now,
        actor=f"staff:{command.staff}",
        role="staff",
        member_id=command.seller_id,
        note=note,
        changes={
            "credit": {
                "month": format_month(month),
                "amount": str(-command.amount),
                "order_id": command.order_id,
            }
        },
        request_id=command.request_id,
    )
    events.append_events(work.conn, [event])
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
