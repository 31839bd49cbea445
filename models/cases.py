"""Load the orders of a command batch with their parties, alerts and requests, lock them, and write them back.

One statement per table, however many orders. Locks are taken in one order everywhere: members, orders (which guard
their alerts, requests, lines and removals), items by key, lots by id, and the sellers' ledgers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from models import alerts, events, late_payments, members, ocr, orders, terms
from models.db.pipeline import Cursor, pipeline
from models.unit_of_work import UnitOfWork
from policies import history
from policies.alerts import drop_later_unlock_mark
from policies.cases import Actor, Alert, Case, LatePayment, Member, Ocr, Order
from policies.statuses import Role, Status
from policies.verdicts import Granted, OutboxMessage


def _no_further_statements() -> None:
    pass


class CaseSet:
    def __init__(
        self,
        conn: Connection,
        order_ids: Iterable[int],
        *,
        member_ids: Iterable[str] = (),
        lock: bool = True,
        lock_members: str = members.FOR_SHARE,
        parties: Cursor | None = None,
        then: Callable[[], object] = _no_further_statements,
    ) -> None:
        """Load the orders and, with `lock`, lock them.

        `member_ids`: further members to load, for example the acting ones. `parties`: the cursor of an earlier
        `orders.send_parties` that covers these orders. `then`: sends further statements or locks in the same round
        trip, after the orders in lock order.
        """
        self.conn = conn
        ids = set(order_ids)
        parties_by_order, self.accused = orders.fetch_parties(
            parties if parties is not None else orders.send_parties(conn, ids)
        )
        if lock_members == members.FOR_UPDATE_IF_ACCUSED:
            lock_members = members.FOR_UPDATE if self.accused else members.FOR_SHARE
        all_member_ids = {m for order_id in ids & parties_by_order.keys() for m in parties_by_order[order_id]} | set(
            member_ids
        )
        with pipeline(conn):
            member_rows = members.send_facts(conn, all_member_ids, lock=lock_members if lock else members.NO_LOCK)
            order_rows = orders.send_facts(conn, ids, lock=lock)
            term_rows = terms.send_terms(conn)
            alert_rows, ocr_rows = alerts.send_latest(conn, ids), ocr.send_latest(conn, ids)
            then()
        self.members = members.fetch_facts(member_rows)
        self._orders = orders.fetch_facts(order_rows)
        self.terms_history = terms.fetch_terms(term_rows)
        self._alerts = alerts.fetch_latest(alert_rows, self.terms_history)
        self._ocrs = ocr.fetch_latest(ocr_rows, self.terms_history)
        cancelled = [order_id for order_id, order in self._orders.items() if order.status is Status.CANCELLED]
        self._late_payments = late_payments.load_latest(conn, cancelled)
        self._members_before = dict(self.members)
        self._granted: list[tuple[Case, Granted, datetime, Actor | None, str | None]] = []

    def get(self, order_id: int, now: datetime) -> Case | None:
        order = self._orders.get(order_id)
        if order is None:
            return None
        return Case(
            order=order,
            buyer=self.members[order.buyer_id],
            seller=self.members[order.seller_id],
            terms=self.terms_history.at(now),
            ocr=self._ocrs.get(order_id),
            alert=self._alerts.get(order_id),
            late_payment=self._late_payments.get(order_id),
        )

    @property
    def orders(self) -> list[int]:
        return sorted(self._orders)

    def grant(
        self,
        before: Case,
        granted: Granted,
        now: datetime,
        *,
        actor: Actor | None = None,
        request_id: str | None = None,
    ) -> None:
        """Apply a granted verdict: later verdicts of the batch see it, and `write` stores it."""
        granted = replace(granted, case=drop_later_unlock_mark(granted.case, now))
        self._granted.append((before, granted, now, actor, request_id))
        after = granted.case
        self._orders[after.order.order_id] = after.order
        self.members[after.buyer.member_id] = after.buyer
        self.members[after.seller.member_id] = after.seller
        if after.alert is not None:
            self._alerts[after.order.order_id] = after.alert
        if after.ocr is not None:
            self._ocrs[after.order.order_id] = after.ocr
        if after.late_payment is not None:
            self._late_payments[after.order.order_id] = after.late_payment

    def set_member(self, member: Member) -> None:
        self.members[member.member_id] = member

    def write(self, work: UnitOfWork[Any]) -> None:
        """Write everything granted: orders, alerts, requests, events, outbox messages and members' standing."""
        rows: list[dict[str, Any]] = []
        new: list[Order] = []
        changed_orders: list[tuple[Order, int, datetime]] = []
        changed_alerts: list[tuple[int, Alert]] = []
        changed_ocrs: list[tuple[int, Ocr]] = []
        changed_late_payments: list[tuple[int, LatePayment]] = []
        messages: list[OutboxMessage] = []
        for before, granted, at, actor, request_id in self._granted:
            after = granted.case
            messages.extend(granted.messages)
            if granted.events:
                version = before.order.version + len(granted.events)
                if before.order.version:
                    changed_orders.append((after.order, version, at))
                else:
                    new.append(replace(after.order, version=version, last_event_at=at))
                rows.extend(_event_rows(before, granted, at, actor, request_id))
            if after.alert is not None and after.alert != before.alert:
                changed_alerts.append((after.order.order_id, after.alert))
            if after.ocr is not None and after.ocr != before.ocr:
                changed_ocrs.append((after.order.order_id, after.ocr))
            if after.late_payment is not None and after.late_payment != before.late_payment:
                changed_late_payments.append((after.order.order_id, after.late_payment))
        now = work.now
        with pipeline(self.conn):
            orders.insert(self.conn, new)
            orders.update_changed(self.conn, changed_orders)
            alerts.update_changed(self.conn, changed_alerts, self.terms_history)
            ocr.update_changed(self.conn, changed_ocrs, self.terms_history)
            late_payments.update_changed(self.conn, changed_late_payments)
            changes = members.update_standing(self.conn, self._members_before, self.members.values(), now)
            events.append(self.conn, [*rows, *(_standing_row(*change, now) for change in changes)])
            work.enqueue(messages)


def _standing_row(member: Member, role: Role, allowed: bool, at: datetime) -> dict[str, Any]:
    privilege = "buying" if role is Role.BUYER else "selling"
    return events.event_row(
        f"members.{privilege}_{'restored' if allowed else 'revoked'}",
        at,
        actor="system",
        role="system",
        member_id=member.member_id,
        note=f"Strikes that count: {len(member.strikes(role))}.",
    )


def _event_rows(
    before: Case, granted: Granted, at: datetime, actor: Actor | None, request_id: str | None
) -> list[dict[str, Any]]:
    after = granted.case
    changed = history.diff_cases(before if before.order.version else None, after)
    role = before.role_of(actor) if actor is not None else None
    rows = []
    for index, event in enumerate(granted.events):
        first = index == 0
        rows.append(
            events.event_row(
                event.type,
                at,
                actor=str(actor) if actor is not None else "marketplace",
                role=str(role) if role is not None else "system",
                order_id=after.order.order_id,
                seq=before.order.version + 1 + index,
                from_status=(before.order.status if before.order.version else None) if first else after.order.status,
                to_status=after.order.status,
                note=event.note,
                changes=(changed | event.changes) if first else event.changes,
                request_id=request_id,
            )
        )
    return rows
