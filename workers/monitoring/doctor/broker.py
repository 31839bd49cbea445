"""Can the broker be trusted with messages, does somebody read every queue, and does anything lie where nobody reads?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from schedules.routes import QUEUES
from workers.broker.redis_url import connect
from workers.lifecycle import SUPPORTED_POOLS
from workers.monitoring.doctor.context import Context, Pool
from workers.monitoring.doctor.database import compare_clocks
from workers.monitoring.doctor.findings import Finding, abbreviate, error, note, warning
from workers.transport.dead_letters import find_strays as lying

OLDEST = (6, 2)
"""BLMOVE came with Redis 6.2."""
RESPONSE_TIMEOUT = 2.0
WORKER_RESPONSE_TIMEOUT = 1.0
"""Seconds.  Their main processes answer while children work; this is waited for in full, as nobody knows how many there are."""


def fetch_consumed_queues(url: str) -> dict[str, list[str]]:
    """The queues of each worker that answers, by its name: one broadcast, about a second."""
    found: dict[str, list[str]] = {}
    for name, queues in _told(url, "active_queues"):
        if isinstance(queues, list):
            found[name] = [queue["name"] for queue in queues if isinstance(queue, dict) and "name" in queue]
    return found


def fetch_pools(url: str) -> dict[str, Pool]:
    """The pool of each worker that answers, by its name: another broadcast."""
    found: dict[str, Pool] = {}
    for name, stats in _told(url, "stats"):
        pool = _part(stats, "pool")
        if "implementation" in pool:
            ready = _part(_part(pool, "writes"), "inqueues").get("total")
            found[name] = Pool(str(pool["implementation"]), ready if isinstance(ready, int) else None)
    return found


def _told(url: str, question: str) -> Iterator[tuple[str, Any]]:
    """What each worker answers to a question of remote control."""
    from kombu.pidbox import Mailbox

    from workers.transport.channel import Connection

    options = {"socket_timeout": 10, "socket_connect_timeout": RESPONSE_TIMEOUT}
    with Connection(url, transport_options=options) as connection:
        mailbox = Mailbox("celery", type="fanout", accept=["json"], serializer="json")(connection)  # type: ignore[no-untyped-call]
        answers = mailbox._broadcast(question, reply=True, timeout=WORKER_RESPONSE_TIMEOUT) or []
    for answer in answers:
        yield from answer.items()


def _part(outer: Any, name: str) -> dict[str, Any]:
    found = outer.get(name) if isinstance(outer, dict) else None
    return found if isinstance(found, dict) else {}


def check_workers(place: Context) -> list[Finding]:
    """A worker that can do nothing with what it takes."""
    findings = []
    for name, pool in place.pools.items():
        if pool.name not in SUPPORTED_POOLS:
            said = f"The worker {name} runs in the pool {pool.name}, whose threads are not connected to the database."
            findings.append(error("POOL_UNFIT", said, "start it with --pool=prefork, or --pool=solo."))
        elif pool.ready == 0:
            said = f"No process of the worker {name} could be connected to its servers, so it takes nothing."
            fix = 'its log says why at "process_connect_failed"; correct that and start the worker again.'
            findings.append(error("WORKER_UNWIRED", said, fix))
    return findings


def check_version(place: Context) -> list[Finding]:
    """Valkey tells the version of Redis that it is compatible with."""
    said = str(place.broker_info.get("redis_version", "0"))
    numbers = tuple(int(part) for part in said.split(".")[:2] if part.isdigit())
    if numbers >= OLDEST:
        return []
    wrong = f"The broker is Redis {said}: without BLMOVE a killed worker may lose a message."
    return [error("BROKER_TOO_OLD", wrong, "use Redis 6.2 or newer, or Valkey.")]


def check_memory(place: Context) -> list[Finding]:
    """A queue is not a cache (F15); and a full broker takes no messages (F14)."""
    info = place.broker_info
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        said = (
            f"The broker's maxmemory-policy is {policy}: under pressure it deletes messages as if they were a cache's."
        )
        return [
            error("BROKER_EVICTS", said, "CONFIG SET maxmemory-policy noeviction, and the same in its configuration.")
        ]
    most, used = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    if most and used > 0.7 * most:  # reliability 4.2: time enough to find out why
        said = f"The broker uses {used * 100 // most} % of its memory; when that is full it takes no more messages."
        return [
            warning(
                "BROKER_NEARLY_FULL", said, "raise its maxmemory, or find out who fills it: ./run jobs dead-letters"
            )
        ]
    return []


def check_persistence(place: Context) -> list[Finding]:
    """A broker that forgets is refilled from the database, except for commands that waited in it (F11)."""
    info = place.broker_info
    if info.get("role") in ("slave", "replica"):
        said = "The broker is a replica, which takes no messages."
        return [error("BROKER_IS_REPLICA", said, "let CELERY_BROKER_URL name the primary.")]
    if "err" in (info.get("aof_last_write_status"), info.get("rdb_last_bgsave_status")):
        said = "The broker cannot write its data to disk."
        return [error("BROKER_CANNOT_SAVE", said, "look at its log and at the room on its disk.")]
    if int(info.get("aof_enabled", 0)) or _snapshots(place.broker):
        return []
    said = "The broker keeps nothing on disk: when it restarts, commands that waited in it are lost."
    kind = note if place.embedded_broker else warning
    return [kind("BROKER_FORGETS", said, "CONFIG SET appendonly yes, and the same in its configuration.")]


def _snapshots(client: Any) -> bool:
    """Whether it saves snapshots; a hosted one that does not tell is believed to."""
    import redis

    try:
        return any(client.config_get("save").values())
    except redis.ResponseError:
        return True


def check_result_backend(place: Context) -> list[Finding]:
    """Where answers wait for their callers: often the broker's next database, which may not exist there."""
    import redis

    url = place.settings.result_backend
    if url is None:
        return []
    try:
        with contextlib.closing(connect(url.get_secret_value(), timeout=RESPONSE_TIMEOUT)) as client:
            client.ping()
    except (redis.RedisError, OSError) as problem:
        said = f"The server for answers cannot be used ({_reason(problem)}): senders get no answers, work goes on."
        return [error("ANSWERS_UNREACHABLE", said, "correct CELERY_RESULT_BACKEND, or allow more databases there.")]
    return []


