"""Faults of a torture run and their execution on real processes; each has a name, ends by itself and is logged.

It signals only processes that the environment started: groups and their children, beats, and the two servers.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import random
import resource
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import psutil
import psycopg
import redis
from psycopg import sql

from stress import smtp_stub
from stress.db_checks import open_connection
from stress.environment import BEATS, GROUPS, WEB, Environment
from stress.hostile_messages import hostile_message, poison_payload
from stress.plan import Fault
from tests.plugins.sentinel import SentinelGroup
from tests.plugins.servers import FULL_DISK_BYTES, limit_file_size
from workers.broker.redis_url import connect_to_redis

SESSIONS = """
    SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
    AND application_name <> 'auditor' ORDER BY pid
"""
LOCKS = {
    "orders": "SELECT FROM unwind.orders WHERE status <> 'CANCELLED' ORDER BY order_id DESC LIMIT 5 FOR UPDATE",
    "members": "SELECT FROM unwind.members WHERE member_id LIKE 's_' FOR UPDATE",
    "lots": "SELECT FROM unwind.lots ORDER BY lot_id LIMIT 10 FOR UPDATE",
    "outbox": "SELECT FROM unwind.outbox WHERE state = 'due' LIMIT 50 FOR UPDATE",
}

REFUSE_WRITES = """
    CREATE OR REPLACE FUNCTION unwind.refuse_write() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'cannot execute % in a read-only transaction', TG_OP
            USING ERRCODE = 'read_only_sql_transaction';
    END $$;
    CREATE OR REPLACE TRIGGER refuse_write BEFORE INSERT ON unwind.dead_jobs
        FOR EACH STATEMENT EXECUTE FUNCTION unwind.refuse_write();
    CREATE OR REPLACE TRIGGER refuse_write BEFORE INSERT ON unwind.requests
        FOR EACH STATEMENT EXECUTE FUNCTION unwind.refuse_write()
