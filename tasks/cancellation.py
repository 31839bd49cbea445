"""Cancellation of orders, one or many.

Status, stock, alert, strike and answer change in one transaction; follow-up work goes through the outbox.
`orders.cancel_many` cancels up to a thousand orders in batches of a hundred. The number of statements does not depend
on the number of orders.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Annotated, Any, ClassVar

from celery import current_task
from pydantic import ConfigDict, Field, ValidationInfo, WithJsonSchema, field_validator

from models import dead_jobs, drafts, inventory, members, orders, removals, returns
from models.db.pipeline import pipeline
from models.requests import Answer, conflict, done, invalid
from models.returns import NeedsPlan
from models.unit_of_work import StaleRead, UnitOfWork, retry_on_conflict, unit_of_work
from policies import cancellation as policy
from policies import cancellation_effects
from policies import drafts as draft_policy
from policies.cases import Case
from policies.consolidation import ONE_STEP
from policies.drafts import Draft
from policies.inventory import QuantityOverflow, ReturnPlan, ReturnTotals, plan_nothing, plan_return
from policies.options import cancel_option
from policies.statuses import Basis, Role
from policies.verdicts import Granted, Invalid, Refused, Verdict
from tasks.cases import effective_time, known_case, lock_cases, prefetch_parties
from tasks.command import (
    MAX_REQUEST_ID_LENGTH,
    Command,
    Comment,
    DraftId,
    OrderCommand,
    Reason,
    StrictBool,
    StrictModel,
    parse_command,
)
from tasks.declarations import SELLER, OptionEntry, command_task

BATCH_SIZE = 100
"""Orders of one transaction; larger batches are not faster (docs/speed.md)."""
MAX_ORDERS = 1000


class CancelOrder(OrderCommand):
    task: ClassVar[str] = "orders.cancel"
    reason: Reason | None = None
    comment: Comment | None = None
    draft_id: DraftId | None = None
    dry_run: StrictBool = False


class InvalidItem(StrictModel):
    """An item of `orders.cancel_many` that is not a valid command. `hash` identifies equal items."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    answer: Answer
    hash: str


class CancelMany(Command):
    """Arguments of `orders.cancel_many`. An invalid item gets its own answer and does not stop the others."""

    task: ClassVar[str] = "orders.cancel_many"
    orders: Annotated[
        list[CancelOrder | InvalidItem],
        Field(min_length=1, max_length=MAX_ORDERS),
        WithJsonSchema({"type": "array", "minItems": 1, "maxItems": MAX_ORDERS}),
    ]

    @field_validator("orders", mode="before")
    @classmethod
    def _validate_each_item(cls, items: Any, info: ValidationInfo) -> Any:
        if not isinstance(items, list) or len(items) > MAX_ORDERS:
            return items  # the command as a whole is invalid
        return [_parse_item(item, index, info.data.get("request_id", "")) for index, item in enumerate(items)]


def _parse_item(item: Any, index: int, request_id: str) -> CancelOrder | InvalidItem:
    item_id = _item_id(request_id, index)
    if isinstance(item, dict):
        command = parse_command(CancelOrder, item, item_id)
    else:
        command = invalid(item_id, [(f"orders.{index}", "must be an object with order_id and member_id")])
    if isinstance(command, Answer):
        return InvalidItem(answer=command, hash=dead_jobs.payload_hash({"item": item}).hex())
    return command


@command_task(
    CancelOrder,
    example=SELLER,
    option=OptionEntry("cancel the order", lambda c, subject, now: cancel_option(c.task, subject.case, c.actor, now)),
)
def cancel(commands: list[CancelOrder]) -> list[Answer]:
    """Cancel an order: agree to a buyer's request, or use any ground that is open."""
    return _cancel_orders(commands)


@command_task(CancelMany, example={"orders": [dict(SELLER), {"order_id": 1004, "member_id": "s-881", "dry_run": True}]})
def cancel_many(commands: list[CancelMany]) -> list[Answer]:
    """Cancel many orders. Each gets one answer, in the order of the items."""
    return [_cancel_many(command) for command in commands]