def check_clock(place: Context) -> list[Finding]:
    """The broker's clock against the database's: by it the transport tells whose worker is gone."""
    if place.database is None:
        return []
    before = place.clock()
    seconds, micros = place.broker.time()
    here = seconds + micros / 1e6
    with place.reading():
        there = place.now().timestamp()
    return compare_clocks("The broker's clock", here, there, place.clock() - before)


def check_queues(place: Context) -> list[Finding]:
    """A message in a queue that nobody reads waits for ever."""
    read = {queue for names in place.consumers.values() for queue in names}
    waiting = {queue: int(place.broker.llen(queue)) for queue in QUEUES if queue not in read}
    full = {queue: count for queue, count in waiting.items() if count}
    if full:
        said = f"Messages wait in queues that no worker reads: {abbreviate(f'{n} in {queue}' for queue, n in full.items())}."
        if not place.should_run:
            return [note("QUEUE_UNREAD", said, "./run up")]
        return [error("QUEUE_UNREAD", said, _start(place, full))]
    if waiting and place.should_run:
        who = "No worker answers" if not place.consumers else "No worker that answers reads some queues"
        return [warning("WORKERS_MISSING", f"{who}: {abbreviate(waiting)} would wait.", _start(place, waiting))]
    if not place.should_run:
        return [note("NOTHING_RUNS", "No worker runs here, so nothing is unlocked, sent or billed.", "./run up")]
    return []


def _start(place: Context, names: dict[str, int]) -> str:
    again = "./run down and ./run up" if place.supervised_since is not None else "./run up"
    return f"{again}, or celery -A workers.app worker -Q {','.join(names)}"


def check_strays(place: Context) -> list[Finding]:
    """Messages whose sender named no queue, or gave a priority."""
    return [
        warning(
            "STRAY_MESSAGES",
            f"{stray.count} messages lie in the list {stray.queue!r}, which nobody reads: {abbreviate(task for task, _ in stray.first)}.",
            "./run jobs dead-letters shows them; let their sender use the queue commands, without priorities.",
        )
        for stray in lying(place.broker)
    ]


def _reason(problem: Exception) -> str:
    """What a server said, without a password it may repeat."""
    return type(problem).__name__ if "AUTH" in str(problem).upper() else " ".join(str(problem).split())[:200]
