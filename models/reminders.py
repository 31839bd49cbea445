"""The sweep that reminds of open cancel requests and unlocked alerts.

`remind_at` is on the row it concerns. An alert also has `remind_from`, the start of its reminders: an acceptance or a
new lock restarts them, a response does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, text

from models import terms
from models.sweeps import NEVER
from models.unit_of_work import UnitOfWork
from policies import reminders as policy
from policies.cases import AlertKind
from policies.verdicts import OutboxMessage

_DUE_OCRS = text(
    """
    SELECT r.ocr_id, r.order_id, o.seller_id, r.reason, r.filed_at, r.reminders, r.terms_id, r.remind_at
    FROM unwind.ocrs r JOIN unwind.orders o ON o.order_id = r.order_id
    WHERE r.state = 'open' AND r.filed_by = 'buyer' AND r.remind_at <= :now
        AND (r.remind_at, r.ocr_id) > (CAST(:after_at AS timestamptz), CAST(:after_id AS bigint))
    ORDER BY r.remind_at, r.ocr_id LIMIT :limit FOR NO KEY UPDATE OF o, r SKIP LOCKED
    """
)
_DUE_ALERTS = text(
    """
    SELECT a.alert_id, a.order_id, a.kind, a.remind_from, a.reminders, a.terms_id, a.penalty_stands, a.remind_at,
        CASE WHEN a.kind = 'NPB' THEN o.seller_id ELSE o.buyer_id END AS filer_id
    FROM unwind.alerts a JOIN unwind.orders o ON o.order_id = a.order_id
    WHERE a.state = 'open' AND a.remind_at <= :now
        AND (a.remind_at, a.alert_id) > (CAST(:after_at AS timestamptz), CAST(:after_id AS bigint))
    ORDER BY a.remind_at, a.alert_id LIMIT :limit FOR NO KEY UPDATE OF o, a SKIP LOCKED
    """
)
_SCHEDULE = """
    UPDATE unwind.{table} AS t SET reminders = GREATEST(t.reminders, v.number), remind_at = v.next_at
    FROM unnest(CAST(:ids AS bigint[]), CAST(:numbers AS smallint[]), CAST(:nexts AS timestamptz[]))
        AS v(id, number, next_at)
    WHERE t.{key} = v.id
"""
_SCHEDULE_OCRS = text(_SCHEDULE.format(table="ocrs", key="ocr_id"))
_SCHEDULE_ALERTS = text(_SCHEDULE.format(table="alerts", key="alert_id"))


@dataclass(frozen=True, slots=True)
class _Schedule:
    row_id: int
    number: int
    next_at: datetime | None


class ReminderSweep:
    """Send due reminders in batches, those that have waited longest first. One instance makes one pass.

    Orders locked by a command are skipped until the next sweep.
    """

    def __init__(self) -> None:
        self._after_ocr: tuple[datetime, int] = (NEVER, 0)
        self._after_alert: tuple[datetime, int] = (NEVER, 0)

    def __call__(self, work: UnitOfWork[Any], limit: int) -> tuple[int, int]:
        ocrs = self._ocrs(work, limit)
        alerts = self._alerts(work, limit - len(ocrs))
        if not ocrs and not alerts:
            return 0, 0
        terms_history = terms.load_terms(work.conn)
        messages = [*_of_ocrs(work, terms_history, ocrs), *_of_alerts(work, terms_history, alerts)]
        work.enqueue(messages)
        reminded = len(ocrs) + len(alerts)
        return reminded, reminded

    def committed(self) -> None:
        # A reminded row is not due again.
        ...

    def skip_next(self, work: UnitOfWork[Any]) -> str | None:
        for row in self._ocrs(work, 1):
            self._after_ocr = (row.remind_at, row.ocr_id)
            return f"ocr {row.ocr_id}"
        for row in self._alerts(work, 1):
            self._after_alert = (row.remind_at, row.alert_id)
            return f"alert {row.alert_id}"
        return None

    def _ocrs(self, work: UnitOfWork[Any], limit: int) -> Sequence[Row[Any]]:
        return _due(work, _DUE_OCRS, self._after_ocr, limit)

    def _alerts(self, work: UnitOfWork[Any], limit: int) -> Sequence[Row[Any]]:
        return _due(work, _DUE_ALERTS, self._after_alert, limit)


def _due(work: UnitOfWork[Any], statement: Any, after: tuple[datetime, int], limit: int) -> Sequence[Row[Any]]:
    if limit <= 0:
        return []
    where = {"now": work.now, "limit": limit, "after_at": after[0], "after_id": after[1]}
    return work.conn.execute(statement, where).all()


def _of_ocrs(work: UnitOfWork[Any], terms_history: terms.TermsHistory, ocrs: Sequence[Row[Any]]) -> list[OutboxMessage]:
    messages: list[OutboxMessage] = []
    schedules: list[_Schedule] = []
    for r in ocrs:
        steps = terms_history.by_id(r.terms_id).ocr_remind_after
        step = policy.due_step(r.filed_at, steps, r.reminders, work.now)
        if step is not None:
            messages.append(policy.ocr_reminder(r.order_id, r.ocr_id, r.seller_id, r.filed_at, r.reason, step))
        schedules.append(_Schedule(r.ocr_id, step.number if step else r.reminders, step.next_at if step else None))
    _schedule_next(work.conn, _SCHEDULE_OCRS, schedules)
    return messages


def _of_alerts(
    work: UnitOfWork[Any], terms_history: terms.TermsHistory, alerts: Sequence[Row[Any]]
) -> list[OutboxMessage]:
    messages: list[OutboxMessage] = []
    schedules: list[_Schedule] = []
    for a in alerts:
        steps = terms_history.by_id(a.terms_id).unlock_remind_after
        step = policy.due_step(a.remind_from, steps, a.reminders, work.now)
        if step is not None:
            kind = AlertKind(a.kind)
            messages.append(
                policy.unlock_reminder(
                    a.order_id, a.alert_id, a.filer_id, kind, npx=a.penalty_stands, since=a.remind_from, step=step
                )
            )
        schedules.append(_Schedule(a.alert_id, step.number if step else a.reminders, step.next_at if step else None))
    _schedule_next(work.conn, _SCHEDULE_ALERTS, schedules)
    return messages


def next_reminder_at(conn: Connection) -> datetime | None:
    return conn.execute(
        text(
            "SELECT least((SELECT min(remind_at) FROM unwind.ocrs WHERE state = 'open' AND remind_at IS NOT NULL), "
            "(SELECT min(remind_at) FROM unwind.alerts WHERE state = 'open' AND remind_at IS NOT NULL))"
        )
    ).scalar()


def list_unanswered_orders(conn: Connection) -> list[int]:
    rows = conn.execute(
        text(
            "SELECT order_id FROM unwind.ocrs WHERE state = 'open' AND filed_by = 'buyer' AND reminders > 0 "
            "AND remind_at IS NULL ORDER BY filed_at, ocr_id"
        )
    )
    return list(rows.scalars())


def _schedule_next(conn: Connection, statement: Any, schedules: Sequence[_Schedule]) -> None:
    if schedules:
        conn.execute(
            statement,
            {
                "ids": [c.row_id for c in schedules],
                "numbers": [c.number for c in schedules],
                "nexts": [c.next_at for c in schedules],
            },
        )
