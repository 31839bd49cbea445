"""Commands of an order's ordinary life: submit, add a batch, set the status, record a payment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field, StringConstraints, model_validator

from models import inventory, ledger, members, orders
from models.cases import CaseChange, CaseSet, lock_case_set
from models.db.bulk import insert_rows
from models.stored_answers import Answer
from models.unit_of_work import UnitOfWork, unit_of_work
from policies import late_payments
from policies import members as member_policy
from policies import orders as policy
from policies.cases import Case, Order
from policies.lots import Lot
from policies.members import member_unknown
from policies.options import option_to_set_status
from policies.preconditions import order_unknown
from policies.purchases import MAX_LINES, check_order_total, describe_purchase, format_total, price_purchase, sum_goods
from policies.statuses import PaymentStatus, Status
from policies.verdicts import Code, Event, Granted, Invalid, Refused, Verdict
from tasks.cases import declare_case_command
from tasks.command import (
    MUST_BE_POSITIVE,
    MUST_NOT_BE_NEGATIVE,
    Comment,
    LotId,
    MemberId,
    OrderFactCommand,
    Quantity,
    StrictModel,
    Text,
    UnitPrice,
    UsdRate,
)
from tasks.declarations import SELLER, DeclaredOption, command_task


class PurchaseLine(StrictModel):
    lot_id: LotId
    quantity: Quantity


PurchaseLines = Annotated[list[PurchaseLine], Field(min_length=1, max_length=MAX_LINES)]


class SubmitOrder(OrderFactCommand):
    """Arguments of `orders.submit`. `usd_rate` is the price of one unit of `currency` in US dollars.

    `credit` and `coupon` reduce the price, in `currency`; the fee is of the goods before both.
    """

    task: ClassVar[str] = "orders.submit"
    buyer_id: MemberId
    seller_id: MemberId
    currency: Annotated[Text, StringConstraints(pattern=r"^[A-Z]{3}$")] = "USD"
    usd_rate: Annotated[UsdRate, MUST_BE_POSITIVE] = Decimal(1)
    lines: PurchaseLines
    credit: Annotated[UnitPrice, MUST_NOT_BE_NEGATIVE] = Decimal(0)
    coupon: Annotated[UnitPrice, MUST_NOT_BE_NEGATIVE] = Decimal(0)

    @model_validator(mode="after")
    def _usd_rate_of_usd_is_1(self) -> SubmitOrder:
        if self.currency == "USD" and self.usd_rate != 1:
            raise ValueError("usd_rate must be 1 for an order in USD")
        return self


class AddOrderBatch(OrderFactCommand):
    task: ClassVar[str] = "orders.add_batch"
    lines: PurchaseLines


NEW_ORDER_FIELDS = {"order_id", "buyer_id", "seller_id", "currency", "usd_rate", "credit", "coupon"}
PurchaseT = TypeVar("PurchaseT", bound=SubmitOrder | AddOrderBatch)


@command_task(
    SubmitOrder,
    example={
        "order_id": 1003,
        "buyer_id": "b-77",
        "seller_id": "s-881",
        "currency": "EUR",
        "usd_rate": "1.0842",
        "lines": [{"lot_id": 501, "quantity": 10}],
    },
)
def submit(commands: list[SubmitOrder]) -> list[Answer]:
    """Create an order: take its stock, store a snapshot of each lot in its line, charge the fee."""
    return _answer_purchases(commands, _submit_order)


@command_task(AddOrderBatch, example={"order_id": 1003, "lines": [{"lot_id": 501, "quantity": 4}]})
def add_batch(commands: list[AddOrderBatch]) -> list[Answer]:
    """Add the buyer's next purchase to the order; order date, payment and fee start again (T21)."""
    return _answer_purchases(commands, _add_batch_to_order)


declare_case_command(
    "orders.set_status",
    lambda case, actor, status, **_: policy.set_order_status(case, actor, Status(status)),
    "Set the status of an order as one of its parties.",
    arguments={"status": Literal[tuple(str(s) for s in Status)]},
    example=SELLER | {"status": "SHIPPED"},
    option=DeclaredOption(
        "set the status by hand", lambda c, subject, _now: option_to_set_status(c.task, subject.case, c.actor)
    ),
)

declare_case_command(
    "orders.record_payment",
    lambda case, now, payment_status, **_: policy.record_order_payment(case, PaymentStatus(payment_status), now),
    "Set the payment status that the payment service reports; for a cancelled order record a late payment.",
    arguments={"payment_status": Literal[tuple(str(s) for s in PaymentStatus)]},
    base=OrderFactCommand,
    example={"order_id": 1003, "payment_status": "Received"},
)

declare_case_command(
    "orders.settle_late_payment",
    late_payments.settle_late_payment,
    "Say, as the seller or staff, that the money of a late payment was sent back.",
    arguments={"comment": Comment},
    example=SELLER | {"comment": "sent back through the payment service"},
    option="say that a late payment was sent back",
)


