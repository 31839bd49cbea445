"""The table of alerts (NPB, NRS and NSS, which have the same lifecycle), and the statement that unlocks due ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Connection, ForeignKey, SmallInteger, bindparam, select, text, update
from sqlalchemy.orm import Mapped, mapped_column

from models import terms
from models.db.arrays import array_rows, int_array, is_any_of_ids, text_array, timestamp_array
from models.db.pipeline import execute, pipeline
from models.db.schema import Base, BigInt, BigIntKey, Timestamp, check_in, partial_index
from models.db.selects import DuePosition, due_parameters, earliest, next_due, select_latest
from models.orders import OrderRow, PartChange, store_order_parts
from models.sql import load_sql
from policies import reminders
from policies.alerts import UNLOCKED_NOTE
from policies.cases import Alert, AlertKind, AlertState
from policies.statuses import Role
from policies.terms import TermsHistory
from policies.timestamps import format_timestamp

ALERT_WAITING_CONDITION = "state = 'open' AND unlocked_at IS NULL AND NOT penalty_stands"
ALERT_CANCELS_CONDITION = "state = 'open' AND cancels_at IS NOT NULL"
ALERT_WARNS_CONDITION = f"{ALERT_CANCELS_CONDITION} AND warned_of IS DISTINCT FROM cancels_at"


class AlertRow(Base):
    __tablename__ = "alerts"

    order_id: Mapped[BigInt] = mapped_column(ForeignKey("unwind.orders.order_id"), primary_key=True)
    alert_id: Mapped[BigIntKey]
    kind: Mapped[str]
    state: Mapped[str]
    terms_id: Mapped[int]
    unlock_seq: Mapped[int | None]
    """The number of the event that unlocked it. `orders.version` does not count it until the order's next event."""
    reminders: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    penalty_stands: Mapped[bool]
    filed_at: Mapped[datetime]
    unlocks_at: Mapped[datetime]
    unlocked_at: Mapped[datetime | None]
    remind_from: Mapped[datetime | None]
    remind_at: Mapped[datetime | None]
    cancels_at: Mapped[datetime | None]
    extended_until: Mapped[datetime | None]
    warned_of: Mapped[datetime | None]
    """The automatic cancellation that the buyer was warned of; another time needs another warning."""
    responded_at: Mapped[datetime | None]
    penalty_accepted_at: Mapped[datetime | None]
    penalty_withdrawn_at: Mapped[datetime | None]
    closed_at: Mapped[datetime | None]
    grounds: Mapped[str | None]
    previous_status: Mapped[str | None]
    comment: Mapped[str | None]
    response: Mapped[str | None]

    __table_args__ = (
        check_in("kind", AlertKind),
        check_in("state", AlertState),
        CheckConstraint("(state = 'open') = (closed_at IS NULL)", name="closed_when_not_open"),
        CheckConstraint("unlocked_at <= COALESCE(closed_at, 'infinity')", name="unlocked_before_closed"),
        partial_index("uq_alerts_one_open_per_order", "order_id", unique=True, where="state = 'open'"),
        partial_index("ix_alerts_waiting", "unlocks_at", "alert_id", "kind", where=ALERT_WAITING_CONDITION),
        partial_index("ix_alerts_remind", "remind_at", "alert_id", where="state = 'open' AND remind_at IS NOT NULL"),
        partial_index("ix_alerts_cancel", "cancels_at", "alert_id", where=ALERT_CANCELS_CONDITION),
        partial_index("ix_alerts_warn", "cancels_at", "alert_id", where=ALERT_WARNS_CONDITION),
    )


LATEST_ALERTS = select_latest(AlertRow.order_id, AlertRow.alert_id)


def count_open_alerts_by_accused(conn: Connection, at_least: int) -> list[tuple[str, Role, int]]:
    """Return (member_id, accused as, number) for members with at least that many open alerts, most first (R98).

    Operators look at the result; only completed alerts become strikes (A20).
    """
    rows = conn.execute(_OPEN_ALERTS_BY_ACCUSED, {"at_least": at_least})
    return [(row.accused, Role(row.role), row.pending) for row in rows]


_OPEN_ALERTS_BY_ACCUSED = text("""
    SELECT CASE a.kind WHEN 'NPB' THEN o.buyer_id ELSE o.seller_id END AS accused,
        CASE a.kind WHEN 'NPB' THEN 'buyer' ELSE 'seller' END AS role, count(*) AS pending
    FROM unwind.alerts AS a JOIN unwind.orders AS o USING (order_id) WHERE a.state = 'open'
    GROUP BY 1, 2 HAVING count(*) >= :at_least ORDER BY 3 DESC, 1, 2
""")


