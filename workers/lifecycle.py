"""What is connected to what when a process starts, and taken apart when it ends?

Every process that carries out tasks gets its own database engine after the fork (an engine made before it mixes up
answers silently, reliability F42), a postbox, and a bell to ring followers with.  Beat and Flower get nothing.
"""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from time import monotonic
from typing import TYPE_CHECKING, Any

import structlog
from celery import current_app, signals
from celery.concurrency import ALIASES

from schedules.routes import queue_of
from workers.broker.redis_url import connect
from workers.errors import summarize, traceback_path

if TYPE_CHECKING:
    from celery import Celery

    from models.db.database import Database
    from workers.settings import Settings
    from workers.submissions.listener import Listener

log = structlog.get_logger(__name__)

SUPPORTED_POOLS = ("celery.concurrency.prefork:TaskPool", "celery.concurrency.solo:TaskPool")
"""Celery tells only the processes of these that they begin, which is when they are connected (`worker_process_init`)."""
CONNECT_TIMEOUT = 5.0
"""Seconds for which a new process tries to be connected; shorter than `worker_proc_alive_timeout`, which ends it."""
MIN_PAUSE, MAX_PAUSE = 0.01, 0.05
"""Seconds between two nudges of a process: a relay that starts later finds all that is there by then.  The pause doubles while
commits keep coming, so that a lone cancellation's followers wait for nothing and a busy worker does not spend its time on nudges
(B4), and followers never wait for it longer than they did when every pause was the longest."""
BROKER_EPOCH_KEY = "unwind:memory"
"""Key in the broker: whoever does not find it there knows that the broker has forgotten everything else, too."""
RESPONSE_TIMEOUT = 2.0
MESSAGE_EXPIRES_SECONDS = 3600
"""Seconds.  What nobody heard for that long has been sent again; less, and a worker whose clock is half an hour off would hear
nothing of what others send (F34)."""


@lru_cache(maxsize=1)
def process_settings() -> Settings:
    """The settings of this process, with servers that answer until it ends."""
    from workers.settings import load_settings, settings_with_permanent_servers

    found = load_settings()
    if found.broker_url is not None:
        # Celery lets the variables beat whatever is set in code, so they must hold the normalised form.
        os.environ["CELERY_BROKER_URL"] = found.broker_url.get_secret_value()
        if found.result_backend is not None:
            os.environ["CELERY_RESULT_BACKEND"] = found.result_backend.get_secret_value()
        return found  # a producer, beat or Flower needs no database
    return settings_with_permanent_servers(found)


class BrokerPublisher:
    """Rings through the broker: a message with the ids of the rows, to the queue of their follower."""

    def __init__(self, app: Celery, broker_url: str | None = None) -> None:
        self._app = app
        self._client: Any = None
        self._url = broker_url

    def publish(self, task: str, rows: Sequence[int]) -> None:
        """Publish one message.  Raises when the broker cannot be reached: the rows come round again."""
        self._app.send_task(
            task, kwargs={"rows": list(rows)}, queue=queue_of(task), ignore_result=True, expires=MESSAGE_EXPIRES_SECONDS
        )

    def broker_epoch(self) -> str | None:
        """What the broker loses with its data (a key) and with its process (its run's id: the last second may be gone, F11).

        None when it does not answer: then it cannot be rung for either.
        """
        import redis

        if self._url is None:
            return None
        if self._client is None:  # kombu's own connections wait for a broker that is away; this one asks once
            self._client = connect(self._url, timeout=RESPONSE_TIMEOUT, decode_responses=True)
        try:
            self._client.set(BROKER_EPOCH_KEY, uuid.uuid4().hex, nx=True)
            kept, run = self._client.get(BROKER_EPOCH_KEY), ""
            with contextlib.suppress(redis.ResponseError):  # a hosted one that does not tell
                run = self._client.info("server").get("run_id", "")
        except (redis.RedisError, OSError):
            return None
        return f"{kept} {run}"


class RelayWaker:
    """Calls the relay soon after a commit that promised something, without the commit waiting for it.

    A thread of its own publishes: a broker that hangs must not keep a worker from its next command, and what is lost
    here is found by the next tick of the timetable.
    """

    def __init__(self, publish: Callable[[], None]) -> None:
        self._publish = publish
        self._wanted = threading.Event()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def __call__(self) -> None:
        """A commit has promised something."""
        self._wanted.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="nudge", daemon=True)
            self._thread.start()

    def close(self, seconds: float = 2.0) -> None:
        """Publish what is still wanted and end."""
        self._closed.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        pause = MIN_PAUSE
        while not self._closed.is_set():
            self._wanted.wait()
            self._wanted.clear()
            try:
                self._publish()
            except Exception as error:  # noqa: BLE001 - whatever it is, the timetable's tick does the same work
                log.warning("the relay could not be nudged", error=type(error).__name__)
            self._closed.wait(pause)
            pause = min(2 * pause, MAX_PAUSE) if self._wanted.is_set() else MIN_PAUSE


def _nudge_relay(app: Celery) -> None:
    app.send_task("outbox.relay", queue=queue_of("outbox.relay"), ignore_result=True, expires=MESSAGE_EXPIRES_SECONDS)


