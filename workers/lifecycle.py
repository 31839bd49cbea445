"""Resources that a process opens at its start and closes at its end: settings, database, mailer, publisher, wake-ups.

Every process that runs tasks gets its own database engine after the fork: children that share an engine mix up each
other's answers silently.  Beat and Flower get none.
"""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import uuid
from collections.abc import Callable, Sequence
from functools import lru_cache
from time import monotonic
from typing import TYPE_CHECKING, Any

import redis
import structlog
from celery import current_app, signals
from celery.concurrency import ALIASES

from models.db import database as db
from models.db.database import Database
from schedules.routes import queue_of
from tasks import mailer, publisher, webhooks
from workers import logs
from workers.broker.command_precedence import YIELDING_TASKS, wait_for_commands
from workers.broker.redis_url import connect
from workers.broker.wakeups import WOKEN_TASKS, Wakeups
from workers.errors import summarize_error, traceback_path
from workers.settings import Settings, load_settings, settings_with_permanent_servers
from workers.submissions.listener import Listener

if TYPE_CHECKING:
    from celery import Celery

log = structlog.get_logger(__name__)

SUPPORTED_POOLS = ("workers.transport.process_pool:TaskPool", "celery.concurrency.solo:TaskPool")
"""Celery sends `worker_process_init`, which connects a process, in these pools only."""
CONNECT_TIMEOUT = 5.0
"""Seconds for which a new process tries to connect; shorter than `worker_proc_alive_timeout`, which ends it."""
MIN_WAKE_INTERVAL, MAX_WAKE_INTERVAL = 0.01, 0.2
"""Seconds between two wake-ups of a task by one process; a run that starts later finds all rows inserted by then.
The pause doubles while commits keep coming: a lone cancellation's consumers start at once, and a busy worker does not
spend its time on wake-ups (B4), nor relay and ledger theirs on small batches (B17)."""
BROKER_EPOCH_KEY = "unwind:memory"
"""Key in the broker: when it is missing, the broker has lost its data, published messages included."""
TASK_MESSAGE_EXPIRES_SECONDS = 3600
"""An outbox message that is unread for this long has been published again.  With less, a worker whose clock is half an
hour ahead would drop every message that a relay publishes."""


@lru_cache(maxsize=1)
def process_settings() -> Settings:
    settings = load_settings()
    if settings.broker_url is not None:
        # Celery lets these variables override the configuration, so they must hold the normalized form.
        os.environ["CELERY_BROKER_URL"] = settings.broker_url.get_secret_value()
        if settings.result_backend is not None:
            os.environ["CELERY_RESULT_BACKEND"] = settings.result_backend.get_secret_value()
        return settings  # a producer, beat or Flower needs no database
    return settings_with_permanent_servers(settings)


class BrokerPublisher:
    def __init__(self, app: Celery, broker_url: str | None = None) -> None:
        self._app = app
        self._client: Any = None
        self._broker_url = broker_url

    def publish(self, task: str, rows: Sequence[int]) -> None:
        self._app.send_task(
            task,
            kwargs={"rows": list(rows)},
            queue=queue_of(task),
            ignore_result=True,
            expires=TASK_MESSAGE_EXPIRES_SECONDS,
        )

    def broker_epoch(self) -> str | None:
        """Return a text that changes when the broker may have lost messages, or None when the broker does not answer.

        It holds a key, lost with the broker's data, and the server's run id: a restart may lose the last second of
        writes.
        """
        if self._broker_url is None:
            return None
        if self._client is None:  # kombu's own connections wait for a broker that is away; this one asks once
            self._client = connect(self._broker_url, decode_responses=True)
        try:
            self._client.set(BROKER_EPOCH_KEY, uuid.uuid4().hex, nx=True)
            epoch, run_id = self._client.get(BROKER_EPOCH_KEY), ""
            with contextlib.suppress(redis.ResponseError):  # some hosted brokers refuse INFO
                run_id = self._client.info("server").get("run_id", "")
        except (redis.RedisError, OSError):
            return None
        return f"{epoch} {run_id}"


class TaskWaker:
    """Wakes tasks soon after a commit that gives them work, without delaying the commit.

    It publishes from its own thread, so that a broker that hangs does not keep a worker from its next command.  A lost
    wake-up is made good by the next tick of the timetable.
    """

    def __init__(self, publish: Callable[[str], None]) -> None:
        self._publish = publish
        self._tasks: set[str] = set()
        self._requested = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def __call__(self, task: str) -> None:
        self._tasks.add(task)
        self._requested.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="task waker", daemon=True)
            self._thread.start()

    def close(self, seconds: float = 2.0) -> None:
        self._closed.set()
        self._requested.set()
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        pause = MIN_WAKE_INTERVAL
        while self._tasks or not self._closed.is_set():
            self._requested.wait()
            self._requested.clear()
            for _ in range(len(self._tasks)):
                self._wake(self._tasks.pop())
            self._closed.wait(pause)
            pause = min(2 * pause, MAX_WAKE_INTERVAL) if self._requested.is_set() else MIN_WAKE_INTERVAL

    def _wake(self, task: str) -> None:
        try:
            self._publish(task)
        except Exception as error:  # noqa: BLE001 - whatever it is, the timetable's tick does the same work
            log.warning("task_wake_failed", task=task, error=type(error).__name__)


