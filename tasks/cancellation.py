"""How is an order unwound?  One transaction: status, stock, alert, strike and answer; what follows is promised by its commit.

`orders.cancel` is a set of one, `orders.cancel_many` brings up to a thousand in sets of a hundred.  The number of statements
does not depend on the number of orders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Annotated, Any, ClassVar

from celery import shared_task
from pydantic import Field

from models import alerts, drafts, inventory, members, orders, removals
from models.cases import Cases
from models.requests import Answer, done, invalid
from models.work import Overtaken, Work, at_once, unit_of_work
from policies import cancellation as policy
from policies import credits
from policies import drafts as draft_policy
from policies import members as member_policy
from policies.cases import Case, Member
from policies.consolidation import ONE_STEP
from policies.drafts import Draft
from policies.inventory import Returning, ReturnPlan, nothing_returns, plan_return
from policies.notices import tell, told
from policies.statuses import Role
from policies.verdicts import Granted, Invalid, Promise, Refused, Verdict
from tasks.cases import instant_of, known_case, lock_cases
from tasks.command import Command, Comment, DraftId, OrderCommand, Switch, Word, understood

SET_SIZE = 100
"""Orders of one transaction: the knee of the measured curve, 1,000 gain nothing (speed.md)."""
MOST_ORDERS = 1000


class CancelOrder(OrderCommand):
    """Arguments of `orders.cancel`, and of each item of `orders.cancel_many`."""

    task: ClassVar[str] = "orders.cancel"
    reason: Word | None = None
    comment: Comment | None = None
    draft_id: DraftId | None = None
    dry_run: Switch = False


class CancelMany(Command):
    """Arguments of `orders.cancel_many`; a bad item is answered by itself and stops no other."""

    task: ClassVar[str] = "orders.cancel_many"
    orders: Annotated[list[Any], Field(min_length=1, max_length=MOST_ORDERS)]


@shared_task(name=CancelOrder.task)
def cancel(commands: list[CancelOrder]) -> list[Answer]:
    """Agree to a buyer's request, or cancel on any ground that is open."""
    return _cancel_set(commands)


@shared_task(name=CancelMany.task)
def cancel_many(commands: list[CancelMany]) -> list[Answer]:
    """Cancel many orders, one answer each, in order."""
    return [_cancel_many(command) for command in commands]


def _cancel_many(command: CancelMany) -> Answer:
    with unit_of_work([command]) as work:
        if not work.fresh:
            return work.answers[0]
    answers: dict[int, Answer] = {}
    understood_items: list[tuple[int, CancelOrder]] = []
    for index, item in enumerate(command.orders):
        item_id = f"{command.request_id}:{index}"
        if not isinstance(item, dict):
            answers[index] = invalid(item_id, [(f"orders.{index}", "must be an object with order_id and member_id")])
            continue
        read = understood(CancelOrder, item, item_id)
        if isinstance(read, Answer):
            answers[index] = read
        else:
            understood_items.append((index, read))
    for chunk in _sets(understood_items):
        found = at_once(partial(_cancel_set, [item for _, item in chunk]))
        answers.update(zip((index for index, _ in chunk), found, strict=True))
    in_order = [answers[index].as_json() for index in range(len(command.orders))]
    outcomes = [answer["outcome"] for answer in in_order]
    effects = {"answers": in_order, "counts": {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))}}
    with unit_of_work([command]) as work:
        for one in work.fresh:
            work.answer(one, done(one, effects))
    return work.answers[0]


def _sets(items: Sequence[tuple[int, CancelOrder]]) -> list[list[tuple[int, CancelOrder]]]:
    """Sets of at most a hundred in which no order and no request id stands twice: the second waits for a later set."""
    sets: list[list[tuple[int, CancelOrder]]] = [[]]
    seen: list[set[int | str]] = [set()]
    first_open = 0
    for index, item in items:
        number = first_open
        while len(sets[number]) >= SET_SIZE or item.order_id in seen[number] or item.request_id in seen[number]:
            number += 1
            if number == len(sets):
                sets.append([])
                seen.append(set())
        sets[number].append((index, item))
        seen[number] |= {item.order_id, item.request_id}
        while first_open < len(sets) - 1 and len(sets[first_open]) >= SET_SIZE:
            first_open += 1
    return [one for one in sets if one]


