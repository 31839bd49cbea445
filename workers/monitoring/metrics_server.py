"""The metrics server: `/metrics` for Prometheus, and `/livez` and `/readyz`.

A process of its own that queries PostgreSQL and Redis at each scrape and caches nothing.  It answers while either is
down and reports that in `unwind_up`.  Concurrent scrapes take turns."""

from __future__ import annotations

import platform
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily as Family
from prometheus_client.core import InfoMetricFamily, Metric
from prometheus_client.exposition import ThreadingWSGIServer, make_wsgi_app

from models.db import database as db
from models.monitoring import metrics as metric_queries
from models.outbox import OUTBOX_CONSUMERS
from schedules.routes import QUEUES
from workers.broker.redis_url import connect_to_redis
from workers.settings import Settings
from workers.transport.postponed import DELAYED_PREFIX, PARKED_PREFIX, PARKED_TASKS_KEY
from workers.transport.reclaim import UNACKED_KEY
from workers.transport.unread_lists import find_unread_lists

log = structlog.get_logger(__name__)

TIMEOUT = 4.0  # seconds for one component: below Prometheus' own 10 s even when both are frozen
# Labels of series that the metrics server exports as 0 when nothing has them, so that alerts can rely on them.
METRICS_SERVER_ZERO_SERIES: dict[str, tuple[tuple[str, ...], ...]] = {
    "unwind_outbox_due": tuple((task,) for task in OUTBOX_CONSUMERS),
    "unwind_requests_last_minute": (("done", ""),),
    "unwind_emails": (("pending",), ("parked",)),
    "unwind_paused": tuple(("queue", queue) for queue in QUEUES),
    "unwind_dead_letters_last_day": (("TASK_UNKNOWN",), ("NOT_A_COMMAND",)),
    "unwind_dead_jobs": tuple((task,) for task in (*OUTBOX_CONSUMERS, "notices.deliver")),
}


class MetricsCollector:
    def __init__(self, settings: Settings) -> None:
        assert settings.work_url is not None
        self._lock = threading.Lock()
        self._database = db.connect(settings.work_url.get_secret_value())
        self._broker = connect_to_redis(settings.environment()["CELERY_BROKER_URL"])
        self._queries = {"database": self._query_database, "broker": self._query_broker}
        self._threads = ThreadPoolExecutor(max_workers=len(self._queries))
        self._unfinished: dict[str, Future[list[Family]]] = {}

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            started_at = time.monotonic()
            results = {name: self._run_query(name) for name in self._queries}
            elapsed = time.monotonic() - started_at
        up = Family("unwind_up", "Whether the database and the broker answer.", labels=["part"])
        for name, families in results.items():
            up.add_metric([name], families is not None)
            yield from families or ()
        yield up
        yield Family("unwind_scrape_seconds", "How long this scrape took.", value=elapsed)
        try:
            release = version("unwind")
        except PackageNotFoundError:
            release = "checkout"
        build = {"version": release, "python": platform.python_version()}
        yield InfoMetricFamily("unwind_build", "The running release.", value=build)

    def ready(self) -> dict[str, bool]:
        with self._lock:
            return {name: self._run_query(name) is not None for name in self._queries}

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._database.dispose()
        self._broker.close()

    def _run_query(self, name: str) -> list[Family] | None:
        # One that did not finish in time is waited for again instead of being started a second time.
        future = self._unfinished.pop(name, None) or self._threads.submit(self._queries[name])
        try:
            return future.result(TIMEOUT)
        except Exception as error:  # noqa: BLE001 - any failure is reported as unwind_up 0
            if not future.done():
                self._unfinished[name] = future
            log.warning("component_query_failed", component=name, error=type(error).__name__)
        return None

    def _query_database(self) -> list[Family]:
        families, failed = [], []
        with self._database.transaction() as conn:
            for metric, values in metric_queries.collect_database_metrics(conn):
                if values is None:
                    failed.append(metric.name)
                    continue
                family = Family(metric.name, metric.description, labels=metric.labels)
                zeros = dict.fromkeys(METRICS_SERVER_ZERO_SERIES.get(metric.name, ()), 0.0)
                for labels, value in (zeros | dict(values)).items():
                    family.add_metric(labels, value)
                families.append(family)
        about = "Database queries that failed or did not finish in time."
        families.append(Family("unwind_scrape_failures", about, value=len(failed)))
        if failed:
            log.warning("metric_queries_failed", metrics=failed)
        return families

    def _query_broker(self) -> list[Family]:
        client: Any = self._broker
        waiting = Family("unwind_queue_messages", "Messages waiting in each queue.", labels=["queue"])
        for queue in QUEUES:
            waiting.add_metric([queue], client.llen(queue))
        parked = Family("unwind_parked_messages", "Messages of paused tasks, by task.", labels=["task"])
        for task in map(bytes.decode, client.smembers(PARKED_TASKS_KEY)):
            parked.add_metric([task], client.llen(PARKED_PREFIX + task))
        info = client.info()
        delayed = sum(client.zcard(DELAYED_PREFIX + queue) for queue in QUEUES)
        unacknowledged = client.zcard(f"{UNACKED_KEY}.index")
        stray = sum(unread.count for unread in find_unread_lists(client))
        saves = "err" not in (info.get("aof_last_write_status"), info.get("rdb_last_bgsave_status"))
        used, limit = info.get("used_memory", 0), info.get("maxmemory", 0)
        gauges: tuple[tuple[str, str, float], ...] = (
            ("unwind_delayed_messages", "Messages with a countdown or eta in the future.", delayed),
            ("unwind_unacknowledged_messages", "Messages taken and not acknowledged yet.", unacknowledged),
            ("unwind_stray_messages", "Messages that no worker reads.", stray),
            ("unwind_broker_memory_bytes", "Memory used by the broker.", used),
            ("unwind_broker_memory_limit_bytes", "The broker's memory limit; 0 when it has none.", limit),
            ("unwind_broker_saves", "Whether the broker's last write to disk succeeded.", saves),
        )
        return [waiting, parked, *(Family(name, about, value=float(value)) for name, about, value in gauges)]


class _RequestHandler(WSGIRequestHandler):
    timeout = 10  # seconds: bounds how long an idle or slow scraper occupies a thread

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        # No line per scrape.
        ...


def make_metrics_server(collector: MetricsCollector, address: str, port: int) -> WSGIServer:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    metrics: Callable[..., Iterable[bytes]] = make_wsgi_app(registry)

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            start("405 Method Not Allowed", [("Allow", "GET, HEAD"), ("Content-Type", "text/plain; charset=utf-8")])
            return [b"Only GET and HEAD.\n"]
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            return metrics(environ, start)
        status, text = "404 Not Found", "There are /metrics, /livez and /readyz.\n"
        if path == "/livez":
            status, text = "200 OK", "alive\n"
        elif path == "/readyz":
            ready = collector.ready()
            status = "200 OK" if all(ready.values()) else "503 Service Unavailable"
            text = "".join(
                f"{name} {'answers' if is_ready else 'does not answer'}\n" for name, is_ready in ready.items()
            )
        start(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [text.encode()]

    family, _, _, _, sockaddr = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]

    class Server(ThreadingWSGIServer):
        address_family = family

    return make_server(str(sockaddr[0]), port, answer, Server, handler_class=_RequestHandler)
