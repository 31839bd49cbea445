"""What is the Celery application, and why is each of its settings as it is?

Importing this module needs neither servers nor environment.  The first one who wants a connection finds the servers:
those of the environment, else embedded ones (so that plain `celery -A workers.app ...` commands work in a checkout).
"""

from __future__ import annotations

import gc
import importlib
from typing import Any

from celery import Celery
from kombu.entity import Queue

from schedules.routes import QUEUES, queue_of
from schedules.timetable import TIMETABLE
from workers import lifecycle
from workers import remote_control as remote_control  # noqa: PLC0414 - connects itself to Celery's signals
from workers.broker.redis_url import SCHEMES
from workers.monitoring import flower_guard
from workers.monitoring import watchdog as watchdog  # noqa: PLC0414 - the same
from workers.redaction import TICKS
from workers.transport import dead_letters as dead_letters  # noqa: PLC0414 - the same
from workers.transport import pausing as pausing  # noqa: PLC0414 - the same
from workers.transport.plain_json import use_plain_json
from workers.transport.reclaim import UNACKED_KEY
from workers.transport.validation import HARD_TIME_LIMIT_SECONDS

TASK_MODULES = (
    "tasks.members",
    "tasks.inventory",
    "tasks.orders",
    "tasks.cancellation",
    "tasks.options",
    "tasks.drafts",
    "tasks.removals",
    "tasks.ocr",
    "tasks.npb",
    "tasks.seller_alerts",
    "tasks.credits",
    "tasks.bills",
    "tasks.notices",
    "tasks.reminders",
    "tasks.terms",
    "tasks.outbox",
    "tasks.audit",
    "tasks.queue_heartbeat",
    "workers.submissions.consumer",
)
"""Named one by one: a file that appears beside them is not a wire name by accident."""

SOFT_SHUTDOWN_SECONDS = 20
VISIBILITY_TIMEOUT = 180


class Unwind(Celery):
    """Celery, with its servers looked for when they are needed and not before."""

    servers_found = False

    def _connection(self, url: str | None, **options: Any) -> Any:
        _find_servers(self)
        given = None if url is None or url.startswith("valkey") else url
        return super()._connection(given or self.conf.broker_url, **options)

    def _get_backend(self) -> Any:
        _find_servers(self)
        url = self.conf.result_backend
        if not isinstance(url, str) or url.partition("://")[0] not in SCHEMES:
            return super()._get_backend()
        from workers.broker.result_backend import ResultBackend

        return ResultBackend(app=self, url=url)


def _find_servers(celery: Unwind) -> None:
    """Fill in broker and result backend, once."""
    if celery.servers_found:
        return
    found = lifecycle.process_settings()
    celery.servers_found = True
    if celery.conf.broker_url is None or celery.conf.result_backend is None:
        if found.broker_url is not None:
            celery.conf.broker_url = found.broker_url.get_secret_value()
        if found.result_backend is not None:
            celery.conf.result_backend = found.result_backend.get_secret_value()


def _route(name: str, *_: Any, **__: Any) -> dict[str, str]:
    return {"queue": queue_of(name)}