@dataclass
class _Unwinding:
    """One order of the set that will be cancelled, with what is decided about it so far."""

    command: CancelOrder
    case: Case
    granted: Granted
    instant: datetime
    plan: ReturnPlan | None = None
    draft: Draft | None = None

    @property
    def after(self) -> Case:
        return self.granted.case

    @property
    def dry(self) -> bool:
        return self.command.dry_run


class _DraftsDoNotFit(Exception):
    """The lots changed since these drafts were verified: the set is done again with their commands refused."""

    def __init__(self, refused: dict[str, Refused]) -> None:
        super().__init__(f"{len(refused)} drafts do not fit the inventory any more")
        self.refused = refused


def _cancel_set(commands: Sequence[CancelOrder]) -> list[Answer]:
    misfits: dict[str, Refused] = {}
    while True:
        try:
            return _cancel_once(commands, misfits)
        except _DraftsDoNotFit as found:
            misfits |= found.refused


def _cancel_once(commands: Sequence[CancelOrder], misfits: dict[str, Refused]) -> list[Answer]:
    with unit_of_work(commands) as work:
        at_stake = alerts.any_open(work.conn, [c.order_id for c in work.fresh])
        cases = lock_cases(work, lock_members=members.FOR_UPDATE if at_stake else members.FOR_SHARE)
        unwinding: list[_Unwinding] = []
        prepared = drafts.facts(work.conn, [c.draft_id for c in work.fresh if c.draft_id is not None])
        for command in work.fresh:
            refused = misfits.get(command.request_id)
            verdict = refused or _judged(work, cases, command, unwinding, prepared.get(command.draft_id or ""))
            if not isinstance(verdict, Granted):
                work.answer(command, verdict)
        if not at_stake and any(policy.could_strike(u.case) for u in unwinding):
            raise Overtaken("an alert was filed between the look and the locks")
        _plan_stock(work, unwinding)
        pending = removals.of_orders(work.conn, [u.case.order.order_id for u in unwinding], pending=True)
        for one in unwinding:
            waiting = len(pending.get(one.case.order.order_id, ()))
            _decide_consequences(one, waiting)
            work.answer(one.command, one.granted, keep=not one.dry)
        _write(work, cases, [u for u in unwinding if not u.dry])
    return work.answers


def _judged(
    work: Work[CancelOrder], cases: Cases, command: CancelOrder, unwinding: list[_Unwinding], draft: Draft | None
) -> Verdict:
    """Ask the policy; a granted cancellation joins the set with the strike it gives, so that the next one sees both."""
    case = known_case(cases, command.order_id, command.member_id, work.now)
    if not isinstance(case, Case):
        return case
    if command.draft_id is not None and (unknown := draft_policy.belongs(draft, command.actor, command.order_id)):
        return unknown
    instant = instant_of(command, case, work.now)
    if isinstance(instant, Invalid):
        return instant
    verdict = policy.cancel(case, command.actor, command.reason, command.comment, instant)
    basis = verdict.case.order.basis if isinstance(verdict, Granted) else None
    if draft is not None and basis is not None and (refused := draft_policy.check(draft, case, basis, instant)):
        return refused
    if isinstance(verdict, Granted):
        verdict = _with_strike(case, verdict)
        if not command.dry_run:
            cases.set_member(verdict.case.buyer)
            cases.set_member(verdict.case.seller)
        unwinding.append(_Unwinding(command, case, verdict, instant, draft=draft))
    return verdict


def _with_strike(case: Case, granted: Granted) -> Granted:
    after = granted.case
    assert after.order.basis is not None
    role = policy.struck(after.order.basis)
    if role is None:
        return granted
    terms = after.alert.terms if after.alert is not None else after.terms
    member = member_policy.struck(after.member(role), role, after.order.order_id, terms)
    lost = _lost_privilege(case.member(role), member, role, after)
    struck = replace(after, buyer=member) if role is Role.BUYER else replace(after, seller=member)
    return replace(granted, case=struck, promises=(*granted.promises, *lost))


def _lost_privilege(before: Member, after: Member, role: Role, case: Case) -> tuple[Promise, ...]:
    lost = (before.can_buy and not after.can_buy) or (before.can_sell and not after.can_sell)
    if not lost:
        return ()
    return (
        told(
            role,
            "privilege_revoked",
            member_id=after.member_id,
            order_id=case.order.order_id,
            occasion=f"{case.order.order_id}:{case.order.version + 1}",
            privilege="buying" if role is Role.BUYER else "selling",
            strikes=list(after.strikes(role)),
        ),
    )


