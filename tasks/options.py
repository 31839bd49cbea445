"""The command `orders.options`, which lists what a party or staff can do and gives the same answers as the commands."""

from __future__ import annotations

from dataclasses import replace

from models import members, orders
from models.queries import order
from models.stored_answers import Answer
from models.unit_of_work import UnitOfWork, unit_of_work
from policies.cancel_routes import describe_cancel_routes
from policies.members import member_unknown
from policies.preconditions import check_party, effective_time, order_unknown
from policies.verdicts import Invalid, Refused
from tasks.command import OrderCommand
from tasks.declarations import SELLER, command_task


@command_task(OrderCommand, name="orders.options", example=SELLER)
def options(commands: list[OrderCommand]) -> list[Answer]:
    """Return every command with whether it is possible, otherwise why not, from when, and what would unblock it."""
    with unit_of_work(commands) as work:
        # Locked so that the parts of an order, read one after the other, belong together; nothing is written.
        orders.send_orders_query(work.conn, [c.order_id for c in work.pending], lock=True)
        for command in work.pending:
            work.answer(command, _answer_options(work, command))
    return work.answers


def _answer_options(work: UnitOfWork[OrderCommand], command: OrderCommand) -> Answer | Refused | Invalid:
    snapshot = order.load_order_snapshot(work.conn, command.order_id, at=None, now=work.now)
    if snapshot is None:
        return order_unknown(command.order_id)
    if command.member_id is not None and not members.load_members(work.conn, [command.member_id]):
        return member_unknown(command.member_id)
    if refused := check_party(snapshot.case, command.actor):
        return refused
    effective_at = effective_time(snapshot.case, command.occurred_at, command.accepted_at, work.now)
    if isinstance(effective_at, Invalid):
        return effective_at
    answer = Answer.done(command, order.order_snapshot_options(snapshot, command.actor, effective_at))
    verdict = describe_cancel_routes(order.order_snapshot_subject(snapshot, effective_at), effective_at)
    return replace(answer, message=verdict)