use_plain_json()
app = Unwind(
    "unwind",
    task_cls="workers.task:BaseTask",
    amqp="workers.redaction:RedactedAMQP",
    set_as_current=True,
    strict_typing=False,
)
app.conf.update(
    # --- a message is done when its work is, and is lost by nobody's death ---
    task_acks_late=True,  # a crash repeats instead of losing; repeats find their request row
    task_retry_on_worker_lost=True,  # as a new message and counted, so a job that kills its worker ends (F24, F25)
    task_reject_on_worker_lost=False,  # would give such a job back without a count, for ever
    task_acks_on_failure=True,  # where `workers.transport.acknowledgement` finds that what became of it is durable
    task_acks_on_timeout=True,  # the same
    task_time_limit=HARD_TIME_LIMIT_SECONDS,  # the child dies, PostgreSQL rolls back; below half the visibility timeout (F05)
    # No task_soft_time_limit: an exception in the middle of a COMMIT leaves its outcome unknown (F27).
    # --- what a worker takes, and how it stops ---
    worker_prefetch_multiplier=1,  # a message that waits in a worker waits for that worker alone
    worker_max_tasks_per_child=10_000,  # against slow leaks; a new child every ten seconds made it 5 % slower
    worker_eta_task_limit=100,  # waiting retries live in the worker's memory, so their number is bounded
    worker_cancel_long_running_tasks_on_connection_loss=True,  # the message will come again: stop the first copy
    worker_soft_shutdown_timeout=SOFT_SHUTDOWN_SECONDS,  # finished work is acknowledged, the rest goes back at once (F26)
    worker_enable_soft_shutdown_on_idle=True,  # also gives back messages that wait for their retry
    worker_proc_alive_timeout=10,  # slow machines need more than 4 s for a fork
    worker_hijack_root_logger=False,  # workers/logs.py: one format, no control characters, no arguments
    worker_send_task_events=True,  # Flower; representations hold ids only
    worker_consumer="workers.event_batching:Consumer",  # tells in groups
    task_send_sent_event=True,
    # --- the way to the broker ---
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,  # never give up; restarts are for crashes
    broker_channel_error_retry=True,  # lives through a read-only or a full broker (F13, F14)
    broker_transport_options={
        "visibility_timeout": VISIBILITY_TIMEOUT,  # more than twice the hard limit (F05)
        "unacked_restore_interval": 5,  # with the defaults a dead worker's messages return 100 s later (F09)
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": 30,  # whoever restores may die meanwhile
        "unacked_key": UNACKED_KEY,  # not another Celery's on the same database; a prefix for all would miss producers (F08)
        "unacked_index_key": f"{UNACKED_KEY}.index",
        "unacked_mutex_key": f"{UNACKED_KEY}.mutex",
        "socket_timeout": 10,  # the default waits for ever (F17); must exceed the blocking pop's second
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 10,  # notices a half-open connection within about 20 s
        "retry_on_timeout": False,  # no silent second publish (F18)
        "priority_steps": [0],  # one key per queue: urgency is a queue, not a number (F20)
    },
    task_publish_retry_policy={"max_retries": 3, "interval_start": 0, "interval_step": 0.2, "interval_max": 1},
    # --- answers ---
    task_ignore_result=False,  # whoever asks gets an answer; our own bells say with each message that nobody listens
    task_track_started=False,  # a failed "started" write loses the task (F04); Flower learns of it through events
    result_backend_always_retry=True,  # a cut while the answer is stored must not fail what is done (F04)
    result_backend_max_retries=20,
    result_expires=3600,  # answers live in PostgreSQL for at least 30 days; here they only wait for their caller
    result_extended=False,  # would copy the arguments into Redis
    redis_socket_timeout=10,
    redis_socket_connect_timeout=5,
    redis_socket_keepalive=True,
    redis_backend_health_check_interval=10,
    redis_retry_on_timeout=True,
    # --- what may be in a message, and where it goes ---
    task_serializer="json",
    result_serializer="json",
    event_serializer="json",
    accept_content=["json"],  # F62: nothing that can run code when it is read
    result_accept_content=["json"],
    task_queues=tuple(Queue(name, routing_key=name) for name in QUEUES),  # type: ignore[no-untyped-call]
    task_default_queue="commands",
    task_create_missing_queues=False,  # a typing error is an error at the producer, not a queue nobody reads (F19)
    task_routes=(_route,),
    # --- time ---
    enable_utc=True,
    timezone="UTC",  # F39: nothing here depends on where the machine stands
    beat_scheduler="workers.beat:MonotonicScheduler",  # a clock that is set back silences Celery's own; keeps no file
    beat_max_loop_interval=5,  # precise enough for the timetable, and stops within seconds
    beat_enable_remote_control=True,  # so that a health check can ask it
    beat_schedule={
        entry.title: {
            "task": entry.task,
            "schedule": entry.every,
            "options": {"queue": entry.queue, "ignore_result": True},  # no `expires`: beat limits how many wait
        }
        for entry in TIMETABLE
    },
)

gc.disable()  # what is imported stays: looking through it again and again takes a tenth of the time (B15)
try:
    for _module in TASK_MODULES:
        importlib.import_module(_module)
finally:
    gc.enable()
app.finalize()
flower_guard.choose_config()
for _tick in TICKS:
    app.tasks[_tick].send_events = False  # those that found something are told of by `workers.redaction`
