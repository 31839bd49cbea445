"""How is an order unwound?  One transaction: status, stock, alert, strike and answer; what follows is promised by its commit.

`orders.cancel` is a set of one, `orders.cancel_many` brings up to a thousand in sets of a hundred.  The number of statements
does not depend on the number of orders.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Annotated, Any, ClassVar

from celery import current_task, shared_task
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
from policies.statuses import Basis, Role
from policies.verdicts import Granted, Invalid, Refused, Verdict
from tasks.cases import effective_time, known_case, lock_cases, prefetch_parties
from tasks.command import (
    MAX_REQUEST_ID_LENGTH,
    CodeText,
    Command,
    Comment,
    DraftId,
    OrderCommand,
    StrictBool,
    StrictModel,
    parse_command,
)

BATCH_SIZE = 100
"""Orders of one transaction: the knee of the measured curve, 1,000 gain nothing (speed.md)."""
MAX_ORDERS = 1000


class CancelOrder(OrderCommand):
    """Arguments of `orders.cancel`, and of each item of `orders.cancel_many`."""

    task: ClassVar[str] = "orders.cancel"
    reason: CodeText | None = None
    comment: Comment | None = None
    draft_id: DraftId | None = None
    dry_run: StrictBool = False


class InvalidItem(StrictModel):
    """An item of `orders.cancel_many` that says no command: the answer to it, and by which a twin of it is known."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    answer: Answer
    hash: str


class CancelMany(Command):
    """Arguments of `orders.cancel_many`; a bad item is answered by itself and stops no other."""

    task: ClassVar[str] = "orders.cancel_many"
    orders: Annotated[
        list[CancelOrder | InvalidItem],
        Field(min_length=1, max_length=MAX_ORDERS),
        WithJsonSchema({"type": "array", "minItems": 1, "maxItems": MAX_ORDERS}),
    ]

    @field_validator("orders", mode="before")
    @classmethod
    def _each_by_itself(cls, items: Any, info: ValidationInfo) -> Any:
        if not isinstance(items, list) or len(items) > MAX_ORDERS:
            return items  # `invalid` as a whole
        return [_item(item, index, info.data.get("request_id", "")) for index, item in enumerate(items)]


def _item(item: Any, index: int, request_id: str) -> CancelOrder | InvalidItem:
    item_id = _item_id(request_id, index)
    if isinstance(item, dict):
        read = parse_command(CancelOrder, item, item_id)
    else:
        read = invalid(item_id, [(f"orders.{index}", "must be an object with order_id and member_id")])
    if isinstance(read, Answer):
        return InvalidItem(answer=read, hash=dead_jobs.payload_hash({"item": item}).hex())
    return read


@shared_task(name=CancelOrder.task)
def cancel(commands: list[CancelOrder]) -> list[Answer]:
    """Agree to a buyer's request, or cancel on any ground that is open."""
    return _cancel_set(commands)


@shared_task(name=CancelMany.task)
def cancel_many(commands: list[CancelMany]) -> list[Answer]:
    """Cancel many orders, one answer each, in order."""
    return [_cancel_many(command) for command in commands]


def _cancel_many(command: CancelMany) -> Answer:
    answers: dict[int, Answer] = {}
    understood_items: list[tuple[int, CancelOrder]] = []
    for index, item in enumerate(command.orders):
        if isinstance(item, InvalidItem):
            answers[index] = item.answer
        elif item.request_id == command.request_id:
            answers[index] = conflict(item)
        else:
            if command.accepted_at is not None:
                item.accept(command.accepted_at)
            understood_items.append((index, item))
    whole = BulkCancellation(command, answers)
    for chunk in _sets(understood_items):
        retry_on_conflict(partial(whole.execute, chunk))
        if whole.earlier is not None:
            return whole.earlier
        if len(answers) < len(command.orders):
            _tell_progress(len(answers), len(command.orders))
    return whole.answer


