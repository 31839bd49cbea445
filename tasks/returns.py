"""Cancellations, and the two ways to return their items: one statement for the whole batch, or a plan per order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models import dead_jobs, drafts, inventory, members, orders, removals, returns
from models.cases import CaseChange, CaseSet
from models.db.pipeline import Fetch, pipeline
from models.unit_of_work import UnitOfWork
from policies import drafts as draft_policy
from policies.cancellation import returns_items
from policies.cases import Case
from policies.consolidation import ONE_STEP
from policies.drafts import Draft
from policies.returns import (
    QuantityOverflow,
    ReturningLine,
    ReturnPlan,
    ReturnTotals,
    StockView,
    plan_nothing,
    plan_return,
)
from policies.statuses import CancelBasis
from policies.verdicts import Invalid, Refused
from tasks.cases import send_command_case_locks
from tasks.command import DraftId, OrderCommand, StrictBool


class ReturnCommand(OrderCommand):
    draft_id: DraftId | None = None
    dry_run: StrictBool = False


@dataclass
class Cancellation:
    command: ReturnCommand
    change: CaseChange
    plan: ReturnPlan | None = None
    """Where the items go, if `PlannedReturn` decides it."""

    @property
    def after(self) -> Case:
        return self.change.granted.case

    @property
    def basis(self) -> CancelBasis:
        assert self.after.order.basis is not None
        return self.after.order.basis

    @property
    def returns_items(self) -> bool:
        return returns_items(self.basis, seller_terminated=self.change.before.seller.terminated)


@dataclass
class SetBasedReturn:
    """Returns the items of all orders with one statement, which raises `NeedsPlan` where only a plan can decide."""

    work: UnitOfWork[Any]
    cases: CaseSet
    pending_removals: dict[int, int]

    @classmethod
    def lock(cls, work: UnitOfWork[Any]) -> SetBasedReturn:
        """Take every lock that the batch may need, in one round trip; only then is the clock read."""
        with pipeline(work.conn):
            fetch_cases = _send_return_locks(work)
            order_ids = [c.order_id for c in work.pending]
            fetch_removals = removals.send_pending_counts_query(work.conn, order_ids)
            returns.lock_stock_of_returns(work.conn, order_ids)
            work.send_clock_query()
        return cls(work, fetch_cases(), fetch_removals())

    def check_draft(self, command: ReturnCommand) -> Refused | None:
        assert command.draft_id is None
        return None

    def plan(self, cancellation: Cancellation) -> Refused | Invalid | None:  # noqa: ARG002 - the statement decides
        return None

    def return_items(self, cancellations: Sequence[Cancellation]) -> list[ReturnTotals]:
        order_ids = [c.after.order.order_id for c in cancellations]
        returned = returns.return_items(
            self.work.conn,
            list(zip(order_ids, [c.returns_items for c in cancellations], strict=True)),
            self.work.now,
            release=any(c.change.before.terms.release_auto_stockroom for c in cancellations),
        )
        return [returned[order_id] for order_id in order_ids]


@dataclass
class PlannedReturn:
    """Plans each return in Python: for drafts, dry runs, full lots and lots that leave their stockroom."""

    work: UnitOfWork[Any]
    cases: CaseSet
    pending_removals: dict[int, int]
    drafts: dict[str, Draft]
    lines: dict[int, list[ReturningLine]]
    stock: StockView

    @classmethod
    def lock(cls, work: UnitOfWork[Any]) -> PlannedReturn:
        cases = _send_return_locks(work)()
        lines = {
            i: orders.order_lines_to_return(rows)
            for i, rows in orders.load_order_lines(work.conn, cases.orders).items()
        }
        return cls(
            work,
            cases,
            removals.send_pending_counts_query(work.conn, cases.orders)(),
            drafts.load_drafts(work.conn, [c.draft_id for c in work.pending if c.draft_id is not None]),
            lines,
            inventory.load_stock_view(
                work.conn,
                {line.item.key for returning in lines.values() for line in returning},
                lock=any(not c.dry_run for c in work.pending),
            ),
        )

    def check_draft(self, command: ReturnCommand) -> Refused | None:
        if command.draft_id is None:
            return None
        draft = self.drafts.get(command.draft_id)
        known = draft is not None and draft.order_id == command.order_id
        return None if known else draft_policy.draft_unknown(command.draft_id, command.order_id)

    def plan(self, cancellation: Cancellation) -> Refused | Invalid | None:
        """Plan where the items go. Later plans of the batch see the lots as this one leaves them."""
        command, change = cancellation.command, cancellation.change
        draft = self.drafts[command.draft_id] if command.draft_id is not None else None
        if draft and (
            refused := draft_policy.check_draft_ready_to_cancel(draft, change.before, cancellation.basis, change.at)
        ):
            return refused
        try:
            plan = self._make_plan(cancellation, draft)
        except QuantityOverflow as overflow:
            return self._park_cancellation(command, overflow)
        if draft and (refused := draft_policy.check_plan_unchanged(draft, plan)):
            return refused
        cancellation.plan = plan
        if not command.dry_run:
            self.stock.apply(plan)
        return None

    def return_items(self, cancellations: Sequence[Cancellation]) -> list[ReturnTotals]:
        preview = [c.plan for c in cancellations if c.plan is not None and c.command.dry_run]
        execute = [c.plan for c in cancellations if c.plan is not None and not c.command.dry_run]
        previewed = iter(returns.preview_planned_returns(self.work.conn, preview))
        executed = iter(returns.store_planned_returns(self.work.conn, execute, self.work.now))
        return [next(previewed if c.command.dry_run else executed).returned for c in cancellations]

    def _make_plan(self, cancellation: Cancellation, draft: Draft | None) -> ReturnPlan:
        order_id = cancellation.command.order_id
        if not cancellation.returns_items:
            return plan_nothing(order_id, [line.line_no for line in self.lines[order_id]])
        return plan_return(
            order_id,
            self.lines[order_id],
            self.stock,
            choices=draft.choices if draft is not None else ONE_STEP,
            release_auto_stockroom=cancellation.change.before.terms.release_auto_stockroom,
        )

    def _park_cancellation(self, command: ReturnCommand, overflow: QuantityOverflow) -> Invalid:
        # Park the cancellation among the dead jobs for staff, write nothing of it, and continue with the rest.
        if not command.dry_run:
            dead_jobs.park_job(
                self.work.conn,
                task=command.task,
                message_id=command.request_id,
                arguments=command.model_dump(mode="json", exclude_none=True),
                error=f"QuantityOverflow: {overflow}",
                reason="IMPOSSIBLE",
                attempts=1,
                now=self.work.now,
            )
        return Invalid(
            "order_id", f"its items cannot be put back ({overflow}); nothing is written, and staff has it to look at"
        )


def _send_return_locks(work: UnitOfWork[Any]) -> Fetch[CaseSet]:
    # A cancellation through an alert causes a strike, which may revoke a privilege.
    lock_members = members.FOR_UPDATE if work.parties.accused else members.FOR_SHARE
    return send_command_case_locks(work, lock_members=lock_members)
