"""The sweep that issues bills, and the command that records their payments."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import asdict
from datetime import date
from typing import Annotated, Any, ClassVar

from celery import shared_task
from pydantic import AfterValidator, StringConstraints

from models import bills, events, ledger, members, outbox, sweeps, terms
from models.db.bulk import insert_rows
from models.stored_answers import Answer
from models.unit_of_work import UnitOfWork, unit_of_work
from policies import bills as policy
from policies.bills import due_on, format_month, grace_until, issued_on, month_name, parse_month, past_due_from
from policies.credits import CREDIT_TASK
from policies.fees import ZERO
from policies.members import member_unknown
from policies.notices import notify_member
from policies.statuses import Role
from policies.verdicts import Code, Invalid, Refused
from tasks.command import Amount, Command, MemberId, Text
from tasks.credits import post_due_credits
from tasks.declarations import command_task
from tasks.sweeps import DueSweep, TaskResult, sweep

BATCH_SIZE = 500
"""Sellers of one transaction; they are locked against postings while it runs."""


class RecordBillPayment(Command):
    task: ClassVar[str] = "bills.record_payment"
    seller_id: MemberId
    billing_month: Annotated[
        Text, StringConstraints(max_length=7), AfterValidator(lambda text: format_month(parse_month(text)))
    ]
    amount: Amount
    payment_id: MemberId


@shared_task(name="bills.issue")
def issue_bills() -> TaskResult:
    """Issue every missing bill, month by month, one per seller (R86, R92). Return how many were issued.

    A bill that fails does not stop the others: the month is closed without its seller, and each sweep tries it again.
    """
    with unit_of_work() as work:
        held_months = sorted({month for _, month in bills.list_held_bills(work.conn)})
    issued = sum(_sweep_bills(HeldBillingSweep(month)) for month in held_months)
    while True:
        with unit_of_work() as work:
            month = bills.load_billing_month_to_close(work.conn, work.now)
        if month is None:
            break
        billing = BillingSweep(month)
        issued += _sweep_bills(billing)
        with unit_of_work() as work:
            # The month stays open if another transaction posted lines meanwhile, and goes through its sellers again.
            bills.close_billing_month(work.conn, month, work.now, billing.skipped_sellers)
    with unit_of_work() as work:
        sweeps.record_sweep_run(work.conn, "bills.issue", issued, work.now)
    return {"issued": issued}


def _sweep_bills(billing: BillingSweep) -> int:
    return sweep("bills.issue", billing, limit=BATCH_SIZE, record=False)


class BillingSweep(DueSweep[str]):
    """Issue the bills of one month in batches, sellers in order of id. One instance makes one pass."""

    start = ""

    def __init__(self, month: date) -> None:
        self.month = month
        self.skipped_sellers: list[str] = []
        """Sellers whose bill cannot be issued now."""

    def position(self, row: str) -> str:
        return row

    def skip(self, row: str) -> str:
        self.skipped_sellers.append(row)
        return f"seller {row} in {format_month(self.month)}"

    def find(self, work: UnitOfWork[Any], after: str, limit: int) -> list[str]:
        return bills.sellers_to_bill(work.conn, self.month, after=after, limit=limit)

    def handle(self, work: UnitOfWork[Any], rows: Sequence[str]) -> int:
        conn, month = work.conn, self.month
        # Lock order: outbox before ledger. The lock waits for a running credit task.
        messages = outbox.lock_by_payload(conn, CREDIT_TASK, "seller_id", rows)
        ledger.lock_ledgers_of_sellers(conn, rows)
        if due_credits := [due for due in messages if str(due.payload.get("month")) <= format_month(month)]:
            post_due_credits(work, due_credits, first_open=ledger.first_open_ledger_months(conn, rows))
        month_terms = policy.terms_of_billing_month(terms.load_terms(conn), month)
        due = due_on(month, month_terms)
        new_bills = [
            {
                "seller_id": row.seller_id,
                "billing_month": month,
                "issued_at": work.now,
                "issued_on": issued_on(month, month_terms),
                "due_on": due,
                "grace_until": grace_until(due, month_terms),
                "past_due_at": past_due_from(due, month_terms),
                **asdict(sums),
                "lines_hash": row.lines_hash,
            }
            for row in bills.sums_to_bill(conn, month, rows)
            if row.lines or row.opening != 0
            for sums in [policy.calculate_totals(row.lines_sum, row.opening, month_terms)]
        ]
        insert_rows(conn, bills.BillRow, new_bills)
        _notify_billed_sellers(work, month, new_bills)
        return len(new_bills)


class HeldBillingSweep(BillingSweep):
    """Issue the held bills of one month, each after the seller's earlier ones."""

    def find(self, work: UnitOfWork[Any], after: str, limit: int) -> list[str]:
        return bills.held_sellers_to_bill(work.conn, self.month, after=after, limit=limit)

    def handle(self, work: UnitOfWork[Any], rows: Sequence[str]) -> int:
        issued = super().handle(work, rows)
        bills.delete_held_bills(work.conn, self.month, rows)
        return issued


