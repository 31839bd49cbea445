"""Checks of the broker: answers, version, memory, persistence, result backend, workers, queues and unread lists."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit

import redis
from kombu.pidbox import Mailbox

from schedules.routes import QUEUES
from workers.broker.redis_url import REDIS_RESPONSE_TIMEOUT_SECONDS, connect_to_redis
from workers.lifecycle import SUPPORTED_POOLS
from workers.monitoring.doctor.context import Context, Pool
from workers.monitoring.doctor.database import compare_clocks
from workers.monitoring.doctor.findings import Finding, abbreviate, error, note, warning
from workers.transport.connection import Connection
from workers.transport.unread_lists import find_unread_lists

MIN_BROKER_VERSION = (6, 2)  # the first with BLMOVE
WORKER_RESPONSE_TIMEOUT = 1.0
"""Seconds, always waited for in full, since the number of workers is unknown."""


def check_broker_answers(context: Context) -> list[Finding]:
    if context.settings.broker_url is None:
        return []
    url = context.settings.broker_url.get_secret_value()
    try:
        client = connect_to_redis(url)
        context.connections.callback(client.close)
        context.broker_info = dict(client.info())
    except (redis.RedisError, OSError) as problem:
        reason = " ".join(str(problem).split())[:200]
        message = f"The broker does not answer: {_redact_broker_password(reason, url)}"
        return [error("BROKER_UNREACHABLE", f"{message}.", "start Redis or Valkey, or correct CELERY_BROKER_URL.")]
    if int(context.broker_info.get("cluster_enabled", 0)):
        message = (
            "The broker runs in cluster mode (cluster_enabled), in which a message's keys may be on different servers."
        )
        return [error("BROKER_IS_CLUSTER", message, "use a Redis or Valkey with cluster-enabled no, for Unwind alone.")]
    context.broker = client
    return []


def query_workers(context: Context) -> list[Finding]:
    # Before other checks, since several depend on whether workers run. A broker that accepts no messages fails here.
    assert context.settings.broker_url is not None
    url = context.settings.broker_url.get_secret_value()
    context.consumers = fetch_consumed_queues(url)
    context.pools = fetch_pools(url) if context.consumers else {}
    return []


def fetch_consumed_queues(url: str) -> dict[str, list[str]]:
    queues_by_worker: dict[str, list[str]] = {}
    for name, queues in _inspect_workers(url, "active_queues"):
        if isinstance(queues, list):
            queues_by_worker[name] = [queue["name"] for queue in queues if isinstance(queue, dict) and "name" in queue]
    return queues_by_worker


def fetch_pools(url: str) -> dict[str, Pool]:
    pools: dict[str, Pool] = {}
    for name, stats in _inspect_workers(url, "stats"):
        pool = _stats_section(stats, "pool")
        if "implementation" in pool:
            ready = _stats_section(_stats_section(pool, "writes"), "inqueues").get("total")
            pools[name] = Pool(str(pool["implementation"]), ready if isinstance(ready, int) else None)
    return pools


def _inspect_workers(url: str, command: str) -> Iterator[tuple[str, Any]]:
    options = {"socket_timeout": 10, "socket_connect_timeout": REDIS_RESPONSE_TIMEOUT_SECONDS}
    with Connection(url, transport_options=options) as connection:
        mailbox = Mailbox("celery", type="fanout", accept=["json"], serializer="json")(connection)  # type: ignore[no-untyped-call]
        replies = mailbox._broadcast(command, reply=True, timeout=WORKER_RESPONSE_TIMEOUT) or []
    for reply in replies:
        yield from reply.items()


def _stats_section(stats: Any, name: str) -> dict[str, Any]:
    section = stats.get(name) if isinstance(stats, dict) else None
    return section if isinstance(section, dict) else {}


def check_workers(context: Context) -> list[Finding]:
    findings = []
    for name, pool in context.pools.items():
        if pool.name not in SUPPORTED_POOLS:
            message = f"The worker {name} runs in the pool {pool.name}, which Unwind does not connect to the database."
            findings.append(error("POOL_UNFIT", message, "start it with --pool=prefork or --pool=solo."))
        elif pool.ready == 0:
            message = f"No process of the worker {name} could connect to its servers, so it takes no messages."
            fix = "its log names the reason; correct that and restart the worker."
            findings.append(error("WORKER_NOT_CONNECTED", message, fix))
    return findings


def check_broker_version(context: Context) -> list[Finding]:
    # BLMOVE is required. Valkey reports the version of Redis with which it is compatible.
    version = str(context.broker_info.get("redis_version", "0"))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers >= MIN_BROKER_VERSION:
        return []
    message = f"The broker is Redis {version}: without BLMOVE a killed worker may lose a message."
    return [error("BROKER_TOO_OLD", message, "use Redis 6.2 or newer, or Valkey.")]


def check_broker_memory(context: Context) -> list[Finding]:
    info = context.broker_info
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        message = f"The broker's maxmemory-policy is {policy}: when memory is short it deletes messages."
        return [
            error(
                "BROKER_EVICTS",
                message,
                "run CONFIG SET maxmemory-policy noeviction, and set the same in its configuration.",
            )
        ]
    limit, used = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    if limit and used > 0.7 * limit:  # early enough to find the cause
        message = f"The broker uses {used * 100 // limit} % of its memory; once that is full it accepts no messages."
        return [
            warning(
                "BROKER_NEARLY_FULL", message, "raise its maxmemory, or find out what fills it: ./run jobs dead-letters"
            )
        ]
    return []


def check_broker_persistence(context: Context) -> list[Finding]:
    """Find a broker that loses messages: the outbox is published again, but commands in its queues are gone."""
    info = context.broker_info
    if info.get("role") in ("slave", "replica"):
        message = "The broker is a replica, which accepts no messages."
        return [error("BROKER_IS_REPLICA", message, "let CELERY_BROKER_URL name the primary.")]
    if "err" in (info.get("aof_last_write_status"), info.get("rdb_last_bgsave_status")):
        message = "The broker cannot write its data to disk."
        return [error("BROKER_CANNOT_SAVE", message, "look at its log and at the free space of its disk.")]
    if int(info.get("aof_enabled", 0)) or _saves_snapshots(context.broker):
        return []
    message = "The broker does not write to disk: when it restarts, commands in its queues are lost."
    kind = note if context.embedded_broker else warning
    return [kind("BROKER_FORGETS", message, "run CONFIG SET appendonly yes, and set the same in its configuration.")]


def _saves_snapshots(client: Any) -> bool:
    # A hosted broker that refuses the question is assumed to save snapshots.
    try:
        return any(client.config_get("save").values())
    except redis.ResponseError:
        return True


def check_result_backend(context: Context) -> list[Finding]:
    url = context.settings.result_backend
    if url is None:
        return []
    try:
        with contextlib.closing(connect_to_redis(url.get_secret_value())) as client:
            client.ping()
    except (redis.RedisError, OSError) as problem:
        message = (
            f"The result backend cannot be used ({_broker_error_in_words(problem)}): "
            "senders get no answers, but commands are executed."
        )
        return [
            error(
                "ANSWERS_UNREACHABLE", message, "correct CELERY_RESULT_BACKEND, or allow more databases on that server."
            )
        ]
    return []


def check_broker_clock(context: Context) -> list[Finding]:
    if context.database is None:
        return []
    before = context.clock()
    seconds, micros = context.broker.time()
    broker_time = seconds + micros / 1e6
    with context.transaction():
        database_time = context.now().timestamp()
    return compare_clocks("The broker's clock", broker_time, database_time, context.clock() - before)


def check_queues(context: Context) -> list[Finding]:
    consumed = {queue for names in context.consumers.values() for queue in names}
    waiting = {queue: int(context.broker.llen(queue)) for queue in QUEUES if queue not in consumed}
    nonempty = {queue: count for queue, count in waiting.items() if count}
    if nonempty:
        counts = abbreviate(f"{count} in {queue}" for queue, count in nonempty.items())
        message = f"Messages wait in queues that no worker reads: {counts}."
        if not context.workers_expected:
            return [note("QUEUE_UNREAD", message, "run ./run up.")]
        return [error("QUEUE_UNREAD", message, _start_command(context, nonempty))]
    if waiting and context.workers_expected:
        reason = "No worker answers" if not context.consumers else "No worker that answers reads some queues"
        return [
            warning(
                "WORKERS_MISSING",
                f"{reason}: messages to {abbreviate(waiting)} would wait.",
                _start_command(context, waiting),
            )
        ]
    if not context.workers_expected:
        return [note("NOTHING_RUNS", "No worker is running, so nothing is unlocked, sent or billed.", "run ./run up.")]
    return []


def _start_command(context: Context, names: dict[str, int]) -> str:
    restart = "./run down, then ./run up" if context.supervised_since is not None else "./run up"
    return f"run {restart}, or celery -A workers.app worker -Q {','.join(names)}."


def check_strays(context: Context) -> list[Finding]:
    return [
        warning(
            "STRAY_MESSAGES",
            f"{unread.count} {'message is' if unread.count == 1 else 'messages are'} "
            f"in the list {unread.queue!r}, which no worker reads: "
            f"{abbreviate(task for task, _ in unread.oldest)}.",
            "./run jobs dead-letters shows them; their sender must use the queue commands and no priorities.",
        )
        for unread in find_unread_lists(context.broker)
    ]


def _broker_error_in_words(problem: Exception) -> str:
    return type(problem).__name__ if "AUTH" in str(problem).upper() else " ".join(str(problem).split())[:200]


def _redact_broker_password(reason: str, url: str) -> str:
    password = urlsplit(url).password
    for secret in {password, unquote(password)} if password else ():
        reason = reason.replace(secret, "***")
    return reason.rstrip(".")
