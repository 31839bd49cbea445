"""Who notices a worker that is alive, connected, answers pings and takes nothing?  A thread in its head, which ends it.

A lost acknowledgement or a hung connection can leave a consumer deaf for ever (reliability F03, F41).  The thread depends on
nothing that the consumer uses: it has a connection of its own and counts what the consumer did between two looks.  Canaries see
to it that even an idle queue has something in it to be deaf to (X9).  Whoever runs the program (`./run up`, systemd, compose)
starts it anew.

Only silence while messages wait in a broker that answers counts, so an idle worker, a dead broker and a dead database end nobody; a
worker with jobs in hand has the hard limit on top.  Looks are counted, not seconds: a machine that slept has not been looked at.
Beat is watched the same way: it must send ticks while the broker answers; coming round and sending nothing is not enough.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

import structlog
from celery import current_app, signals
from celery.worker import state

from workers.broker.redis_url import connect
from workers.monitoring import probes
from workers.transport import pausing

log = structlog.get_logger(__name__)

POLL_INTERVAL = 5.0
MAX_SILENT_POLLS = 9
"""45 s: three canaries missed."""
MAX_BUSY_POLLS = MAX_SILENT_POLLS + 13
"""The same after the hard limit of 60 s, by which whatever is in hand must have ended."""
RESPONSE_TIMEOUT = 3.0
PROBE_KEY = "unwind:watched"
"""Written at each look: a broker that is full or only reads keeps every worker from taking, and a new one could not either."""


class Watchdog:
    """Looks at one program's head now and then, and calls `end` when it did nothing although there was something to do.

    `moved` gives anything that changes with whatever the program does; `waiting` how much waits for it, and raises when the
    broker cannot be asked; `busy` whether it has work in hand that explains the silence for a while.
    """

    def __init__(
        self,
        *,
        moved: Callable[[], Any],
        waiting: Callable[[], int],
        busy: Callable[[], bool],
        end: Callable[[int], None],
        every: float | None = None,
    ) -> None:
        self._moved, self._waiting, self._busy, self._end = moved, waiting, busy, end
        self._every = POLL_INTERVAL if every is None else every
        self._last: Any = None
        self._blind = False
        self.silent = 0
        """Looks in a row at which nothing had moved while something waited."""
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Look no more: a program that ends in good order takes nothing either."""
        self._closed.set()

    def look(self) -> None:
        """One look."""
        came_on = (moved := self._moved()) != self._last
        self._last = moved
        waiting = self._ask()
        if came_on or waiting == 0:
            self.silent = 0
        elif waiting is None:
            self.silent = max(self.silent - 1, 0)
        else:
            self.silent += 1
        if came_on or self._busy() or (not self.silent and not self._blind):
            probes.report_alive()
        if (
            waiting
            and self.silent >= (MAX_BUSY_POLLS if self._busy() else MAX_SILENT_POLLS)
            and not self._closed.is_set()
        ):
            self._end(waiting)

    def _ask(self) -> int | None:
        """How much waits; None when nobody knows, which is not the same as nothing.

        A broker in trouble ends no program: each look without an answer takes back one silent look, as much time as a
        consumer needs to connect again.  Any other error is the watcher's own: it watches nothing, says so, and no longer
        says that the program is alive, unless that is seen to come on.
        """
        import redis

        was_blind, self._blind = self._blind, False
        try:
            return self._waiting()
        except (redis.RedisError, OSError):
            return None
        except Exception as error:  # noqa: BLE001 - the thread must live on, and be heard
            self._blind = True
            if not was_blind:
                log.error("cannot ask the broker how much waits, so nobody watches here", error=type(error).__name__)
            return None

    def _run(self) -> None:
        while not self._closed.wait(self._every):
            self.look()


class BrokerProbe:
    """A connection of the watcher's own, made anew after trouble."""

    def __init__(self, url: str) -> None:
        self._client = connect(url, timeout=RESPONSE_TIMEOUT)

    def waiting(self, queues: Iterable[str]) -> int:
        """How many messages wait in these queues.  Raises when the broker does not answer or takes nothing."""
        from redis.exceptions import NoPermissionError

        with contextlib.suppress(NoPermissionError):  # one that lets us write only where we must
            self._client.set(PROBE_KEY, 1, ex=60)
        return sum(int(self._client.llen(queue)) for queue in queues)


_taken = 0
_watcher: Watchdog | None = None


@signals.task_received.connect
@signals.task_revoked.connect
@signals.task_rejected.connect
@signals.task_unknown.connect
def _took(**_: Any) -> None:
    global _taken  # noqa: PLW0603 - one consumer per process
    _taken += 1


def _watch(watcher: Watchdog) -> None:
    global _watcher  # noqa: PLW0603 - one per process is the point
    _watcher = watcher
    watcher.start()
    probes.report_ready()


@signals.worker_ready.connect
def _watch_worker(sender: Any = None, **_: Any) -> None:
    url = _broker_url()
    if url is None:
        return
    broker, app = BrokerProbe(url), current_app._get_current_object()

    def end(waiting: int) -> None:
        said = "takes nothing although messages wait, so it ends: whoever runs it starts it anew"
        log.critical(said, waiting=waiting, queues=sorted(app.amqp.queues.consume_from))
        _die(getattr(sender.pool, "info", {}).get("processes", ()))

    _watch(
        Watchdog(
            moved=lambda: (_taken, state.all_total_count[0], len(state.reserved_requests)),
            waiting=lambda: broker.waiting(q for q in app.amqp.queues.consume_from if not pausing.is_queue_paused(q)),
            busy=lambda: bool(len(state.reserved_requests)),
            end=end,
        )
    )


@signals.beat_init.connect
def _watch_beat(sender: Any = None, **_: Any) -> None:
    url = _broker_url()
    if url is None:
        return
    broker, scheduler = BrokerProbe(url), sender.scheduler

    def end(_waiting: int) -> None:
        log.critical("no tick of the timetable is sent any more, so beat ends: whoever runs it starts it anew")
        _die(())

    def due() -> int:
        broker.waiting(())
        return 1  # the timetable always has something

    _watch(Watchdog(moved=lambda: scheduler.tick_count, waiting=due, busy=lambda: False, end=end))


@signals.worker_shutting_down.connect
def _stop_watching(**_: Any) -> None:
    probes.report_stopping()
    if _watcher is not None:
        _watcher.close()


def _broker_url() -> str | None:
    from workers import lifecycle

    found = lifecycle.process_settings().broker_url
    return None if found is None else found.get_secret_value()


def _die(children: Iterable[int]) -> None:
    """End at once: what cannot take messages cannot be trusted to end in good order.  Whatever it held comes again."""
    for pid in children:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    sys.stderr.flush()
    sys.stdout.flush()
    os._exit(os.EX_SOFTWARE)
