"""How is an order seen whole, locked, and written back?  One statement per table, however many orders a set has.

Locks are taken in one order everywhere: members, orders (which guard their alerts, requests, lines and removals), then an
lock per (seller, item key), lots by id, and the ledger of a seller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from models import alerts, events, members, ocr, orders, terms
from models.db.pipeline import Cursor, pipeline
from models.unit_of_work import UnitOfWork
from policies import history
from policies.alerts import drop_later_unlock_mark
from policies.cases import Actor, Alert, Case, Member, Ocr, Order
from policies.statuses import Role
from policies.verdicts import Granted, OutboxMessage


def _nothing_else() -> None:
    """The cases are all that is wanted."""


class CaseSet:
    """The orders of one set with their parties, as they are now in this transaction."""

    def __init__(
        self,
        conn: Connection,
        order_ids: Iterable[int],
        *,
        member_ids: Iterable[str] = (),
        lock: bool = True,
        lock_members: str = members.FOR_SHARE,
        looked: Cursor | None = None,
        then: Callable[[], object] = _nothing_else,
    ) -> None:
        """Read, and lock unless the case is only looked at.  `member_ids` are further members to know: those who act.

        `looked`: what `orders.look_at` asked already, of these orders at least.
        `then`: what else to lock or to ask, in the same trip and in the order of locks after the orders.
        """
        self.conn = conn
        wanted = set(order_ids)
        parties, self.accused = orders.fetch_parties(
            looked if looked is not None else orders.send_parties(conn, wanted)
        )
        if lock_members == members.FOR_UPDATE_IF_ACCUSED:
            lock_members = members.FOR_UPDATE if self.accused else members.FOR_SHARE
        everybody = {m for order_id in wanted & parties.keys() for m in parties[order_id]} | set(member_ids)
        with pipeline(conn):
            people = members.send_facts(conn, everybody, lock=lock_members if lock else members.NO_LOCK)
            rows = orders.send_facts(conn, wanted, lock=lock)
            dated = terms.send_terms(conn)
            complaints, requested = alerts.send_latest(conn, wanted), ocr.send_latest(conn, wanted)
            then()
        self.members = members.fetch_facts(people)
        self._orders = orders.fetch_facts(rows)
        self.terms_history = terms.fetch_terms(dated)
        self._alerts = alerts.fetch_latest(complaints, self.terms_history)
        self._ocrs = ocr.fetch_latest(requested, self.terms_history)
        self._members_before = dict(self.members)
        self._granted: list[tuple[Case, Granted, datetime, Actor | None, str | None]] = []

    def get(self, order_id: int, now: datetime) -> Case | None:
        """The order, whole, with the terms in force at `now`; None when there is no such order."""
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
        )

    @property
    def orders(self) -> list[int]:
        """The ids of the orders that exist."""
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
        """Take a granted verdict: later verdicts of the set see it, and `write` carries it out."""
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

    def set_member(self, member: Member) -> None:
        """A member's standing moved."""
        self.members[member.member_id] = member

    def write(self, work: UnitOfWork[Any]) -> None:
        """Write everything that was granted: orders, alerts, requests, events, promises, members' standing."""
        rows: list[dict[str, Any]] = []
        new: list[Order] = []
        moved_orders: list[tuple[Order, int, datetime]] = []
        moved_alerts: list[tuple[int, Alert]] = []
        moved_ocrs: list[tuple[int, Ocr]] = []
        promises: list[OutboxMessage] = []
        for before, granted, at, actor, request_id in self._granted:
            after = granted.case
            promises.extend(granted.messages)
            if granted.events:
                version = before.order.version + len(granted.events)
                if before.order.version:
                    moved_orders.append((after.order, version, at))
                else:
                    new.append(replace(after.order, version=version, last_event_at=at))
                rows.extend(_event_rows(before, granted, at, actor, request_id))
            if after.alert is not None and after.alert != before.alert:
                moved_alerts.append((after.order.order_id, after.alert))
            if after.ocr is not None and after.ocr != before.ocr:
                moved_ocrs.append((after.order.order_id, after.ocr))
        now = work.now
        with pipeline(self.conn):
            orders.insert(self.conn, new)
            orders.update_changed(self.conn, moved_orders)
            alerts.update_changed(self.conn, moved_alerts, self.terms_history)
            ocr.update_changed(self.conn, moved_ocrs, self.terms_history)
            moved = members.update_standing(self.conn, self._members_before, self.members.values(), now)
            events.append(self.conn, [*rows, *(_standing_row(*one, now) for one in moved)])
            work.enqueue(promises)


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
    """The first event carries what changed; any further one only says something."""
    after = granted.case
    changed = history.diff_cases(before if before.order.version else None, after)
    role = before.role_of(actor) if actor is not None else None
    found = []
    for index, event in enumerate(granted.events):
        first = index == 0
        found.append(
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
    return found
