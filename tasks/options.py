"""What can this member do with this order now?  Read only, and always what the commands would answer (contract 2.3)."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from celery import shared_task

from models import members, orders
from models.queries import order
from models.requests import Answer, done
from models.unit_of_work import UnitOfWork, unit_of_work
from policies import options as policy
from policies.preconditions import check_party
from policies.timestamps import format_timestamp
from policies.verdicts import Invalid
from tasks.cases import effective_time, member_unknown, order_unknown
from tasks.command import OrderCommand


class GetOptions(OrderCommand):
    """Arguments of `orders.options`."""

    task: ClassVar[str] = "orders.options"


@shared_task(name=GetOptions.task)
def options(commands: list[GetOptions]) -> list[Answer]:
    """Everything there is to do for a party or staff: possible, or why not, from when, and what would change it."""
    with unit_of_work(commands) as work:
        # Nothing is written to them: held, the parts of an order that are read one by one belong together.
        orders.load_facts(work.conn, [c.order_id for c in work.pending], lock=True)
        for command in work.pending:
            _answer(work, command)
    return work.answers


def _answer(work: UnitOfWork[GetOptions], command: GetOptions) -> None:
    seen = order.load_snapshot(work.conn, command.order_id, at=None, now=work.now)
    if seen is None:
        work.answer(command, order_unknown())
        return
    if command.member_id is not None and not members.load_facts(work.conn, [command.member_id]):
        work.answer(command, member_unknown())
        return
    if refused := check_party(seen.case, command.actor):
        work.answer(command, refused)
        return
    instant = effective_time(command, seen.case, work.now)
    if isinstance(instant, Invalid):
        work.answer(command, instant)
        return
    found = policy.list_options(order.subject_of(seen), command.actor, instant)
    answer = done(
        command,
        {
            "status": seen.case.order.status,
            "at": format_timestamp(instant),
            "options": [option.as_json() for option in found],
        },
    )
    work.answer(command, replace(answer, message=policy.describe_cancellability(order.subject_of(seen), instant)))
