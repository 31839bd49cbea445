"""Dumps the state of broker, database and workers when a run makes no progress."""

from __future__ import annotations

import contextlib
import json

import psycopg
import redis

from stress.db_checks import open_connection
from stress.environment import BEATS, GROUPS, WEB, Environment
from workers.broker.redis_url import connect_to_redis

SESSIONS = """
    SELECT pid, application_name, state, wait_event_type, wait_event, left(query, 100) AS query,
           pg_blocking_pids(pid) AS waits_for, clock_timestamp() - state_change AS since
    FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""
OUTBOX = "SELECT task, state, count(*), max(publish_count), max(attempts), min(due_at) FROM unwind.outbox GROUP BY 1, 2"


def dump_state(environment: Environment) -> str:
    sections: list[str] = []
    with contextlib.suppress(redis.RedisError, OSError):
        client = connect_to_redis(environment.broker_url, timeout=5)
        sections.append(
            "-- broker: clients\n"
            + "\n".join(json.dumps(client_info, default=str) for client_info in client.client_list())
        )
        keys = {key.decode(): _size(client, key) for key in client.scan_iter(count=500) if b"celery-task" not in key}
        sections.append("-- broker: keys\n" + json.dumps(keys, indent=1))
        client.close()
    for title, query in (("sessions", SESSIONS), ("outbox", OUTBOX)):
        with contextlib.suppress(psycopg.Error), open_connection(environment.database_url) as conn:
            sections.append(f"-- database: {title}\n" + "\n".join(str(row) for row in conn.execute(query)))
    sections.extend(
        f"-- {name}: head {environment.head(name)}, children {environment.children(name)}\n"
        f"{environment.supervisor.tail(name, 15)}"
        for name in (*GROUPS, *BEATS, WEB)
    )
    return "\n".join(sections)


def _size(client: redis.Redis, key: bytes) -> object:
    kind = client.type(key)
    sizes = {b"list": client.llen, b"hash": client.hlen, b"zset": client.zcard, b"set": client.scard}
    return sizes[kind](key) if kind in sizes else str(kind)
