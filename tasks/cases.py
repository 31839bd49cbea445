"""How is a set of commands about orders carried out?  Lock, ask, write, tell: the shape all of them share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from models import members, orders
from models.cases import CaseSet
from models.db.pipeline import Cursor
from models.requests import Answer
from models.unit_of_work import UnitOfWork, unit_of_work
from policies.cases import Case
from policies.timestamps import format_timestamp
from policies.verdicts import Code, Granted, Invalid, Refused, Verdict
from tasks.command import ActorCommand, OrderCommand, OrderFact

MAX_OCCURRENCE_AGE = timedelta(hours=24)
"""A message may have waited this long in a queue and still say when it really happened (contract 2)."""

CommandT = TypeVar("CommandT", bound=ActorCommand | OrderFact)
OrderCommandT = TypeVar("OrderCommandT", bound=OrderCommand | OrderFact)
Decide = Callable[[CommandT, Case, datetime], Verdict]


def decide_cases(commands: Sequence[OrderCommandT], decide: Decide[OrderCommandT]) -> list[Answer]:
    """Lock the orders of a set, ask the policy about each, write what was granted."""
    with unit_of_work(commands, prefetch=prefetch_parties(commands)) as work:
        cases = lock_cases(work)
        for command in work.pending:
            work.answer(command, decide_case(work, cases, command, decide, order_id=command.order_id))
        cases.write(work)
    return work.answers


def prefetch_parties(commands: Sequence[OrderCommandT]) -> partial[Cursor]:
    """The look before the locks, for the trip in which a unit of work begins."""
    return partial(orders.send_parties, order_ids=[c.order_id for c in commands])


def lock_cases(
    work: UnitOfWork[OrderCommandT], *, lock_members: str = members.FOR_SHARE, then: Callable[[], object] = lambda: None
) -> CaseSet:
    """The orders of the commands that were not answered before, held for this transaction; `then` what else is held."""
    return CaseSet(
        work.conn,
        [c.order_id for c in work.pending],
        member_ids=[c.member_id for c in work.pending if c.member_id is not None],
        lock_members=lock_members,
        looked=work.prefetched,
        then=then,
    )


def decide_case(
    work: UnitOfWork[CommandT], cases: CaseSet, command: CommandT, decide: Decide[CommandT], *, order_id: int
) -> Verdict:
    """One verdict; a granted one is taken into `cases`, so that the next of the set sees it."""
    case = known_case(cases, order_id, command.member_id, work.now)
    if not isinstance(case, Case):
        return case
    instant = effective_time(command, case, work.now)
    if isinstance(instant, Invalid):
        return instant
    if instant < work.now - MAX_OCCURRENCE_AGE:
        case = replace(case, terms=cases.terms_history.at(instant))
    verdict = decide(command, case, instant)
    if isinstance(verdict, Granted):
        cases.grant(case, verdict, instant, actor=command.actor, request_id=command.request_id)
    return verdict


def known_case(cases: CaseSet, order_id: int, member_id: str | None, now: datetime) -> Case | Refused:
    """The order somebody acts on, or which of the two is unknown."""
    case = cases.get(order_id, now)
    if case is None:
        return order_unknown()
    if member_id is not None and member_id not in cases.members:
        return member_unknown()
    return case


def effective_time(command: ActorCommand | OrderFact, case: Case, now: datetime) -> datetime | Invalid:
    """When the command happens: now, or when it says it really did; never before the order's last event.

    What time decided is no such event: an answer in time stays in time, though a sweep marked the alert before it was read.
    """
    last = case.order.last_event_at or now
    if command.occurred_at is None:
        return max(min(command.accepted_at or now, now), last)  # a submission by SQL counts from its insert
    if command.occurred_at > now:
        return Invalid("occurred_at", "must not be in the future")
    if command.occurred_at < now - MAX_OCCURRENCE_AGE:
        return Invalid("occurred_at", "must not be more than 24 hours ago")
    if command.occurred_at < last:
        return Invalid(
            "occurred_at", f"must not be before the order's last event, which was at {format_timestamp(last)}"
        )
    return command.occurred_at


def order_unknown() -> Refused:
    """No such order."""
    return Refused(Code.ORDER_UNKNOWN, "There is no order with this id.", unblocked_by="the order being submitted")


def member_unknown() -> Refused:
    """No such member."""
    return Refused(Code.MEMBER_UNKNOWN, "There is no member with this id.", unblocked_by="the member being recorded")
