"""Checks of the broker: answers, version, memory, persistence, result backend, workers, queues and unread lists."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import redis
from kombu.pidbox import Mailbox

from policies.texts import pluralize
from schedules.routes import QUEUES
from workers.broker.redis_url import CELERY_CONNECTION_OPTIONS, connect_to_redis, without_redis_password
from workers.embedded.binaries import MIN_REDIS_VERSION
from workers.lifecycle import SUPPORTED_POOLS
from workers.monitoring.doctor.context import Context, Pool
from workers.monitoring.doctor.database import compare_clocks
from workers.monitoring.doctor.findings import Finding, error, finding_names, note, warning
from workers.transport.connection import Connection
from workers.transport.unread_lists import find_unread_lists

WORKER_RESPONSE_TIMEOUT = 1.0  # always waited for in full, since the number of workers is unknown


def connect_to_broker(context: Context) -> Iterator[Finding]:
    if context.settings.broker_url is None:
        return
    url = context.settings.broker_url.get_secret_value()
    try:
        client = connect_to_redis(url)
        context.connections.callback(client.close)
        context.broker_info = dict(client.info())
    except (redis.RedisError, OSError) as problem:
        reason = without_redis_password(" ".join(str(problem).split()), url)[:200].rstrip(".")
        message = f"The broker does not answer: {reason}."
        yield error("BROKER_UNREACHABLE", message, "start Redis or Valkey, or correct CELERY_BROKER_URL.")
        return
    if int(context.broker_info.get("cluster_enabled", 0)):
        message = (
            "The broker runs in cluster mode (cluster_enabled), in which a message's keys may be on different servers."
        )
        yield error("BROKER_IS_CLUSTER", message, "use a Redis or Valkey with cluster-enabled no, for Unwind alone.")
        return
    context.broker = client


def query_workers(context: Context) -> Iterator[Finding]:
    # Before other checks, since several depend on whether workers run. A broker that accepts no messages fails here.
    url = context.settings.environment()["CELERY_BROKER_URL"]
    context.consumers = inspect_worker_queues(url)
    context.pools = inspect_worker_pools(url) if context.consumers else {}
    yield from ()


def inspect_worker_queues(url: str) -> dict[str, list[str]]:
    return {
        name: [queue["name"] for queue in queues if isinstance(queue, dict) and "name" in queue]
        for name, queues in _inspect_workers(url, "active_queues")
        if isinstance(queues, list)
    }


def inspect_worker_pools(url: str) -> dict[str, Pool]:
    pools: dict[str, Pool] = {}
    for name, stats in _inspect_workers(url, "stats"):
        pool = _worker_stats_section(stats, "pool")
        if "implementation" in pool:
            ready = _worker_stats_section(_worker_stats_section(pool, "writes"), "inqueues").get("total")
            pools[name] = Pool(str(pool["implementation"]), ready if isinstance(ready, int) else None)
    return pools


def _inspect_workers(url: str, command: str) -> Iterator[tuple[str, Any]]:
    with Connection(url, transport_options=CELERY_CONNECTION_OPTIONS) as connection:
        mailbox = Mailbox("celery", type="fanout", accept=["json"], serializer="json")(connection)  # type: ignore[no-untyped-call]
        replies = mailbox._broadcast(command, reply=True, timeout=WORKER_RESPONSE_TIMEOUT) or []
    for reply in replies:
        yield from reply.items()


def _worker_stats_section(stats: Any, name: str) -> dict[str, Any]:
    section = stats.get(name) if isinstance(stats, dict) else None
    return section if isinstance(section, dict) else {}


def check_broker_version(context: Context) -> Iterator[Finding]:
    # BLMOVE is required. Valkey reports the version of Redis with which it is compatible.
    version = str(context.broker_info.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < MIN_REDIS_VERSION:
        message = f"The broker is Redis {version}: without BLMOVE a killed worker may lose a message."
        yield error("BROKER_TOO_OLD", message, "use Redis 6.2 or newer, or Valkey.")


def check_broker_memory(context: Context) -> Iterator[Finding]:
    info = context.broker_info
    policy = info.get("maxmemory_policy", "noeviction")
    limit, used = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    if policy != "noeviction":
        message = f"The broker's maxmemory-policy is {policy}: when memory is short it deletes messages."
        fix = "run CONFIG SET maxmemory-policy noeviction, and set the same in its configuration."
        yield error("BROKER_EVICTS", message, fix)
    elif limit and used > 0.7 * limit:  # early enough to find the cause
        message = f"The broker uses {used * 100 // limit} % of its memory; once that is full it accepts no messages."
        fix = "raise its maxmemory, or find out what fills it: ./run jobs dead-letters"
        yield warning("BROKER_NEARLY_FULL", message, fix)


def check_broker_persistence(context: Context) -> Iterator[Finding]:
    """Find a broker that loses messages: the outbox is published again, but commands in its queues are gone."""
    info = context.broker_info
    if info.get("role") in ("slave", "replica"):
        message = "The broker is a replica, which accepts no messages."
        yield error("BROKER_IS_REPLICA", message, "let CELERY_BROKER_URL name the primary.")
    elif "err" in (info.get("aof_last_write_status"), info.get("rdb_last_bgsave_status")):
        message = "The broker cannot write its data to disk."
        yield error("BROKER_CANNOT_SAVE", message, "look at its log and at the free space of its disk.")
    elif not int(info.get("aof_enabled", 0)) and not _saves_snapshots(context.broker):
        message = "The broker does not write to disk: when it restarts, commands in its queues are lost."
        kind = note if context.embedded_broker else warning
        yield kind("BROKER_FORGETS", message, "run CONFIG SET appendonly yes, and set the same in its configuration.")


def _saves_snapshots(client: Any) -> bool:
    # A hosted broker that refuses the question is assumed to save snapshots.
    try:
        return any(client.config_get("save").values())
    except redis.ResponseError:
        return True


def check_mail_files(context: Context) -> Iterator[Finding]:
    hosts = sorted({name.rpartition("@")[2] for name, queues in context.consumers.items() if "notices" in queues})
    if context.settings.smtp_url is None and len(hosts) > 1:
        names = finding_names(hosts)
        message = f"No mail server is set, so workers on {names} each write emails to files of their own."
        yield warning("MAIL_FILES_SCATTERED", message, "set UNWIND_SMTP_URL, or run workers for notices on one host.")


def check_result_backend(context: Context) -> Iterator[Finding]:
    url = context.settings.result_backend
    if url is None:
        return
    try:
        with contextlib.closing(connect_to_redis(url.get_secret_value())) as client:
            client.ping()
    except (redis.RedisError, OSError) as problem:
        reason = " ".join(str(problem).split())
        reason = type(problem).__name__ if "AUTH" in reason.upper() else reason[:200]
        message = f"The result backend cannot be used ({reason}): senders get no answers, but commands are executed."
        fix = "correct CELERY_RESULT_BACKEND, or allow more databases on that server."
        yield error("ANSWERS_UNREACHABLE", message, fix)


def check_broker_clock(context: Context) -> Iterator[Finding]:
    if context.database is None:
        return
    before = context.clock()
    seconds, micros = context.broker.time()
    with context.transaction():
        database_time = context.now().timestamp()
    yield from compare_clocks(
        "The broker's clock", seconds + micros / 1e6, database_time, elapsed=context.clock() - before
    )


def check_workers(context: Context) -> Iterator[Finding]:
    for name, pool in context.pools.items():
        if pool.name not in SUPPORTED_POOLS:
            message = f"The worker {name} runs in the pool {pool.name}, which Unwind does not connect to the database."
            yield error("POOL_UNFIT", message, "start it with --pool=prefork or --pool=solo.")
        elif pool.ready == 0:
            message = f"No process of the worker {name} could connect to its servers, so it takes no messages."
            yield error(
                "WORKER_NOT_CONNECTED", message, "its log names the reason; correct that and restart the worker."
            )


def check_queues(context: Context) -> Iterator[Finding]:
    consumed = {queue for names in context.consumers.values() for queue in names}
    waiting = {queue: int(context.broker.llen(queue)) for queue in QUEUES if queue not in consumed}
    nonempty = {queue: count for queue, count in waiting.items() if count}
    restart = "./run down, then ./run up" if context.supervised_since is not None else "./run up"
    fix = f"run {restart}, or celery -A workers.app worker -Q {','.join(nonempty or waiting)}."
    if nonempty:
        counts = finding_names(f"{count} in {queue}" for queue, count in nonempty.items())
        message = f"Messages wait in queues that no worker reads: {counts}."
        if context.workers_expected:
            yield error("QUEUE_UNREAD", message, fix)
        else:
            yield note("QUEUE_UNREAD", message, "run ./run up.")
    elif not context.workers_expected:
        yield note("NOTHING_RUNS", "No worker is running, so nothing is unlocked, sent or billed.", "run ./run up.")
    elif waiting:
        reason = "No worker answers" if not context.consumers else "No worker that answers reads some queues"
        yield warning("WORKERS_MISSING", f"{reason}: messages to {finding_names(waiting)} would wait.", fix)


def check_strays(context: Context) -> Iterator[Finding]:
    for unread in find_unread_lists(context.broker):
        yield warning(
            "STRAY_MESSAGES",
            f"{pluralize(unread.count, 'message is', 'messages are')} in the list {unread.queue!r}, which no worker "
            f"reads: {finding_names(task for task, _ in unread.oldest)}.",
            "./run jobs dead-letters shows them; their sender must use the queue commands and no priorities.",
        )
