"""Scan workloads: databases with due alerts, copied for each measurement, unlocked by workers or by one statement."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from celery import Celery

from benchmarks.environment import Environment
from benchmarks.harness import check_equal
from benchmarks.market import Market

DATABASE = "scan"
MAX_DURATION = 300.0

RAW = """
    WITH due AS (
        UPDATE unwind.alerts a SET unlocked_at = n.now, unlock_seq = o.version + 1, remind_from = n.now, reminders = 0,
            remind_at = n.now + interval '3 days'
        FROM (SELECT clock_timestamp() AS now) AS n, unwind.orders o
        WHERE a.order_id = o.order_id
          AND a.kind = 'NPB' AND a.state = 'open' AND a.unlocked_at IS NULL AND NOT a.penalty_stands
          AND a.unlocks_at <= n.now
        RETURNING a.order_id, a.unlocks_at, n.now, a.unlock_seq, o.status, o.seller_id
    ), new_events AS (
        INSERT INTO unwind.events (order_id, seq, at, type, actor, role, from_status, to_status, note, changes)
        SELECT order_id, unlock_seq, now, 'npb.unlocked', 'system', 'system', status, status,
            'Cancellation through the alert is possible now.', jsonb_build_object('alert',
                jsonb_build_object('unlocked_at',
                to_char(now AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')))
        FROM due
    ), outbox_rows AS (
        INSERT INTO unwind.outbox (key, task, order_id, payload, created_at, due_at)
        SELECT 'npb_unlocked:' || order_id || ':' || unlock_seq || ':' || seller_id, 'notices.tell_seller', order_id,
            jsonb_build_object('event', 'npb_unlocked', 'recipient', seller_id, 'role', 'seller', 'facts',
                jsonb_build_object('kind', 'NPB', 'unlocks_at',
                    to_char(unlocks_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))), now, now
        FROM due
    )
    SELECT count(*) FROM due
"""

_LEFT = """
    SELECT (SELECT count(*) FROM unwind.alerts WHERE unlocked_at IS NOT NULL AND remind_at IS NOT NULL),
        (SELECT count(*) FROM unwind.alerts WHERE unlock_seq = 3),
        (SELECT count(*) FROM unwind.events WHERE seq = 3 AND type = 'npb.unlocked'),
        (SELECT count(*) FROM unwind.outbox WHERE task = 'notices.tell_seller')
"""


@dataclass
class Scans:
    """A template of `due` due alerts, and two ways to unlock them."""

    environment: Environment
    due: int
    template: str

    def fresh(self) -> None:
        self.environment.copy(self.template, DATABASE)

    def raw(self) -> float:
        """Return the seconds of one statement that unlocks everything, with enough work_mem."""
        self.fresh()
        with self.environment.connect(DATABASE) as conn:
            conn.execute("SET work_mem = '256MB'")
            began = time.perf_counter()
            row = conn.execute(RAW).fetchone()
            spent = time.perf_counter() - began
            check_equal("alerts that the statement unlocked", row, (self.due,))
        self.check()
        return spent

    def swept(self, client: Celery, scans: int) -> float:
        """Return the seconds until concurrent scans of a fresh database have finished."""
        self.fresh()
        return self.scan(client, scans)

    def scan(self, client: Celery, scans: int) -> float:
        began = time.perf_counter()
        sent = [client.send_task("npb.scan_open_alerts", queue="sweeps") for _ in range(scans)]
        answers: list[Any] = [result.get(timeout=MAX_DURATION) for result in sent]
        spent = time.perf_counter() - began
        check_equal("alerts unlocked", sum(answer["effects"]["unlocked"] for answer in answers), self.due)
        self.check()
        return spent

    def check(self) -> None:
        with self.environment.connect(DATABASE) as conn:
            row = conn.execute(_LEFT).fetchone()
        check_equal("alerts, numbers of events, events and outbox rows", row, (self.due,) * 4)


@contextmanager
def prepare_scans(environment: Environment, due: int) -> Iterator[Scans]:
    template = f"due_{due}"
    environment.template(template, Market(due, lines=0, state="due", history=False))
    yield Scans(environment, due, template)
    environment.drop(DATABASE)


@contextmanager
def sweep_workers(environment: Environment, processes: int) -> Iterator[Celery]:
    environment.create(DATABASE)
    settings = environment.settings(DATABASE)
    client = Celery("beat", broker=environment.broker(0), backend=environment.broker(1), set_as_current=False)
    with environment.programs(environment.workers(settings, "sweeps", processes=processes)):
        yield client
    client.close()