class BulkCancellation:
    """A command about many orders.  Its own answer is kept by the commit of its last set, which saves a commit of its own."""

    def __init__(self, command: CancelMany, answers: dict[int, Answer]) -> None:
        """`answers`: those that are known already, by place."""
        self.command = command
        self.earlier: Answer | None = None
        """Its answer, when it was answered before."""
        self.answer: Answer
        """Its answer, once its last set is answered."""
        self._answers = answers
        self._places: list[int] = []

    def execute(self, chunk: Sequence[tuple[int, CancelOrder]]) -> None:
        """Cancel one set, if the whole was not answered before."""
        self._places = [index for index, _ in chunk]
        _cancel_set([item for _, item in chunk], self)

    def keep(self, work: UnitOfWork[CancelOrder]) -> None:
        """Take the answers of a set that is about to be committed; with the last of them the whole is answered."""
        self._answers.update(zip(self._places, work.answers, strict=True))
        if len(self._answers) == len(self.command.orders):
            self.answer = self._of_all()
            work.store_answer(self.command, self.answer)

    def _of_all(self) -> Answer:
        """One answer per order, in order, and how many of each outcome."""
        in_order = [self._answers[index].as_json() for index in range(len(self.command.orders))]
        outcomes = [answer["outcome"] for answer in in_order]
        counts = {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))}
        return done(self.command, {"answers": in_order, "counts": counts})


def _tell_progress(answered: int, of: int) -> None:
    """Where a worker carries this out for somebody who waits, the task's meta says how far it is; losing that loses nothing."""
    if not current_task or current_task.name != CancelMany.task or current_task.request.ignore_result:
        return
    with suppress(Exception):
        current_task.update_state(state="PROGRESS", meta={"answered": answered, "of": of})


def _item_id(request_id: str, index: int) -> str:
    """`<request_id>:<index>` (contract 2.3), or its hash where that would be longer than a request id may be."""
    written = f"{request_id}:{index}"
    return written if len(written) <= MAX_REQUEST_ID_LENGTH else hashlib.sha256(written.encode()).hexdigest()


def _sets(items: Sequence[tuple[int, CancelOrder]]) -> list[list[tuple[int, CancelOrder]]]:
    """Sets of at most a hundred in which no order and no request id stands twice: the second waits for a later set.

    There is one at least, be it empty: it answers for a command in which no order could be understood.
    """
    sets: list[list[tuple[int, CancelOrder]]] = [[]]
    seen: list[set[int | str]] = [set()]
    first_open = 0
    for index, item in items:
        number = first_open
        while len(sets[number]) >= BATCH_SIZE or item.order_id in seen[number] or item.request_id in seen[number]:
            number += 1
            if number == len(sets):
                sets.append([])
                seen.append(set())
        sets[number].append((index, item))
        seen[number] |= {item.order_id, item.request_id}
        while first_open < len(sets) - 1 and len(sets[first_open]) >= BATCH_SIZE:
            first_open += 1
    return sets


@dataclass
class PendingCancellation:
    """One order of the set that will be cancelled, with what is decided about it."""

    command: CancelOrder
    case: Case
    granted: Granted
    instant: datetime
    plan: ReturnPlan | None = None
    """Where everything goes, where the pure plan decided it."""
    back: ReturnTotals = field(default_factory=ReturnTotals)

    @property
    def after(self) -> Case:
        return self.granted.case

    @property
    def basis(self) -> Basis:
        assert self.after.order.basis is not None
        return self.after.order.basis

    @property
    def returns(self) -> bool:
        """Whether what remains goes back to the seller's inventory."""
        return policy.returns_items(self.basis, seller_terminated=self.case.seller.terminated)


def _cancel_set(commands: Sequence[CancelOrder], whole: BulkCancellation | None = None) -> list[Answer]:
    """One statement returns the items of the whole set; where it cannot, everything is done again by the pure plan."""
    if not any(c.draft_id is not None or c.dry_run for c in commands):
        with suppress(NeedsPlan):
            return _unwind(commands, whole, by_hand=False)
    return _unwind(commands, whole, by_hand=True)


