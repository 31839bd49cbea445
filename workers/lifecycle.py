"""Resources that a process opens at its start and closes at its end: database, mailer, publisher, wake-ups, threads.

Every process that runs tasks gets its own database engine after the fork: children that share an engine mix up each
other's answers silently.  Beat and Flower get none.
"""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator
from time import monotonic
from typing import Any

import structlog
from celery import current_app, signals

from models.db import database as db
from models.db.database import Database
from tasks.mailer import Mailer
from tasks.process_services import services
from workers.broker.command_precedence import wait_for_commands
from workers.broker.wakeups import OutboxPublisher, TaskWaker, Wakeups
from workers.embedded.processes import StopRequest
from workers.errors import summarize_error, traceback_path
from workers.setting_types import parse_networks
from workers.settings import Settings, current_settings

log = structlog.get_logger(__name__)

SUPPORTED_POOLS = ("workers.transport.process_pool:TaskPool", "celery.concurrency.solo:TaskPool")
"""Celery sends `worker_process_init`, which connects a process, in these pools only."""
CONNECT_TIMEOUT = 5.0
"""Seconds for which a new process tries to connect; shorter than `worker_proc_alive_timeout`, which ends it."""


def open_process_database() -> Database:
    """Open the database as the application's own login, else as the owner in the role unwind_app."""
    settings = current_settings()
    url = settings.work_url or settings.with_servers_until_exit().database_url
    if url is None:
        raise RuntimeError("There is no database. Set DATABASE_URL.")
    return db.connect(url.get_secret_value())


@contextlib.contextmanager
def process_database() -> Iterator[Database]:
    database = open_process_database()
    try:
        yield database
    finally:
        database.dispose()


def _open_mailer(settings: Settings) -> Mailer:
    from workers.mail.senders import mailer_from_settings  # noqa: PLC0415 - workers.app starts without jinja2

    return mailer_from_settings(settings)


_process_resources = contextlib.ExitStack()
_process_wakeups: Wakeups | None = None


def connect_process() -> None:
    from workers.webhooks.sender import WebhookSender  # noqa: PLC0415 - TLS is slow to import

    global _process_wakeups  # noqa: PLW0603 - one per process is the point
    settings = current_settings()
    assert settings.broker_url is not None
    wakeups = Wakeups(current_app, settings.broker_url.get_secret_value())
    database = _process_resources.enter_context(process_database())
    _process_wakeups = _process_resources.enter_context(contextlib.closing(wakeups))
    waker = _process_resources.enter_context(contextlib.closing(TaskWaker(wakeups.send)))
    database.wake, database.wake_at_once = waker.wake, waker.wake_at_once
    db.set_database(database)
    services.mailer = _open_mailer(settings)
    services.webhook_sender = WebhookSender(parse_networks(settings.webhook_networks))
    services.publisher = OutboxPublisher(current_app, wakeups.client)


@signals.worker_process_shutdown.connect
def disconnect_process(**_: Any) -> None:
    global _process_wakeups  # noqa: PLW0603
    _process_resources.close()
    _process_wakeups = None
    db.set_database(None)
    services.mailer = services.webhook_sender = services.publisher = None


class BackgroundThread(threading.Thread):
    """A thread beside those of Celery, which `run` ends soon after a stop is requested."""

    def __init__(self) -> None:
        super().__init__(name=type(self).__name__, daemon=True)
        self._stop_requested = StopRequest()

    def start(self) -> None:
        # In a worker, Celery's signals end it.
        _background_threads.append(self)
        super().start()

    def stop(self) -> None:
        self._stop_requested.set()

    def close(self) -> None:
        self.stop()
        if self.is_alive():
            self.join(5)


_background_threads: list[BackgroundThread] = []


@signals.worker_shutting_down.connect
def _stop_background_threads(**_: Any) -> None:
    # Celery sends this in its signal handler, so nothing here takes a lock.
    for thread in _background_threads:
        thread.stop()


@signals.worker_shutdown.connect
def _close_background_threads(**_: Any) -> None:
    while _background_threads:
        _background_threads.pop().close()


@signals.worker_init.connect
def _tune_garbage_collector(**_: Any) -> None:
    # Objects created before the fork are exempt from collection: scanning them took a quarter of Python's time for a
    # batch, and looking for cycles after each 700 new objects another twentieth.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@signals.worker_init.connect
def _check_process_or_exit(**_: Any) -> None:
    # A worker that could process nothing must end before it takes a message.
    try:
        check_process_configuration()
    except Exception as error:  # noqa: BLE001 - whatever it is, this worker's processes would meet it too
        raise SystemExit(f"This worker cannot connect, so it takes no messages: {summarize_error(error)}") from None


def check_process_configuration() -> None:
    """Raise what would keep a process from connecting.  Contacts no server: servers may be away."""
    open_process_database().dispose()
    _open_mailer(current_settings())


@signals.worker_process_init.connect
def _connect_after_fork(**_: Any) -> None:
    # Connect a new process. One that fails never reports that it is up, gets no message, and is replaced by the pool.
    end = monotonic() + CONNECT_TIMEOUT
    while True:
        try:
            connect_process()
        except Exception as error:  # Celery would log it and let the process take messages
            log.error("process_connect_failed", error=summarize_error(error), path=traceback_path(error))
            disconnect_process()
            if monotonic() > end:
                raise SystemExit(1) from error
            threading.Event().wait(0.5)
        else:
            return


@signals.task_prerun.connect
def _prepare_process_for_task(task: Any = None, **_: Any) -> None:
    if _process_wakeups is not None:
        wait_for_commands(_process_wakeups.client, task.name, current_app.amqp.queues.consume_from)
        _process_wakeups.begin(task.name)
