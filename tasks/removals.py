"""Commands about item removal requests, and the task that cancels an order's pending ones with the order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, ClassVar

from celery import shared_task
from pydantic import Field

from models import inventory, ledger, orders, outbox, removals, returns
from models.cases import CaseChange, lock_case_set
from models.stored_answers import Answer
from models.unit_of_work import UnitOfWork, unit_of_work
from policies import orders as order_policy
from policies import removals as policy
from policies.cases import Actor, Case
from policies.notices import notify_party
from policies.options import Subject
from policies.purchases import MAX_LINES, sum_goods
from policies.removals import Removal, RemovalState
from policies.returns import plan_return
from policies.statuses import Role
from policies.texts import pluralize
from policies.verdicts import Event, Granted, GrantedPart, OutboxMessage, Verdict
from tasks.cases import decide_case, decide_parts, lock_command_cases
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


def _removable_unit_lines(subject: Subject, _actor: Actor) -> dict[str, Any]:
    lines = [{"line_no": n, "quantity": 1} for n in sorted(subject.remaining) if subject.remaining[n] > 0][:1]
    return {"lines": lines, "return_items": None}


def _request(command: RequestRemoval, case: Case, remaining: Mapping[int, int], now: datetime) -> Verdict:
    lines = [dict(line) for line in command.lines]  # those of an option are dictionaries already
    units = tuple((line["line_no"], line["quantity"]) for line in lines)
    return policy.request_removal(case, command.actor, units, command.return_items, remaining, now)


@command_task(
    RequestRemoval,
    example=SELLER | {"lines": [{"line_no": 1, "quantity": 2}], "return_items": True},
    option=DeclaredOption(
        "ask for items to be removed", lambda c, o, now: _request(c, o.case, o.remaining, now), _removable_unit_lines
    ),
)
def request_removals(commands: list[RequestRemoval]) -> list[Answer]:
    """Request, as either party, that units are removed from lines."""
    with unit_of_work(commands) as work:
        cases = lock_command_cases(work)
        lines = orders.load_order_lines(work.conn, [c.order_id for c in work.pending])

        def decide(command: RequestRemoval, case: Case, now: datetime) -> Verdict:
            return _request(command, case, policy.units_open_to_removal(lines[command.order_id]), now)

        verdicts = [decide_case(work, cases, c, decide, order_id=c.order_id) for c in work.pending]
        requested = [verdict for verdict in verdicts if isinstance(verdict, GrantedPart)]
        ids = removals.insert_removals(work.conn, [granted.part for granted in requested])
        for granted, removal_id in zip(requested, ids, strict=True):
            granted.effects["removal_id"] = removal_id
        for command, verdict in zip(work.pending, verdicts, strict=True):
            work.answer(command, verdict)
        cases.write(work)
    return work.answers


def _declare_decision(
    name: str,
    decide: Callable[[Any, Case, Any, Mapping[int, int], datetime], Verdict],
    about: str,
    *,
    member_id: str,
    option: str,
    arguments: Mapping[str, Any] | None = None,
) -> None:
    def run(commands: list[Any]) -> list[Answer]:
        approvals: list[_Approval] = []

        def decide_removal(
            _conn: Any, command: Any, case: Case, removal: Removal, lines: Sequence[Any], now: datetime
        ) -> Verdict:
            verdict = decide(command, case, removal, policy.units_open_to_removal(lines), now)
            if isinstance(verdict, GrantedPart) and verdict.part.state is RemovalState.APPROVED:
                verdict = _restart_order(verdict, lines, now)
                approvals.append((case, verdict, lines))
            return verdict

        def write(work: UnitOfWork[Any], changed: Sequence[Removal]) -> None:
            removals.update_removals(work.conn, changed)
            _write_approvals(work, approvals)

        return decide_parts(
            commands,
            key="removal_id",
            load=removals.load_removals,
            unknown=policy.removal_unknown,
            decide=decide_removal,
            write=write,
        )

    run.__doc__ = about
    command_task(
        RemovalCommand,
        name=name,
        arguments=arguments,
        example={"removal_id": 12, "member_id": member_id},
        option=DeclaredOption(option, lambda c, o, now: decide(c, o.case, o.removal, o.remaining, now)),
    )(run)


_declare_decision(
    "removals.approve",
    lambda c, case, removal, remaining, now: policy.approve_removal(
        case, removal, c.actor, c.return_items, remaining, now
    ),
    "Approve a request as the other party: remove the units; order date, payment and fee start again (T20).",
    member_id="b-77",
    option="approve the removal request",
    arguments={"return_items": (StrictBool | None, None)},
)

_declare_decision(
    "removals.deny",
    lambda c, case, removal, _remaining, now: policy.close_removal(case, removal, c.actor, RemovalState.DENIED, now),
    "Deny a request as the other party; nothing else changes.",
    member_id="b-77",
    option="deny the removal request",
)

_declare_decision(
    "removals.withdraw",
    lambda c, case, removal, _remaining, now: policy.close_removal(case, removal, c.actor, RemovalState.WITHDRAWN, now),
    "Withdraw a request as the party who made it.",
    member_id="s-881",
    option="withdraw the removal request",
)


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
            cases.add(CaseChange(case, Granted(case, event=event, messages=messages), effective_at))
        cases.write(work)
        outbox.mark_messages_done(work.conn, due, work.now)
    return {"cancelled": sum(len(requests) for requests in cancelled.values())}


_Approval = tuple[Case, GrantedPart[Removal], Sequence[Any]]
"""The case before an approval, the approval, and the order's lines."""


def _restart_order(approval: GrantedPart[Removal], lines: Sequence[Any], now: datetime) -> GrantedPart[Removal]:
    removed = dict(approval.part.lines)
    total = sum_goods((x.quantity - x.removed - removed.get(x.line_no, 0), x.unit_price) for x in lines)
    restarted = order_policy.restart_order(approval.case, total=total, event=approval.event, now=now)
    return replace(approval, case=restarted.case, effects=restarted.effects | approval.effects)


def _write_approvals(work: UnitOfWork[Any], approvals: Sequence[_Approval]) -> None:
    conn = work.conn
    returning = {
        case.order.order_id: orders.order_lines_to_return(lines, dict(approval.part.lines))
        for case, approval, lines in approvals
        if policy.removal_returns_to_stock(approval.part, case)
    }
    stock = inventory.load_stock_view(conn, {line.item.key for lines in returning.values() for line in lines})
    plans = []
    for case, approval, _ in approvals:
        if case.order.order_id in returning:
            plan = plan_return(
                case.order.order_id,
                returning[case.order.order_id],
                stock,
                release_auto_stockroom=case.terms.release_auto_stockroom,
                removal_id=approval.part.removal_id,
            )
            stock.apply(plan)
            plans.append(plan)
    returns.store_planned_returns(conn, plans, work.now)
    orders.update_order_lines(
        conn,
        [
            {"order_id": line.order_id, "line_no": line.line_no, "removed": line.removed + units[line.line_no]}
            for _, approval, lines in approvals
            for units in [dict(approval.part.lines)]
            for line in lines
            if line.line_no in units
        ],
    )
    reason = "items were removed from the order"
    fees = [
        ledger.charge_lines(approval.case.order, approval.case.order.order_date, before=case.order, reason=reason)
        for case, approval, _ in approvals
    ]
    ledger.post_fee_lines(conn, [line for lines in fees for line in lines])
