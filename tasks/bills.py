"""The sweep that issues bills, and the command that records their payments."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated, ClassVar

from celery import shared_task
from pydantic import AfterValidator, StringConstraints

from models import billing_run, bills, events, ledger, members, sweeps, terms
from models.stored_answers import Answer, done
from models.unit_of_work import UnitOfWork, unit_of_work
from policies import bills as policy
from policies.bills import format_month, parse_month
from policies.cases import Member
from policies.verdicts import Invalid, Refused
from tasks.cases import member_unknown
from tasks.command import Amount, Command, MemberId, Text
from tasks.declarations import command_task
from tasks.sweeps import TaskResult, sweep

BATCH_SIZE = 500
"""Sellers of one transaction; they are locked against postings while it runs."""


def _parse_bill_month(value: str) -> str:
    parse_month(value)
    return value


class RecordBillPayment(Command):
    task: ClassVar[str] = "bills.record_payment"
    seller_id: MemberId
    billing_month: Annotated[Text, StringConstraints(max_length=7), AfterValidator(_parse_bill_month)]
    amount: Amount
    payment_id: MemberId

    @property
    def month(self) -> date:
        return parse_month(self.billing_month)


@shared_task(name="bills.issue")
def issue_bills() -> TaskResult:
    """Issue every missing bill, month by month, one per seller (R86, R92). Return how many were issued.

    A bill that fails does not stop the others: the month is closed without its seller, and each sweep tries it again.
    """
    issued = sum(_sweep_bills(billing_run.HeldBillingRun(month)) for month in _held_months())
    while (month := _month_to_close()) is not None:
        issued += _issue_month(month)
    with unit_of_work() as work:
        sweeps.record_sweep_run(work.conn, "bills.issue", issued, work.now)
    return {"issued": issued}


def _sweep_bills(billing: billing_run.BillingRun) -> int:
    return int(sweep("bills.issue", billing, result_key="issued", limit=BATCH_SIZE, record=False)["issued"])


def _held_months() -> list[date]:
    with unit_of_work() as work:
        return sorted({month for _, month in bills.list_held_bills(work.conn)})


def _month_to_close() -> date | None:
    with unit_of_work() as work:
        return billing_run.month_to_close(work.conn, work.now)


def _issue_month(month: date) -> int:
    issued = 0
    while True:
        billing = billing_run.BillingRun(month)
        issued += _sweep_bills(billing)
        with unit_of_work() as work:
            if billing_run.close_billing_month(work, month, billing.skipped_sellers):
                return issued
        # Another transaction posted lines meanwhile: go through the sellers again.


@command_task(
    RecordBillPayment,
    example={
        "seller_id": "s-881",
        "billing_month": "2026-03",
        "amount": "12.40",
        "payment_id": "pay-20260407-1",
    },
)
def record_payment(commands: list[RecordBillPayment]) -> list[Answer]:
    """Record a payment. Part payments add up; an excess becomes the opening balance of the next open bill."""
    with unit_of_work(commands) as work:
        sellers = members.load_members(work.conn, [c.seller_id for c in work.pending])
        ledger.lock_for_issue(work.conn, sellers)
        for command in work.pending:
            work.answer(command, _validate_payment(command, sellers) or _record_bill_payment(work, command))
    return work.answers


def _validate_payment(command: RecordBillPayment, sellers: dict[str, Member]) -> Refused | Invalid | None:
    if command.amount <= 0:
        return Invalid("amount", "must be more than 0.00")
    return None if command.seller_id in sellers else member_unknown(command.seller_id)


def _record_bill_payment(work: UnitOfWork[RecordBillPayment], command: RecordBillPayment) -> Refused | Answer:
    conn, month = work.conn, command.month
    bill = bills.load_bill(conn, command.seller_id, month, work.now)
    if bill is None or not bill.is_issued:
        return policy.bill_not_issued(month)
    if ledger.has_payment(conn, command.payment_id):
        return policy.payment_already_recorded(command.payment_id)
    excess = policy.overpaid_amount(bill.sums.total, bill.paid, command.amount)
    excess_credit_month = _month_of_overpayment(work, command.seller_id) if excess > 0 else None
    note = policy.payment_note(command.amount, month, command.payment_id, excess, excess_credit_month)
    ledger.post_payment(
        conn,
        ledger.LedgerLine(
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
        ),
    )
    _append_payment_event(work, command, note, excess, excess_credit_month)
    effects = {
        "seller_id": bill.seller_id,
        "billing_month": command.billing_month,
        "total": str(bill.sums.total),
        "paid": str(bill.paid + command.amount),
        "excess": str(excess),
        "opens": format_month(excess_credit_month) if excess_credit_month else None,
    }
    return done(command, effects)


def _month_of_overpayment(work: UnitOfWork[RecordBillPayment], seller_id: str) -> date:
    current_terms = terms.load_terms(work.conn).at(work.now)
    return max(
        policy.open_billing_month(work.now, current_terms), ledger.first_open_months(work.conn, [seller_id])[seller_id]
    )


def _append_payment_event(
    work: UnitOfWork[RecordBillPayment],
    command: RecordBillPayment,
    note: str,
    excess: Decimal,
    excess_credit_month: date | None,
) -> None:
    event = events.event_row(
        "bills.payment_recorded",
        work.now,
        actor="marketplace",
        role="system",
        member_id=command.seller_id,
        note=note,
        changes={
            "payment": {
                "month": command.billing_month,
                "amount": str(command.amount),
                "excess": str(excess),
                "opens": format_month(excess_credit_month) if excess_credit_month else None,
            }
        },
        request_id=command.request_id,
    )
    events.append_events(work.conn, [event])