def _plan_stock(work: Work[CancelOrder], unwinding: Sequence[_Unwinding]) -> None:
    """Where every remaining unit goes, order by order, each seeing the lots as the ones before leave them."""
    lines = orders.lines_of(work.conn, [u.case.order.order_id for u in unwinding])
    returning: dict[int, list[Returning]] = {
        u.case.order.order_id: inventory.returning(lines[u.case.order.order_id]) for u in unwinding if _returns(u)
    }
    lock = any(not u.dry for u in unwinding)
    shelf = inventory.lots_for_return(work.conn, [x for found in returning.values() for x in found], lock=lock)
    for one in unwinding:
        order_id = one.case.order.order_id
        if order_id in returning:
            one.plan = plan_return(
                order_id,
                returning[order_id],
                shelf,
                choices=one.draft.choices if one.draft else ONE_STEP,
                release_auto_stockroom=one.case.terms.release_auto_stockroom,
            )
            if not one.dry:
                shelf.take(one.plan)
        else:
            one.plan = nothing_returns(order_id, [line.line_no for line in lines[order_id]])
    refused = {u.command.request_id: draft_policy.check_plan(u.plan) for u in unwinding if u.plan}
    if misfits := {request_id: no for request_id, no in refused.items() if no is not None}:
        raise _DraftsDoNotFit(misfits)
    dry = [u for u in unwinding if u.dry]
    for one, plan in zip(dry, inventory.foreseen(work.conn, [u.plan for u in dry if u.plan]), strict=True):
        one.plan = plan
    real = [u for u in unwinding if not u.dry]
    for one, plan in zip(
        real, inventory.apply_return(work.conn, [u.plan for u in real if u.plan], work.now), strict=True
    ):
        one.plan = plan


def _returns(one: _Unwinding) -> bool:
    basis = one.after.order.basis
    assert basis is not None
    return policy.returns_items(basis, seller_terminated=one.case.seller.terminated)


def _decide_consequences(one: _Unwinding, pending_removals: int) -> None:
    """The fee, the removal requests and what both parties are told: promised by this commit, carried out by followers."""
    order, plan = one.after.order, one.plan
    assert order.basis is not None and plan is not None
    fee = credits.settle(order, order.basis, one.instant, one.case.terms)
    facts = {
        "basis": order.basis,
        "by": one.case.role_of(one.command.actor),
        "returns": _returns(one),
        "lines_returned": sum(1 for line in plan.lines if line.returned),
        "units_returned": sum(line.returned for line in plan.lines),
        "strike": policy.struck(order.basis) is not None,
    }
    promises = [
        *one.granted.promises,
        tell(one.after, Role.SELLER, "order_cancelled", **facts, fee=credits.effects_of(fee)),
        tell(one.after, Role.BUYER, "order_cancelled", **facts),
    ]
    if settled := credits.promise_of(fee, order, one.instant):
        promises.append(settled)
    if pending_removals:
        promises.append(Promise("removals.cancel_pending", f"removals:{order.order_id}", order.order_id))
    effects = {
        "basis": order.basis,
        "lines": plan.effects(),
        "removals_cancelled": pending_removals,
        "fee": credits.effects_of(fee),
    }
    event = replace(one.granted.events[0], changes={"returned": plan.effects(), "fee": credits.effects_of(fee)})
    one.granted = replace(one.granted, events=(event,), promises=tuple(promises), effects=effects)


def _write(work: Work[CancelOrder], cases: Cases, unwinding: Sequence[_Unwinding]) -> None:
    for one in unwinding:
        command = one.command
        # Members stand as the whole set leaves them: a later order of the set may have given them another strike.
        whole = replace(
            one.granted.case,
            buyer=cases.members[one.case.order.buyer_id],
            seller=cases.members[one.case.order.seller_id],
        )
        granted = replace(one.granted, case=whole)
        cases.grant(one.case, granted, one.instant, actor=command.actor, request_id=command.request_id)
    members.strike(work.conn, [given for one in unwinding if (given := _strike_of(one))])
    cases.write(work)
    drafts.mark_used(work.conn, [one.draft.draft_id for one in unwinding if one.draft], work.now)


def _strike_of(one: _Unwinding) -> tuple[int, str, Role, datetime] | None:
    order = one.after.order
    assert order.basis is not None
    role = policy.struck(order.basis)
    return None if role is None else (order.order_id, one.after.member(role).member_id, role, one.instant)