@dataclass
class _PurchaseBatch:
    """The purchases of a transaction; each sees the stock that those before it left."""

    work: UnitOfWork[Any]
    cases: CaseSet
    lots: dict[int, Lot]
    _lines: list[dict[str, Any]] = field(default_factory=list)
    _fees: list[ledger.LedgerLine] = field(default_factory=list)

    def decide(
        self,
        command: SubmitOrder | AddOrderBatch,
        case: Case,
        existing: Sequence[Any],
        now: datetime,
        refused: Refused | None = None,
    ) -> Verdict:
        """Decide the first purchase of an order, or a batch for one with `existing` lines.

        `refused`: why the order takes no batch, which is answered unless a lot is unknown.
        """
        order, buyer, seller = case.order, case.buyer, case.seller
        has_npb = orders.buyer_has_npb_order(self.work.conn, buyer.member_id, seller.member_id)
        wanted = [(line.lot_id, line.quantity) for line in command.lines]
        purchased = price_purchase(wanted, self.lots, buyer, seller.member_id)
        if isinstance(purchased, Refused) and purchased.code is Code.LOT_UNKNOWN:
            return purchased
        forbidden = member_policy.check_members_may_trade(buyer, seller, buyer_has_npb_in_store=has_npb)
        if refusal := refused or forbidden:
            return refusal
        if not isinstance(purchased, tuple):
            return purchased
        total = sum_goods((line.quantity, line.unit_price) for line in purchased) + sum_goods(
            (line.quantity - line.removed, line.unit_price) for line in existing
        )
        if invalid := check_order_total(total, order.usd_rate, is_new=not existing):
            return invalid
        batch_no = max((line.batch_no for line in existing), default=0) + 1
        if existing:
            note = f"Batch {batch_no}: {describe_purchase(purchased)} added; order date, payment and fee start again."
            granted = policy.restart_order(case, total=total, event=Event("orders.batch_added", note), now=now)
            granted.effects.update(batch_no=batch_no, total=format_total(total))
            reason = "items were added to the order"
            self._fees += ledger.charge_lines(granted.case.order, now, before=order, reason=reason)
        else:
            charged = policy.charge_order(replace(order, total=total), case.terms)
            note = f"{describe_purchase(purchased)} for {format_total(total)} {order.currency}; fee {charged.fee} USD."
            case = replace(case, order=charged)
            effects = {"status": charged.status, "total": format_total(total), "fee": str(charged.fee)}
            granted = Granted(case, event=Event("orders.submitted", note), effects=effects)
            self._fees += ledger.charge_lines(charged, now)
        self.cases.add(CaseChange(case, granted, now, request_id=command.request_id))
        first_line = max((line.line_no for line in existing), default=0) + 1
        for line_no, line in enumerate(purchased, start=first_line):
            lot_id = line.lot.lot_id
            self._lines.append(
                {
                    "order_id": order.order_id,
                    "line_no": line_no,
                    "batch_no": batch_no,
                    "lot_id": lot_id,
                    "quantity": line.quantity,
                    "unit_price": line.unit_price,
                    "snapshot": line.lot.snapshot(),
                }
            )
            self.lots[lot_id] = self.lots[lot_id].with_quantity(self.lots[lot_id].quantity - line.quantity)
        return granted

    def write(self) -> None:
        conn = self.work.conn
        self.cases.write(self.work)
        insert_rows(conn, orders.OrderLineRow, self._lines)
        inventory.remove_sold_units(conn, self._lines, self.lots, self.work.now)
        ledger.post_fee_lines(conn, self._fees)


def _answer_purchases(
    commands: Sequence[PurchaseT], decide: Callable[[_PurchaseBatch, PurchaseT], Verdict]
) -> list[Answer]:
    with unit_of_work(commands) as work:
        cases = lock_case_set(
            work.conn,
            [c.order_id for c in work.pending],
            member_ids=[m for c in work.pending if isinstance(c, SubmitOrder) for m in (c.buyer_id, c.seller_id)],
            lock_members=members.FOR_UPDATE,
            parties=work.parties,
        )
        lots = inventory.find_lots(work.conn, [line.lot_id for c in work.pending for line in c.lines], lock=True)
        batch = _PurchaseBatch(work, cases, lots)
        for command in work.pending:
            work.answer(command, decide(batch, command))
        batch.write()
    return work.answers


def _submit_order(batch: _PurchaseBatch, command: SubmitOrder) -> Verdict:
    cases, now = batch.cases, batch.work.now
    buyer, seller = cases.members.get(command.buyer_id), cases.members.get(command.seller_id)
    if buyer is None or seller is None:
        return member_unknown(command.buyer_id if buyer is None else command.seller_id)
    if command.buyer_id == command.seller_id:
        return Invalid("seller_id", "must be another member than the buyer")
    if cases.get(command.order_id, now) is not None:
        return Refused(Code.ALREADY_EXISTS, f"Order {command.order_id} was submitted before.")
    order = Order(
        **command.model_dump(include=NEW_ORDER_FIELDS),
        status=Status.PENDING,
        payment_status=PaymentStatus.NONE,
        order_date=now,
    )
    case = Case(order, buyer, seller, cases.terms_history.at(now), later_terms=cases.terms_history.after(now))
    return batch.decide(command, case, existing=(), now=now)


def _add_batch_to_order(batch: _PurchaseBatch, command: AddOrderBatch) -> Verdict:
    case = batch.cases.get(command.order_id, batch.work.now)
    if case is None:
        return order_unknown(command.order_id)
    existing = orders.load_order_lines(batch.work.conn, [command.order_id])[command.order_id]
    now = max(batch.work.now, case.order.last_event_at or batch.work.now)
    return batch.decide(command, case, existing, now, refused=policy.check_may_add_batch(case))
