"""The steps that alerts of all kinds (NPB, NRS and NSS) share: their removal, and the sweep that unlocks them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from models import alerts, members
from models.stored_answers import Answer
from models.unit_of_work import unit_of_work
from policies import alerts as policy
from policies import members as member_policy
from policies.cases import AlertKind, counterparty
from policies.verdicts import Granted
from tasks.cases import decide_case, lock_cases
from tasks.command import Comment, OrderCommand
from tasks.declarations import OptionEntry
from tasks.notices import record_notices_at_once
from tasks.sweeps import TaskResult, sweep


class RemoveAlert(OrderCommand):
    comment: Comment | None = None


def remove_option(kind: AlertKind, label: str) -> OptionEntry[Any]:
    return OptionEntry(label, lambda c, subject, now: policy.remove_alert(subject.case, kind, c.actor, c.comment, now))


def remove_alerts(commands: Sequence[RemoveAlert], kind: AlertKind) -> list[Answer]:
    """Remove the orders' alerts. If staff removes a completed one, withdraw its strike and update the privileges."""
    with unit_of_work(commands) as work:
        cases = lock_cases(work, lock_members=members.FOR_UPDATE)
        withdrawn_order_ids: list[int] = []
        for command in work.pending:
            verdict = decide_case(
                work,
                cases,
                command,
                lambda c, case, now: policy.remove_alert(case, kind, c.actor, c.comment, now),
                order_id=command.order_id,
            )
            if isinstance(verdict, Granted) and verdict.effects["strike_withdrawn"]:
                role = counterparty(policy.filer_role(kind))
                accused = verdict.case.member(role)
                forgiven = member_policy.remove_strike(accused, role, command.order_id, verdict.case.terms)
                cases.members[forgiven.member_id] = forgiven
                withdrawn_order_ids.append(command.order_id)
            work.answer(command, verdict)
        members.withdraw_strikes(work.conn, withdrawn_order_ids, work.now)
        cases.write(work)
    return work.answers


def unlock_due_alerts(name: str, kinds: Sequence[AlertKind], notice_task: str) -> TaskResult:
    """Unlock every due alert of these kinds and record the notices at once, so that they wait in no queue (R41)."""
    unlocking = alerts.UnlockSweep(kinds)
    result = sweep(name, unlocking, result_key="unlocked")
    record_notices_at_once(notice_task, unlocking.messages)
    return result
