"""The Celery application and its settings, each with the reason for its value.

Importing this module needs neither servers nor environment.  The first connection looks the servers up: those of the
environment, else embedded ones, so that plain `celery -A workers.app ...` commands work in a checkout.
"""

from __future__ import annotations

import gc
from datetime import timedelta
from typing import Any

import click
from celery import Celery, signals
from celery.concurrency import ALIASES
from kombu.entity import Queue

import tasks
import workers.monitoring.watchdog
import workers.remote_control
import workers.submissions.listener
import workers.transport.dead_letters
import workers.transport.pausing  # noqa: F401 - these connect to Celery's signals
from schedules.routes import QUEUES, queue_of
from schedules.timetable import TIMETABLE, Entry
from workers import lifecycle, logs
from workers.broker.redis_url import CELERY_CONNECTION_OPTIONS, REDIS_SCHEMES
from workers.broker.result_backend import ResultBackend
from workers.embedded.client import running_server_urls
from workers.monitoring import flower_guard
from workers.settings import current_settings, load_settings
from workers.submissions import consumer
from workers.transport.plain_json import use_plain_json
from workers.transport.reclaim import UNACKED_KEY
from workers.transport.validation import HARD_TIME_LIMIT_SECONDS

SOFT_SHUTDOWN_SECONDS = 20
VISIBILITY_TIMEOUT = 180
"""Seconds after which a message without an acknowledgement is delivered again."""


OBSERVING_COMMANDS = frozenset({"control", "events", "inspect", "report", "status"})
"""Celery's commands that describe what runs; they start no servers."""


class UnwindCelery(Celery):
    servers_found = False

    def _connection(self, url: str | None, **options: Any) -> Any:
        self._set_server_urls()
        usable_url = None if url is None or url.startswith("valkey") else url
        return super()._connection(usable_url or self.conf.broker_url, **options)

    def _get_backend(self) -> Any:
        self._set_server_urls()
        url = self.conf.result_backend
        if not isinstance(url, str) or url.partition("://")[0] not in REDIS_SCHEMES:
            return super()._get_backend()
        return ResultBackend(app=self, url=url)

    def _set_server_urls(self) -> None:
        if self.servers_found:
            return
        command = getattr(click.get_current_context(silent=True), "info_name", None)
        settings = load_settings()
        if settings.broker_url is not None or command not in OBSERVING_COMMANDS:
            settings = current_settings()
        elif (urls := running_server_urls(settings.data_dir)) is not None:
            settings = settings.with_servers(urls)
        elif command == "report":  # it describes the connection and opens none
            self.conf.broker_url = "redis://"
            return
        else:
            raise click.ClickException(
                f"No servers run in {settings.data_dir}, so no workers do. Start them with ./run up, or set "
                "CELERY_BROKER_URL."
            )
        self.servers_found = True
        if settings.broker_url and settings.result_backend and not (self.conf.broker_url and self.conf.result_backend):
            self.conf.broker_url = settings.broker_url.get_secret_value()
            self.conf.result_backend = settings.result_backend.get_secret_value()


@signals.celeryd_init.connect
def _refuse_unsupported_pool(conf: Any, options: dict[str, Any], **_: Any) -> None:
    # Sent before the worker looks for servers.
    pool = worker_pool_path(options.get("pool") or options.get("pool_cls") or conf.worker_pool)
    if pool not in lifecycle.SUPPORTED_POOLS:
        raise SystemExit(
            f"Unwind's workers do not run in the pool {pool}: only processes are connected to the database. "
            "Start this worker with --pool=prefork, or with --pool=solo for a single process."
        )


def worker_pool_path(pool: Any) -> str:
    if isinstance(pool, str):
        return str(ALIASES.get(pool) or pool)
    return f"{pool.__module__}:{pool.__qualname__}"


@signals.setup_logging.connect
def _set_up_logging(loglevel: int | str | None = None, **_: Any) -> None:
    # A receiver of this signal keeps Celery from configuring logging.
    settings = load_settings()
    logs.configure(settings.log_format, loglevel if loglevel is not None else settings.log_level)


def _route_task(name: str, *_: Any, **__: Any) -> dict[str, str]:
    return {"queue": queue_of(name)}


