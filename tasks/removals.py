"""How are items taken out of an order?  Asked for by one party, decided by the other, cancelled with the order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from celery import shared_task
from pydantic import AfterValidator, Field

from models import inventory, ledger, orders, outbox, removals
from models.cases import CaseSet
from models.requests import Answer
from models.unit_of_work import UnitOfWork, unit_of_work
from policies import orders as order_policy
from policies import removals as policy
from policies.cases import Actor, Case
from policies.inventory import plan_return
from policies.notices import notify_party
from policies.purchases import sum_goods
from policies.removals import Removal
from policies.statuses import Role
from policies.verdicts import Code, Event, Granted, OutboxMessage, Refused, Verdict
from tasks.cases import decide_case, lock_cases, prefetch_parties
from tasks.command import ActorCommand, LineNo, OrderCommand, Quantity, RemovalId, StrictBool, StrictModel
from tasks.sweeps import TaskResult

CANCEL_PENDING = "removals.cancel_pending"
MAX_LINES = 1000


class RemovalLine(StrictModel):
    """Units to take out of one line."""

    line_no: LineNo
    quantity: Quantity


def _each_line_once(lines: list[RemovalLine]) -> list[RemovalLine]:
    if len({line.line_no for line in lines}) < len(lines):
        raise ValueError("must name each line once")
    return lines


class RequestRemoval(OrderCommand):
    """Arguments of `removals.request`."""

    task: ClassVar[str] = "removals.request"
    lines: Annotated[list[RemovalLine], Field(min_length=1, max_length=MAX_LINES), AfterValidator(_each_line_once)]
    return_items: StrictBool | None = None


class RemovalCommand(ActorCommand):
    """A command about one removal request; its order follows from it."""

    removal_id: RemovalId


class ApproveRemoval(RemovalCommand):
    """Arguments of `removals.approve`."""

    task: ClassVar[str] = "removals.approve"
    return_items: StrictBool | None = None


class DenyRemoval(RemovalCommand):
    """Arguments of `removals.deny`."""

    task: ClassVar[str] = "removals.deny"


class WithdrawRemoval(RemovalCommand):
    """Arguments of `removals.withdraw`."""

    task: ClassVar[str] = "removals.withdraw"


@shared_task(name=RequestRemoval.task)
def request(commands: list[RequestRemoval]) -> list[Answer]:
    """Either party asks to take units out of lines."""
    with unit_of_work(commands, prefetch=prefetch_parties(commands)) as work:
        cases = lock_cases(work)
        lines = orders.load_lines(work.conn, [c.order_id for c in work.pending])
        asked: list[tuple[RequestRemoval, Removal]] = []

        def decide(command: RequestRemoval, case: Case, now: datetime) -> Verdict:
            wanted = tuple((line.line_no, line.quantity) for line in command.lines)
            removal = policy.request(
                case, command.actor, wanted, command.return_items, _remaining(lines[command.order_id]), now
            )
            if not isinstance(removal, Removal):
                return removal
            asked.append((command, removal))
            note = f"The {removal.requested_by} asks to take {_units(removal)} out of the order."
            return Granted(case, events=(Event("removals.requested", note),))

        verdicts = {c.request_id: decide_case(work, cases, c, decide, order_id=c.order_id) for c in work.pending}
        ids = removals.insert(work.conn, [removal for _, removal in asked])
        known = {command.request_id: removal_id for (command, _), removal_id in zip(asked, ids, strict=True)}
        for command in work.pending:
            verdict = verdicts[command.request_id]
            if isinstance(verdict, Granted):
                verdict = replace(verdict, effects={"removal_id": known[command.request_id]})
            work.answer(command, verdict)
        cases.write(work)
    return work.answers


@shared_task(name=ApproveRemoval.task)
def approve(commands: list[ApproveRemoval]) -> list[Answer]:
    """The other party agrees: units go, and order date, payment and fee start again (T20)."""
    with unit_of_work(commands) as work:
        found = _Requests(work)
        taken_out: list[tuple[Removal, Case, Case]] = []

        def decide(command: ApproveRemoval, case: Case, now: datetime) -> Verdict:
            lines = found.lines[case.order.order_id]
            removal = policy.approve(
                case, found.removals[command.removal_id], command.actor, command.return_items, _remaining(lines), now
            )
            if not isinstance(removal, Removal):
                return removal
            out = dict(removal.lines)
            total = sum_goods((x.quantity - x.removed - out.get(x.line_no, 0), x.unit_price) for x in lines)
            where = "back to the inventory" if _returns(removal, case) else "and not back to the inventory"
            note = f"{_units(removal)} taken out, {where}; order date, payment and fee start again."
            granted = order_policy.restart_order(case, total=total, event=Event("removals.approved", note), now=now)
            taken_out.append((removal, case, granted.case))
            return found.decided(removal, granted)

        found.answer_all(decide)
        found.write()
        _take_out(work, found, taken_out)
    return work.answers


@shared_task(name=DenyRemoval.task)
def deny(commands: list[DenyRemoval]) -> list[Answer]:
    """The other party does not agree: nothing changes."""
    return _close(commands, policy.deny, "removals.denied", "The removal request is denied; nothing changes.")


@shared_task(name=WithdrawRemoval.task)
def withdraw(commands: list[WithdrawRemoval]) -> list[Answer]:
    """Whoever asked takes the request back."""
    return _close(commands, policy.withdraw, "removals.withdrawn", "The removal request is taken back.")


@shared_task(name=CANCEL_PENDING)
def cancel_pending(rows: list[int] | None = None, order_id: int | None = None) -> TaskResult:
    """After a cancellation: whatever is still pending on those orders is cancelled, and both parties are told (R59)."""
    work: UnitOfWork[Any]
    with unit_of_work() as work:
        due = outbox.claim(work.conn, CANCEL_PENDING, rows=rows, order_id=order_id)
        cases = CaseSet(work.conn, [d.order_id for d in due if d.order_id is not None])
        cancelled = removals.cancel_pending(work.conn, [d.order_id for d in due if d.order_id is not None], work.now)
        for order, gone in sorted(cancelled.items()):
            case = cases.get(order, work.now)
            assert case is not None
            told: tuple[OutboxMessage, ...] = tuple(
                notify_party(case, role, "removal_cancelled", removal_ids=[r.removal_id for r in gone])
                for role in (Role.SELLER, Role.BUYER)
            )
            note = f"{len(gone)} pending removal request(s) cancelled with the order."
            instant = max(work.now, case.order.last_event_at or work.now)
            event = Event("removals.cancelled", note, {"removals": {str(r.removal_id): r.state for r in gone}})
            cases.grant(case, Granted(case, events=(event,), messages=told), instant)
        cases.write(work)
        outbox.mark_done(work.conn, due, work.now)
    return {"cancelled": sum(len(gone) for gone in cancelled.values())}


RemovalCommandT = TypeVar("RemovalCommandT", bound=RemovalCommand)


class _Requests(Generic[RemovalCommandT]):
    """The removal requests that a set of commands is about, with their orders held."""

    def __init__(self, work: UnitOfWork[RemovalCommandT]) -> None:
        self.work = work
        known = removals.load_by_id(work.conn, [c.removal_id for c in work.pending])
        self.cases = CaseSet(
            work.conn,
            {r.order_id for r in known.values()},
            member_ids=[c.member_id for c in work.pending if c.member_id is not None],
        )
        self.removals = removals.load_by_id(work.conn, known)  # again: the orders' locks guard them only from here on
        self.lines = orders.load_lines(work.conn, {r.order_id for r in known.values()})
        self._decided: list[Removal] = []

    def answer_all(self, decide: Callable[[RemovalCommandT, Case, datetime], Verdict]) -> None:
        """Ask about each command; one whose request does not exist is answered so."""
        for command in self.work.pending:
            removal = self.removals.get(command.removal_id)
            if removal is None:
                self.work.answer(command, _removal_unknown())
                continue
            verdict = decide_case(self.work, self.cases, command, decide, order_id=removal.order_id)
            self.work.answer(command, verdict, order_id=removal.order_id)

    def decided(self, removal: Removal, granted: Granted) -> Granted:
        """Take a decision; gives the verdict with what the caller and the timeline are told of it."""
        self._decided.append(removal)
        (event,) = granted.events
        told = replace(event, changes={**event.changes, "removals": {str(removal.removal_id): removal.state}})
        effects = {**granted.effects, "removal_id": removal.removal_id, "state": removal.state}
        return replace(granted, events=(told,), effects=effects)

    def write(self) -> None:
        """Write the decisions and the orders."""
        removals.update_changed(self.work.conn, self._decided)
        self.cases.write(self.work)


def _close(
    commands: Sequence[RemovalCommandT],
    decide: Callable[[Case, Removal, Actor, datetime], Removal | Refused],
    event: str,
    note: str,
) -> list[Answer]:
    with unit_of_work(commands) as work:
        found = _Requests(work)

        def close(command: RemovalCommandT, case: Case, now: datetime) -> Verdict:
            removal = decide(case, found.removals[command.removal_id], command.actor, now)
            if not isinstance(removal, Removal):
                return removal
            return found.decided(removal, Granted(case, events=(Event(event, note),)))

        found.answer_all(close)
        found.write()
    return work.answers


def _take_out(work: UnitOfWork[Any], found: _Requests[Any], approved: Sequence[tuple[Removal, Case, Case]]) -> None:
    """Units leave their lines, go back to the shelf where they may, and the fee is that of what remains."""
    coming_back = {
        removal.order_id: inventory.lines_to_return(found.lines[removal.order_id], dict(removal.lines))
        for removal, case, _ in approved
        if _returns(removal, case)
    }
    shelf = inventory.load_stock_view(work.conn, [line for lines in coming_back.values() for line in lines])
    plans = []
    for removal, case, _ in approved:
        if removal.order_id in coming_back:
            plan = plan_return(
                removal.order_id,
                coming_back[removal.order_id],
                shelf,
                release_auto_stockroom=case.terms.release_auto_stockroom,
                removal_id=removal.removal_id,
            )
            shelf.take(plan)
            plans.append(plan)
    inventory.apply_return(work.conn, plans, work.now)
    orders.update_lines(
        work.conn,
        [
            {
                "order_id": removal.order_id,
                "line_no": line.line_no,
                "removed": line.removed + dict(removal.lines)[line.line_no],
            }
            for removal, _, _ in approved
            for line in found.lines[removal.order_id]
            if line.line_no in dict(removal.lines)
        ],
    )
    ledger.post_recharges(
        work.conn,
        [
            ledger.Recharge(before.order, after.order, after.order.order_date, "items were removed from the order")
            for _, before, after in approved
        ],
    )


def _returns(removal: Removal, case: Case) -> bool:
    """A terminated seller's stock is never touched (R65)."""
    return bool(removal.return_items) and not case.seller.terminated


def _remaining(lines: Sequence[Any]) -> dict[int, int]:
    return {line.line_no: line.quantity - line.removed for line in lines}


def _units(removal: Removal) -> str:
    units = sum(quantity for _, quantity in removal.lines)
    return (
        f"{units} unit{'s' if units != 1 else ''} of {len(removal.lines)} line{'s' if len(removal.lines) != 1 else ''}"
    )


def _removal_unknown() -> Refused:
    return Refused(Code.REMOVAL_UNKNOWN, "There is no removal request with this id.")
