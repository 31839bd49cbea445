"""A watchdog thread that ends a worker or beat that is alive but no longer takes or sends tasks.

A lost acknowledgement or a hung connection can leave a consumer without messages while it still answers pings.  The
thread shares nothing with the consumer: it has its own connection and counts what the consumer did between two polls.
A heartbeat task in every queue ensures that even an idle worker has something to take.  The supervisor (`./run up`,
systemd, compose) restarts the program.

Only silence while messages wait in a broker that answers counts, so an idle worker, a dead broker and a dead database
end no program; a worker that executes tasks also gets the hard time limit.  The thread counts polls, not seconds, since
a suspended machine polls nothing.  Beat must send ticks while the broker answers."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Any

import redis
import structlog
from celery import current_app, signals
from celery.worker import state
from redis.exceptions import NoPermissionError

from workers.broker.redis_url import connect_to_redis
from workers.lifecycle import BackgroundThread
from workers.monitoring import probes
from workers.settings import current_settings
from workers.transport import pausing

log = structlog.get_logger(__name__)

POLL_INTERVAL = 5.0
MAX_SILENT_POLLS = 9  # 45 s: three heartbeat tasks missed
# Allows for the hard time limit of 60 s, by which every running task has ended.
MAX_SILENT_POLLS_WHEN_BUSY = MAX_SILENT_POLLS + 13


class Watchdog(BackgroundThread):
    """Polls one program and calls `on_stall` when it made no progress although work waits.

    `progress` returns a value that changes whenever the program does something.  `count_waiting` returns how much work
    waits and raises when the broker does not answer.  `is_busy` returns whether running tasks explain the silence for a
    while."""

    def __init__(
        self,
        *,
        progress: Callable[[], Any],
        count_waiting: Callable[[], int],
        is_busy: Callable[[], bool],
        on_stall: Callable[[int], None],
    ) -> None:
        super().__init__()
        self._progress, self._count_waiting, self._is_busy, self._on_stall = progress, count_waiting, is_busy, on_stall
        self._last: Any = None
        self._failed = False
        self.silent_polls = 0
        """Consecutive polls without progress while work waited."""

    def poll(self) -> None:
        progressed = (progress := self._progress()) != self._last
        self._last = progress
        waiting = self._query_waiting_work()
        if progressed or waiting == 0:
            self.silent_polls = 0
        elif waiting is None:
            self.silent_polls = max(self.silent_polls - 1, 0)
        else:
            self.silent_polls += 1
        if progressed or self._is_busy() or (not self.silent_polls and not self._failed):
            probes.report_alive_to_probes()
        if (
            waiting
            and self.silent_polls >= (MAX_SILENT_POLLS_WHEN_BUSY if self._is_busy() else MAX_SILENT_POLLS)
            and not self._stop_requested.is_set()
        ):
            self._on_stall(waiting)

    def _query_waiting_work(self) -> int | None:
        # How much work waits; None when the broker does not answer. A failing broker ends no program: each poll without
        # an answer takes back one silent poll, the time that a consumer needs to reconnect. Any other error is a bug of
        # the watchdog, which then no longer reports the program as alive unless it sees progress.
        had_failed, self._failed = self._failed, False
        try:
            return self._count_waiting()
        except (redis.RedisError, OSError):
            return None
        except Exception as error:  # noqa: BLE001 - the thread must survive, and the error be logged
            self._failed = True
            if not had_failed:
                log.error("watchdog_query_failed", error=type(error).__name__)
            return None

    def run(self) -> None:
        while not self._stop_requested.wait(POLL_INTERVAL):
            self.poll()


def count_waiting_messages(client: redis.Redis, queues: Iterable[str]) -> int:
    with contextlib.suppress(NoPermissionError):  # this login may write only the keys that it must
        # Fails if the broker is full or read-only, which stops every worker: restarting this one would not help.
        client.set("unwind:watched", 1, ex=60)
    return sum(int(client.llen(queue)) for queue in queues)


_received_messages = 0


@signals.task_received.connect
@signals.task_revoked.connect
@signals.task_rejected.connect
@signals.task_unknown.connect
def _count_watched_message(**_: Any) -> None:
    global _received_messages  # noqa: PLW0603 - one consumer per process
    _received_messages += 1


@signals.worker_ready.connect
def _watch_worker(sender: Any = None, **_: Any) -> None:
    app = current_app._get_current_object()
    broker = connect_to_redis(current_settings().environment()["CELERY_BROKER_URL"])

    def end(waiting: int) -> None:
        log.critical("worker_stalled", waiting=waiting, queues=sorted(app.amqp.queues.consume_from))
        _exit_stalled_process(getattr(sender.pool, "info", {}).get("processes", ()))

    Watchdog(
        progress=lambda: (_received_messages, state.all_total_count[0], len(state.reserved_requests)),
        count_waiting=lambda: count_waiting_messages(
            broker, (q for q in app.amqp.queues.consume_from if not pausing.is_queue_paused(q))
        ),
        is_busy=lambda: bool(len(state.reserved_requests)),
        on_stall=end,
    ).start()
    probes.report_ready_to_probes()


@signals.beat_init.connect
def _watch_beat(sender: Any = None, **_: Any) -> None:
    scheduler = sender.scheduler
    broker = connect_to_redis(current_settings().environment()["CELERY_BROKER_URL"])

    def end(_waiting: int) -> None:
        log.critical("beat_stalled")
        _exit_stalled_process(())

    Watchdog(
        progress=lambda: scheduler.tick_count,
        count_waiting=lambda: count_waiting_messages(broker, ()) or 1,  # the timetable is never empty
        is_busy=lambda: False,
        on_stall=end,
    ).start()
    probes.report_ready_to_probes()


signals.worker_shutting_down.connect(probes.report_stopping_to_probes)


def _exit_stalled_process(children: Iterable[int]) -> None:
    # Kill the children and exit without shutting down, which may hang. Messages that were not acknowledged return.
    for pid in children:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    sys.stderr.flush()
    sys.stdout.flush()
    os._exit(os.EX_SOFTWARE)
