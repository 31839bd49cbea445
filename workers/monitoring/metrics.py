"""What do machines read of the installation's health?  `/metrics` for Prometheus, `/livez` and `/readyz` for whoever asks.

A small process of its own: it asks PostgreSQL and Redis when it is asked, keeps nothing, and answers while either of them is
down, which it then says in `unwind_up`.  One look at a time, however many ask.
"""

from __future__ import annotations

import platform
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLate
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import ThreadingWSGIServer, make_wsgi_app

from models.db import database as db
from models.monitoring import metrics as readings
from schedules.routes import QUEUES, outbox_consumers
from workers.broker.redis_url import connect
from workers.settings import Settings

log = structlog.get_logger(__name__)

TIMEOUT = 4.0
"""Seconds for one part: below Prometheus' own 10 s even when both parts are frozen."""
BROKER_TIMEOUT = 2.0
"""Seconds for one question to the broker."""
REQUEST_TIMEOUT_SECONDS = 10
"""A client that connects and asks nothing, or asks letter by letter, keeps its thread no longer."""
COMPONENTS = ("database", "broker")
ZERO_LABELS: dict[str, tuple[tuple[str, ...], ...]] = {
    "unwind_outbox_due": tuple((task,) for task in outbox_consumers()),
    "unwind_requests_last_minute": (("done", ""),),
    "unwind_letters": (("pending",), ("parked",)),
    "unwind_paused": tuple(("queue", queue) for queue in QUEUES),
    "unwind_odd_messages_last_day": (("TASK_UNKNOWN",), ("NOT_A_COMMAND",)),
    "unwind_dead_jobs": tuple((task,) for task in outbox_consumers()),
}
"""Labels that are told of with 0 when there is nothing: a series that comes and goes is no base for an alert."""

Family = GaugeMetricFamily


class ComponentQuery:
    """One server that is asked in a thread of its own, so that a frozen one keeps nobody waiting for longer than said."""

    def __init__(self, name: str, ask: Callable[[], list[Family]], patience: float = TIMEOUT) -> None:
        self.name = name
        self._ask = ask
        self._patience = patience
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._asked: Future[list[Family]] | None = None

    def look(self) -> list[Family] | None:
        """What it says; None when it cannot be reached, or is still busy with being asked before."""
        if self._asked is None:
            self._asked = self._thread.submit(self._ask)
        try:
            found = self._asked.result(self._patience)
        except TooLate:
            log.warning("does not answer", part=self.name)
            return None
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the metrics say so and go on
            log.warning("cannot be asked", part=self.name, error=type(error).__name__)
            found = None
        self._asked = None
        return found

    def close(self) -> None:
        """Ask no more."""
        self._thread.shutdown(wait=False, cancel_futures=True)


