"""Metrics read from the database, each by a query with an index.

Labels are names from closed lists, never ids or personal data.  A query that takes too long is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ClauseElement, Connection, case, extract, func, literal, select, text, union_all
from sqlalchemy.exc import SQLAlchemyError

from models.alerts import ALERT_WAITING_CONDITION, AlertRow
from models.db.arrays import Column
from models.db.pipeline import execute
from models.db.selects import AnySelect, count_where
from models.db.session_settings import set_local
from models.dead_jobs import DeadJobRow
from models.dead_letters import DeadLetterRow
from models.integrity.violation_log import ViolationRow
from models.monitoring.server_info import CONNECTIONS_ALLOWED, CONNECTIONS_USED
from models.notices import NoticeRow
from models.outbox import OutboxRow
from models.pauses import PauseRow, pause_in_effect_conditions
from models.stored_answers import RequestRow
from models.submissions import SubmissionRow
from models.sweeps import SweepRow

METRICS_STATEMENT_TIMEOUT_MS = 2_000
"""The limit of one query; scrapes may come every few seconds."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric.  `query` returns a column for each label and then the value, in base units (seconds, bytes)."""

    name: str
    description: str
    query: ClauseElement
    labels: tuple[str, ...] = ()


_NOW = func.statement_timestamp()  # stable, so an index can be used
_OVERDUE_CONDITIONS = (text(ALERT_WAITING_CONDITION), AlertRow.unlocks_at <= _NOW)


def _seconds_since(instant: Any) -> Any:
    return extract("epoch", _NOW - instant)


def _age(oldest: Column, *conditions: Any) -> AnySelect:
    return select(func.coalesce(func.greatest(_seconds_since(func.min(oldest)), 0), 0)).where(*conditions)


_CODE = func.coalesce(RequestRow.answer["code"].astext, "")
_REFUSAL_CODE = case((RequestRow.outcome == "refused", _CODE), else_="").label("refusal_code")
METRICS = (
    Metric(
        "unwind_unlock_lag_seconds",
        "Time since the deadline of the oldest alert that is overdue and not unlocked; 0 when there is none.",
        _age(AlertRow.unlocks_at, *_OVERDUE_CONDITIONS),
    ),
    Metric(
        "unwind_unlock_overdue_alerts",
        "Alerts past their deadline that are not unlocked yet.",
        count_where(*_OVERDUE_CONDITIONS),
    ),
    Metric(
        "unwind_outbox_due",
        "Outbox messages that are not done yet, by task.",
        count_where(OutboxRow.state == "due", by=(OutboxRow.task,)),
        ("task",),
    ),
    Metric(
        "unwind_outbox_oldest_seconds",
        "Age of the oldest outbox message that is not done yet.",
        _age(OutboxRow.created_at, OutboxRow.state == "due"),
    ),
    Metric(
        "unwind_credits_pending",
        "Fee credits and resets of cancelled orders that are not posted yet.",
        count_where(OutboxRow.state == "due", OutboxRow.task == "credits.post_to_next_invoice"),
    ),
    Metric(
        "unwind_submissions_waiting",
        "Commands submitted by SQL that are not answered yet.",
        count_where(SubmissionRow.state == "waiting"),
    ),
    Metric(
        "unwind_submissions_oldest_seconds",
        "Age of the oldest command submitted by SQL that is not answered yet.",
        _age(SubmissionRow.submitted_at, SubmissionRow.state == "waiting"),
    ),
    Metric(
        "unwind_requests_last_minute",
        "Commands answered in the last minute, by outcome and refusal code.",
        count_where(RequestRow.answered_at > _NOW - timedelta(minutes=1), by=(RequestRow.outcome, _REFUSAL_CODE)),
        ("outcome", "code"),
    ),
    Metric(
        "unwind_dead_jobs",
        "Dead jobs that are neither replayed nor discarded, by task.",
        count_where(DeadJobRow.replayed_at.is_(None), DeadJobRow.discarded_at.is_(None), by=(DeadJobRow.task,)),
        ("task",),
    ),
    Metric(
        "unwind_emails",
        "Emails that wait for their next attempt (pending) or for an operator (parked).",
        union_all(
            *(select(literal(state), func.count()).where(NoticeRow.state == state) for state in ("pending", "parked"))
        ),
        ("state",),
    ),
    Metric(
        "unwind_emails_oldest_seconds",
        "Age of the oldest email that waits for its next attempt.",
        _age(NoticeRow.created_at, NoticeRow.state == "pending"),
    ),
    Metric(
        "unwind_dead_letters_last_day",
        "Messages of the last day that no task could process, by reason.",
        count_where(DeadLetterRow.received_at > _NOW - timedelta(days=1), by=(DeadLetterRow.reason,)),
        ("reason",),
    ),
    Metric(
        "unwind_paused",
        "Queues and tasks that an operator has paused.",
        count_where(*pause_in_effect_conditions(_NOW), by=(PauseRow.kind, PauseRow.name)),
        ("kind", "name"),
    ),
    Metric(
        "unwind_invariant_violations",
        "Open violations of invariants, one for each order, bill or other row that violates one.",
        count_where(ViolationRow.cleared_at.is_(None)),
    ),
    Metric(
        "unwind_sweep_age_seconds",
        "Time since each sweep last ended.",
        select(SweepRow.name, _seconds_since(SweepRow.ran_at)),
        ("sweep",),
    ),
    Metric(
        "unwind_database_connections",
        "Client connections of the PostgreSQL server, in all its databases.",
        text(CONNECTIONS_USED),
    ),
    Metric(
        "unwind_database_connections_allowed",
        "Client connections that the PostgreSQL server allows, without reserved ones.",
        text(CONNECTIONS_ALLOWED),
    ),
)


def collect_database_metrics(conn: Connection) -> Iterator[tuple[Metric, list[tuple[tuple[str, ...], float]] | None]]:
    set_local(conn, statement_timeout=str(METRICS_STATEMENT_TIMEOUT_MS))
    for metric in METRICS:
        try:
            with conn.begin_nested():
                rows = execute(conn, metric.query, {}).fetchall()
        except SQLAlchemyError:
            yield metric, None
        else:
            yield metric, [(tuple(str(label) for label in row[:-1]), float(row[-1])) for row in rows]