"""
HELPER_TIMEOUT_SECONDS = 60.0
ALLOW_WRITES = "DROP FUNCTION IF EXISTS unwind.refuse_write() CASCADE"


class FaultInjector:
    """Executes the faults of one round after another.  Between rounds everything it stopped runs again."""

    def __init__(self, environment: Environment, began: float) -> None:
        self._environment = environment
        self._began = began
        self.timeline: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()
        self.last = time.monotonic()
        """When the last fault ended."""
        self.lost_tail_bytes = 0
        """Of the broker's replication stream, in failovers."""
        self._failover_lock = threading.Lock()
        self._undo: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._helpers: list[threading.Thread] = []

    def run_round(self, faults: list[Fault], seconds: float, stop_requested: threading.Event) -> None:
        began = time.monotonic()
        queue = list(faults)
        while not stop_requested.is_set() and time.monotonic() - began < seconds:
            self._undo_due(time.monotonic())
            if queue and time.monotonic() - began >= queue[0].at:
                self._do(queue.pop(0))
            stop_requested.wait(0.02)
        self._undo_due(float("inf"))
        for helper in self._helpers:
            helper.join(HELPER_TIMEOUT_SECONDS)
        self._helpers.clear()
        self.last = time.monotonic()

    def _do(self, fault: Fault) -> None:
        entry: dict[str, Any] = {"at": round(time.monotonic() - self._began, 2), "kind": fault.kind}
        try:
            about = getattr(self, f"_{fault.kind}")(fault)
        except (OSError, psycopg.Error, redis.RedisError, KeyError) as error:
            about = f"did not come about: {type(error).__name__}"
            self.counts["did not come about"] += 1
        else:
            self.counts[fault.kind] += 1
        self.timeline.append(entry | {"about": about, "seconds": round(fault.seconds, 2)})

    def _later(self, seconds: float, work: Callable[[], None]) -> None:
        heapq.heappush(self._undo, (time.monotonic() + seconds, next(self._numbers), work))

    def _undo_due(self, now: float) -> None:
        while self._undo and self._undo[0][0] <= now:
            with contextlib.suppress(OSError):
                heapq.heappop(self._undo)[2]()

    def _in_thread(self, work: Callable[[], None]) -> None:
        def quietly() -> None:
            with contextlib.suppress(psycopg.Error, redis.RedisError, OSError):
                work()

        helper = threading.Thread(target=quietly, name="fault helper", daemon=True)
        self._helpers.append(helper)
        helper.start()

    # -- workers, beats and HTTP ---------------------------------------------------------------------------------------

    def _group(self, fault: Fault) -> str:
        return list(GROUPS)[fault.choice % len(GROUPS)]

    def _child(self, fault: Fault) -> tuple[str, int]:
        dice = random.Random(fault.choice)
        children = [(name, pid) for name in GROUPS for pid in self._environment.children(name)]
        if not children:
            raise KeyError("no child")
        return dice.choice(children)

    def _kill_child(self, fault: Fault) -> str:
        name, pid = self._child(fault)
        os.kill(pid, signal.SIGKILL)
        return name

    def _stop_child(self, fault: Fault) -> str:
        name, pid = self._child(fault)
        os.kill(pid, signal.SIGSTOP)
        self._later(fault.seconds, lambda: os.kill(pid, signal.SIGCONT))
        return name

    def _kill_worker(self, fault: Fault) -> str:
        return self._signal(self._group(fault), signal.SIGKILL, group=True)

    def _term_worker(self, fault: Fault) -> str:
        return self._signal(self._group(fault), signal.SIGTERM)

    def _quit_worker(self, fault: Fault) -> str:
        return self._signal(self._group(fault), signal.SIGQUIT)

    def _stop_worker(self, fault: Fault) -> str:
        """Stop a worker for longer than the visibility timeout, so that others get its messages, then continue it."""
        name = self._group(fault)
        head = self._environment.head(name)
        if head is None:
            raise KeyError(name)
        os.killpg(head, signal.SIGSTOP)
        self._later(fault.seconds, lambda: os.killpg(head, signal.SIGCONT))
        return name

    def _kill_beat(self, fault: Fault) -> str:
        return self._signal(BEATS[fault.choice % len(BEATS)], signal.SIGKILL, group=True)

    def _kill_web(self, _fault: Fault) -> str:
        return self._signal(WEB, signal.SIGKILL, group=True)

    def _step_clock(self, fault: Fault) -> str:
        step = (-86_400, -3600, -600, 3600)[fault.choice % 4]
        self._environment.set_clock(step)
        self._later(fault.seconds, lambda: self._environment.set_clock(0))
        return f"{step:+} s"

    def _signal(self, name: str, number: signal.Signals, *, group: bool = False) -> str:
        head = self._environment.head(name)
        if head is None:
            raise KeyError(name)
        (os.killpg if group else os.kill)(head, number)
        return name

    # -- the broker ----------------------------------------------------------------------------------------------------

    def _redis(self, url: str | None = None) -> Any:
        return connect_to_redis(url or self._environment.broker_url, timeout=6)

    def _flush_broker(self, _fault: Fault) -> str:
        with contextlib.closing(self._redis()) as client:
            client.flushall()
        return "FLUSHALL"

    def _sleep_broker(self, fault: Fault) -> str:
        def sleep() -> None:
            with contextlib.closing(self._redis()) as client:
                client.execute_command("DEBUG", "SLEEP", str(round(fault.seconds, 2)))

        self._in_thread(sleep)
        return "DEBUG SLEEP"

    def _storm(self, fault: Fault) -> str:
        dice = random.Random(fault.choice)

        def storm() -> None:
            end = time.monotonic() + fault.seconds
            with contextlib.closing(self._redis()) as client:
                while time.monotonic() < end:
                    client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                    time.sleep(dice.uniform(0.05, 0.4))  # interval between the connections

        self._in_thread(storm)
        return "CLIENT KILL TYPE normal"

    def _kill_broker(self, _fault: Fault) -> str:
        os.kill(self._server("valkey"), signal.SIGKILL)
        return "restarted with its data"

    def _empty_broker(self, _fault: Fault) -> str:
        with self._daemon_backoff():
            os.kill(self._server("valkey"), signal.SIGKILL)
            shutil.rmtree(self._environment.folder / "servers" / "valkey", ignore_errors=True)
        return "restarted without its data"

    def _close_broker(self, fault: Fault) -> str:
        return self._close("valkey", signal.SIGKILL, fault)

    def _fail_over_broker(self, _fault: Fault) -> str:
        def fail_over(group: SentinelGroup) -> None:
            group.wait_until_replicated()
            group.fail_over()

        return self._with_sentinel_group(fail_over, "SENTINEL FAILOVER")

    def _lose_broker_tail(self, fault: Fault) -> str:
        def lose_tail(group: SentinelGroup) -> None:
            self.lost_tail_bytes += group.lose_tail(fault.seconds)

        return self._with_sentinel_group(lose_tail, "replica paused, primary killed")

    def _demote_broker(self, _fault: Fault) -> str:
        return self._with_sentinel_group(SentinelGroup.demote_paused_primary, "primary paused")

    def _with_sentinel_group(self, work: Callable[[SentinelGroup], None], about: str) -> str:
        group = self._environment.sentinel_group
        if group is None:
            raise KeyError("no Sentinel")

        def work_alone() -> None:
            with self._failover_lock:
                work(group)

        self._in_thread(work_alone)
        return about

    def _cut_broker(self, fault: Fault) -> str:
        return self._path(self._environment.broker_path, fault)

    # -- the database --------------------------------------------------------------------------------------------------

    def _end_session(self, fault: Fault) -> str:
        with open_connection(self._environment.database_url) as conn:
            pids = [row[0] for row in conn.execute(SESSIONS)]
            if not pids:
                raise KeyError("no session")
            conn.execute("SELECT pg_terminate_backend(%s)", [random.Random(fault.choice).choice(pids)])
        return "pg_terminate_backend"

    def _end_sessions(self, _fault: Fault) -> str:
        with open_connection(self._environment.database_url) as conn:
            for row in conn.execute(SESSIONS).fetchall():
                conn.execute("SELECT pg_terminate_backend(%s)", [row[0]])
        return "pg_terminate_backend of all"

    def _stop_database(self, _fault: Fault) -> str:
        os.kill(self._server("postgres"), signal.SIGQUIT)
        return "immediate shutdown"

    def _kill_database(self, _fault: Fault) -> str:
        os.kill(self._server("postgres"), signal.SIGKILL)
        return "kill -9"

    def _full_disk(self, fault: Fault) -> str:
        """Make writes of new table pages fail for a while; the WAL has its space."""

        def grow_to(size: int) -> None:
            with contextlib.suppress(psutil.NoSuchProcess, KeyError):
                limit_file_size(self._server("postgres"), size)

        grow_to(FULL_DISK_BYTES)
        self._later(fault.seconds, lambda: grow_to(resource.RLIM_INFINITY))
        return "RLIMIT_FSIZE"

    def _close_database(self, fault: Fault) -> str:
        return self._close("postgres", signal.SIGQUIT, fault)

    def _cut_database(self, fault: Fault) -> str:
        return self._path(self._environment.database_path, fault)

    def _hold_locks(self, fault: Fault) -> str:
        name = list(LOCKS)[fault.choice % len(LOCKS)]

        def hold() -> None:
            with open_connection(self._environment.database_url) as conn, conn.transaction():
                conn.execute(sql.SQL(LOCKS[name]))
                time.sleep(fault.seconds)  # the duration of the fault

        self._in_thread(hold)
        return name

    def _hold_dead_jobs(self, fault: Fault) -> str:
        def hold() -> None:
            with open_connection(self._environment.database_url) as conn, conn.transaction():
                conn.execute("LOCK TABLE unwind.dead_jobs IN ACCESS EXCLUSIVE MODE")
                time.sleep(fault.seconds)  # the duration of the fault

        self._in_thread(hold)
        return "dead jobs"

    def _refuse_writes(self, fault: Fault) -> str:
        def refuse() -> None:
            with open_connection(self._environment.database_url) as conn:
                conn.execute(REFUSE_WRITES)
            time.sleep(fault.seconds)  # the duration of the fault
            deadline = time.monotonic() + 15
            while time.monotonic() < deadline:
                with contextlib.suppress(psycopg.Error), open_connection(self._environment.database_url) as conn:
                    conn.execute(ALLOW_WRITES)
                    return
                time.sleep(0.2)  # the database may be starting again: there is no event to wait for

        self._in_thread(refuse)
        return "answers and dead jobs"

    def _deadlock(self, fault: Fault) -> str:
        """Take locks in the opposite order: lots, then members, then orders."""

        def against() -> None:
            with open_connection(self._environment.database_url) as conn:
                end = time.monotonic() + fault.seconds * 2
                while time.monotonic() < end:
                    with contextlib.suppress(psycopg.errors.DeadlockDetected), conn.transaction():
                        for name in ("lots", "orders", "members"):
                            conn.execute(sql.SQL(LOCKS[name]))
                            time.sleep(0.02)  # time for others to take conflicting locks

        self._in_thread(against)
        return "locks in the opposite order"

    # -- paths, mail, messages -----------------------------------------------------------------------------------------

    def _path(self, path: Any, fault: Fault) -> str:
        mood = ("cut", "cut", "delayed", "half-open")[fault.choice % 4]
        if mood == "cut":
            path.cut_all()
        elif mood == "delayed":
            path.delay = 0.1
            self._later(fault.seconds, lambda: setattr(path, "delay", 0.0))
        else:
            path.silent = True

            def back() -> None:
                path.silent = False
                path.cut_all()  # bytes were lost, so the connection can't continue

            self._later(fault.seconds, back)
        return mood

    def _mail(self, mood: str, fault: Fault) -> str:
        self._environment.smtp_stub.mood = mood
        self._later(fault.seconds, lambda: setattr(self._environment.smtp_stub, "mood", smtp_stub.KIND))
        return mood

    def _mail_4xx(self, fault: Fault) -> str:
        return self._mail(smtp_stub.BUSY, fault)

    def _mail_5xx(self, fault: Fault) -> str:
        return self._mail(smtp_stub.REFUSING, fault)

    def _mail_hangs(self, fault: Fault) -> str:
        return self._mail(smtp_stub.HANGING, fault)

    def _mail_closes(self, fault: Fault) -> str:
        return self._mail(smtp_stub.CLOSING, fault)

    def _hostile(self, fault: Fault) -> str:
        name, body = hostile_message(fault.choice)
        with contextlib.closing(self._redis()) as client:
            client.lpush("commands", body)
        return name

    def _poison(self, fault: Fault) -> str:
        name, payload = poison_payload(fault.choice)

        def submit() -> None:
            with open_connection(self._environment.database_url) as conn:
                conn.execute("SELECT unwind.submit_command('orders.cancel_many', %s::text)", [payload])

        self._in_thread(submit)
        return name

    # -- servers -------------------------------------------------------------------------------------------------------

    def _server(self, name: str) -> int:
        running = self._environment.servers()
        if running is None:
            raise KeyError(name)
        pid: int = getattr(running, name).pid
        return pid

    @contextlib.contextmanager
    def _daemon_backoff(self) -> Any:
        daemon = self._server("daemon")
        os.kill(daemon, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(daemon, signal.SIGCONT)

    def _close(self, server: str, number: signal.Signals, fault: Fault) -> str:
        daemon = self._server("daemon")
        os.kill(daemon, signal.SIGSTOP)
        self._later(fault.seconds, lambda: os.kill(daemon, signal.SIGCONT))
        os.kill(self._server(server), number)
        return "refused"
