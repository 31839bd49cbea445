"""What do the commands of all alerts share?  Taking one away, from an open order or from one cancelled through it."""

from __future__ import annotations

from collections.abc import Sequence

from models import members
from models.requests import Answer
from models.unit_of_work import unit_of_work
from policies import alerts as policy
from policies import members as member_policy
from policies.cases import AlertKind, counterparty
from policies.verdicts import Granted
from tasks.cases import decide_case, lock_cases, prefetch_parties
from tasks.command import Comment, OrderCommand


class RemoveAlert(OrderCommand):
    """Arguments of `npb.remove`, `nrs.remove` and `nss.remove`."""

    comment: Comment | None = None


def remove_alerts(commands: Sequence[RemoveAlert], kind: AlertKind) -> list[Answer]:
    """Remove; where staff removes a completed alert, the strike goes and the privilege is judged again (rules.md 8)."""
    with unit_of_work(commands, prefetch=prefetch_parties(commands)) as work:
        cases = lock_cases(work, lock_members=members.FOR_UPDATE)
        forgiven: list[int] = []
        for command in work.pending:
            verdict = decide_case(
                work,
                cases,
                command,
                lambda c, case, now: policy.remove(case, kind, c.actor, c.comment, now),
                order_id=command.order_id,
            )
            if isinstance(verdict, Granted) and verdict.effects["strike_withdrawn"]:
                role = counterparty(policy.filer_role(kind))
                accused = verdict.case.member(role)
                cases.set_member(member_policy.remove_strike(accused, role, command.order_id, verdict.case.terms))
                forgiven.append(command.order_id)
            work.answer(command, verdict)
        members.withdraw_strikes(work.conn, forgiven, work.now)
        cases.write(work)
    return work.answers
