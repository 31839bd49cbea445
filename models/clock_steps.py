"""Backward steps of the database's clock: detection, and correction of waits recorded earlier.

Legal instants are not moved: they are reached again later, never early.  Retry times of outbox rows, submissions and
emails are moved by the length of the step, so that the waits keep their length.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select, text, update

from models import sweeps
from models.notices import NoticeRow
from models.outbox import OutboxRow
from models.submissions import SubmissionRow

_SHIFTABLE_WAITS = (
    (OutboxRow, OutboxRow.outbox_id, OutboxRow.due_at, OutboxRow.state == "due"),
    (SubmissionRow, SubmissionRow.submission_id, SubmissionRow.due_at, SubmissionRow.state == "waiting"),
    (NoticeRow, NoticeRow.notice_id, NoticeRow.next_try_at, NoticeRow.state == "pending"),
)
_LEAD_OVER_CLOCK = text(
    "SELECT GREATEST((SELECT max(ran_at) FROM unwind.sweeps), (SELECT max(at) FROM "
    "(SELECT at FROM unwind.events ORDER BY written_in DESC, event_id DESC LIMIT 1000) AS lately)) "
    "- CAST(:now AS timestamptz)"
)


def shift_waits(conn: Connection, sweep: str, now: datetime) -> timedelta | None:
    """Move every retry time by as much as the clock went back since `sweep` last ran; return the step or None.

    The sweep records its run in the same transaction, so that each step is applied once.
    """
    last = sweeps.last_sweep_runs(conn).get(sweep)
    if last is None or last <= now:
        return None
    for table, key, until, is_waiting in _SHIFTABLE_WAITS:
        waiting = select(key).where(is_waiting, until > now).order_by(key).with_for_update()
        moved = func.greatest(now, until - (last - now))
        conn.execute(update(table).where(key.in_(waiting.scalar_subquery())).values({until: moved}))
    return last - now


def lead_over_clock(conn: Connection, now: datetime) -> timedelta:
    lead: timedelta | None = conn.execute(_LEAD_OVER_CLOCK, {"now": now}).scalar()
    return max(lead or timedelta(0), timedelta(0))