def _unwind(commands: Sequence[CancelOrder], whole: BulkCancellation | None, *, by_hand: bool) -> list[Answer]:
    part_of = whole.command if whole is not None else None
    with unit_of_work(commands, parent=part_of, prefetch=prefetch_parties(commands)) as work:
        if whole is not None and work.parent_answer is not None:
            whole.earlier = work.parent_answer
            return []
        unwinder = (_UnwinderByHand if by_hand else _Unwinder)(work)
        for command in work.pending:
            verdict = unwinder.judge(command)
            if not isinstance(verdict, Granted):
                work.answer(command, verdict)
        unwinder.execute()
        if whole is not None:
            whole.keep(work)
        with pipeline(work.conn):
            unwinder.write()
            work.send_answers()
    return work.answers


class _Unwinder:
    """Decides a set of cancellations in order, each seeing what the ones before it did, and then writes them all."""

    def __init__(self, work: UnitOfWork[CancelOrder]) -> None:
        """Take every lock the set may need; only then is the clock read."""
        self._work = work
        self._cases = lock_cases(work, lock_members=members.FOR_UPDATE_IF_ACCUSED, then=self._lock_stock)
        self._real: list[PendingCancellation] = []

    def _lock_stock(self) -> None:
        ids = [c.order_id for c in self._work.pending]
        self._removals = removals.send_pending(self._work.conn, ids)
        returns.lock_stock(self._work.conn, ids)
        self._work.send_clock_query()  # when all locks are held

    def judge(self, command: CancelOrder) -> Verdict:
        """Ask the policies; a granted cancellation joins the set with the strike it gives."""
        case = known_case(self._cases, command.order_id, command.member_id, self._work.now)
        if not isinstance(case, Case):
            return case
        if unknown := self._draft_unknown(command):
            return unknown
        instant = effective_time(command, case, self._work.now)
        if isinstance(instant, Invalid):
            return instant
        verdict = policy.cancel(case, command.actor, command.reason, command.comment, instant)
        if not isinstance(verdict, Granted):
            return verdict
        if not self._cases.accused and policy.may_cause_strike(case):
            raise StaleRead("an alert was filed between the look and the locks")
        one = PendingCancellation(command, case, cancellation_effects.apply_strike(case, verdict), instant)
        if no := self._planned(one):
            return no
        self._join(one)
        return verdict

    def execute(self) -> None:
        """Return the items, decide fees and followers, and answer."""
        self._return_items()
        pending = removals.fetch_pending(self._removals)
        for one in self._decided:
            one.granted = cancellation_effects.add_cancellation_effects(
                one.case,
                one.granted,
                one.back,
                by=one.case.role_of(one.command.actor),
                at=one.instant,
                pending_removals=pending.get(one.case.order.order_id, 0),
            )
            self._work.answer(one.command, one.granted, store=not one.command.dry_run)
        for one in self._real:
            self._grant(one)

    def write(self) -> None:
        """Write the whole set."""
        members.insert_strikes(self._work.conn, [given for one in self._real if (given := _strike_of(one))])
        used = [one.command.draft_id for one in self._real if one.command.draft_id is not None]
        drafts.mark_used(self._work.conn, used, self._work.now)
        self._cases.write(self._work)

    @property
    def _decided(self) -> Sequence[PendingCancellation]:
        return self._real

    def _draft_unknown(self, _command: CancelOrder) -> Refused | None:
        return None

    def _planned(self, _one: PendingCancellation) -> Refused | Invalid | None:
        """What speaks against it in where its items would go: nothing that the one statement would not find itself."""
        return None

    def _return_items(self) -> None:
        back = returns.return_items(
            self._work.conn,
            [(one.case.order.order_id, one.returns) for one in self._real],
            self._work.now,
            release=any(one.case.terms.release_auto_stockroom for one in self._real),
        )
        for one in self._real:
            one.back = back[one.case.order.order_id]

    def _join(self, one: PendingCancellation) -> None:
        self._cases.set_member(one.after.buyer)
        self._cases.set_member(one.after.seller)
        self._real.append(one)

    def _grant(self, one: PendingCancellation) -> None:
        # Members stand as the whole set leaves them: a later order of the set may have given them another strike.
        granted, after = one.granted, one.after
        buyer, seller = (self._cases.members[member.member_id] for member in (after.buyer, after.seller))
        if buyer is not after.buyer or seller is not after.seller:
            granted = replace(granted, case=replace(after, buyer=buyer, seller=seller))
        self._cases.grant(one.case, granted, one.instant, actor=one.command.actor, request_id=one.command.request_id)