use_plain_json()
app = UnwindCelery(
    "unwind",
    task_cls="workers.task:BaseTask",
    amqp="workers.redaction:RedactedAMQP",
    set_as_current=True,
    strict_typing=False,
)
app.conf.update(
    # Celery's defaults are not repeated. A test fixes those that matter: JSON alone (never a format that can run code
    # when it is read), UTC, no "started" results (a failed write loses the task), and no arguments in results.
    # --- acknowledgement: a message leaves the broker when its work is committed ---
    task_acks_late=True,  # a crash repeats the task instead of losing it; a repeated command finds its request row
    task_retry_on_worker_lost=True,  # as a new message with a retry count, so a task that kills its worker ends
    task_reject_on_worker_lost=False,  # would requeue such a task without a count, endlessly
    task_acks_on_failure=True,  # only once `workers.transport.acknowledgement` finds the outcome durable
    task_acks_on_timeout=True,  # the same
    # The child is killed and PostgreSQL rolls back; less than half the visibility timeout.
    task_time_limit=HARD_TIME_LIMIT_SECONDS,
    # No task_soft_time_limit: an exception in the middle of a COMMIT leaves its outcome unknown.
    # --- what a worker takes, and how it stops ---
    worker_prefetch_multiplier=1,  # what is prefetched waits for this worker while others may be idle; a block is one
    worker_max_tasks_per_child=10_000,  # against slow leaks; a new child every ten seconds made it 5 % slower
    worker_enable_prefetch_count_reduction=False,  # after a lost connection no process has work: it was cancelled
    worker_eta_task_limit=100,  # waiting retries live in the worker's memory, so their number is bounded
    worker_cancel_long_running_tasks_on_connection_loss=True,  # the message is delivered again: stop the first copy
    worker_soft_shutdown_timeout=SOFT_SHUTDOWN_SECONDS,  # finished work is acknowledged, the rest is requeued at once
    worker_enable_soft_shutdown_on_idle=True,  # also requeues messages that wait for their retry
    worker_proc_alive_timeout=10,  # slow machines need more than 4 s for a fork
    worker_hijack_root_logger=False,  # workers/logs.py: one format, no control characters, no arguments
    worker_send_task_events=True,  # Flower; representations hold ids only
    worker_consumer="workers.event_batching:EventBatchingConsumer",
    worker_pool="workers.transport.process_pool:TaskPool",  # also what `--pool=prefork` selects
    task_send_sent_event=True,
    # --- connections to the broker ---
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,  # never give up; restarts are for crashes
    broker_channel_error_retry=True,  # survives a read-only or a full broker
    broker_transport_options={
        "visibility_timeout": VISIBILITY_TIMEOUT,  # more than twice the hard limit
        "unacked_restore_interval": 5,  # with the defaults a dead worker's messages return 100 s later
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": 30,  # the process that restores messages may die meanwhile
        "unacked_key": UNACKED_KEY,  # not another Celery's on the same database; a global prefix would miss producers
        "unacked_index_key": f"{UNACKED_KEY}.index",
        "unacked_mutex_key": f"{UNACKED_KEY}.mutex",
        **CELERY_CONNECTION_OPTIONS,
        "retry_on_timeout": False,  # no silent second publish
        "priority_steps": [0],  # one key per queue: urgency is a queue, not a number
    },
    # --- results ---
    result_backend_always_retry=True,  # a cut connection while the answer is stored must not fail committed work
    result_backend_max_retries=20,
    result_expires=3600,  # answers live in PostgreSQL for at least 30 days; here they only wait for their caller
    redis_retry_on_timeout=True,
    # --- routing of messages ---
    task_queues=tuple(Queue(name, routing_key=name) for name in QUEUES),  # type: ignore[no-untyped-call]
    task_default_queue="commands",
    task_create_missing_queues=False,  # a typo is an error at the producer, not a queue without consumers
    task_routes=(_route_task,),
    # --- time ---
    # Celery's own stops when the clock is set back; this keeps no file.
    beat_scheduler="workers.beat:MonotonicScheduler",
    beat_max_loop_interval=5,  # precise enough for the timetable, and stops within seconds
    beat_enable_remote_control=True,  # answers the health check's ping
)

gc.disable()  # imported objects stay: scanning them repeatedly takes a tenth of the import time (B15)
tasks.import_all()
gc.enable()
app.finalize()
flower_guard.guard_flower_config()
APP_BEAT_ENTRIES = (
    *TIMETABLE,
    # A commit with a submission notifies the listener at once; this catches a lost notification, and the batch of a
    # worker that died: nothing notifies when its lease expires.
    Entry("execute commands submitted by SQL", consumer.drain_submissions, timedelta(seconds=2)),
)
app.conf.beat_schedule = {
    entry.title: {
        "task": entry.name,
        "schedule": entry.every,
        "options": {"queue": entry.queue, "ignore_result": True},  # no `expires`: beat limits how many wait
    }
    for entry in APP_BEAT_ENTRIES
}
for _entry in APP_BEAT_ENTRIES:
    _entry.task.send_events = False  # `workers.redaction` sends events for those that found work
