"""B21: unlocking a million alerts against one statement on a lean schema, in seconds and in bytes of log.

The lean schema has the same columns, and of the indexes only the primary keys and that of due alerts. Its statement
updates the alert and inserts one event and one outbox row.
"""

from __future__ import annotations

import time

import psycopg
from celery import Celery

from benchmarks.environment import Environment
from benchmarks.harness import Bar, Bench, Result, Scale, Step, check_equal, result
from benchmarks.scans import DATABASE, Scans, prepare_scans, sweep_workers
from benchmarks.wal import bytes_written, without_full_page_images

LEAN_SCHEMA = """
    CREATE SCHEMA lean;
    CREATE TABLE lean.alerts AS SELECT a.*, o.version, o.status, o.seller_id
        FROM unwind.alerts a JOIN unwind.orders o USING (order_id) ORDER BY alert_id;
    ALTER TABLE lean.alerts ADD PRIMARY KEY (alert_id);
    CREATE INDEX ON lean.alerts (unlocks_at) WHERE state = 'open' AND unlocked_at IS NULL;
    CREATE TABLE lean.events (event_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, order_id bigint, seq integer,
        at timestamptz, type text, actor text, role text, from_status text, to_status text, note text, changes jsonb);
    CREATE TABLE lean.outbox (outbox_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, key text, task text,
        order_id bigint, payload jsonb, state text, created_at timestamptz, due_at timestamptz);
    ANALYZE lean.alerts;
    CHECKPOINT
"""
LEAN = """
    WITH due AS (
        UPDATE lean.alerts SET unlocked_at = clock_timestamp() WHERE state = 'open' AND unlocked_at IS NULL
            AND unlocks_at <= clock_timestamp()
        RETURNING order_id, unlocks_at, unlocked_at, version + 1 AS version, status, seller_id
    ), new_events AS (
        INSERT INTO lean.events (order_id, seq, at, type, actor, role, from_status, to_status, note, changes)
        SELECT order_id, version, unlocked_at, 'npb.unlocked', 'system', 'system', status, status,
            'Cancellation through the alert is possible now.',
            jsonb_build_object('alert', jsonb_build_object('unlocked_at', unlocked_at))
        FROM due
    ), outbox_rows AS (
        INSERT INTO lean.outbox (key, task, order_id, payload, state, created_at, due_at)
        SELECT 'npb_unlocked:' || order_id || ':' || version || ':' || seller_id, 'notices.tell_seller', order_id,
            jsonb_build_object('event', 'npb_unlocked', 'recipient', seller_id, 'role', 'seller', 'facts',
                jsonb_build_object('kind', 'NPB', 'unlocks_at', unlocks_at)), 'due', unlocked_at, unlocked_at
        FROM due
    )
    SELECT count(*) FROM due
"""


def run(environment: Environment, scale: Scale, step: Step) -> list[Result]:
    due = scale.of(20_000, 1_000_000)
    step(f"making {due:,} due alerts")
    ours: list[tuple[float, float]] = []
    lean: list[tuple[float, float]] = []
    with (
        prepare_scans(environment, due) as scans,
        sweep_workers(environment, 1) as client,
        without_full_page_images(environment),
    ):
        for turn in range(scale.pairs):
            for side in (0, 1) if turn % 2 == 0 else (1, 0):
                step("one lean statement" if side else "npb.scan_open_alerts")
                (lean if side else ours).append(_lean(scans) if side else _swept(scans, client))
    seconds, logged = zip(*ours, strict=True)
    lean_seconds, lean_logged = zip(*lean, strict=True)
    bar = Bar(2, 1.3, at_least=False)
    of = f"{due:,} unlocked by one worker / one lean statement"
    return [
        result("B21", of, "s", bar, seconds, lean_seconds),
        result("B21 log", f"log written by each of {of}", "bytes", bar, logged, lean_logged),
    ]


def _swept(scans: Scans, client: Celery) -> tuple[float, float]:
    scans.fresh()
    seconds: list[float] = []
    with scans.environment.connect() as conn:
        logged = bytes_written(conn, lambda: seconds.append(scans.scan(client, 1)))
    return seconds[0], logged / scans.due


def _lean(scans: Scans) -> tuple[float, float]:
    scans.fresh()
    seconds: list[float] = []
    with scans.environment.connect(DATABASE) as conn:
        conn.execute(LEAN_SCHEMA)
        conn.execute("SET work_mem = '256MB'")
        logged = bytes_written(conn, lambda: seconds.append(_unlock(conn, scans.due)))
    return seconds[0], logged / scans.due


def _unlock(conn: psycopg.Connection, due: int) -> float:
    began = time.perf_counter()
    row = conn.execute(LEAN).fetchone()
    check_equal("alerts that the lean statement unlocked", row, (due,))
    return time.perf_counter() - began


BENCH = Bench("B21", "unlocking against a lean schema", lambda s: 1 + 2 * s.pairs, {"quick": 15, "normal": 330}, run)
