"""One order, now or at an earlier instant: its state, lines, money, notices and timeline, and what its parties can do.

The present is read from the rows.  An earlier instant is folded from the events up to it (`policies.history`), with the
lines, removal requests and ledger lines that existed then; a test checks that both agree about the present.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select, text

from models import events, orders, removals
from models.alerts import AlertRow
from models.cases import load_case_set
from models.db.row_mapping import from_row, map_row_to_json
from models.events import EventRow
from models.notices import NoticeRow
from models.ocr import OcrRow
from models.orders import OrderLineRow
from models.queries import fee_credits
from policies import options as policy
from policies.alerts import UNLOCK_EVENTS
from policies.automation import list_announced_acts
from policies.automation_settings import settings_from_json
from policies.cancel_routes import describe_cancel_routes, list_cancel_routes
from policies.cases import Actor, Alert, Case, LatePayment, Member, Ocr, Order
from policies.emails.email import email_from_json, render_plain_email
from policies.history import fold_changes, read_history_part, write_history_part
from policies.preconditions import check_party
from policies.purchases import format_total
from policies.removals import Removal, RemovalState
from policies.statuses import Role, Status
from policies.terms import TermsHistory
from policies.timestamps import format_optional_timestamp, format_timestamp


@dataclass(frozen=True, slots=True)
class OrderSnapshot:
    case: Case
    lines: Sequence[dict[str, Any]]
    removals: Sequence[Removal]
    events: Sequence[Any]
    terms_history: TermsHistory


def show_order(conn: Connection, order_id: int, *, at: datetime | None, now: datetime) -> dict[str, Any] | None:
    snapshot = load_order_snapshot(conn, order_id, at=at, now=now)
    if snapshot is None:
        return None
    case = snapshot.case
    state = write_history_part("order", case.order)
    terms_history = snapshot.terms_history
    return {
        "order_id": order_id,
        **{name: state[name] for name in ("status", "previous_status", "payment_status", "order_date")},
        "seller_id": case.order.seller_id,
        "buyer_id": case.order.buyer_id,
        "seller": member_json(case.seller),
        "buyer": member_json(case.buyer),
        "currency": case.order.currency,
        "total": format_total(case.order.total),
        "credit": format_total(case.order.credit),
        "coupon": format_total(case.order.coupon),
        **{name: state[name] for name in ("cancelled_at", "basis", "cancelled_by", "held_at", "held_until")},
        "lines": snapshot.lines,
        "ocr": _order_part_json("ocr", case.ocr, terms_history),
        "alert": _order_part_json("alert", case.alert, terms_history),
        "late_payment": write_history_part("late_payment", case.late_payment) if case.late_payment else None,
        "removals": [_removal_json(removal) for removal in snapshot.removals],
        "fee": fee_credits.fee_of_order(conn, case.order, until=at),
        "verdict": describe_cancel_routes(order_snapshot_subject(snapshot, at or now), at or now),
        "credits": fee_credits.fee_credit_of_order(conn, order_id, until=at),
        "stock": [map_row_to_json(row) for row in conn.execute(_STOCK_MOVES_OF_ORDER, {"order": order_id, "at": at})],
        "notices": show_order_notices(conn, order_id, until=at),
        "timeline": [_timeline_entry(row, terms_history) for row in snapshot.events],
    }


def _order_part_json(part: str, value: Ocr | Alert | None, terms_history: TermsHistory) -> dict[str, Any] | None:
    return None if value is None else write_history_part(part, value) | {"terms_id": terms_history.ids[value.terms]}


def explain_order(conn: Connection, order_id: int, *, at: datetime | None, now: datetime) -> dict[str, Any] | None:
    instant = at or now
    snapshot = load_order_snapshot(conn, order_id, at=at if instant < now else None, now=now)
    if snapshot is None:
        return None
    subject = order_snapshot_subject(snapshot, instant)
    case = subject.case
    return {
        "order_id": order_id,
        "status": case.order.status,
        "at": format_timestamp(instant),
        "verdict": describe_cancel_routes(subject, instant),
        "routes": [route.as_json() for route in list_cancel_routes(subject, instant)],
        "automation": [announcement.as_json() for announcement in list_announced_acts(case)],
        **{
            str(role): [o.as_json() for o in policy.list_options(subject, Actor(case.member(role).member_id), instant)]
            for role in (Role.SELLER, Role.BUYER)
        },
    }


def show_order_options(conn: Connection, order_id: int, actor: Actor, *, now: datetime) -> dict[str, Any] | None:
    """Return what a party or staff can do now; None if the order is not theirs."""
    snapshot = load_order_snapshot(conn, order_id, at=None, now=now)
    if snapshot is None or check_party(snapshot.case, actor) is not None:
        return None
    verdict = describe_cancel_routes(order_snapshot_subject(snapshot, now), now)
    return {"order_id": order_id, "verdict": verdict} | order_snapshot_options(snapshot, actor, now)


def order_snapshot_options(snapshot: OrderSnapshot, actor: Actor, at: datetime) -> dict[str, Any]:
    subject = order_snapshot_subject(snapshot, at)
    return {
        "status": snapshot.case.order.status,
        "at": format_timestamp(at),
        "options": [option.as_json() for option in policy.list_options(subject, actor, at)],
        "routes": [route.as_json() for route in list_cancel_routes(subject, at, snapshot.case.role_of(actor))],
        "automation": [announcement.as_json() for announcement in list_announced_acts(subject.case)],
    }


def member_json(member: Member) -> dict[str, str]:
    return {"member_id": member.member_id, "handle": member.handle}


def order_snapshot_subject(snapshot: OrderSnapshot, at: datetime) -> policy.Subject:
    pending = [removal for removal in snapshot.removals if removal.state is RemovalState.PENDING]
    history = snapshot.terms_history
    case = replace(snapshot.case, terms=history.at(at), later_terms=history.after(at))
    return policy.Subject(case, {line["line_no"]: line["remaining"] for line in snapshot.lines}, pending)


def load_order_snapshot(conn: Connection, order_id: int, *, at: datetime | None, now: datetime) -> OrderSnapshot | None:
    parties = orders.send_order_parties_query(conn, [order_id])()
    past_events = events.events_of_order(conn, order_id, until=at)
    if order_id not in parties.by_order or not past_events:
        return None
    cases = load_case_set(conn, parties)
    case, history = cases.get(order_id, now), cases.terms_history
    assert case is not None
    lines = _order_lines(conn, order_id, past_events)
    requested = removals.load_removals_of_order(conn, order_id)
    if at is not None:
        requested = [_removal_at(removal, at) for removal in requested if removal.requested_at <= at]
        case = _case_at(conn, case, past_events, at, history)
        lines = [_order_line_at(line, case.order, requested) for line in lines]
    return OrderSnapshot(case, lines, requested, past_events, history)


def _case_at(
    conn: Connection, case: Case, past_events: Sequence[Any], at: datetime, terms_history: TermsHistory
) -> Case:
    state = fold_changes(event.changes for event in past_events)
    late = state.get("late_payment")

    def part_at(name: str, key: Any, kind: type[Any]) -> Any:
        # The alert or the request of that time, which may not be the order's latest.
        if (changes := state.get(name)) is None:
            return None
        then, row = read_history_part(name, changes), key.class_
        filed = select(row).where(row.order_id == case.order.order_id, row.filed_at == then["filed_at"])
        stored = conn.execute(filed.order_by(key).limit(1)).one()
        return replace(from_row(kind, stored, terms=terms_history.by_id[stored.terms_id]), **then)

    return Case(
        order=replace(
            case.order,
            **read_history_part("order", state["order"]),
            version=past_events[-1].seq,
            last_event_at=max(event.at for event in past_events if event.type not in UNLOCK_EVENTS),
        ),
        buyer=_order_party_at(conn, case.buyer, at),
        seller=_order_party_at(conn, case.seller, at),
        terms=terms_history.at(at),
        later_terms=terms_history.after(at),
        ocr=part_at("ocr", OcrRow.ocr_id, Ocr),
        alert=part_at("alert", AlertRow.alert_id, Alert),
        late_payment=LatePayment(**read_history_part("late_payment", late)) if late else None,
    )


def _order_party_at(conn: Connection, member: Member, at: datetime) -> Member:
    # Of a member, only an open account and the settings decide about existing orders (R53, R55, R114).
    def last_event(*types: str) -> Any:
        past = (EventRow.member_id == member.member_id, EventRow.at <= at, EventRow.type.in_(types))
        return conn.execute(select(EventRow).where(*past).order_by(EventRow.event_id.desc()).limit(1)).one_or_none()

    standing, settings = last_event("members.terminated", "members.reinstated"), last_event("sellers.automation_set")
    return replace(
        member,
        terminated=standing is not None and standing.type == "members.terminated",
        automation=settings_from_json(settings and settings.changes["automation"]),
    )


def _order_lines(conn: Connection, order_id: int, past_events: Sequence[Any]) -> list[dict[str, Any]]:
    line = OrderLineRow
    batches = sum(event.type in ("orders.submitted", "orders.batch_added") for event in past_events)
    lines = (
        select(line.line_no, line.quantity, line.removed, (line.quantity - line.removed).label("remaining"))
        .add_columns(line.returned, line.returned_to_lot, line.note, line.lot_id, line.snapshot["item"].label("item"))
        .add_columns(line.snapshot["color_id"].label("color_id"), line.batch_no, line.unit_price)
        .where(line.order_id == order_id, line.batch_no <= batches)
        .order_by(line.line_no)
    )
    return [map_row_to_json(row) | {"unit_price": format_total(row.unit_price)} for row in conn.execute(lines)]


def _order_line_at(line: dict[str, Any], order: Order, removals_known: Sequence[Removal]) -> dict[str, Any]:
    removed = sum(
        quantity
        for removal in removals_known
        if removal.state is RemovalState.APPROVED
        for line_no, quantity in removal.lines
        if line_no == line["line_no"]
    )
    line_then = {**line, "removed": removed, "remaining": line["quantity"] - removed}
    if order.status is not Status.CANCELLED:
        line_then |= {"returned": 0, "returned_to_lot": None, "note": None}
    return line_then


def _removal_at(removal: Removal, at: datetime) -> Removal:
    undecided = removal.decided_at is not None and removal.decided_at > at
    return replace(removal, state=RemovalState.PENDING, decided_at=None) if undecided else removal


def _removal_json(removal: Removal) -> dict[str, Any]:
    return {
        "removal_id": removal.removal_id,
        "state": removal.state,
        "requested_by": removal.requested_by,
        "requested_at": format_timestamp(removal.requested_at),
        "decided_at": format_optional_timestamp(removal.decided_at),
        "lines": [{"line_no": line_no, "quantity": quantity} for line_no, quantity in removal.lines],
    }


# Three branches, one for each of the journal's unique indexes: its rows need no index by order besides.
_STOCK_MOVES_OF_ORDER = text("""
    SELECT at, kind, lot_id, line_no, delta FROM (
        SELECT * FROM unwind.stock_moves WHERE order_id = :order AND kind = 'sold'
        UNION ALL
        SELECT * FROM unwind.stock_moves WHERE order_id = :order AND kind = 'returned' AND removal_id IS NULL
        UNION ALL
        SELECT * FROM unwind.stock_moves
        WHERE removal_id IN (SELECT removal_id FROM unwind.removals WHERE order_id = :order)
    ) AS m
    WHERE CAST(:at AS timestamptz) IS NULL OR at <= :at ORDER BY move_id