class MetricsCollector:
    """Everything that is told, looked up when it is asked for."""

    def __init__(self, settings: Settings, *, patience: float = TIMEOUT) -> None:
        self._settings = settings
        self._looking = threading.Lock()
        self._database: db.Database | None = None
        self._broker: Any = None
        self.parts = [
            ComponentQuery("database", self._ask_database, patience),
            ComponentQuery("broker", self._ask_broker, patience),
        ]

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client."""
        with self._looking:
            began = time.monotonic()
            found = {part.name: part.look() for part in self.parts}
            took = time.monotonic() - began
        up = Family("unwind_up", "Whether a part of the installation answers.", labels=["part"])
        for name in COMPONENTS:
            up.add_metric([name], found[name] is not None)
            yield from found[name] or ()
        yield up
        yield Family("unwind_scrape_seconds", "How long it took to ask.", value=took)
        about = {"version": release_version(), "python": platform.python_version()}
        yield InfoMetricFamily("unwind_build", "Which release runs.", value=about)

    def ready(self) -> dict[str, bool]:
        """Whether each part answers."""
        with self._looking:
            return {part.name: part.look() is not None for part in self.parts}

    def close(self) -> None:
        """Close what was opened."""
        for part in self.parts:
            part.close()
        if self._database is not None:
            self._database.dispose()
        if self._broker is not None:
            self._broker.close()

    def _ask_database(self) -> list[Family]:
        if self._database is None:
            url = self._settings.app_database_url or self._settings.database_url
            assert url is not None
            self._database = db.connect(url.get_secret_value())
        found, unanswered = [], []
        with self._database.transaction() as conn:
            for reading, values in readings.collect(conn):
                if values is None:
                    unanswered.append(reading.name)
                    continue
                family = Family(reading.name, reading.about, labels=reading.labels)
                for labels, value in (dict.fromkeys(ZERO_LABELS.get(reading.name, ()), 0.0) | dict(values)).items():
                    family.add_metric(labels, value)
                found.append(family)
        failed = "Questions to the database that were not answered in time, or not at all."
        found.append(Family("unwind_scrape_failures", failed, value=len(unanswered)))
        if unanswered:
            log.warning("not answered", readings=unanswered)
        return found

    def _ask_broker(self) -> list[Family]:
        from workers.transport.channel import DELAYED_PREFIX, PARKED_PREFIX, PARKED_TASKS_KEY
        from workers.transport.dead_letters import find_strays
        from workers.transport.reclaim import UNACKED_KEY

        if self._broker is None:
            assert self._settings.broker_url is not None
            self._broker = connect(self._settings.broker_url.get_secret_value(), timeout=BROKER_TIMEOUT)
        client = self._broker
        waiting = Family("unwind_queue_messages", "Messages that wait in each queue.", labels=["queue"])
        for queue in QUEUES:
            waiting.add_metric([queue], client.llen(queue))
        parked = Family("unwind_parked_messages", "Messages of paused tasks, by task.", labels=["task"])
        for task in map(bytes.decode, client.smembers(PARKED_TASKS_KEY)):
            parked.add_metric([task], client.llen(PARKED_PREFIX + task))
        info = client.info()
        return [
            waiting,
            parked,
            _one(
                "unwind_delayed_messages",
                "Messages whose producer wants them carried out later (countdown, eta).",
                sum(client.zcard(DELAYED_PREFIX + queue) for queue in QUEUES),
            ),
            _one(
                "unwind_unacknowledged_messages",
                "Messages that workers have taken.",
                client.zcard(f"{UNACKED_KEY}.index"),
            ),
            _one(
                "unwind_stray_messages", "Messages where nobody reads.", sum(one.count for one in find_strays(client))
            ),
            _one("unwind_broker_memory_bytes", "Memory that the broker uses.", info.get("used_memory", 0)),
            _one("unwind_broker_memory_limit_bytes", "Memory that it may use; 0: no limit.", info.get("maxmemory", 0)),
            _one(
                "unwind_broker_saves",
                "Whether the broker could write to its disk when it last tried.",
                "err" not in (info.get("aof_last_write_status"), info.get("rdb_last_bgsave_status")),
            ),
        ]


def _one(name: str, about: str, value: float) -> Family:
    return Family(name, about, value=float(value))


def release_version() -> str:
    """The version of this program."""
    try:
        return version("unwind")
    except PackageNotFoundError:
        return "checkout"


class _Quiet(WSGIRequestHandler):
    timeout = REQUEST_TIMEOUT_SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Nobody wants a line for each scrape."""


def make_metrics_server(gauges: MetricsCollector, address: str, port: int) -> WSGIServer:
    """The server, bound and not yet serving; `server_port` is its port."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(gauges)
    metrics = make_wsgi_app(registry)

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            start("405 Method Not Allowed", [("Allow", "GET, HEAD"), ("Content-Type", "text/plain; charset=utf-8")])
            return [b"Only GET and HEAD.\n"]
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            told: Iterable[bytes] = metrics(environ, start)
            return told
        status, said = "404 Not Found", "There are /metrics, /livez and /readyz.\n"
        if path == "/livez":
            status, said = "200 OK", "alive\n"
        elif path == "/readyz":
            ready = gauges.ready()
            status = "200 OK" if all(ready.values()) else "503 Service Unavailable"
            said = "".join(f"{name} {'answers' if well else 'does not answer'}\n" for name, well in ready.items())
        start(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [said.encode()]

    family, _, _, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]

    class Server(ThreadingWSGIServer):
        address_family = family

    return make_server(str(place[0]), port, answer, Server, handler_class=_Quiet)