def open_database(found: Settings, *, pool_size: int = 1) -> Database:
    """The application's way to the database: as the login of its own, else in the role without rights to history."""
    from models.db import database as db

    url = found.app_database_url or found.database_url
    if url is None:
        from workers.settings import settings_with_permanent_servers

        url = settings_with_permanent_servers(found).database_url
    if url is None:
        raise RuntimeError("there is no database: set DATABASE_URL")
    return db.connect(url.get_secret_value(), pool_size=pool_size)


_nudge: RelayWaker | None = None
_listener: Listener | None = None


def connect_process(app: Celery) -> None:
    """Connect this process: database, postbox, bell, nudge."""
    global _nudge  # noqa: PLW0603 - one per process is the point
    from models.db import database as db
    from tasks import mailer, publisher
    from workers.mail.senders import mailer_from_settings as choose_postbox

    found = process_settings()
    database = open_database(found)
    _nudge = RelayWaker(lambda: _nudge_relay(app))
    database.on_outbox_insert = _nudge
    db.set_database(database)
    mailer.set_mailer(choose_postbox(found))
    publisher.set_publisher(
        BrokerPublisher(app, found.broker_url.get_secret_value() if found.broker_url is not None else None)
    )


def disconnect_process() -> None:
    """Take it apart again."""
    global _nudge  # noqa: PLW0603
    from models.db import database as db
    from tasks import mailer, publisher

    if _nudge is not None:
        _nudge.close()
        _nudge = None
    with contextlib.suppress(RuntimeError):
        db.current_database().dispose()
    db.set_database(None)
    mailer.set_mailer(None)
    publisher.set_publisher(None)


@contextlib.contextmanager
def connected_process(app: Celery) -> Iterator[None]:
    """The same for a process that is no worker, for as long as the block runs."""
    connect_process(app)
    try:
        yield
    finally:
        disconnect_process()


@signals.worker_init.connect
def _spare_the_collector(**_: Any) -> None:
    """What is here before children are forked stays: looking through it for garbage took a quarter of Python's time for a set."""
    gc.freeze()


@signals.worker_init.connect
def _refuse_to_start(sender: Any = None, **_: Any) -> None:
    """A worker that could do nothing takes nothing: it says why and ends."""
    pool = pool_name(getattr(sender, "pool_cls", SUPPORTED_POOLS[0]))
    if pool not in SUPPORTED_POOLS:
        raise SystemExit(
            f"Unwind's workers do not run in the pool {pool}: only processes are connected to the database. "
            "Start this worker with --pool=prefork, or with --pool=solo for a single process."
        )
    try:
        check_configuration()
    except Exception as error:  # noqa: BLE001 - whatever it is, this worker's processes would meet it too
        raise SystemExit(f"This worker cannot be connected, so it takes nothing: {summarize(error)}") from None


def pool_name(pool: Any) -> str:
    """`module:class` of a pool, given as Celery's settings and options give it."""
    if isinstance(pool, str):
        return str(ALIASES.get(pool) or pool)
    return f"{pool.__module__}:{pool.__qualname__}"


def check_configuration() -> None:
    """Raise what would keep a process of this worker from being connected; nobody is spoken to, for servers may be away."""
    from workers.mail.senders import mailer_from_settings as choose_postbox

    found = process_settings()
    open_database(found).dispose()
    choose_postbox(found)


@signals.worker_process_init.connect
def _start_child(**_: Any) -> None:
    """A process that cannot be connected is given no message: it never says that it is up, and the pool makes another."""
    end = monotonic() + CONNECT_TIMEOUT
    while True:
        try:
            connect_process(current_app)
        except Exception as error:  # Celery would log it and let the process take messages
            log.error(
                "a process cannot be connected and takes nothing", error=summarize(error), path=traceback_path(error)
            )
            disconnect_process()
            if monotonic() > end:
                raise SystemExit(1) from error
            threading.Event().wait(0.5)
        else:
            return


@signals.worker_ready.connect
def _start_listening(**_: Any) -> None:
    """The worker group that takes commands that came in by SQL hears of their commits (one group, one thread)."""
    global _listener  # noqa: PLW0603 - one per process
    from workers.submissions.listener import Listener

    found = process_settings()
    url = found.app_database_url or found.database_url
    if url is None or queue_of("submissions.drain") not in current_app.amqp.queues.consume_from:
        return
    _listener = Listener(url.get_secret_value(), lambda: _drain(current_app))
    _listener.start()


@signals.worker_shutting_down.connect
def _stop_listening(**_: Any) -> None:
    if _listener is not None:
        _listener.close()


def _drain(app: Celery) -> None:
    app.send_task(
        "submissions.drain", queue=queue_of("submissions.drain"), ignore_result=True, expires=MESSAGE_EXPIRES_SECONDS
    )


@signals.worker_process_shutdown.connect
def _stop_child(**_: Any) -> None:
    disconnect_process()


@signals.setup_logging.connect
def _set_up_logging(loglevel: int | str | None = None, **_: Any) -> None:
    """Receivers of this signal keep Celery from configuring logging itself."""
    from workers import logs
    from workers.settings import load_settings

    logs.configure(load_settings().log_format, loglevel if loglevel is not None else load_settings().log_level)
