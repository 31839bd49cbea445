"""Steps back of the database's clock: how they are noticed, and what is done about waits that were written before.

Rights follow from instants and wait until the clock has come to them again: that is never early.  What only waits to be tried
(outbox rows, submissions, emails) keeps the length of its wait: all of it is moved by as much as the clock was set back.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select, text, update

from models import sweeps
from models.notices import NoticeRow
from models.outbox import OutboxRow
from models.submissions import SubmissionRow

_WAITS = (
    (OutboxRow, OutboxRow.outbox_id, OutboxRow.due_at, OutboxRow.state == "due"),
    (SubmissionRow, SubmissionRow.submission_id, SubmissionRow.due_at, SubmissionRow.state == "waiting"),
    (NoticeRow, NoticeRow.notice_id, NoticeRow.next_try_at, NoticeRow.state == "pending"),
)
_AHEAD = text(
    "SELECT GREATEST((SELECT max(ran_at) FROM unwind.sweeps), (SELECT max(at) FROM "
    "(SELECT at FROM unwind.events ORDER BY event_id DESC LIMIT 1000) AS lately)) - CAST(:now AS timestamptz)"
)


def shift_waits(conn: Connection, sweep: str, now: datetime) -> timedelta | None:
    """Move every wait by as much as the clock went back since `sweep` last ran; None when it did not.

    The sweep notes its run in the same transaction, so that each step moves the waits once.
    """
    last = sweeps.last_runs(conn).get(sweep)
    if last is None or last <= now:
        return None
    for table, key, until, is_waiting in _WAITS:
        waiting = select(key).where(is_waiting, until > now).order_by(key).with_for_update()
        moved = func.greatest(now, until - (last - now))
        conn.execute(update(table).where(key.in_(waiting.scalar_subquery())).values({until: moved}))
    return last - now


def lead_over_clock(conn: Connection, now: datetime) -> timedelta:
    """How far the newest of what was recorded lately lies in the future of the clock; zero when nothing does."""
    found: timedelta | None = conn.execute(_AHEAD, {"now": now}).scalar()
    return max(found or timedelta(0), timedelta(0))
