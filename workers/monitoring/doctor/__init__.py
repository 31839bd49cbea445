"""The doctor: checks that find what is wrong with an installation and how to fix it.

Each check is a function that takes a context and returns findings.  A server that does not answer is reported once and
the checks that need it are skipped; a check that fails is a finding and does not stop the others.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from urllib.parse import unquote, urlsplit

import redis
from kombu.exceptions import OperationalError
from sqlalchemy.exc import SQLAlchemyError

from models.db import database as db
from models.db.postgres_address import PostgresAddress
from models.db.session_settings import SessionSettingsRefused
from models.monitoring import server_info
from workers.broker.redis_url import connect
from workers.embedded import ServerBinaryNotFound, ServerStartError, embedded_servers, running_servers
from workers.errors import summarize_error
from workers.monitoring.doctor import broker, database, environment, marketplace, processing
from workers.monitoring.doctor.context import Context, supervised_since
from workers.monitoring.doctor.findings import Finding, Severity, error, exit_status, note
from workers.settings import Settings, SettingsError, load_settings

__all__ = ["Context", "Finding", "Severity", "examine", "exit_status", "opened", "run_checks"]

Check = Callable[[Context], list[Finding]]

ENVIRONMENT_CHECKS: tuple[Check, ...] = (
    environment.check_disk,
    environment.check_mail_server,
    environment.check_flower,
)
DATABASE_CHECKS: tuple[Check, ...] = (
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
TABLE_CHECKS: tuple[Check, ...] = (
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
    marketplace.check_webhooks_disabled,
    marketplace.check_bills_held,
    marketplace.check_bills_past_due,
)
BROKER_CHECKS: tuple[Check, ...] = (
    broker.check_broker_version,
    broker.check_broker_memory,
    broker.check_broker_persistence,
    broker.check_mail_files,
    broker.check_result_backend,
    broker.check_broker_clock,
    broker.check_workers,
    broker.check_queues,
    broker.check_strays,
)
"""Checks run in this order: causes before their consequences."""


def examine() -> tuple[list[Finding], int]:
    findings = environment.check_unknown_variables() + environment.check_libpq_variables()
    try:
        settings = load_settings()
    except SettingsError as problem:
        return findings + environment.report_invalid_settings(problem), 0
    with open_installation(settings) as (context, connection_findings):
        return findings + connection_findings + run_checks(context), context.check_count


def run_checks(context: Context) -> list[Finding]:
    findings = [finding for check in ENVIRONMENT_CHECKS for finding in _run_check(check, context)]
    if context.database is not None:
        schema = _run_in_transaction(database.check_database_schema, context)
        findings += schema
        for check in DATABASE_CHECKS:
            findings += _run_in_transaction(check, context)
        # With a wrong schema each of these would fail for the same reason.
        if not any(finding.severity is Severity.ERROR for finding in schema):
            for check in TABLE_CHECKS:
                findings += _run_in_transaction(check, context)
    if context.broker is not None:
        findings += [finding for check in BROKER_CHECKS for finding in _run_check(check, context)]
    return findings


@contextlib.contextmanager
def open_installation(settings: Settings) -> Iterator[tuple[Context, list[Finding]]]:
    findings: list[Finding] = []
    context = Context(
        settings,
        external_servers=settings.has_servers,
        embedded_broker=settings.broker_url is None,
        supervised_since=supervised_since(settings.data_dir),
    )
    with contextlib.ExitStack() as server_connections:
        if not settings.has_servers:
            if running_servers(settings.data_dir) is None:
                message = "The embedded servers are not running, so their contents were not checked."
                findings += environment.check_failed_start(settings.data_dir)
                findings.append(note("SERVERS_NOT_RUNNING", message, "run ./run up."))
            else:
                try:
                    context.settings = settings.with_servers(
                        server_connections.enter_context(embedded_servers(settings.data_dir))
                    )
                except (OSError, ServerBinaryNotFound, ServerStartError) as problem:
                    message = f"The embedded servers cannot be reached: {problem}"
                    findings.append(error("SERVERS_UNREACHABLE", message, "run ./run down, then ./run up."))
        findings += _open_database(context, server_connections)
        findings += _open_broker(context, server_connections)
        yield context, findings


def _open_database(context: Context, server_connections: contextlib.ExitStack) -> list[Finding]:
    url = context.settings.app_database_url or context.settings.database_url
    if url is None:
        return []
    database = db.connect(url.get_secret_value())
    server_connections.callback(database.dispose)
    try:
        with database.transaction() as conn:
            context.has_schema = server_info.schema_revision(conn) is not None
    except SQLAlchemyError as problem:
        refused = getattr(problem, "orig", None)
        if isinstance(refused, SessionSettingsRefused):
            return [error(refused.code, f"{refused}.", refused.fix)]
        reason = str(getattr(problem, "orig", None) or type(problem).__name__).strip().splitlines()[0]
        reason = PostgresAddress.parse(url.get_secret_value()).without_password(reason).rstrip(".")
        message = f"The database does not answer: {reason}"
        return [error("DATABASE_UNREACHABLE", f"{message}.", "start PostgreSQL or correct DATABASE_URL.")]
    context.database = database
    return []


def _open_broker(context: Context, server_connections: contextlib.ExitStack) -> list[Finding]:
    if context.settings.broker_url is None:
        return []
    url = context.settings.broker_url.get_secret_value()
    try:
        client = connect(url)
        server_connections.callback(client.close)
        context.broker_info = dict(client.info())
    except (redis.RedisError, OSError) as problem:
        reason = " ".join(str(problem).split())[:200]
        message = f"The broker does not answer: {_redact_password(reason, url)}"
        return [error("BROKER_UNREACHABLE", f"{message}.", "start Redis or Valkey, or correct CELERY_BROKER_URL.")]
    if int(context.broker_info.get("cluster_enabled", 0)):
        message = (
            "The broker runs in cluster mode (cluster_enabled), in which a message's keys may be on different servers."
        )
        return [error("BROKER_IS_CLUSTER", message, "use a Redis or Valkey with cluster-enabled no, for Unwind alone.")]
    context.broker = client
    return _run_check(_query_workers, context)


def _query_workers(context: Context) -> list[Finding]:
    # Before all checks, since several depend on whether workers run.  A broker that accepts no messages fails here.
    assert context.settings.broker_url is not None
    url = context.settings.broker_url.get_secret_value()
    context.consumers = broker.fetch_consumed_queues(url)
    context.pools = broker.fetch_pools(url) if context.consumers else {}
    return []


def _run_check(check: Check, context: Context) -> list[Finding]:
    context.check_count += 1
    try:
        return check(context)
    except Exception as problem:  # noqa: BLE001 - a check that fails is a finding and does not stop the others
        return [_check_failed(check, problem)]


def _run_in_transaction(check: Check, context: Context) -> list[Finding]:
    context.check_count += 1
    try:
        with context.transaction():
            return check(context)
    except Exception as problem:  # noqa: BLE001 - the same
        return [_check_failed(check, problem)]


def _check_failed(check: Check, problem: Exception) -> Finding:
    name = check.__name__.removeprefix("_").removeprefix("check_").replace("_", " ")
    return error(
        "CHECK_FAILED", f"The check {name!r} failed: {summarize_error(problem)}.", _fix_of_failed_check(problem)
    )


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


def _redact_password(reason: str, url: str) -> str:
    password = urlsplit(url).password
    for secret in {password, unquote(password)} if password else ():
        reason = reason.replace(secret, "***")
    return reason.rstrip(".")