def update_alerts(conn: Connection, changed: Sequence[PartChange[Alert]], terms_history: TermsHistory) -> None:
    def new_columns(alert: Alert) -> dict[str, Any]:
        return {"terms_id": terms_history.ids[alert.terms]}

    store_order_parts(conn, AlertRow, "alert_id", changed, _ALERT_COLUMNS, new_columns)
    # Restart the reminders of alerts whose actionable instant changed (N17).
    opened = [(order_id, alert) for order_id, _, alert in changed if alert.alert_id and alert.state is AlertState.OPEN]
    if opened:
        since = [reminders.reminder_start(alert) for _, alert in opened]
        firsts = [
            reminders.first_reminder_at(at, alert.terms.unlock_remind_after)
            for at, (_, alert) in zip(since, opened, strict=True)
        ]
        values = {
            "orders": int_array([order_id for order_id, _ in opened]),
            "ids": int_array([alert.alert_id for _, alert in opened]),
            "since": timestamp_array(since),
            "first": timestamp_array(firsts),
        }
        execute(conn, _UPDATE_ALERT_STARTS, values)


_ALERT_STARTS = array_rows(
    orders=AlertRow.order_id, ids=AlertRow.alert_id, since=AlertRow.remind_from, first=AlertRow.remind_at
).c
_UPDATE_ALERT_STARTS = (
    update(AlertRow)
    .where(AlertRow.order_id == _ALERT_STARTS.orders, AlertRow.alert_id == _ALERT_STARTS.ids)
    .where(AlertRow.remind_from.is_distinct_from(_ALERT_STARTS.since))
    .values(remind_from=_ALERT_STARTS.since, remind_at=_ALERT_STARTS.first, reminders=0)
)


_WRITTEN_ELSEWHERE = ("alert_id", "terms", "unlock_seq")
_ALERT_COLUMNS = ("penalty_stands", *(field.name for field in fields(Alert) if field.name not in _WRITTEN_ELSEWHERE))


def unlock_alerts(
    conn: Connection,
    kinds: Sequence[AlertKind],
    now: datetime,
    after: DuePosition,
    limit: int,
    *,
    max_messages: int,
    relay_at: datetime,
) -> Any:
    """Unlock the next due alerts with their events and outbox messages, except those of orders that are locked.

    Return a row of how many were `due` and `unlocked`, the last of them (`last_at`, `last_id`), and the `messages` if
    there are at most `max_messages`, which the relay gets at `relay_at`, more at once; None if no alert is due.

    A cheap query first checks that an alert is due, because an idle run of the statement costs five times as much (B8).
    """
    where = {"kinds": text_array(kinds)} | due_parameters(now, after, limit)
    with pipeline(conn):
        fetch_terms = terms.send_terms_query(conn)
        due = execute(conn, _FIRST_DUE_ALERT, where)
    if due.fetchone() is None:
        return None
    firsts = {
        terms_id: terms_.unlock_remind_after[0].total_seconds()
        for terms_id, terms_ in fetch_terms().by_id.items()
        if terms_.unlock_remind_after
    }
    values = where | {
        "terms": list(firsts),
        "firsts": list(firsts.values()),
        "changes": json.dumps({"alert": {"unlocked_at": format_timestamp(now)}}),
        "note": UNLOCKED_NOTE,
        "messages": max_messages,
        "relay_at": relay_at,
    }
    return execute(conn, _UNLOCK_ALERTS, values).fetchone()


def first_unlockable_alert(
    conn: Connection, kinds: Sequence[AlertKind], now: datetime, after: DuePosition
) -> DuePosition | None:
    where = {"kinds": text_array(kinds)} | due_parameters(now, after, limit=1)
    first = execute(conn, _FIRST_UNLOCKABLE_ALERT, where).fetchone()
    return None if first is None else (first.unlocks_at, first.alert_id)


next_unlock_at = earliest(AlertRow.unlocks_at, ALERT_WAITING_CONDITION)


_UNLOCK_ALERTS = text(load_sql("unlock_alerts"))
_FIRST_DUE_ALERT = next_due(
    select(AlertRow.alert_id, AlertRow.unlocks_at).where(is_any_of_ids(AlertRow.kind, "kinds")),
    AlertRow.unlocks_at,
    AlertRow.alert_id,
    ALERT_WAITING_CONDITION,
).limit(1)
_FIRST_UNLOCKABLE_ALERT = (
    _FIRST_DUE_ALERT.join(OrderRow, OrderRow.order_id == AlertRow.order_id)
    .where(OrderRow.last_event_at <= bindparam("now", type_=Timestamp))
    .with_for_update(of=OrderRow, key_share=True, skip_locked=True)
)
