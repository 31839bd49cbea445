"""The doctor: checks that find what is wrong with an installation and how to fix it.

Each check is a function that takes a context and returns findings.  A server that does not answer is reported once and
the checks that need it are skipped; a check that fails is a finding and does not stop the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

import redis
from kombu.exceptions import OperationalError
from sqlalchemy.exc import SQLAlchemyError

from workers.errors import summarize_error
from workers.monitoring.doctor import broker, database, environment, marketplace, processing
from workers.monitoring.doctor.context import Context, open_context
from workers.monitoring.doctor.findings import Finding, Severity, error, exit_status
from workers.settings import SettingsError, load_settings

__all__ = [
    "Context",
    "Finding",
    "Severity",
    "connect_to_servers",
    "examine",
    "exit_status",
    "open_context",
    "run_checks",
]

DoctorCheck = Callable[[Context], Iterable[Finding]]

CHECKS_WITHOUT_SERVERS: tuple[DoctorCheck, ...] = (
    environment.check_disk,
    environment.check_mail_server,
    environment.check_flower,
)
DATABASE_CHECKS: tuple[DoctorCheck, ...] = (
    database.check_database_rights,
    database.check_definers,
    database.check_locks,
    database.check_session_settings,
    database.check_pooler,
    database.check_standby,
    database.check_durability,
    database.check_database_clock,
    database.check_connections,
)
TABLE_CHECKS: tuple[DoctorCheck, ...] = (
    processing.check_pauses,
    database.check_clock_set_back,
    processing.check_sweeps,
    processing.check_queue_heartbeats,
    processing.check_late_unlocks,
    processing.check_late_outbox,
    processing.check_late_submissions,
    processing.check_dead_jobs,
    processing.check_parked_emails,
    processing.check_dead_letters,
    processing.check_invariants,
    marketplace.check_many_alerts,
    marketplace.check_unanswered_requests,
    marketplace.check_late_payments,
    processing.check_webhooks_disabled,
    marketplace.check_bills_held,
    marketplace.check_bills_past_due,
)
BROKER_CHECKS: tuple[DoctorCheck, ...] = (
    broker.check_broker_version,
    broker.check_broker_memory,
    broker.check_broker_persistence,
    environment.check_mail_files,
    broker.check_result_backend,
    broker.check_broker_clock,
    broker.check_workers,
    broker.check_queues,
    broker.check_strays,
)
"""Checks run in this order: causes before their consequences."""


def examine() -> tuple[list[Finding], int]:
    findings = [*environment.check_unknown_variables(), *environment.check_libpq_variables()]
    try:
        settings = load_settings()
    except SettingsError as problem:
        return [*findings, *environment.check_invalid_settings(problem)], 0
    with open_context(settings) as context:
        return findings + connect_to_servers(context) + run_checks(context), context.check_count


def connect_to_servers(context: Context) -> list[Finding]:
    """Before all checks, since what does not answer is not checked."""
    findings = [
        *environment.check_embedded_servers(context),
        *database.check_database_answers(context),
        *broker.check_broker_answers(context),
    ]
    return findings if context.broker is None else findings + _run_check(broker.query_workers, context)


def run_checks(context: Context) -> list[Finding]:
    findings = [finding for check in CHECKS_WITHOUT_SERVERS for finding in _run_check(check, context)]
    if context.database is not None:
        schema = _run_check(database.check_database_schema, context, context.transaction())
        # With a wrong schema each check of tables would fail for the same reason.
        is_wrong = any(finding.severity is Severity.ERROR for finding in schema)
        findings += schema
        for check in DATABASE_CHECKS if is_wrong else DATABASE_CHECKS + TABLE_CHECKS:
            findings += _run_check(check, context, context.transaction())
    if context.broker is not None:
        findings += [finding for check in BROKER_CHECKS for finding in _run_check(check, context)]
    return findings


def _run_check(
    check: DoctorCheck, context: Context, transaction: AbstractContextManager[None] | None = None
) -> list[Finding]:
    context.check_count += 1
    try:
        with transaction or nullcontext():
            return [*check(context)]
    except Exception as problem:  # noqa: BLE001 - a check that fails is a finding and does not stop the others
        name = check.__name__.removeprefix("check_").replace("_", " ")
        message = f"The check {name!r} failed: {summarize_error(problem)}."
        return [error("CHECK_FAILED", message, _fix_of_failed_check(problem))]


def _fix_of_failed_check(problem: Exception) -> str:
    if getattr(getattr(problem, "orig", None), "sqlstate", None) == "42501":
        return "run ./run migrate as the owner of the tables, which restores the missing grants."
    if isinstance(problem, SQLAlchemyError):
        return "PostgreSQL's log says what it refused; correct that and run ./run doctor again."
    if isinstance(problem, redis.exceptions.NoPermissionError):
        return "give the login of CELERY_BROKER_URL the rights that deploy/make-secrets gives a worker."
    if isinstance(problem, (redis.RedisError, OperationalError)):
        return "the broker's log says what it refused; correct that and run ./run doctor again."
    if isinstance(problem, OSError):
        return "check this account's rights and the free disk space, and run ./run doctor again."
    return "run ./run doctor again; if the check still fails, it is a bug: report it."