""")


def show_order_notices(conn: Connection, order_id: int, *, until: datetime | None = None) -> list[dict[str, Any]]:
    of_order = select(NoticeRow).where(NoticeRow.order_id == order_id)
    if until is not None:
        of_order = of_order.where(NoticeRow.created_at <= until)
    rows = conn.execute(of_order.order_by(NoticeRow.created_at, NoticeRow.notice_id))
    return [_order_notice_json(r, until) for r in rows]


def _order_notice_json(row: Any, until: datetime | None) -> dict[str, Any]:
    email = email_from_json(row.email)
    not_yet = until is not None and row.sent_at is not None and row.sent_at > until
    return {
        "event": row.event,
        "order_id": row.order_id,
        "recipient": row.recipient,
        "state": "pending" if not_yet else row.state,
        "sent_at": None if not_yet else format_optional_timestamp(row.sent_at),
        "subject": email.subject,
        "text": render_plain_email(email),
    }


def _timeline_entry(row: Any, terms_history: TermsHistory) -> dict[str, Any]:
    return {
        "at": format_timestamp(row.at),
        "event": row.type,
        "actor": row.actor,
        "role": row.role,
        "from": row.from_status,
        "to": row.to_status,
        "note": row.note,
        "basis": row.changes.get("order", {}).get("basis"),
        "terms_id": terms_history.ids[terms_history.at(row.at)],
        "request_id": row.request_id,
    }