def open_database(settings: Settings) -> Database:
    """Open the database as the application's own login, else as the owner in the role unwind_app."""
    url = settings.app_database_url or settings.database_url
    if url is None:
        url = settings_with_permanent_servers(settings).database_url
    if url is None:
        raise RuntimeError("There is no database. Set DATABASE_URL.")
    return db.connect(url.get_secret_value())


def _open_mailer(settings: Settings) -> mailer.Mailer:
    from workers.mail.senders import mailer_from_settings  # noqa: PLC0415 - workers.app starts without jinja2

    return mailer_from_settings(settings)


def _open_webhook_sender(settings: Settings) -> webhooks.WebhookSender:
    from workers.webhooks.sender import WebhookSender, parse_networks  # noqa: PLC0415 - TLS is slow to import

    return WebhookSender(parse_networks(settings.webhook_networks))


_task_waker: TaskWaker | None = None
_wakeups: Wakeups | None = None
_listener: Listener | None = None


def connect_process(app: Celery) -> None:
    global _task_waker, _wakeups  # noqa: PLW0603 - one per process is the point
    settings = process_settings()
    database = open_database(settings)
    broker_url = settings.broker_url.get_secret_value() if settings.broker_url is not None else None
    if broker_url is not None:
        _wakeups = Wakeups(app, broker_url)
        database.wake = _task_waker = TaskWaker(_wakeups.send)
    db.set_database(database)
    mailer.set_mailer(_open_mailer(settings))
    webhooks.set_sender(_open_webhook_sender(settings))
    publisher.set_publisher(BrokerPublisher(app, broker_url))


def disconnect_process() -> None:
    global _task_waker, _wakeups  # noqa: PLW0603
    if _task_waker is not None:
        _task_waker.close()
        _task_waker = None
    if _wakeups is not None:
        _wakeups.close()
        _wakeups = None
    with contextlib.suppress(RuntimeError):
        db.current_database().dispose()
    db.set_database(None)
    mailer.set_mailer(None)
    webhooks.set_sender(None)
    publisher.set_publisher(None)


@signals.worker_init.connect
def _freeze_garbage_collector(**_: Any) -> None:
    # Objects created before the fork are exempt from collection: scanning them took a quarter of Python's time for a
    # batch.
    gc.freeze()


@signals.celeryd_init.connect
def _refuse_pool(conf: Any, options: dict[str, Any], **_: Any) -> None:
    # Sent before the worker looks for servers.
    pool = pool_name(options.get("pool") or options.get("pool_cls") or conf.worker_pool)
    if pool not in SUPPORTED_POOLS:
        raise SystemExit(
            f"Unwind's workers do not run in the pool {pool}: only processes are connected to the database. "
            "Start this worker with --pool=prefork, or with --pool=solo for a single process."
        )


@signals.worker_init.connect
def _refuse_configuration(**_: Any) -> None:
    # A worker that could process nothing must end before it takes a message.
    try:
        check_configuration()
    except Exception as error:  # noqa: BLE001 - whatever it is, this worker's processes would meet it too
        raise SystemExit(f"This worker cannot connect, so it takes no messages: {summarize_error(error)}") from None


def pool_name(pool: Any) -> str:
    if isinstance(pool, str):
        return str(ALIASES.get(pool) or pool)
    return f"{pool.__module__}:{pool.__qualname__}"


def check_configuration() -> None:
    """Raise what would keep a process from connecting.  Contacts no server: servers may be away."""
    settings = process_settings()
    open_database(settings).dispose()
    _open_mailer(settings)


@signals.worker_process_init.connect
def _connect_child(**_: Any) -> None:
    # Connect a new process. One that fails never reports that it is up, gets no message, and is replaced by the pool.
    end = monotonic() + CONNECT_TIMEOUT
    while True:
        try:
            connect_process(current_app)
        except Exception as error:  # Celery would log it and let the process take messages
            log.error("process_connect_failed", error=summarize_error(error), path=traceback_path(error))
            disconnect_process()
            if monotonic() > end:
                raise SystemExit(1) from error
            threading.Event().wait(0.5)
        else:
            return


@signals.task_prerun.connect
def _begin_task(task: Any = None, **_: Any) -> None:
    if _wakeups is None:
        return
    if task.name in YIELDING_TASKS:
        wait_for_commands(_wakeups.client)
    if task.name in WOKEN_TASKS:
        _wakeups.begin(task.name)


@signals.worker_ready.connect
def _start_listener(**_: Any) -> None:
    # Listen for submissions by SQL in the worker group that reads their queue (one thread per group).
    global _listener  # noqa: PLW0603 - one per process
    settings = process_settings()
    url = settings.listener_url
    broker_url = settings.broker_url
    reads_submissions = queue_of("submissions.drain") in current_app.amqp.queues.consume_from
    if url is None or broker_url is None or not reads_submissions:
        return
    wakeups = Wakeups(current_app, broker_url.get_secret_value())
    wakeups.begin("submissions.drain")  # a worker that was killed may have left the key without a message
    _listener = Listener(url.get_secret_value(), lambda: wakeups.send("submissions.drain"))
    _listener.start()


@signals.worker_shutting_down.connect
def _stop_listener(**_: Any) -> None:
    if _listener is not None:
        _listener.close()


@signals.worker_process_shutdown.connect
def _disconnect_child(**_: Any) -> None:
    disconnect_process()


@signals.setup_logging.connect
def _set_up_logging(loglevel: int | str | None = None, **_: Any) -> None:
    # A receiver of this signal keeps Celery from configuring logging.
    settings = load_settings()
    logs.configure(settings.log_format, loglevel if loglevel is not None else settings.log_level)