def _cancel_many(command: CancelMany) -> Answer:
    answers: dict[int, Answer] = {}
    items: list[tuple[int, CancelOrder]] = []
    for index, item in enumerate(command.orders):
        if isinstance(item, InvalidItem):
            answers[index] = item.answer
        elif item.request_id == command.request_id:
            answers[index] = conflict(item)
        else:
            if command.accepted_at is not None:
                item.accept(command.accepted_at)
            items.append((index, item))
    bulk = BulkCancellation(command, answers)
    for batch in _split(items):
        retry_on_conflict(partial(bulk.cancel_batch, batch))
        if bulk.earlier_answer is not None:
            return bulk.earlier_answer
        if len(answers) < len(command.orders):
            _report_progress(len(answers), len(command.orders))
    return bulk.answer


class BulkCancellation:
    """A command about many orders. Its own answer is stored by the commit of its last batch."""

    def __init__(self, command: CancelMany, answers: dict[int, Answer]) -> None:
        """`answers` holds the answers to invalid items, by index."""
        self.command = command
        self.earlier_answer: Answer | None = None
        self.answer: Answer
        """Set when the last batch is answered."""
        self._answers = answers
        self._indexes: list[int] = []

    def cancel_batch(self, batch: Sequence[tuple[int, CancelOrder]]) -> None:
        self._indexes = [index for index, _ in batch]
        _cancel_orders([item for _, item in batch], self)

    def collect_answers(self, work: UnitOfWork[CancelOrder]) -> None:
        """Collect the answers of a batch before its commit; with the last batch, store the command's own answer."""
        self._answers.update(zip(self._indexes, work.answers, strict=True))
        if len(self._answers) == len(self.command.orders):
            self.answer = self._combined_answer()
            work.store_answer(self.command, self.answer)

    def _combined_answer(self) -> Answer:
        in_order = [self._answers[index].as_json() for index in range(len(self.command.orders))]
        outcomes = [answer["outcome"] for answer in in_order]
        counts = {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))}
        return done(self.command, {"answers": in_order, "counts": counts})


def _report_progress(answered: int, total: int) -> None:
    # Update the task's progress if a caller waits for its result; errors are ignored.
    if not current_task or current_task.name != CancelMany.task or current_task.request.ignore_result:
        return
    with suppress(Exception):
        current_task.update_state(state="PROGRESS", meta={"answered": answered, "of": total})


def _item_id(request_id: str, index: int) -> str:
    # `<request_id>:<index>`, or its hash if that is longer than a request id may be.
    item_id = f"{request_id}:{index}"
    return item_id if len(item_id) <= MAX_REQUEST_ID_LENGTH else hashlib.sha256(item_id.encode()).hexdigest()


def _split(items: Sequence[tuple[int, CancelOrder]]) -> list[list[tuple[int, CancelOrder]]]:
    # Duplicate orders and request ids go to different batches. There is at least one batch, even an empty one: its
    # commit stores the answer of a command without valid items.
    batches: list[list[tuple[int, CancelOrder]]] = [[]]
    seen: list[set[int | str]] = [set()]
    first_open = 0
    for index, item in items:
        number = first_open
        while len(batches[number]) >= BATCH_SIZE or item.order_id in seen[number] or item.request_id in seen[number]:
            number += 1
            if number == len(batches):
                batches.append([])
                seen.append(set())
        batches[number].append((index, item))
        seen[number] |= {item.order_id, item.request_id}
        while first_open < len(batches) - 1 and len(batches[first_open]) >= BATCH_SIZE:
            first_open += 1
    return batches


@dataclass
class PendingCancellation:
    command: CancelOrder
    case: Case
    granted: Granted
    effective_at: datetime
    plan: ReturnPlan | None = None
    """Where the items go, if `_PlannedCancellationBatch` decides it."""
    returned: ReturnTotals = field(default_factory=ReturnTotals)

    @property
    def after(self) -> Case:
        return self.granted.case

    @property
    def basis(self) -> Basis:
        assert self.after.order.basis is not None
        return self.after.order.basis

    @property
    def returns(self) -> bool:
        return policy.returns_items(self.basis, seller_terminated=self.case.seller.terminated)


def _cancel_orders(commands: Sequence[CancelOrder], bulk: BulkCancellation | None = None) -> list[Answer]:
    # The items with one statement for all orders; if that can't, start over with a computed plan per order.
    if not any(c.draft_id is not None or c.dry_run for c in commands):
        with suppress(NeedsPlan):
            return _cancel_batch(commands, bulk, planned=False)
    return _cancel_batch(commands, bulk, planned=True)


