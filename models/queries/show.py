"""Queries of `show` about lots, members, notices, alerts, requests, credits and sweeps.

Each returns JSON, takes no locks and changes nothing.  An unknown thing is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, exists, select, text

from models import inventory, members
from models.alerts import AlertRow
from models.db.row_mapping import map_row_to_json
from models.ddl.views import V_LATE_PAYMENT, V_SWEEP_HISTORY
from models.events import EventRow
from models.orders import OrderRow
from models.queries import fee_credits
from models.queries.order import member_json, show_order_notices
from policies.automation_settings import settings_to_json
from policies.statuses import Role
from policies.timestamps import format_timestamp


def show_lots(conn: Connection, seller_id: str) -> list[dict[str, Any]] | None:
    if not members.load_members(conn, [seller_id]):
        return None
    return [lot.snapshot() for lot in inventory.stream_lots(conn, seller_id)]


def show_member(conn: Connection, member_id: str) -> dict[str, Any] | None:
    member = members.load_members(conn, [member_id]).get(member_id)
    if member is None:
        return None
    as_buyer, as_seller = member.strikes(Role.BUYER), member.strikes(Role.SELLER)
    return {
        "member_id": member.member_id,
        "handle": member.handle,
        "state": "terminated" if member.terminated else "active",
        "can_buy": member.can_buy and not member.terminated,
        "can_sell": member.can_sell and not member.terminated,
        "strikes": sorted({*as_buyer, *as_seller}),
        "strikes_as_buyer": list(as_buyer),
        "strikes_as_seller": list(as_seller),
        "automation": settings_to_json(members.load_automation(conn, member_id)),
        "automation_history": _show_automation_history(conn, member_id),
    }


def _show_automation_history(conn: Connection, member_id: str) -> list[dict[str, Any]]:
    changes = select(EventRow).where(EventRow.member_id == member_id, EventRow.type == "sellers.automation_set")
    rows = conn.execute(changes.order_by(EventRow.event_id))
    return [{"at": format_timestamp(row.at), "by": row.actor, "note": row.note} for row in rows]


def show_notices(conn: Connection, order_id: int) -> list[dict[str, Any]] | None:
    known = conn.execute(select(exists().where(OrderRow.order_id == order_id))).scalar()
    return show_order_notices(conn, order_id) if known else None


def show_alerts(conn: Connection, due_before: datetime) -> list[dict[str, Any]]:
    alert, order = AlertRow, OrderRow
    rows = conn.execute(
        select(alert.order_id, alert.kind, order.status, order.seller_id, order.buyer_id)
        .add_columns(alert.filed_at, alert.responded_at, alert.unlocks_at, alert.unlocked_at)
        .join(order, order.order_id == alert.order_id)
        .where(alert.state == "open", alert.unlocks_at < due_before)
        .order_by(alert.unlocks_at, alert.alert_id)
    )
    return [map_row_to_json(row) for row in rows]


def show_request(conn: Connection, request_id: str) -> dict[str, Any] | None:
    row = conn.execute(
        text(
            "SELECT v.*, a.answer FROM unwind.v_request_status AS v "
            "LEFT JOIN unwind.command_answers AS a USING (request_id) WHERE v.request_id = :id"
        ),
        {"id": request_id},
    ).one_or_none()
    return None if row is None else map_row_to_json(row)


def show_credits(conn: Connection, seller_id: str) -> dict[str, Any] | None:
    if not members.load_members(conn, [seller_id]):
        return None
    return {"seller_id": seller_id, "credits": fee_credits.fee_credits_of_seller(conn, seller_id)}


def show_parties_of_problem_orders(conn: Connection) -> Sequence[Row[Any]]:
    parties = text(
        "SELECT m.member_id, m.handle, (array_agg(o.order_id ORDER BY a.unlocked_at, o.order_id))[1:4] AS orders "
        "FROM unwind.orders AS o JOIN unwind.members AS m ON m.member_id IN (o.seller_id, o.buyer_id) "
        "LEFT JOIN unwind.alerts AS a ON a.order_id = o.order_id AND a.state = 'open' "
        "WHERE a.alert_id IS NOT NULL OR o.status = 'OCR' GROUP BY m.member_id, m.handle "
        "ORDER BY min(a.unlocked_at), m.member_id LIMIT 20"
    )
    return conn.execute(parties).all()


def show_sweeps(conn: Connection) -> list[dict[str, Any]]:
    history = V_SWEEP_HISTORY.as_table()
    return [map_row_to_json(row) for row in conn.execute(select(history).order_by(history.c.sweep, history.c.hour))]


def show_late_payments(conn: Connection) -> list[dict[str, Any]]:
    late = V_LATE_PAYMENT.as_table()
    unsettled = select(late).where(late.c.settled_at.is_(None)).order_by(late.c.recorded_at, late.c.order_id)
    rows = conn.execute(unsettled).all()
    known = members.load_members(conn, [member for row in rows for member in (row.seller_id, row.buyer_id)])
    return [
        {
            "order_id": row.order_id,
            "seller_id": row.seller_id,
            "buyer_id": row.buyer_id,
            "seller": member_json(known[row.seller_id]),
            "buyer": member_json(known[row.buyer_id]),
            "payment_status": row.payment_status,
            "recorded_at": format_timestamp(row.recorded_at),
        }
        for row in rows
    ]
