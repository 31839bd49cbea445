"""The table of alerts (NPB, NRS and NSS, which have the same lifecycle), and the statement that unlocks due ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Connection,
    ForeignKey,
    Index,
    SmallInteger,
    Text,
    any_,
    bindparam,
    case,
    func,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from models import terms
from models.db.arrays import int_array, text_array, timestamp_array
from models.db.bulk import insert_rows, update_rows
from models.db.pipeline import execute, pipeline
from models.db.row_mapping import from_row, to_row
from models.db.schema import Base, BigInt, BigIntKey, Timestamp, check_in
from models.db.selects import DuePosition, due_parameters, next_due, select_latest
from models.orders import OrderRow
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
        Index("uq_alerts_one_open_per_order", "order_id", unique=True, postgresql_where=text("state = 'open'")),
        Index("ix_alerts_waiting", "unlocks_at", "alert_id", "kind", postgresql_where=text(ALERT_WAITING_CONDITION)),
        Index(
            "ix_alerts_remind",
            "remind_at",
            "alert_id",
            postgresql_where=text("state = 'open' AND remind_at IS NOT NULL"),
        ),
        Index("ix_alerts_cancel", "cancels_at", "alert_id", postgresql_where=text(ALERT_CANCELS_CONDITION)),
        Index("ix_alerts_warn", "cancels_at", "alert_id", postgresql_where=text(ALERT_WARNS_CONDITION)),
    )


_LATEST_ALERTS = select_latest(AlertRow.order_id, AlertRow.alert_id)


def send_latest_alerts_query(conn: Connection, order_ids: Iterable[int]) -> Callable[[TermsHistory], dict[int, Alert]]:
    rows = execute(conn, _LATEST_ALERTS, {"ids": int_array(sorted(order_ids))})
    return lambda terms_history: {r.order_id: alert_from_row(r, terms_history) for r in rows}


def count_open_alerts_by_accused(conn: Connection, at_least: int) -> list[tuple[str, Role, int]]:
    """Return (member_id, accused as, number) for members with at least that many open alerts, most first (R98).

    Operators look at the result; only completed alerts become strikes (A20).
    """
    is_npb, pending = AlertRow.kind == AlertKind.NPB, func.count()
    accused = (
        select(
            case((is_npb, OrderRow.buyer_id), else_=OrderRow.seller_id).label("accused"),
            case((is_npb, Role.BUYER), else_=Role.SELLER).label("role"),
        )
        .select_from(AlertRow)
        .join(OrderRow, OrderRow.order_id == AlertRow.order_id)
        .where(AlertRow.state == AlertState.OPEN)
        .subquery()
    )
    rows = conn.execute(
        select(accused.c.accused, accused.c.role, pending.label("pending"))
        .group_by(accused.c.accused, accused.c.role)
        .having(pending >= at_least)
        .order_by(pending.desc(), accused.c.accused, accused.c.role)
    )
    return [(row.accused, Role(row.role), row.pending) for row in rows]


def alert_from_row(row: Any, terms_history: TermsHistory) -> Alert:
    return from_row(Alert, row, terms=terms_history.by_id(row.terms_id))


def update_alerts(conn: Connection, changed: Sequence[tuple[int, Alert]], terms_history: TermsHistory) -> None:
    insert_rows(
        conn,
        AlertRow,
        [
            to_row(alert, _ALERT_COLUMNS) | {"order_id": order_id, "terms_id": terms_history.id_of(alert.terms)}
            for order_id, alert in changed
            if alert.alert_id is None
        ],
    )
    update_rows(
        conn,
        AlertRow,
        ["order_id", "alert_id"],
        [
            to_row(alert, (*_ALERT_COLUMNS, "alert_id")) | {"order_id": order_id}
            for order_id, alert in changed
            if alert.alert_id is not None
        ],
    )
    _update_alert_starts(
        conn, [(order_id, alert) for order_id, alert in changed if alert.alert_id and alert.state is AlertState.OPEN]
    )


def _update_alert_starts(conn: Connection, changed: Sequence[tuple[int, Alert]]) -> None:
    # Restart the reminders of alerts whose actionable instant changed (N17).
    since = [reminders.reminder_start(alert) for _, alert in changed]
    if changed:
        firsts = [
            reminders.first_reminder_at(at, alert.terms.unlock_remind_after)
            for at, (_, alert) in zip(since, changed, strict=True)
        ]
        execute(
            conn,
            _UPDATE_ALERT_STARTS,
            {
                "orders": int_array([order_id for order_id, _ in changed]),
                "ids": int_array([alert.alert_id for _, alert in changed]),
                "since": timestamp_array(since),
                "first": timestamp_array(firsts),
            },
        )


_ALERT_STARTS = (
    func.unnest(
        bindparam("orders", type_=ARRAY(BigInteger)),
        bindparam("ids", type_=ARRAY(BigInteger)),
        bindparam("since", type_=ARRAY(Timestamp)),
        bindparam("first", type_=ARRAY(Timestamp)),
    )
    .table_valued("order_id", "id", "since", "first")
    .render_derived("starts")
)
_UPDATE_ALERT_STARTS = (
    update(AlertRow)
    .where(
        AlertRow.order_id == _ALERT_STARTS.c.order_id,
        AlertRow.alert_id == _ALERT_STARTS.c.id,
        AlertRow.remind_from.is_distinct_from(_ALERT_STARTS.c.since),
    )
    .values(remind_from=_ALERT_STARTS.c.since, remind_at=_ALERT_STARTS.c.first, reminders=0)
)


_ALERT_COLUMNS = (
    "kind", "state", "penalty_stands", "filed_at", "unlocks_at", "unlocked_at", "cancels_at", "extended_until",
    "responded_at", "penalty_accepted_at", "penalty_withdrawn_at", "closed_at", "grounds", "previous_status", "comment",
    "response",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class UnlockedAlerts:
    """How many alerts were due and unlocked, the last of them, and the outbox messages of a small batch."""

    due: int = 0
    unlocked: int = 0
    last: DuePosition | None = None
    messages: Sequence[int] = ()


def unlock_alerts(
    conn: Connection,
    kinds: Sequence[AlertKind],
    now: datetime,
    after: DuePosition,
    limit: int,
    *,
    max_messages: int,
    relay_at: datetime,
) -> UnlockedAlerts:
    """Unlock the next due alerts with their events and outbox messages, except those of orders that are locked.

    If at most `max_messages` are unlocked, the relay gets their messages at `relay_at`, else at once.

    A cheap query first checks that an alert is due, because an idle run of the statement costs five times as much (B8).
    """
    where = {"kinds": text_array(kinds)} | due_parameters(now, after, limit)
    with pipeline(conn):
        fetch_terms = terms.send_terms_query(conn)
        due = execute(conn, _FIRST_DUE_ALERT, where)
    if due.fetchone() is None:
        return UnlockedAlerts()
    firsts = {
        terms_id: terms_.unlock_remind_after[0].total_seconds()
        for terms_id, terms_ in fetch_terms().by_ids().items()
        if terms_.unlock_remind_after
    }
    counts = execute(
        conn,
        _UNLOCK_ALERTS,
        {
            **where,
            "terms": list(firsts),
            "firsts": list(firsts.values()),
            "changes": json.dumps({"alert": {"unlocked_at": format_timestamp(now)}}),
            "note": UNLOCKED_NOTE,
            "messages": max_messages,
            "relay_at": relay_at,
        },
    ).fetchall()[0]
    last = None if counts.last_at is None else (counts.last_at, counts.last_id)
    return UnlockedAlerts(counts.due, counts.unlocked, last, counts.messages)


def first_unlockable_alert(
    conn: Connection, kinds: Sequence[AlertKind], now: datetime, after: DuePosition
) -> DuePosition | None:
    where = {"kinds": text_array(kinds)} | due_parameters(now, after, limit=1)
    first = execute(conn, _FIRST_UNLOCKABLE_ALERT, where).fetchone()
    return None if first is None else (first.unlocks_at, first.alert_id)


def next_unlock_at(conn: Connection) -> datetime | None:
    return conn.execute(select(func.min(AlertRow.unlocks_at)).where(text(ALERT_WAITING_CONDITION))).scalar()


_UNLOCK_ALERTS = text(load_sql("unlock_alerts"))
_FIRST_DUE_ALERT = next_due(
    select(AlertRow.alert_id, AlertRow.unlocks_at).where(AlertRow.kind == any_(bindparam("kinds", type_=ARRAY(Text)))),
    AlertRow.unlocks_at,
    AlertRow.alert_id,
    ALERT_WAITING_CONDITION,
).limit(1)
_FIRST_UNLOCKABLE_ALERT = (
    _FIRST_DUE_ALERT.join(OrderRow, OrderRow.order_id == AlertRow.order_id)
    .where(OrderRow.last_event_at <= bindparam("now", type_=Timestamp))
    .with_for_update(of=OrderRow, key_share=True, skip_locked=True)
)
