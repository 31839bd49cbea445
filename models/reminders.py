"""Who is to be reminded now?  Open requests and unlocked alerts whose next reminder has come, taken in sets.

`remind_at` stands on the row it is about; an alert's also says since when it waits (`remind_from`), so that an
acceptance or a new lock starts the steps again and an answer does not.
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
_COUNT = """
    UPDATE unwind.{table} AS t SET reminders = GREATEST(t.reminders, v.number), remind_at = v.next_at
    FROM unnest(CAST(:ids AS bigint[]), CAST(:numbers AS smallint[]), CAST(:nexts AS timestamptz[]))
        AS v(id, number, next_at)
    WHERE t.{key} = v.id
"""
_COUNT_OCRS = text(_COUNT.format(table="ocrs", key="ocr_id"))
_COUNT_ALERTS = text(_COUNT.format(table="alerts", key="alert_id"))


@dataclass(frozen=True, slots=True)
class _Counted:
    row_id: int
    number: int
    next_at: datetime | None


class ReminderSweep:
    """Reminds, batch by batch, of whatever has waited longest.  One of these goes through everything once.

    Orders that a command holds at this moment are skipped and found by the next sweep.
    """

    def __init__(self) -> None:
        self._after_ocr: tuple[datetime, int] = (NEVER, 0)
        self._after_alert: tuple[datetime, int] = (NEVER, 0)

    def __call__(self, work: UnitOfWork[Any], limit: int) -> tuple[int, int]:
        """Promise what is due and put off the next reminder of each row: constant statements; gives how many, twice."""
        ocrs = self._ocrs(work, limit)
        alerts = self._alerts(work, limit - len(ocrs))
        if not ocrs and not alerts:
            return 0, 0
        book = terms.load_terms(work.conn)
        promises = [*_of_ocrs(work, book, ocrs), *_of_alerts(work, book, alerts)]
        work.enqueue(promises)
        found = len(ocrs) + len(alerts)
        return found, found

    def committed(self) -> None:
        """What was told once comes no more: nothing to remember."""

    def skip_next(self, work: UnitOfWork[Any]) -> str | None:
        """Go on behind the request or alert that comes next, for nobody can be reminded of it; says which it is."""
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


def _of_ocrs(work: UnitOfWork[Any], book: terms.TermsHistory, ocrs: Sequence[Row[Any]]) -> list[OutboxMessage]:
    promises: list[OutboxMessage] = []
    counted: list[_Counted] = []
    for r in ocrs:
        steps = book.by_id(r.terms_id).ocr_remind_after
        step = policy.due_step(r.filed_at, steps, r.reminders, work.now)
        if step is not None:
            promises.append(policy.ocr_reminder(r.order_id, r.ocr_id, r.seller_id, r.filed_at, r.reason, step))
        counted.append(_Counted(r.ocr_id, step.number if step else r.reminders, step.next_at if step else None))
    _put_off(work.conn, _COUNT_OCRS, counted)
    return promises


def _of_alerts(work: UnitOfWork[Any], book: terms.TermsHistory, alerts: Sequence[Row[Any]]) -> list[OutboxMessage]:
    promises: list[OutboxMessage] = []
    counted: list[_Counted] = []
    for a in alerts:
        steps = book.by_id(a.terms_id).unlock_remind_after
        step = policy.due_step(a.remind_from, steps, a.reminders, work.now)
        if step is not None:
            kind = AlertKind(a.kind)
            promises.append(
                policy.unlock_reminder(
                    a.order_id, a.alert_id, a.filer_id, kind, npx=a.penalty_stands, since=a.remind_from, step=step
                )
            )
        counted.append(_Counted(a.alert_id, step.number if step else a.reminders, step.next_at if step else None))
    _put_off(work.conn, _COUNT_ALERTS, counted)
    return promises


def next_reminder_at(conn: Connection) -> datetime | None:
    """The earliest instant at which somebody is to be reminded."""
    return conn.execute(
        text(
            "SELECT least((SELECT min(remind_at) FROM unwind.ocrs WHERE state = 'open' AND remind_at IS NOT NULL), "
            "(SELECT min(remind_at) FROM unwind.alerts WHERE state = 'open' AND remind_at IS NOT NULL))"
        )
    ).scalar()


def list_unanswered_orders(conn: Connection) -> list[int]:
    """Orders with a request that stayed unanswered past the last reminder: for ops to look at (A13)."""
    rows = conn.execute(
        text(
            "SELECT order_id FROM unwind.ocrs WHERE state = 'open' AND filed_by = 'buyer' AND reminders > 0 "
            "AND remind_at IS NULL ORDER BY filed_at, ocr_id"
        )
    )
    return list(rows.scalars())


def _put_off(conn: Connection, statement: Any, counted: Sequence[_Counted]) -> None:
    if counted:
        conn.execute(
            statement,
            {
                "ids": [c.row_id for c in counted],
                "numbers": [c.number for c in counted],
                "nexts": [c.next_at for c in counted],
            },
        )
