"""The steps shared by all commands about orders: lock, decide, write, notify."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from models import members, orders
from models.cases import CaseChange, CaseSet, lock_case_set, send_case_set_locks
from models.db.pipeline import Fetch
from models.stored_answers import Answer
from models.unit_of_work import UnitOfWork, unit_of_work
from policies.cases import Case
from policies.members import member_unknown
from policies.preconditions import effective_time, order_unknown
from policies.terms import TermsHistory
from policies.verdicts import Granted, GrantedPart, Invalid, Refused, Verdict
from tasks.command import ActorCommand, OrderCommand, OrderFactCommand
from tasks.declarations import Arguments, DeclaredOption, command_task

CommandT = TypeVar("CommandT", bound=ActorCommand | OrderFactCommand)
OrderCommandT = TypeVar("OrderCommandT", bound=OrderCommand | OrderFactCommand)
Decide = Callable[[CommandT, Case, datetime], Verdict]
DecidePart = Callable[[Any, CommandT, Case, Any, Sequence[Any], datetime], Verdict]


def decide_cases(commands: Sequence[OrderCommandT], decide: Decide[OrderCommandT]) -> list[Answer]:
    """Lock the orders of a batch, decide each command, write what was granted and return the answers."""
    with unit_of_work(commands) as work:
        cases = lock_command_cases(work)
        for command in work.pending:
            work.answer(command, decide_case(work, cases, command, decide, order_id=command.order_id))
        cases.write(work)
    return work.answers


def decide_parts(
    commands: Sequence[CommandT],
    *,
    key: str,
    load: Callable[[Any, Iterable[Any]], dict[Any, Any]],
    unknown: Callable[[Any], Refused],
    decide: DecidePart[CommandT],
    write: Callable[[UnitOfWork[CommandT], list[Any]], None],
) -> list[Answer]:
    """Do what `decide_cases` does for commands that name a part of an order: a draft or a removal request.

    `key` is the argument with the part's id. `decide` is given the order's lines too; `write` stores the changed parts,
    after the orders.
    """
    with unit_of_work(commands) as work:
        known = load(work.conn, [getattr(c, key) for c in work.pending])
        order_ids = {part.order_id for part in known.values()}
        cases = lock_case_set(work.conn, order_ids, member_ids=_actors_of(work))
        parts = load(work.conn, known)  # read again, now that the orders are locked
        lines = orders.load_order_lines(work.conn, order_ids)
        changed: dict[Any, Any] = {}
        for command in work.pending:
            part_id = getattr(command, key)
            if (part := parts.get(part_id)) is None:
                work.answer(command, unknown(part_id))
                continue

            def decide_part(command: CommandT, case: Case, now: datetime, part: Any = part) -> Verdict:
                return decide(work.conn, command, case, part, lines[part.order_id], now)

            verdict = decide_case(work, cases, command, decide_part, order_id=part.order_id)
            if isinstance(verdict, GrantedPart):
                parts[part_id] = changed[part_id] = verdict.part
            work.answer(command, verdict, order_id=part.order_id)
        cases.write(work)
        write(work, list(changed.values()))
    return work.answers


def declare_case_command(
    name: str,
    policy: Callable[..., Verdict],
    about: str,
    *,
    arguments: Mapping[str, Any] | None = None,
    base: type[OrderCommand | OrderFactCommand] = OrderCommand,
    example: Mapping[str, Any],
    option: str | DeclaredOption[Any] | None = None,
    option_arguments: Arguments = lambda _subject, _actor: {},
    answer_batch: Callable[[Sequence[Any], Decide[Any]], list[Answer]] = decide_cases,
) -> None:
    """Declare a command that only its order decides, and its Celery task.

    `policy` decides it, given `case`, `actor`, `now` and the command's own `arguments` by their names. `option` is the
    label with which `orders.options` lists the command; its entry asks the same policy, with the arguments of the
    example and those that `option_arguments` returns.
    """
    keys = tuple(arguments or ())

    def decide(command: OrderCommand | OrderFactCommand, case: Case, now: datetime) -> Verdict:
        return policy(case=case, actor=command.actor, now=now, **{key: getattr(command, key) for key in keys})

    def run(commands: list[Any]) -> list[Answer]:
        return answer_batch(commands, decide)

    run.__doc__ = about
    if isinstance(option, str):
        option = DeclaredOption(option, lambda command, order, now: decide(command, order.case, now), option_arguments)
    command_task(base, name=name, arguments=arguments, example=example, option=option)(run)


def lock_command_cases(work: UnitOfWork[OrderCommandT], *, lock_members: str = members.FOR_SHARE) -> CaseSet:
    """Lock and load the orders of the commands that were not answered before."""
    return send_command_case_locks(work, lock_members=lock_members)()


def send_command_case_locks(work: UnitOfWork[OrderCommandT], *, lock_members: str) -> Fetch[CaseSet]:
    return send_case_set_locks(
        work.conn,
        [c.order_id for c in work.pending],
        work.parties,
        member_ids=_actors_of(work),
        lock_members=lock_members,
    )


def _actors_of(work: UnitOfWork[CommandT]) -> list[str]:
    return [c.member_id for c in work.pending if c.member_id is not None]


def decide_case(
    work: UnitOfWork[CommandT], cases: CaseSet, command: CommandT, decide: Decide[CommandT], *, order_id: int
) -> Verdict:
    case = find_command_case(cases, order_id, command.member_id, work.now)
    if not isinstance(case, Case):
        return case
    effective_at = effective_time(case, command.occurred_at, command.accepted_at, work.now)
    if isinstance(effective_at, Invalid):
        return effective_at
    case = case_at_effective_time(case, effective_at, cases.terms_history)
    verdict = decide(command, case, effective_at)
    if isinstance(verdict, Granted):
        cases.add(CaseChange(case, verdict, effective_at, command.actor, command.request_id))
    return verdict


def find_command_case(cases: CaseSet, order_id: int, member_id: str | None, now: datetime) -> Case | Refused:
    case = cases.get(order_id, now)
    if case is None:
        return order_unknown(order_id)
    if member_id is not None and member_id not in cases.members:
        return member_unknown(member_id)
    return case


def case_at_effective_time(case: Case, effective_at: datetime, terms_history: TermsHistory) -> Case:
    """The case with the terms of the time at which a command takes effect."""
    terms, later_terms = terms_history.at(effective_at), terms_history.after(effective_at)
    if terms is case.terms and later_terms == case.later_terms:
        return case
    return replace(case, terms=terms, later_terms=later_terms)