def _cancel_batch(commands: Sequence[CancelOrder], bulk: BulkCancellation | None, *, planned: bool) -> list[Answer]:
    parent = bulk.command if bulk is not None else None
    with unit_of_work(commands, parent=parent, prefetch=prefetch_parties(commands)) as work:
        if bulk is not None and work.parent_answer is not None:
            bulk.earlier_answer = work.parent_answer
            return []
        batch = (_PlannedCancellationBatch if planned else _CancellationBatch)(work)
        for command in work.pending:
            verdict = batch.decide(command)
            if not isinstance(verdict, Granted):
                work.answer(command, verdict)
        batch.execute()
        if bulk is not None:
            bulk.collect_answers(work)
        with pipeline(work.conn):
            batch.write()
            work.send_answers()
    return work.answers


class _CancellationBatch:
    def __init__(self, work: UnitOfWork[CancelOrder]) -> None:
        # Every lock that the batch may need is taken first; only then is the clock read.
        self._work = work
        self._cases = lock_cases(work, lock_members=members.FOR_UPDATE_IF_ACCUSED, then=self._lock_stock)
        self._pending: list[PendingCancellation] = []

    def _lock_stock(self) -> None:
        ids = [c.order_id for c in self._work.pending]
        self._removals = removals.send_pending(self._work.conn, ids)
        returns.lock_stock(self._work.conn, ids)
        self._work.send_clock_query()  # all locks are requested by now

    def decide(self, command: CancelOrder) -> Verdict:
        case = known_case(self._cases, command.order_id, command.member_id, self._work.now)
        if not isinstance(case, Case):
            return case
        if refused := self._check_draft(command):
            return refused
        effective_at = effective_time(command, case, self._work.now)
        if isinstance(effective_at, Invalid):
            return effective_at
        verdict = policy.cancel(case, command.actor, command.reason, command.comment, effective_at)
        if not isinstance(verdict, Granted):
            return verdict
        if not self._cases.accused and policy.may_cause_strike(case):
            raise StaleRead("an alert was filed between the read and the locks")
        cancellation = PendingCancellation(
            command, case, cancellation_effects.apply_strike(case, verdict), effective_at
        )
        if rejection := self._plan_return(cancellation):
            return rejection
        self._join(cancellation)
        return verdict

    def execute(self) -> None:
        self._return_items()
        pending_removals = removals.fetch_pending(self._removals)
        for cancellation in self._decided:
            cancellation.granted = cancellation_effects.add_cancellation_effects(
                cancellation.case,
                cancellation.granted,
                cancellation.returned,
                by=cancellation.case.role_of(cancellation.command.actor),
                at=cancellation.effective_at,
                pending_removals=pending_removals.get(cancellation.case.order.order_id, 0),
            )
            self._work.answer(cancellation.command, cancellation.granted, store=not cancellation.command.dry_run)
        for cancellation in self._pending:
            self._grant(cancellation)

    def write(self) -> None:
        members.insert_strikes(
            self._work.conn, [strike for cancellation in self._pending if (strike := _strike_of(cancellation))]
        )
        draft_ids = [
            cancellation.command.draft_id for cancellation in self._pending if cancellation.command.draft_id is not None
        ]
        drafts.mark_used(self._work.conn, draft_ids, self._work.now)
        self._cases.write(self._work)

    @property
    def _decided(self) -> Sequence[PendingCancellation]:
        return self._pending

    def _check_draft(self, _command: CancelOrder) -> Refused | None:
        return None

    def _plan_return(self, _cancellation: PendingCancellation) -> Refused | Invalid | None:
        # The statement that returns the items finds every problem itself.
        return None

    def _return_items(self) -> None:
        returned = returns.return_items(
            self._work.conn,
            [(cancellation.case.order.order_id, cancellation.returns) for cancellation in self._pending],
            self._work.now,
            release=any(cancellation.case.terms.release_auto_stockroom for cancellation in self._pending),
        )
        for cancellation in self._pending:
            cancellation.returned = returned[cancellation.case.order.order_id]

    def _join(self, cancellation: PendingCancellation) -> None:
        self._cases.set_member(cancellation.after.buyer)
        self._cases.set_member(cancellation.after.seller)
        self._pending.append(cancellation)

    def _grant(self, cancellation: PendingCancellation) -> None:
        # Use the members' final state: a later order of the batch may have caused another strike.
        granted, after = cancellation.granted, cancellation.after
        buyer, seller = (self._cases.members[member.member_id] for member in (after.buyer, after.seller))
        if buyer is not after.buyer or seller is not after.seller:
            granted = replace(granted, case=replace(after, buyer=buyer, seller=seller))
        self._cases.grant(
            cancellation.case,
            granted,
            cancellation.effective_at,
            actor=cancellation.command.actor,
            request_id=cancellation.command.request_id,
        )


