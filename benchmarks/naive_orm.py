"""The naive reference: a Celery task per order with SQLAlchemy's ORM.

Default Celery and ORM objects on the product's own tables: load the order, its alert, each line and its lot, change
them, add the new rows, commit.  It leaves the same rows as the product.
"""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from celery import Celery, signals
from sqlalchemy import create_engine, select, text
from sqlalchemy.orm import DeclarativeBase, Session

import benchmarks.ready_file  # noqa: F401 - connects itself to a signal
from models import alerts, events, inventory, members, orders, outbox, stock_moves, stored_answers
from models.db.schema import metadata as product_metadata
from models.db.schema import table_of

app = Celery("naive", broker=os.environ.get("ORM_BROKER"), backend=os.environ.get("ORM_BACKEND"))
app.conf.update(task_default_queue="naive", broker_connection_retry_on_startup=True, worker_proc_alive_timeout=30)
_held: dict[str, Any] = {}


class Base(DeclarativeBase):
    metadata = product_metadata


class Order(Base):
    __table__ = orders.OrderRow.__table__


class Line(Base):
    __table__ = orders.OrderLineRow.__table__


class Lot(Base):
    __table__ = inventory.LotRow.__table__


class StockMove(Base):
    __table__ = stock_moves.StockMoveRow.__table__


class Alert(Base):
    __table__ = alerts.AlertRow.__table__


class Strike(Base):
    __table__ = members.StrikeRow.__table__


class Event(Base):
    __table__ = table_of(events.EventRow)


class OutboxMessage(Base):
    __table__ = table_of(outbox.OutboxRow)


class Request(Base):
    __table__ = table_of(stored_answers.RequestRow)


@signals.worker_process_init.connect
def _connect(**_: Any) -> None:
    _held["engine"] = create_engine(os.environ["ORM_DATABASE"])


@app.task(name="naive.cancel")
def cancel(order_id: int) -> dict[str, Any]:
    with Session(_held["engine"]) as session, session.begin():
        order: Any = session.get(Order, order_id, with_for_update=True)
        alert: Any = session.scalars(select(Alert).filter_by(order_id=order_id, state="open")).one()
        now = session.execute(text("SELECT clock_timestamp()")).scalar_one().astimezone(UTC)
        if order.status != "NPB" or alert.unlocks_at > now:
            return {"outcome": "refused", "order_id": order_id}
        returned = []
        lines: Any = session.scalars(select(Line).filter_by(order_id=order_id).order_by(Line.__table__.c.line_no))
        for line in lines:
            lot: Any = session.get(Lot, line.lot_id, with_for_update=True)
            line.returned = line.quantity - line.removed
            line.returned_to_lot = lot.lot_id
            lot.quantity += line.returned
            key = {name: getattr(lot, name) for name in inventory.KEY_COLUMNS}
            units = {"delta": line.returned, "kind": "returned", "order_id": order_id, "line_no": line.line_no}
            session.add(StockMove(**key, **units, lot_id=lot.lot_id, at=now))
            effect = {"line_no": line.line_no, "returned": line.returned, "lot_id": lot.lot_id, "note": None}
            returned.append(effect)
        _close(session, order, alert, returned, now)
    return {"outcome": "done", "order_id": order_id}


def _close(session: Session, order: Any, alert: Any, returned: list[dict[str, Any]], now: datetime) -> None:
    instant = now.isoformat().replace("+00:00", "Z")
    month = now.astimezone(ZoneInfo("America/New_York")).strftime("%Y-%m")
    charged = order.fee_month.strftime("%Y-%m")
    fee = {"kind": "reset" if charged == month else "credit", "amount": str(-order.fee), "bill": month}
    changed = {
        "basis": "NPB",
        "status": "CANCELLED",
        "cancelled_at": instant,
        "cancelled_by": order.seller_id,
        "previous_status": order.status,
    }
    order.previous_status, order.status, order.basis = order.status, "CANCELLED", "NPB"
    order.cancelled_at, order.cancelled_by, order.last_event_at = now, order.seller_id, now
    order.version = max(order.version, alert.unlock_seq or 0) + 1
    alert.state, alert.closed_at = "completed", now
    session.add(Strike(order_id=order.order_id, member_id=order.buyer_id, role="buyer", at=now))
    session.add(
        Event(
            order_id=order.order_id,
            seq=order.version,
            at=now,
            type="orders.cancelled",
            actor=order.seller_id,
            role="seller",
            from_status="NPB",
            to_status="CANCELLED",
            note="Cancelled by the seller on the ground of the non-paying buyer alert.",
            changes={
                "order": changed,
                "alert": {"state": "completed", "closed_at": instant},
                "returned": returned,
                "fee": fee,
            },
            request_id=f"orm:{order.order_id}",
        )
    )
    facts = {
        "by": "seller",
        "basis": "NPB",
        "strike": True,
        "returns": True,
        "lines_returned": len(returned),
        "units_returned": sum(line["returned"] for line in returned),
    }
    message = {"order_id": order.order_id, "created_at": now, "due_at": now}
    for role, member_id, more in (("seller", order.seller_id, {"fee": fee}), ("buyer", order.buyer_id, {})):
        key = f"order_cancelled:{order.order_id}:{order.version}:{member_id}"
        payload = {"event": "order_cancelled", "recipient": member_id, "role": role, "facts": facts | more}
        session.add(OutboxMessage(key=key, task=f"notices.tell_{role}", payload=payload, **message))
    posting = {
        "kind": fee["kind"],
        "amount": fee["amount"],
        "month": month,
        "charged_month": charged,
        "seller_id": order.seller_id,
        "cancelled_at": instant,
    }
    session.add(
        OutboxMessage(key=f"fee:{order.order_id}", task="credits.post_to_next_invoice", payload=posting, **message)
    )
    answer = {
        "outcome": "done",
        "code": None,
        "message": "Done.",
        "request_id": f"orm:{order.order_id}",
        "order_id": order.order_id,
        "possible_from": None,
        "errors": [],
        "effects": {"basis": "NPB", "lines": returned, "removals_cancelled": 0, "fee": fee},
        "replayed": False,
    }
    session.add(
        Request(
            request_id=f"orm:{order.order_id}",
            task="orders.cancel",
            fingerprint=hashlib.sha256(str(order.order_id).encode()).digest(),
            order_id=order.order_id,
            outcome="done",
            answer=answer,
            answered_at=now,
        )
    )
