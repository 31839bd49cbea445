"""The doctor: checks that find what is wrong with an installation and how to fix it.

Each check is a function `check_...` that takes a context and returns findings.  A server that does not answer is
reported once and the checks that need it are skipped; a check that fails is a finding and does not stop the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType

import redis
from kombu.exceptions import OperationalError
from sqlalchemy.exc import SQLAlchemyError

from workers.errors import summarize_error
from workers.monitoring.doctor import broker, database, environment, marketplace, processing
from workers.monitoring.doctor.context import Context, open_context
from workers.monitoring.doctor.findings import Finding, Severity, error
from workers.settings import SettingsError, load_settings

DoctorCheck = Callable[[Context], Iterable[Finding]]


def _checks_of(*modules: ModuleType) -> list[DoctorCheck]:
    # In the order in which the modules define them: causes before their consequences.
    return [f for module in modules for name, f in vars(module).items() if name.startswith("check_")]


def examine() -> tuple[list[Finding], int]:
    findings = [*environment.find_unknown_variables(), *environment.find_libpq_variables()]
    try:
        settings = load_settings()
    except SettingsError as problem:
        return [*findings, *environment.describe_invalid_settings(problem)], 0
    with open_context(settings) as context:
        return findings + connect_to_servers(context) + run_checks(context), context.check_count


def connect_to_servers(context: Context) -> list[Finding]:
    """Before all checks, since what does not answer is not checked."""
    findings = [
        *environment.join_embedded_servers(context),
        *database.connect_to_database(context),
        *broker.connect_to_broker(context),
    ]
    return findings if context.broker is None else findings + _run_check(broker.query_workers, context)


def run_checks(context: Context) -> list[Finding]:
    findings = [finding for check in _checks_of(environment) for finding in _run_check(check, context)]
    if context.database is not None:
        check_schema, *checks = _checks_of(database)
        schema = _run_check(check_schema, context, context.transaction())
        findings += schema
        # With a wrong schema each check of tables would fail for the same reason.
        if not any(finding.severity is Severity.ERROR for finding in schema):
            checks += _checks_of(processing, marketplace)
        for check in checks:
            findings += _run_check(check, context, context.transaction())
    if context.broker is not None:
        findings += [finding for check in _checks_of(broker) for finding in _run_check(check, context)]
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