class _PlannedCancellationBatch(_CancellationBatch):
    # Plans each return in Python: for drafts, dry runs, full lots and lots that leave their stockroom.

    def _lock_stock(self) -> None:
        # The lots are locked in `__init__`, when the cases are known.
        self._removals = removals.send_pending(self._work.conn, [c.order_id for c in self._work.pending])

    def __init__(self, work: UnitOfWork[CancelOrder]) -> None:
        super().__init__(work)
        self._drafts = drafts.load_drafts(work.conn, [c.draft_id for c in work.pending if c.draft_id is not None])
        self._lines = orders.load_lines(work.conn, self._cases.orders)
        self._returning = {order_id: inventory.lines_to_return(lines) for order_id, lines in self._lines.items()}
        self._stock = inventory.load_stock_view(
            work.conn,
            [line for lines in self._returning.values() for line in lines],
            lock=any(not c.dry_run for c in work.pending),
        )
        self._dry_runs: list[PendingCancellation] = []

    @property
    def _decided(self) -> Sequence[PendingCancellation]:
        return [*self._dry_runs, *self._pending]

    def _check_draft(self, command: CancelOrder) -> Refused | None:
        if command.draft_id is None:
            return None
        draft = self._drafts.get(command.draft_id)
        return (
            draft_policy.draft_unknown(command.draft_id, command.order_id)
            if draft is None or draft.order_id != command.order_id
            else None
        )

    def _plan_return(self, cancellation: PendingCancellation) -> Refused | Invalid | None:
        draft = self._drafts[cancellation.command.draft_id] if cancellation.command.draft_id is not None else None
        if draft is not None and (
            refused := draft_policy.check_ready_to_cancel(
                draft, cancellation.case, cancellation.basis, cancellation.effective_at
            )
        ):
            return refused
        try:
            cancellation.plan = self._make_plan(cancellation, draft)
        except QuantityOverflow as overflow:
            return self._park(cancellation.command, overflow)
        return draft_policy.check_plan(cancellation.plan) if draft is not None else None

    def _return_items(self) -> None:
        previews = inventory.preview_returns(
            self._work.conn, [cancellation.plan for cancellation in self._dry_runs if cancellation.plan is not None]
        )
        plans = [cancellation.plan for cancellation in self._pending if cancellation.plan is not None]
        applied = inventory.apply_return(self._work.conn, plans, self._work.now)
        for cancellation, plan in zip(self._decided, [*previews, *applied], strict=True):
            cancellation.returned = plan.returned

    def _make_plan(self, cancellation: PendingCancellation, draft: Draft | None) -> ReturnPlan:
        order_id = cancellation.case.order.order_id
        if not cancellation.returns:
            return plan_nothing(order_id, [line.line_no for line in self._lines[order_id]])
        return plan_return(
            order_id,
            self._returning[order_id],
            self._stock,
            choices=draft.choices if draft is not None else ONE_STEP,
            release_auto_stockroom=cancellation.case.terms.release_auto_stockroom,
        )

    def _park(self, command: CancelOrder, overflow: QuantityOverflow) -> Invalid:
        # Park the cancellation among the dead jobs for staff, write nothing of it, and continue with the rest.
        if not command.dry_run:
            dead_jobs.park_once(
                self._work.conn,
                task=command.task,
                message_id=command.request_id,
                arguments=command.model_dump(mode="json", exclude_none=True),
                error=f"QuantityOverflow: {overflow}",
                now=self._work.now,
            )
        return Invalid(
            "order_id", f"its items cannot be put back ({overflow}); nothing is written, and staff has it to look at"
        )

    def _join(self, cancellation: PendingCancellation) -> None:
        if cancellation.command.dry_run:
            self._dry_runs.append(cancellation)
            return
        assert cancellation.plan is not None
        self._stock.apply(cancellation.plan)
        super()._join(cancellation)


def _strike_of(cancellation: PendingCancellation) -> tuple[int, str, Role, datetime] | None:
    role = policy.strike_recipient(cancellation.basis)
    return (
        None
        if role is None
        else (
            cancellation.case.order.order_id,
            cancellation.after.member(role).member_id,
            role,
            cancellation.effective_at,
        )
    )
