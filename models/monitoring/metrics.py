"""Metrics read from the database, each by a query with an index.

Labels are names from closed lists, never ids or personal data.  A query that takes too long is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from models.alerts import ALERT_WAITING_CONDITION

METRICS_STATEMENT_TIMEOUT_MS = 2_000
"""The limit of one query; scrapes may come every few seconds."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric.  `sql` returns a column for each label and then the value, in base units (seconds, bytes)."""

    name: str
    description: str
    sql: str
    labels: tuple[str, ...] = ()


_OVERDUE_ALERTS_METRIC = f"unwind.alerts WHERE {ALERT_WAITING_CONDITION} AND unlocks_at <= statement_timestamp()"
"""`statement_timestamp` is stable, so an index can be used."""


def _age(oldest: str, source: str) -> str:
    return f"SELECT coalesce(greatest(extract(epoch FROM statement_timestamp() - min({oldest})), 0), 0) FROM {source}"  # noqa: S608 - constants


METRICS = (
    Metric(
        "unwind_unlock_lag_seconds",
        "Time since the deadline of the oldest alert that is overdue and not unlocked; 0 when there is none.",
        _age("unlocks_at", _OVERDUE_ALERTS_METRIC),
    ),
    Metric(
        "unwind_unlock_overdue_alerts",
        "Alerts past their deadline that are not unlocked yet.",
        f"SELECT count(*) FROM {_OVERDUE_ALERTS_METRIC}",  # noqa: S608 - constants
    ),
    Metric(
        "unwind_outbox_due",
        "Outbox messages that are not done yet, by task.",
        "SELECT task, count(*) FROM unwind.outbox WHERE state = 'due' GROUP BY task",
        ("task",),
    ),
    Metric(
        "unwind_outbox_oldest_seconds",
        "Age of the oldest outbox message that is not done yet.",
        _age("created_at", "unwind.outbox WHERE state = 'due'"),
    ),
    Metric(
        "unwind_credits_pending",
        "Fee credits and resets of cancelled orders that are not posted yet.",
        "SELECT count(*) FROM unwind.outbox WHERE state = 'due' AND task = 'credits.post_to_next_invoice'",
    ),
    Metric(
        "unwind_submissions_waiting",
        "Commands submitted by SQL that are not answered yet.",
        "SELECT count(*) FROM unwind.submissions WHERE state = 'waiting'",
    ),
    Metric(
        "unwind_submissions_oldest_seconds",
        "Age of the oldest command submitted by SQL that is not answered yet.",
        _age("submitted_at", "unwind.submissions WHERE state = 'waiting'"),
    ),
    Metric(
        "unwind_requests_last_minute",
        "Commands answered in the last minute, by outcome and refusal code.",
        "SELECT outcome, CASE WHEN outcome = 'refused' THEN coalesce(answer ->> 'code', '') ELSE '' END, count(*) "
        "FROM unwind.requests WHERE answered_at > statement_timestamp() - interval '1 minute' GROUP BY 1, 2",
        ("outcome", "code"),
    ),
    Metric(
        "unwind_dead_jobs",
        "Dead jobs that are neither replayed nor discarded, by task.",
        "SELECT task, count(*) FROM unwind.dead_jobs WHERE replayed_at IS NULL AND discarded_at IS NULL GROUP BY task",
        ("task",),
    ),
    Metric(
        "unwind_emails",
        "Emails that wait for their next attempt (pending) or for an operator (parked).",
        "SELECT 'pending', count(*) FROM unwind.notices WHERE state = 'pending' "
        "UNION ALL SELECT 'parked', count(*) FROM unwind.notices WHERE state = 'parked'",
        ("state",),
    ),
    Metric(
        "unwind_emails_oldest_seconds",
        "Age of the oldest email that waits for its next attempt.",
        _age("created_at", "unwind.notices WHERE state = 'pending'"),
    ),
    Metric(
        "unwind_dead_letters_last_day",
        "Messages of the last day that no task could process, by reason.",
        "SELECT reason, count(*) FROM unwind.dead_letters "
        "WHERE received_at > statement_timestamp() - interval '1 day' GROUP BY reason",
        ("reason",),
    ),
    Metric(
        "unwind_paused",
        "Queues and tasks that an operator has paused.",
        "SELECT kind, name, 1 FROM unwind.pauses "
        "WHERE resumed_at IS NULL AND (until IS NULL OR until > statement_timestamp())",
        ("kind", "name"),
    ),
    Metric(
        "unwind_invariant_violations",
        "Open violations of invariants, one for each order, bill or other row that violates one.",
        "SELECT count(*) FROM unwind.violations WHERE cleared_at IS NULL",
    ),
    Metric(
        "unwind_sweep_age_seconds",
        "Time since each sweep last ended.",
        "SELECT name, extract(epoch FROM statement_timestamp() - ran_at) FROM unwind.sweeps",
        ("sweep",),
    ),
    Metric(
        "unwind_database_connections",
        "Client connections of the PostgreSQL server, in all its databases.",
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'",
    ),
    Metric(
        "unwind_database_connections_allowed",
        "Client connections that the PostgreSQL server allows, without those reserved for superusers.",
        "SELECT CAST(current_setting('max_connections') AS integer)"
        " - CAST(current_setting('superuser_reserved_connections') AS integer)",
    ),
)


def collect_database_metrics(conn: Connection) -> Iterator[tuple[Metric, list[tuple[tuple[str, ...], float]] | None]]:
    conn.execute(text(f"SET LOCAL statement_timeout = {METRICS_STATEMENT_TIMEOUT_MS}"))
    for metric in METRICS:
        try:
            with conn.begin_nested():
                rows = conn.execute(text(metric.sql)).all()
        except SQLAlchemyError:
            yield metric, None
        else:
            yield metric, [(tuple(str(label) for label in row[:-1]), float(row[-1])) for row in rows]
