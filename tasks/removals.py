"""Commands about item removal requests, and the task that cancels an order's pending ones with the order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from celery import shared_task
from pydantic import Field

from models import inventory, ledger, orders, outbox, removals, returns
from models.cases import CaseChange, CaseSet, lock_case_set
from models.stored_answers import Answer
from models.unit_of_work import UnitOfWork, unit_of_work
from policies import orders as order_policy
from policies import removals as policy
from policies.cases import Actor, Case
from policies.notices import notify_party
from policies.options import Subject
from policies.purchases import MAX_LINES, sum_goods
from policies.removals import Removal
from policies.returns import plan_return
from policies.statuses import Role
from policies.texts import pluralize
from policies.verdicts import Code, Event, Granted, OutboxMessage, Refused, Verdict
from tasks.cases import decide_case, lock_command_cases
from tasks.command import ActorCommand, LineNo, OrderCommand, Quantity, RemovalId, StrictBool, StrictModel, must
from tasks.declarations import SELLER, DeclaredOption, command_task
from tasks.sweeps import TaskResult


class RemovalLine(StrictModel):
    line_no: LineNo
    quantity: Quantity


class RequestRemoval(OrderCommand):
    task: ClassVar[str] = "removals.request"
    lines: Annotated[
        list[RemovalLine],
        Field(min_length=1, max_length=MAX_LINES),
        must("name each line once", lambda lines: len({line.line_no for line in lines}) == len(lines)),
    ]
    return_items: StrictBool | None = None


class RemovalCommand(ActorCommand):
    removal_id: RemovalId


class ApproveRemoval(RemovalCommand):
    task: ClassVar[str] = "removals.approve"
    return_items: StrictBool | None = None


def _removable_unit_lines(subject: Subject) -> list[dict[str, int]]:
    return [{"line_no": n, "quantity": 1} for n in sorted(subject.remaining) if subject.remaining[n] > 0][:1]


@command_task(
    RequestRemoval,
    example=SELLER | {"lines": [{"line_no": 1, "quantity": 2}], "return_items": True},
    option=DeclaredOption(
        "ask for items to be removed",
        lambda c, subject, now: policy.request_removal(
            subject.case,
            c.actor,
            tuple((line["line_no"], line["quantity"]) for line in _removable_unit_lines(subject)),
            None,
            subject.remaining,
            now,
        ),
        lambda subject, _actor: {"lines": _removable_unit_lines(subject), "return_items": None},
    ),
)
def request_removals(commands: list[RequestRemoval]) -> list[Answer]:
    """Request, as either party, that units are removed from lines."""
    with unit_of_work(commands) as work:
        cases = lock_command_cases(work)
        lines = orders.load_order_lines(work.conn, [c.order_id for c in work.pending])
        requested: list[tuple[Removal, Granted]] = []

        def decide(command: RequestRemoval, case: Case, now: datetime) -> Verdict:
            quantities = tuple((line.line_no, line.quantity) for line in command.lines)
            removal = policy.request_removal(
                case,
                command.actor,
                quantities,
                command.return_items,
                policy.units_open_to_removal(lines[command.order_id]),
                now,
            )
            if not isinstance(removal, Removal):
                return removal
            note = f"The {removal.requested_by} asks to take {policy.describe_removed_units(removal)} out of the order."
            granted = Granted(case, events=(Event("removals.requested", note),))
            requested.append((removal, granted))
            return granted

        verdicts = [decide_case(work, cases, c, decide, order_id=c.order_id) for c in work.pending]
        ids = removals.insert_removals(work.conn, [removal for removal, _ in requested])
        for (_, granted), removal_id in zip(requested, ids, strict=True):
            granted.effects["removal_id"] = removal_id
        for command, verdict in zip(work.pending, verdicts, strict=True):
            work.answer(command, verdict)
        cases.write(work)
    return work.answers


@command_task(
    ApproveRemoval,
    example={"removal_id": 12, "member_id": "b-77"},
    option=DeclaredOption(
        "approve the removal request",
        lambda c, o, now: policy.approve_removal(o.case, o.asked_removal, c.actor, None, o.remaining, now),
    ),
)
def approve_removals(commands: list[ApproveRemoval]) -> list[Answer]:
    """Approve a request as the other party: remove the units; order date, payment and fee start again (T20)."""
    with unit_of_work(commands) as work:
        batch = _RemovalBatch.lock(work)
        approved: list[tuple[Removal, Case, Case]] = []

        def decide(command: ApproveRemoval, case: Case, now: datetime) -> Verdict:
            lines = batch.lines[case.order.order_id]
            removal = policy.approve_removal(
                case,
                batch.removals[command.removal_id],
                command.actor,
                command.return_items,
                policy.units_open_to_removal(lines),
                now,
            )
            if not isinstance(removal, Removal):
                return removal
            removed = dict(removal.lines)
            total = sum_goods((x.quantity - x.removed - removed.get(x.line_no, 0), x.unit_price) for x in lines)
            note = policy.describe_approved_removal(removal, case)
            granted = order_policy.restart_order(case, total=total, event=Event("removals.approved", note), now=now)
            approved.append((removal, case, granted.case))
            return batch.record_decision(removal, granted)

        batch.decide_all(decide)
        batch.write()
        batch.write_approved(approved)
    return work.answers


@command_task(
    RemovalCommand,
    name="removals.deny",
    example={"removal_id": 12, "member_id": "b-77"},
    option=DeclaredOption(
        "deny the removal request", lambda c, o, now: policy.deny_removal(o.case, o.asked_removal, c.actor, now)
    ),
)
def deny_removals(commands: list[RemovalCommand]) -> list[Answer]:
    """Deny a request as the other party; nothing else changes."""
    return _close_removals(
        commands, policy.deny_removal, "removals.denied", "The removal request is denied; nothing changes."
    )


@command_task(
    RemovalCommand,
    name="removals.withdraw",
    example={"removal_id": 12, "member_id": "s-881"},
    option=DeclaredOption(
        "withdraw the removal request", lambda c, o, now: policy.withdraw_removal(o.case, o.asked_removal, c.actor, now)
    ),
)
def withdraw_removals(commands: list[RemovalCommand]) -> list[Answer]:
    """Withdraw a request as the party who made it."""
    return _close_removals(commands, policy.withdraw_removal, "removals.withdrawn", "The removal request is withdrawn.")


@shared_task(name=policy.CANCEL_REMOVALS_TASK)
def cancel_pending_removals(rows: list[int] | None = None, order_id: int | None = None) -> TaskResult:
    """Cancel the pending requests of cancelled orders and notify both parties (R59). Return how many were cancelled."""
    with unit_of_work() as work:
        due = work.claim_messages(policy.CANCEL_REMOVALS_TASK, rows, order_id)
        order_ids = [d.order_id for d in due if d.order_id is not None]
        cases = lock_case_set(work.conn, order_ids)
        cancelled = removals.cancel_pending_removals(work.conn, order_ids, work.now)
        for cancelled_order_id, requests in sorted(cancelled.items()):
            case = cases.get(cancelled_order_id, work.now)
            assert case is not None
            messages: tuple[OutboxMessage, ...] = tuple(
                notify_party(case, role, "removal_cancelled", removal_ids=[r.removal_id for r in requests])
                for role in (Role.SELLER, Role.BUYER)
            )
            number = pluralize(len(requests), "pending removal request", "pending removal requests")
            effective_at = max(work.now, case.order.last_event_at or work.now)
            changes = {"removals": {str(r.removal_id): r.state for r in requests}}
            event = Event("removals.cancelled", f"{number} cancelled with the order.", changes)
            cases.add(CaseChange(case, Granted(case, events=(event,), messages=messages), effective_at))
        cases.write(work)
        outbox.mark_messages_done(work.conn, due, work.now)
    return {"cancelled": sum(len(requests) for requests in cancelled.values())}


RemovalCommandT = TypeVar("RemovalCommandT", bound=RemovalCommand)


@dataclass
class _RemovalBatch(Generic[RemovalCommandT]):
    work: UnitOfWork[RemovalCommandT]
    cases: CaseSet
    removals: dict[int, Removal]
    lines: Mapping[int, Sequence[Any]]
    _changed_removals: list[Removal] = field(default_factory=list)

    @classmethod
    def lock(cls, work: UnitOfWork[RemovalCommandT]) -> _RemovalBatch[RemovalCommandT]:
        known = removals.load_removals(work.conn, [c.removal_id for c in work.pending])
        order_ids = {removal.order_id for removal in known.values()}
        actors = [c.member_id for c in work.pending if c.member_id is not None]
        return cls(
            work,
            lock_case_set(work.conn, order_ids, member_ids=actors),
            removals.load_removals(work.conn, known),  # read again, now that the orders are locked
            orders.load_order_lines(work.conn, order_ids),
        )

    def decide_all(self, decide: Callable[[RemovalCommandT, Case, datetime], Verdict]) -> None:
        for command in self.work.pending:
            removal = self.removals.get(command.removal_id)
            if removal is None:
                unknown = f"There is no removal request {command.removal_id}."
                self.work.answer(command, Refused(Code.REMOVAL_UNKNOWN, unknown))
                continue
            verdict = decide_case(self.work, self.cases, command, decide, order_id=removal.order_id)
            self.work.answer(command, verdict, order_id=removal.order_id)

    def record_decision(self, removal: Removal, granted: Granted) -> Granted:
        self._changed_removals.append(removal)
        (event,) = granted.events
        changed_event = replace(event, changes={**event.changes, "removals": {str(removal.removal_id): removal.state}})
        effects = {**granted.effects, "removal_id": removal.removal_id, "state": removal.state}
        return replace(granted, events=(changed_event,), effects=effects)

    def write(self) -> None:
        removals.update_removals(self.work.conn, self._changed_removals)
        self.cases.write(self.work)

    def write_approved(self, approved: Sequence[tuple[Removal, Case, Case]]) -> None:
        conn, now = self.work.conn, self.work.now
        returning = {
            removal.order_id: orders.order_lines_to_return(self.lines[removal.order_id], dict(removal.lines))
            for removal, case, _ in approved
            if policy.removal_returns_to_stock(removal, case)
        }
        stock = inventory.load_stock_view(conn, [line for lines in returning.values() for line in lines])
        plans = []
        for removal, case, _ in approved:
            if removal.order_id in returning:
                plan = plan_return(
                    removal.order_id,
                    returning[removal.order_id],
                    stock,
                    release_auto_stockroom=case.terms.release_auto_stockroom,
                    removal_id=removal.removal_id,
                )
                stock.apply(plan)
                plans.append(plan)
        returns.store_planned_returns(conn, plans, now)
        orders.update_order_lines(
            conn,
            [
                {"order_id": removal.order_id, "line_no": line.line_no, "removed": line.removed + units[line.line_no]}
                for removal, _, _ in approved
                for units in [dict(removal.lines)]
                for line in self.lines[removal.order_id]
                if line.line_no in units
            ],
        )
        ledger.post_ledger_recharges(
            conn,
            [
                ledger.LedgerRecharge(
                    before.order, after.order, after.order.order_date, "items were removed from the order"
                )
                for _, before, after in approved
            ],
        )


def _close_removals(
    commands: Sequence[RemovalCommandT],
    decide: Callable[[Case, Removal, Actor, datetime], Removal | Refused],
    event: str,
    note: str,
) -> list[Answer]:
    with unit_of_work(commands) as work:
        batch = _RemovalBatch.lock(work)

        def close(command: RemovalCommandT, case: Case, now: datetime) -> Verdict:
            removal = decide(case, batch.removals[command.removal_id], command.actor, now)
            if not isinstance(removal, Removal):
                return removal
            return batch.record_decision(removal, Granted(case, events=(Event(event, note),)))

        batch.decide_all(close)
        batch.write()
    return work.answers
