"""One order, now or at an earlier instant: its state, lines, requests, money and timeline.

The present is read from the rows.  An earlier instant is folded from the events up to it (`policies.history`), with the
lines, removal requests and ledger lines that existed then; a test checks that both agree about the present.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, text

from models import alerts, events, late_payments, members, notices, ocr, orders, removals, terms
from models.queries import fee_credits
from policies import options as policy
from policies.alerts import UNLOCK_EVENTS
from policies.cases import Actor, Alert, AlertKind, AlertState, Case, LatePayment, Member, Ocr, OcrState, Order
from policies.history import alert_state, fold_changes, late_payment_state, ocr_state, order_state
from policies.purchases import format_total
from policies.removals import Removal, RemovalState
from policies.statuses import Basis, PaymentStatus, Role, Status
from policies.timestamps import format_optional_timestamp, format_timestamp, parse_timestamp


@dataclass(frozen=True, slots=True)
class OrderSnapshot:
    case: Case
    lines: Sequence[dict[str, Any]]
    removals: Sequence[Removal]
    events: Sequence[Any]

    @property
    def remaining(self) -> dict[int, int]:
        return {line["line_no"]: line["remaining"] for line in self.lines}


def show_order(conn: Connection, order_id: int, *, at: datetime | None, now: datetime) -> dict[str, Any] | None:
    seen = load_snapshot(conn, order_id, at=at, now=now)
    if seen is None:
        return None
    case = seen.case
    stated = order_state(case.order)
    book = terms.load_terms(conn)
    return {
        "order_id": order_id,
        "status": stated["status"],
        "previous_status": stated["previous_status"],
        "payment_status": stated["payment_status"],
        "order_date": stated["order_date"],
        "seller_id": case.order.seller_id,
        "buyer_id": case.order.buyer_id,
        "currency": case.order.currency,
        "total": format_total(case.order.total),
        "cancelled_at": stated["cancelled_at"],
        "basis": stated["basis"],
        "cancelled_by": stated["cancelled_by"],
        "lines": seen.lines,
        "ocr": {**ocr_state(case.ocr), "terms_id": book.id_of(case.ocr.terms)} if case.ocr else None,
        "alert": {**alert_state(case.alert), "terms_id": book.id_of(case.alert.terms)} if case.alert else None,
        "late_payment": late_payment_state(case.late_payment) if case.late_payment else None,
        "removals": [_removal(one) for one in seen.removals],
        "fee": _fee(conn, case.order, at),
        "verdict": policy.describe_cancellability(subject_of(seen), at or now),
        "credits": fee_credits.of_order(conn, order_id, until=at),
        "stock": _stock(conn, order_id, at),
        "notices": notices.list_for_order(conn, order_id, until=at),
        "timeline": [_happened(row, book) for row in seen.events],
    }


def explain_order(conn: Connection, order_id: int, *, at: datetime | None, now: datetime) -> dict[str, Any] | None:
    """Return what each party can and cannot do at that instant, which may be in the future."""
    instant = at or now
    seen = load_snapshot(conn, order_id, at=at if instant < now else None, now=now)
    if seen is None:
        return None
    case = replace(seen.case, terms=terms.load_terms(conn).at(instant))
    subject = subject_of(replace(seen, case=case))
    asked = {
        role: [o.as_json() for o in policy.list_options(subject, Actor(case.member(role).member_id), instant)]
        for role in (Role.SELLER, Role.BUYER)
    }
    return {
        "order_id": order_id,
        "status": case.order.status,
        "at": format_timestamp(instant),
        "verdict": policy.describe_cancellability(subject, instant),
        "seller": asked[Role.SELLER],
        "buyer": asked[Role.BUYER],
    }


def subject_of(seen: OrderSnapshot) -> policy.Subject:
    waiting = [one for one in seen.removals if one.state is RemovalState.PENDING]
    return policy.Subject(seen.case, seen.remaining, waiting)


def load_snapshot(conn: Connection, order_id: int, *, at: datetime | None, now: datetime) -> OrderSnapshot | None:
    """Return the order as it is now (`at` is None), or as it was after everything that happened up to `at`."""
    row = orders.load_facts(conn, [order_id], lock=False).get(order_id)
    if row is None:
        return None
    happened = events.of_order(conn, order_id, until=at)
    if not happened:
        return None
    lines = _lines(conn, order_id, happened, at)
    asked = [_at_that_time(one, at) for one in removals.load_by_order(conn, [order_id]).get(order_id, ())]
    known = [one for one in asked if one is not None]
    case = _present(conn, row, now) if at is None else _past(conn, row, happened, at)
    if at is not None:
        lines = [_line_then(line, case.order, known) for line in lines]
    return OrderSnapshot(case, lines, known, happened)


def _present(conn: Connection, row: Order, now: datetime) -> Case:
    book = terms.load_terms(conn)
    parties = members.load_facts(conn, [row.buyer_id, row.seller_id])
    return Case(
        order=row,
        buyer=parties[row.buyer_id],
        seller=parties[row.seller_id],
        terms=book.at(now),
        ocr=ocr.load_latest(conn, [row.order_id], book).get(row.order_id),
        alert=alerts.load_latest(conn, [row.order_id], book).get(row.order_id),
        late_payment=late_payments.load_latest(conn, [row.order_id]).get(row.order_id),
    )


def _past(conn: Connection, row: Order, happened: Sequence[Any], at: datetime) -> Case:
    state = fold_changes(event.changes for event in happened)
    book = terms.load_terms(conn)
    return Case(
        order=_order_then(row, state["order"], happened),
        buyer=_member_then(conn, row.buyer_id, at),
        seller=_member_then(conn, row.seller_id, at),
        terms=book.at(at),
        ocr=_ocr_then(conn, row.order_id, state.get("ocr"), book),
        alert=_alert_then(conn, row.order_id, state.get("alert"), book),
        late_payment=_late_payment_then(state.get("late_payment")),
    )


def _order_then(row: Order, state: dict[str, Any], happened: Sequence[Any]) -> Order:
    return replace(
        row,
        status=Status(state["status"]),
        previous_status=Status(state["previous_status"]) if state["previous_status"] else None,
        payment_status=PaymentStatus(state["payment_status"]),
        order_date=parse_timestamp(state["order_date"]),
        total=Decimal(state["total"]),
        fee=Decimal(state["fee"]),
        fee_month=date.fromisoformat(f"{state['fee_month']}-01") if state["fee_month"] else None,
        cancelled_at=_instant(state["cancelled_at"]),
        basis=Basis(state["basis"]) if state["basis"] else None,
        cancelled_by=state["cancelled_by"],
        version=happened[-1].seq,
        last_event_at=max(event.at for event in happened if event.type not in UNLOCK_EVENTS),
    )


def _alert_then(
    conn: Connection, order_id: int, state: dict[str, Any] | None, book: terms.TermsHistory
) -> Alert | None:
    if state is None:
        return None
    filed_at = parse_timestamp(state["filed_at"])
    row = conn.execute(
        text("SELECT * FROM unwind.alerts WHERE order_id = :order AND filed_at = :filed ORDER BY alert_id LIMIT 1"),
        {"order": order_id, "filed": filed_at},
    ).one()
    return replace(
        alerts.alert_from_row(row, book),
        kind=AlertKind(state["kind"]),
        state=AlertState(state["state"]),
        unlocks_at=parse_timestamp(state["unlocks_at"]),
        responded_at=_instant(state["responded_at"]),
        penalty_accepted_at=_instant(state["penalty_accepted_at"]),
        penalty_withdrawn_at=_instant(state["penalty_withdrawn_at"]),
        unlocked_at=_instant(state["unlocked_at"]),
        closed_at=_instant(state["closed_at"]),
    )


def _late_payment_then(state: dict[str, Any] | None) -> LatePayment | None:
    if state is None:
        return None
    return LatePayment(
        PaymentStatus(state["payment_status"]),
        parse_timestamp(state["recorded_at"]),
        settled_at=_instant(state["settled_at"]),
        settled_by=state["settled_by"],
    )


def _ocr_then(conn: Connection, order_id: int, state: dict[str, Any] | None, book: terms.TermsHistory) -> Ocr | None:
    if state is None:
        return None
    row = conn.execute(
        text("SELECT * FROM unwind.ocrs WHERE order_id = :order AND filed_at = :filed ORDER BY ocr_id LIMIT 1"),
        {"order": order_id, "filed": parse_timestamp(state["filed_at"])},
    ).one()
    return replace(ocr.ocr_from_row(row, book), state=OcrState(state["state"]), closed_at=_instant(state["closed_at"]))


def _member_then(conn: Connection, member_id: str, at: datetime) -> Member:
    # Of a member's standing, only an open account decides about existing orders (R53, R55).
    last = conn.execute(
        text(
            "SELECT type FROM unwind.events WHERE member_id = :member AND at <= :at "
            "AND type IN ('members.terminated', 'members.reinstated') ORDER BY event_id DESC LIMIT 1"
        ),
        {"member": member_id, "at": at},
    ).scalar()
    return replace(members.load_facts(conn, [member_id])[member_id], terminated=last == "members.terminated")


def _lines(conn: Connection, order_id: int, happened: Sequence[Any], at: datetime | None) -> list[dict[str, Any]]:
    batches = sum(event.type in ("orders.submitted", "orders.batch_added") for event in happened)
    return [
        {
            "line_no": row.line_no,
            "quantity": row.quantity,
            "removed": row.removed,
            "remaining": row.quantity - row.removed,
            "returned": row.returned,
            "returned_to_lot": row.returned_to_lot,
            "note": row.note,
            "lot_id": row.lot_id,
            "batch_no": row.batch_no,
            "unit_price": format_total(row.unit_price),
        }
        for row in orders.load_lines(conn, [order_id])[order_id]
        if at is None or row.batch_no <= batches
    ]


def _line_then(line: dict[str, Any], held: Order, known: Sequence[Removal]) -> dict[str, Any]:
    removed = sum(
        quantity
        for one in known
        if one.state is RemovalState.APPROVED
        for line_no, quantity in one.lines
        if line_no == line["line_no"]
    )
    then = {**line, "removed": removed, "remaining": line["quantity"] - removed}
    if held.status is not Status.CANCELLED:
        then |= {"returned": 0, "returned_to_lot": None, "note": None}
    return then


def _at_that_time(one: Removal, at: datetime | None) -> Removal | None:
    if at is None:
        return one
    if one.requested_at > at:
        return None
    undecided = one.decided_at is not None and one.decided_at > at
    return replace(one, state=RemovalState.PENDING, decided_at=None) if undecided else one


def _removal(one: Removal) -> dict[str, Any]:
    return {
        "removal_id": one.removal_id,
        "state": one.state,
        "requested_by": one.requested_by,
        "requested_at": format_timestamp(one.requested_at),
        "decided_at": format_optional_timestamp(one.decided_at),
        "lines": [{"line_no": line_no, "quantity": quantity} for line_no, quantity in one.lines],
    }


def _fee(conn: Connection, held: Order, at: datetime | None) -> dict[str, Any]:
    # `net` is what the order still costs its seller.
    rows = conn.execute(
        text(
            "SELECT kind, amount, billing_month FROM unwind.ledger_lines WHERE order_id = :order AND kind <> 'payment' "
            "AND (CAST(:at AS timestamptz) IS NULL OR at <= :at) ORDER BY line_id"
        ),
        {"order": held.order_id, "at": at},
    ).all()
    back = {row.kind: row for row in rows if row.kind in ("reset", "credit")}
    reset, credit = back.get("reset"), back.get("credit")
    return {
        "charged": format_total(held.fee),
        "charged_month": format_month(held.fee_month),
        "net": format_total(sum((row.amount for row in rows), Decimal(0))),
        "reset": format_total(reset.amount) if reset else None,
        "credit": format_total(credit.amount) if credit else None,
        "credit_month": format_month(credit.billing_month) if credit else None,
    }


# Three branches, one for each of the journal's unique indexes: its rows need no index by order besides.
_STOCK = text(
    """
    SELECT at, kind, lot_id, line_no, delta FROM (
        SELECT * FROM unwind.stock_moves WHERE order_id = :order AND kind = 'sold'
        UNION ALL
        SELECT * FROM unwind.stock_moves WHERE order_id = :order AND kind = 'returned' AND removal_id IS NULL
        UNION ALL
        SELECT * FROM unwind.stock_moves
        WHERE removal_id IN (SELECT removal_id FROM unwind.removals WHERE order_id = :order)
    ) AS m
    WHERE CAST(:at AS timestamptz) IS NULL OR at <= :at ORDER BY move_id
    """
)


def _stock(conn: Connection, order_id: int, at: datetime | None) -> list[dict[str, Any]]:
    rows = conn.execute(_STOCK, {"order": order_id, "at": at})
    return [
        {"at": format_timestamp(r.at), "kind": r.kind, "lot_id": r.lot_id, "line_no": r.line_no, "delta": r.delta}
        for r in rows
    ]


def format_month(first_day: date | None) -> str | None:
    return None if first_day is None else f"{first_day:%Y-%m}"


def _happened(row: Any, book: terms.TermsHistory) -> dict[str, Any]:
    return {
        "at": format_timestamp(row.at),
        "event": row.type,
        "actor": row.actor,
        "role": row.role,
        "from": row.from_status,
        "to": row.to_status,
        "note": row.note,
        "basis": row.changes.get("order", {}).get("basis"),
        "terms_id": book.id_of(book.at(row.at)),
        "request_id": row.request_id,
    }


def _instant(written: str | None) -> datetime | None:
    return None if written is None else parse_timestamp(written)