def _notify_billed_sellers(work: UnitOfWork[Any], month: date, rows: Sequence[dict[str, Any]]) -> None:
    written = format_month(month)
    events.append_events(
        work.conn,
        [
            events.event_row(
                "bills.issued",
                work.now,
                actor="system",
                role="system",
                member_id=row["seller_id"],
                note=f"The bill of {month_name(month)} is made: {row['total']} USD, due on {row['due_on']}.",
                changes={"bill": {"month": written, "total": str(row["total"])}},
            )
            for row in rows
        ],
    )
    work.enqueue(
        [
            notify_member(
                Role.SELLER,
                "bill_issued",
                member_id=row["seller_id"],
                order_id=None,
                occasion=written,
                month=written,
                total=str(row["total"]),
                due_on=row["due_on"].isoformat(),
            )
            for row in rows
            if row["total"] > ZERO
        ]
    )


@command_task(
    RecordBillPayment,
    example={
        "seller_id": "s-881",
        "billing_month": "2026-03",
        "amount": "12.40",
        "payment_id": "pay-20260407-1",
    },
)
def record_bill_payment(commands: list[RecordBillPayment]) -> list[Answer]:
    """Record a payment. Part payments add up; an excess becomes the opening balance of the next open bill."""
    with unit_of_work(commands) as work:
        sellers = members.load_members(work.conn, [c.seller_id for c in work.pending])
        ledger.lock_ledgers_of_sellers(work.conn, sellers)
        for command in work.pending:
            work.answer(command, _post_bill_payment(work, command, sellers))
    return work.answers


def _post_bill_payment(
    work: UnitOfWork[RecordBillPayment], command: RecordBillPayment, sellers: Container[str]
) -> Refused | Invalid | Answer:
    if command.amount <= 0:
        return Invalid("amount", "must be more than 0.00")
    if command.seller_id not in sellers:
        return member_unknown(command.seller_id)
    conn, month = work.conn, parse_month(command.billing_month)
    bill = bills.load_bill(conn, command.seller_id, month, work.now)
    if bill is None or bill.state == policy.OPEN:
        return policy.bill_not_issued(month)
    if ledger.ledger_has_payment(conn, command.payment_id):
        why = f"The payment {command.payment_id} is recorded already; a payment counts once."
        return Refused(Code.ALREADY_EXISTS, why)
    excess = policy.overpaid_bill_amount(bill.sums.total, bill.paid, command.amount)
    excess_credit_month = None
    if excess > 0:
        open_month = policy.open_billing_month(work.now, terms.load_terms(conn).at(work.now))
        first_open = ledger.first_open_ledger_months(conn, [command.seller_id])
        excess_credit_month = max(open_month, first_open[command.seller_id])
    note = policy.bill_payment_note(command.amount, month, command.payment_id, excess, excess_credit_month)
    line = ledger.LedgerLine(
        key=f"payment:{command.payment_id}",
        seller_id=command.seller_id,
        billing_month=month,
        kind="payment",
        amount=-command.amount,
        at=work.now,
        note=note,
        payment_id=command.payment_id,
        excess=excess or None,
        excess_credit_month=excess_credit_month,
    )
    insert_rows(conn, ledger.LedgerLineRow, [asdict(line)])
    overpayment = {
        "excess": str(excess),
        "opens": format_month(excess_credit_month) if excess_credit_month else None,
    }
    work.record_event(
        "bills.payment_recorded",
        command,
        note,
        actor="marketplace",
        role="system",
        member_id=command.seller_id,
        changes={"payment": {"month": command.billing_month, "amount": str(command.amount), **overpayment}},
    )
    effects = {
        "seller_id": bill.seller_id,
        "billing_month": command.billing_month,
        "total": str(bill.sums.total),
        "paid": str(bill.paid + command.amount),
        **overpayment,
    }
    return Answer.done(command, effects)