class _UnwinderByHand(_Unwinder):
    """The same with the pure plan of each return: for drafts, dry runs, full lots and lots that leave their stockroom."""

    def _lock_stock(self) -> None:
        """Lots are held when the cases are known: whoever plans needs them here."""
        self._removals = removals.send_pending(self._work.conn, [c.order_id for c in self._work.pending])

    def __init__(self, work: UnitOfWork[CancelOrder]) -> None:
        """Bring the lines, the lots and the drafts here as well."""
        super().__init__(work)
        self._drafts = drafts.load_drafts(work.conn, [c.draft_id for c in work.pending if c.draft_id is not None])
        self._lines = orders.load_lines(work.conn, self._cases.orders)
        self._returning = {order_id: inventory.lines_to_return(lines) for order_id, lines in self._lines.items()}
        self._shelf = inventory.load_stock_view(
            work.conn,
            [line for lines in self._returning.values() for line in lines],
            lock=any(not c.dry_run for c in work.pending),
        )
        self._dry: list[PendingCancellation] = []

    @property
    def _decided(self) -> Sequence[PendingCancellation]:
        return [*self._dry, *self._real]

    def _draft_unknown(self, command: CancelOrder) -> Refused | None:
        if command.draft_id is None:
            return None
        draft = self._drafts.get(command.draft_id)
        return (
            draft_policy.draft_unknown(command.order_id)
            if draft is None or draft.order_id != command.order_id
            else None
        )

    def _planned(self, one: PendingCancellation) -> Refused | Invalid | None:
        draft = self._drafts[one.command.draft_id] if one.command.draft_id is not None else None
        if draft is not None and (
            refused := draft_policy.check_ready_to_cancel(draft, one.case, one.basis, one.instant)
        ):
            return refused
        try:
            one.plan = self._plan(one, draft)
        except QuantityOverflow as full:
            return self._parked(one.command, full)
        return draft_policy.check_plan(one.plan) if draft is not None else None

    def _return_items(self) -> None:
        foreseen = inventory.preview_returns(self._work.conn, [one.plan for one in self._dry if one.plan is not None])
        plans = [one.plan for one in self._real if one.plan is not None]
        settled = inventory.apply_return(self._work.conn, plans, self._work.now)
        for one, plan in zip(self._decided, [*foreseen, *settled], strict=True):
            one.back = plan.returned

    def _plan(self, one: PendingCancellation, draft: Draft | None) -> ReturnPlan:
        order_id = one.case.order.order_id
        if not one.returns:
            return plan_nothing(order_id, [line.line_no for line in self._lines[order_id]])
        return plan_return(
            order_id,
            self._returning[order_id],
            self._shelf,
            choices=draft.choices if draft is not None else ONE_STEP,
            release_auto_stockroom=one.case.terms.release_auto_stockroom,
        )

    def _parked(self, command: CancelOrder, full: QuantityOverflow) -> Invalid:
        """C25: nothing of this cancellation is written, staff finds it among the dead jobs, the rest of the set goes on."""
        if not command.dry_run:
            dead_jobs.park_once(
                self._work.conn,
                task=command.task,
                message_id=command.request_id,
                arguments=command.model_dump(mode="json", exclude_none=True),
                error=f"TooManyUnits: {full}",
                now=self._work.now,
            )
        return Invalid(
            "order_id", f"its items cannot be put back ({full}); nothing is written, and staff has it to look at"
        )

    def _join(self, one: PendingCancellation) -> None:
        if one.command.dry_run:
            self._dry.append(one)
            return
        assert one.plan is not None
        self._shelf.take(one.plan)
        super()._join(one)


def _strike_of(one: PendingCancellation) -> tuple[int, str, Role, datetime] | None:
    role = policy.strike_recipient(one.basis)
    return None if role is None else (one.case.order.order_id, one.after.member(role).member_id, role, one.instant)
