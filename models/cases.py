"""The cases of a batch: orders with their parties, alerts and requests, loaded under locks and written with events.

One statement per table, however many orders. Locks are taken in one order everywhere: members, orders (which guard
their alerts, requests, lines and removals), items by key, lots by id, and the sellers' ledgers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from models import alerts, events, late_payments, members, ocr, orders, terms
from models.db.conflicts import Conflict
from models.db.pipeline import Fetch, pipeline
from models.unit_of_work import UnitOfWork
from policies import history
from policies.alerts import drop_later_alert_unlock
from policies.automation import with_deadlines
from policies.cases import Actor, Alert, Case, LatePayment, Member, Ocr, Order
from policies.copies import replace
from policies.statuses import Status
from policies.terms import TermsHistory
from policies.verdicts import Event, Granted, OutboxMessage


def lock_case_set(
    conn: Connection,
    order_ids: Iterable[int],
    *,
    member_ids: Iterable[str] = (),
    lock_members: str = members.FOR_SHARE,
    parties: orders.OrderParties | None = None,
) -> CaseSet:
    """Lock and load the orders. `member_ids`: further members to load; `parties`: those of the orders, if known."""
    if parties is None:
        parties = orders.send_order_parties_query(conn, order_ids)()
    return send_case_set_locks(conn, order_ids, parties, member_ids=member_ids, lock_members=lock_members)()


def load_case_set(conn: Connection, parties: orders.OrderParties) -> CaseSet:
    """Load the orders of these parties without locks, only to be read."""
    return send_case_set_locks(conn, parties.by_order, parties, lock_members=members.NO_LOCK, lock_orders=False)()


def send_case_set_locks(
    conn: Connection,
    order_ids: Iterable[int],
    parties: orders.OrderParties,
    *,
    member_ids: Iterable[str] = (),
    lock_members: str = members.FOR_SHARE,
    lock_orders: bool = True,
) -> Fetch[CaseSet]:
    ids = set(order_ids)
    all_member_ids = {m for order_id in ids & parties.by_order.keys() for m in parties.by_order[order_id]}
    with pipeline(conn):
        fetch_members = members.send_members_query(conn, all_member_ids | set(member_ids), lock=lock_members)
        fetch_orders = orders.send_orders_query(conn, ids, lock=lock_orders)
        fetch_terms = terms.send_terms_query(conn)
        fetch_alerts = orders.send_latest_parts_query(conn, alerts.LATEST_ALERTS, Alert, ids)
        fetch_ocrs = orders.send_latest_parts_query(conn, ocr.LATEST_OCRS, Ocr, ids)

    def fetch() -> CaseSet:
        terms_history = fetch_terms()
        alerts_by_order = fetch_alerts(terms_history)
        orders_by_id = fetch_orders(alerts_by_order)
        if not orders_by_id.keys() <= parties.by_order.keys():
            raise Conflict("an order was submitted between the read and the locks")
        cancelled = [order_id for order_id, order in orders_by_id.items() if order.status is Status.CANCELLED]
        return CaseSet(
            conn,
            fetch_members(),
            orders_by_id,
            terms_history,
            alerts_by_order,
            fetch_ocrs(terms_history),
            late_payments.load_latest_late_payments(conn, cancelled),
        )

    return fetch


@dataclass(slots=True)
class CaseChange:
    """A granted verdict about one order, which stood as `before`; `granted` may be completed until it is written."""

    before: Case
    granted: Granted
    at: datetime
    actor: Actor | None = None
    request_id: str | None = None


@dataclass(eq=False)
class CaseSet:
    conn: Connection
    members: dict[str, Member]
    _orders: dict[int, Order]
    terms_history: TermsHistory
    _alerts: dict[int, Alert]
    _ocrs: dict[int, Ocr]
    _late_payments: dict[int, LatePayment]

    def __post_init__(self) -> None:
        self._members_before = dict(self.members)
        self._changes: list[CaseChange] = []

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
            later_terms=self.terms_history.after(now),
        )

    @property
    def orders(self) -> list[int]:
        return sorted(self._orders)

    def add(self, change: CaseChange) -> None:
        """Apply a granted verdict: later verdicts of the batch see it, and `write` stores it."""
        after = drop_later_alert_unlock(change.granted.case, change.at)
        if (after := with_deadlines(after)) is not change.granted.case:
            change.granted = replace(change.granted, case=after)
        self._changes.append(change)
        self._orders[after.order.order_id] = after.order
        self.members[after.buyer.member_id] = after.buyer
        self.members[after.seller.member_id] = after.seller
        if after.alert is not None:
            self._alerts[after.order.order_id] = after.alert
        if after.ocr is not None:
            self._ocrs[after.order.order_id] = after.ocr
        if after.late_payment is not None:
            self._late_payments[after.order.order_id] = after.late_payment

    def update_deadlines(self, now: datetime) -> None:
        """Store the deadlines that follow from facts which changed outside the orders, such as a seller's settings."""
        cases = [case for order_id in self.orders if (case := self.get(order_id, now)) is not None]
        pairs = [(case, with_deadlines(case)) for case in cases]
        orders.update_orders_files_npb_at(
            self.conn, [after.order for before, after in pairs if after.order != before.order]
        )
        alerts.update_alerts(self.conn, _changed_parts(pairs, "alert"), self.terms_history)
        ocr.update_ocrs(self.conn, _changed_parts(pairs, "ocr"), self.terms_history)

    def write(self, work: UnitOfWork[Any]) -> None:
        rows: list[dict[str, Any]] = []
        new: list[Order] = []
        changed_orders: list[tuple[Order, Order]] = []
        messages: list[OutboxMessage] = []
        for change in self._changes:
            old, granted = change.before.order, change.granted
            messages.extend(granted.messages)
            if granted.event is not None:
                order = replace(granted.case.order, version=old.version + 1, last_event_at=change.at)
                if old.version:
                    changed_orders.append((old, order))
                else:
                    new.append(order)
                rows.append(_case_event_row(change, granted.event))
        pairs = [(change.before, change.granted.case) for change in self._changes]
        changed_ocrs = _changed_parts(pairs, "ocr")
        if any(request.agrees_at is not None and request.agrees_at <= work.now for _, _, request in changed_ocrs):
            work.tasks_to_wake.add("automation.resolve_requests")  # R117: at once
        now = work.now
        with pipeline(self.conn):
            orders.insert_orders(self.conn, new)
            orders.update_orders(self.conn, changed_orders)
            alerts.update_alerts(self.conn, _changed_parts(pairs, "alert"), self.terms_history)
            ocr.update_ocrs(self.conn, changed_ocrs, self.terms_history)
            late_payments.update_late_payments(self.conn, _changed_parts(pairs, "late_payment"))
            rows += members.update_member_standing(self.conn, self._members_before, self.members.values(), now)
            events.append_events(self.conn, rows)
            work.enqueue(messages)


def _changed_parts(pairs: Iterable[tuple[Case, Case]], part: str) -> list[orders.PartChange[Any]]:
    changed = [(after.order.order_id, getattr(before, part), getattr(after, part)) for before, after in pairs]
    return [change for change in changed if change[2] is not None and change[2] != change[1]]


def _case_event_row(change: CaseChange, event: Event) -> dict[str, Any]:
    before, after, actor = change.before, change.granted.case, change.actor
    changed = history.diff_cases(before if before.order.version else None, after)
    role = before.role_of(actor) if actor is not None else None
    return events.event_row(
        event.type,
        change.at,
        actor=str(actor) if actor is not None else "marketplace",
        role=str(role) if role is not None else "system",
        order_id=after.order.order_id,
        seq=before.order.version + 1,
        from_status=before.order.status if before.order.version else None,
        to_status=after.order.status,
        note=event.note,
        changes=changed | event.changes,
        request_id=change.request_id,
    )
