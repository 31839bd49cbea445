"""What is wrong with this installation, and what mends it?

Each check is a small function that looks and gives findings; one table lists them all.  A server that does not answer is said
once, what needs it is left out, and no check that breaks keeps the others from being asked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from workers.broker.redis_url import connect
from workers.embedded import ServerBinaryNotFound, ServerStartError, embedded_servers, running_servers
from workers.monitoring.doctor import broker, database, environment, marketplace, processing
from workers.monitoring.doctor.context import Context, supervised_since
from workers.monitoring.doctor.findings import Finding, Severity, error, exit_status, note
from workers.settings import Settings, SettingsError, load_settings

__all__ = ["Context", "Finding", "Severity", "examine", "exit_status", "opened", "run_checks"]

Check = Callable[[Context], list[Finding]]

OF_THE_SURROUNDINGS: tuple[Check, ...] = (
    environment.check_disk,
    environment.check_mail_server,
    environment.check_flower,
)
OF_THE_DATABASE: tuple[Check, ...] = (
    database.check_rights,
    database.check_definers,
    database.check_locks,
    database.check_pooler,
    database.check_standby,
    database.check_durability,
    database.check_clock,
    database.check_connections,
)
OF_THE_TABLES: tuple[Check, ...] = (
    processing.check_pauses,
    processing.check_clock_steps,
    processing.check_sweeps,
    processing.check_queue_heartbeats,
    processing.check_unlocks,
    processing.check_outbox,
    processing.check_submissions,
    processing.check_dead_jobs,
    processing.check_parked_emails,
    processing.check_dead_letters,
    processing.check_invariants,
    marketplace.check_many_alerts,
    marketplace.check_unanswered_requests,
    marketplace.check_bills_held,
    marketplace.check_bills_past_due,
)
OF_THE_BROKER: tuple[Check, ...] = (
    broker.check_version,
    broker.check_memory,
    broker.check_persistence,
    broker.check_result_backend,
    broker.check_clock,
    broker.check_workers,
    broker.check_queues,
    broker.check_strays,
)
"""In the order in which they are asked: what explains the others first."""


def examine() -> list[Finding]:
    """Look at the installation of this environment; starts nothing that does not run."""
    found = environment.check_unknown_variables() + environment.check_libpq_variables()
    try:
        settings = load_settings()
    except SettingsError as problem:
        return found + environment.report_invalid_settings(problem)
    with open_installation(settings) as (place, trouble):
        return found + trouble + run_checks(place)


def run_checks(place: Context) -> list[Finding]:
    """Every check that can be asked here."""
    found = [one for check in OF_THE_SURROUNDINGS for one in _asked(check, place)]
    if place.database is not None:
        schema = _asked_with_rows(database.check_schema, place)
        found += schema
        for check in OF_THE_DATABASE:
            found += _asked_with_rows(check, place)
        if not any(one.severity is Severity.ERROR for one in schema):  # else each would say the same again
            for check in OF_THE_TABLES:
                found += _asked_with_rows(check, place)
    if place.broker is not None:
        found += [one for check in OF_THE_BROKER for one in _asked(check, place)]
    return found


@contextlib.contextmanager
def open_installation(settings: Settings) -> Iterator[tuple[Context, list[Finding]]]:
    """The installation with its servers open, and what is to be said of those that do not answer."""
    trouble: list[Finding] = []
    place = Context(
        settings,
        external_servers=settings.has_servers,
        embedded_broker=settings.broker_url is None,
        supervised_since=supervised_since(settings.data_dir),
    )
    with contextlib.ExitStack() as held:
        if not settings.has_servers:
            if running_servers(settings.data_dir) is None:
                said = "The embedded servers are not running, so what is in them was not looked at."
                trouble += environment.check_failed_start(settings.data_dir)
                trouble.append(note("SERVERS_NOT_RUNNING", said, "./run up"))
            else:
                try:
                    place.settings = settings.with_servers(held.enter_context(embedded_servers(settings.data_dir)))
                except (OSError, ServerBinaryNotFound, ServerStartError) as problem:
                    said = f"The embedded servers cannot be reached: {problem}"
                    trouble.append(error("SERVERS_UNREACHABLE", said, "./run down, then ./run up"))
        trouble += _open_database(place, held)
        trouble += _open_broker(place, held)
        yield place, trouble


def _open_database(place: Context, held: contextlib.ExitStack) -> list[Finding]:
    url = place.settings.app_database_url or place.settings.database_url
    if url is None:
        return []
    from sqlalchemy.exc import SQLAlchemyError

    from models.db import database as db
    from models.monitoring import server_info

    database = db.connect(url.get_secret_value())
    held.callback(database.dispose)
    try:
        with database.transaction() as conn:
            place.has_schema = server_info.schema_revision(conn) is not None
    except SQLAlchemyError as problem:
        refused = getattr(problem, "orig", None)
        if isinstance(refused, db.SessionRefused):
            return [error(refused.code, f"{refused}.", refused.fix)]
        reason = str(getattr(problem, "orig", None) or type(problem).__name__).strip().splitlines()[0]
        said = f"The database does not answer: {_without_password(reason, url.get_secret_value())}"
        return [error("DATABASE_UNREACHABLE", f"{said}.", "start PostgreSQL, or correct DATABASE_URL.")]
    place.database = database
    return []


def _open_broker(place: Context, held: contextlib.ExitStack) -> list[Finding]:
    if place.settings.broker_url is None:
        return []
    import redis

    url = place.settings.broker_url.get_secret_value()
    try:
        client = connect(url, timeout=broker.RESPONSE_TIMEOUT)
        held.callback(client.close)
        place.broker_info = dict(client.info())
    except (redis.RedisError, OSError) as problem:
        reason = " ".join(str(problem).split())[:200]
        said = f"The broker does not answer: {_without(reason, url)}"
        return [error("BROKER_UNREACHABLE", f"{said}.", "start Redis or Valkey, or correct CELERY_BROKER_URL.")]
    if int(place.broker_info.get("cluster_enabled", 0)):
        said = (
            "The broker runs in cluster mode (cluster_enabled), in which a message's keys may lie on different servers."
        )
        return [error("BROKER_IS_CLUSTER", said, "use a Redis or Valkey with cluster-enabled no, for Unwind alone.")]
    place.broker = client
    return _asked(_ask_workers, place)


def _ask_workers(place: Context) -> list[Finding]:
    """Known before anything is looked at, for much is only wrong while workers run.  A broker that takes nothing fails here."""
    assert place.settings.broker_url is not None
    url = place.settings.broker_url.get_secret_value()
    place.consumers = broker.fetch_consumed_queues(url)
    place.pools = broker.fetch_pools(url) if place.consumers else {}
    return []


def _asked(check: Check, place: Context) -> list[Finding]:
    try:
        return check(place)
    except Exception as problem:  # noqa: BLE001 - a check that breaks is a finding and keeps no other from being asked
        return [_broke(check, problem)]


def _asked_with_rows(check: Check, place: Context) -> list[Finding]:
    try:
        with place.reading():
            return check(place)
    except Exception as problem:  # noqa: BLE001 - the same
        return [_broke(check, problem)]


def _broke(check: Check, problem: Exception) -> Finding:
    from workers.errors import summarize

    about = check.__name__.strip("_").replace("_", " ")
    return error("CHECK_FAILED", f"The check {about!r} failed: {summarize(problem)}.", _mend_of(problem))


def _mend_of(problem: Exception) -> str:
    """What an operator does about it; only what no server and no system said is a fault of ours."""
    import redis
    from kombu.exceptions import OperationalError
    from sqlalchemy.exc import SQLAlchemyError

    if getattr(getattr(problem, "orig", None), "sqlstate", None) == "42501":
        return "./run migrate as the owner of the tables grants anew what was taken away."
    if isinstance(problem, SQLAlchemyError):
        return "see PostgreSQL's log for what it refused, fix that, and ./run doctor again."
    if isinstance(problem, redis.exceptions.NoPermissionError):
        return "give the login of CELERY_BROKER_URL the rights that deploy/make-secrets gives a worker."
    if isinstance(problem, (redis.RedisError, OperationalError)):
        return "see the broker's log for what it refused, fix that, and ./run doctor again."
    if isinstance(problem, OSError):
        return "see that this account may use what is named and that there is room, and ./run doctor again."
    return "./run doctor again; if it fails again, it is a fault of the doctor's: report it."


def _without_password(reason: str, url: str) -> str:
    from models.db.postgres_address import PostgresAddress

    return PostgresAddress.parse(url).without_password(reason).rstrip(".")


def _without(reason: str, url: str) -> str:
    """What a server or a driver said, without the password if it repeats it."""
    from urllib.parse import unquote, urlsplit

    password = urlsplit(url).password
    for secret in {password, unquote(password)} if password else ():
        reason = reason.replace(secret, "***")
    return reason.rstrip(".")
