"""The steps that alerts of all kinds (NPB, NRS and NSS) share: their removal, and the sweep that unlocks them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from models import alerts, members, outbox
from models.db.selects import DuePosition
from models.stored_answers import Answer
from models.unit_of_work import UnitOfWork, unit_of_work
from policies import alerts as policy
from policies.cases import AlertKind
from policies.statuses import ALERT_LABELS, Role
from policies.verdicts import Granted
from tasks.cases import Decide, decide_case, declare_case_command, lock_command_cases
from tasks.command import Comment, OrderCommand
from tasks.declarations import BUYER, SELLER
from tasks.notices import record_notices_at_once
from tasks.sweeps import DueSweep, TaskResult, sweep

MAX_UNLOCK_MESSAGES = 500
"""Outbox messages of a batch that the unlock sweep handles itself. The relay publishes those of a larger batch, so that
several processes share them."""
RELAY_UNLOCKS_AFTER = timedelta(seconds=5)
"""The relay leaves the messages of a small batch to the sweep for so long, which takes a few milliseconds. A relay that
locked or published them earlier would send their notices through a queue, behind thousands of emails."""


def declare_alert_removal(kind: AlertKind) -> None:
    """Declare the command that removes an order's alert of this kind (T11, T16)."""
    filer = policy.filer_role(kind)
    declare_case_command(
        f"{kind.lower()}.remove",
        partial(policy.remove_alert, kind=kind),
        f"Remove the alert as its {filer} or staff; the order becomes PENDING.",
        arguments={"comment": (Comment | None, None)},
        example=SELLER if filer is Role.SELLER else BUYER,
        option=f"remove the {ALERT_LABELS[kind]}",
        answer_batch=_remove_alerts,
    )


def _remove_alerts(commands: Sequence[OrderCommand], decide: Decide[OrderCommand]) -> list[Answer]:
    # If staff removes a completed alert, its strike is withdrawn.
    with unit_of_work(commands) as work:
        cases = lock_command_cases(work, lock_members=members.FOR_UPDATE)
        withdrawn_order_ids: list[int] = []
        for command in work.pending:
            verdict = decide_case(work, cases, command, decide, order_id=command.order_id)
            if isinstance(verdict, Granted) and verdict.effects["strike_withdrawn"]:
                withdrawn_order_ids.append(command.order_id)
            work.answer(command, verdict)
        members.withdraw_strikes(work.conn, withdrawn_order_ids, work.now)
        cases.write(work)
    return work.answers


def run_unlock_sweep(name: str, kinds: Sequence[AlertKind], notice_task: str) -> TaskResult:
    """Unlock every due alert of these kinds and record the notices at once, so that they wait in no queue (R41)."""
    unlocking = UnlockSweep(kinds)
    unlocked = sweep(name, unlocking)
    record_notices_at_once(notice_task, unlocking.messages)
    return {"unlocked": unlocked}


class UnlockSweep(DueSweep[DuePosition]):
    """Unlock every due alert in batches, oldest first (R41 to R44). One instance makes one pass.

    Orders locked by a command are skipped until the next sweep.
    """

    def __init__(self, kinds: Sequence[AlertKind]) -> None:
        self._kinds = kinds
        self.messages: list[int] = []
        """The outbox messages of batches that unlocked at most `MAX_UNLOCK_MESSAGES` alerts."""

    def handle_batch(self, work: UnitOfWork[Any], after: DuePosition, limit: int) -> tuple[int, int, DuePosition]:
        batch = alerts.unlock_alerts(
            work.conn,
            self._kinds,
            work.now,
            after,
            limit,
            max_messages=MAX_UNLOCK_MESSAGES,
            relay_at=work.now + RELAY_UNLOCKS_AFTER,
        )
        if batch is None or not batch.due:
            return 0, 0, after
        if batch.unlocked <= MAX_UNLOCK_MESSAGES:
            self.messages += batch.messages  # those of a batch that is rolled back are never found
        else:
            work.tasks_to_wake.add(outbox.RELAY)
        return batch.due, batch.unlocked, (batch.last_at, batch.last_id)

    def find(self, work: UnitOfWork[Any], after: DuePosition, limit: int) -> Sequence[DuePosition]:  # noqa: ARG002
        first = alerts.first_unlockable_alert(work.conn, self._kinds, work.now, after)
        return [] if first is None else [first]

    def position(self, row: DuePosition) -> DuePosition:
        return row

    def skip(self, row: DuePosition) -> int:
        return row[1]
