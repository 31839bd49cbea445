"""Who is to be reminded now?  Open requests and unlocked alerts whose next reminder has come, taken in sets.

`remind_at` stands on the row it is about; an alert's also says since when it waits (`remind_from`), so that an
acceptance or a new lock starts the steps again and an answer does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from models import terms
from models.work import Work
from policies import reminders as policy
from policies.cases import AlertKind
from policies.verdicts import Promise

_DUE_OCRS = text(
    """
    SELECT r.ocr_id, r.order_id, o.seller_id, r.reason, r.filed_at, r.reminders, r.terms_id
    FROM unwind.ocrs r JOIN unwind.orders o ON o.order_id = r.order_id
    WHERE r.state = 'open' AND r.filed_by = 'buyer' AND r.remind_at <= :now
    ORDER BY r.remind_at, r.ocr_id LIMIT :limit FOR NO KEY UPDATE OF o, r SKIP LOCKED
    """
)
_DUE_ALERTS = text(
    """
    SELECT a.alert_id, a.order_id, a.kind, a.remind_from, a.reminders, a.terms_id, a.penalty_stands,
        CASE WHEN a.kind = 'NPB' THEN o.seller_id ELSE o.buyer_id END AS filer_id
    FROM unwind.alerts a JOIN unwind.orders o ON o.order_id = a.order_id
    WHERE a.state = 'open' AND a.remind_at <= :now
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


def remind_due(work: Work[Any], limit: int) -> int:
    """Promise what is due and put off the next reminder of each row: constant statements; gives how many.

    Orders that a command holds at this moment are skipped and found by the next sweep.
    """
    ocrs = work.conn.execute(_DUE_OCRS, {"now": work.now, "limit": limit}).all()
    alerts = work.conn.execute(_DUE_ALERTS, {"now": work.now, "limit": limit}).all()
    if not ocrs and not alerts:
        return 0
    book = terms.book(work.conn)
    promises: list[Promise] = []
    counted: list[_Counted] = []
    for r in ocrs:
        steps = book.by_id(r.terms_id).ocr_remind_after
        step = policy.due_step(r.filed_at, steps, r.reminders, work.now)
        if step is not None:
            promises.append(policy.of_ocr(r.order_id, r.ocr_id, r.seller_id, r.filed_at, r.reason, step))
        counted.append(_Counted(r.ocr_id, step.number if step else r.reminders, step.next_at if step else None))
    _put_off(work.conn, _COUNT_OCRS, counted)
    counted = []
    for a in alerts:
        steps = book.by_id(a.terms_id).unlock_remind_after
        step = policy.due_step(a.remind_from, steps, a.reminders, work.now)
        if step is not None:
            kind = AlertKind(a.kind)
            promises.append(
                policy.of_alert(
                    a.order_id, a.alert_id, a.filer_id, kind, npx=a.penalty_stands, since=a.remind_from, step=step
                )
            )
        counted.append(_Counted(a.alert_id, step.number if step else a.reminders, step.next_at if step else None))
    _put_off(work.conn, _COUNT_ALERTS, counted)
    work.promise(promises)
    return len(ocrs) + len(alerts)


def next_reminder(conn: Connection) -> datetime | None:
    """The earliest instant at which somebody is to be reminded."""
    return conn.execute(
        text(
            "SELECT least((SELECT min(remind_at) FROM unwind.ocrs WHERE state = 'open' AND remind_at IS NOT NULL), "
            "(SELECT min(remind_at) FROM unwind.alerts WHERE state = 'open' AND remind_at IS NOT NULL))"
        )
    ).scalar()


def unanswered(conn: Connection) -> list[int]:
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
