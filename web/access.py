"""The outermost layer of every request: the access log, the metrics and the headers of every response.

The log has the path's template, so neither ids nor what is in a query is written; bodies and tokens never are.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import perf_counter
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = structlog.get_logger(__name__)

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
QUIET = ("/healthz", "/metrics")
"""Asked every few seconds by machines, so not logged while they succeed."""
HEADERS = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
"""Of every response that does not set its own."""


class AccessLayer:
    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self._app = app
        self._requests = Counter(
            "unwind_http_requests", "HTTP requests.", ("route", "method", "status"), registry=registry
        )
        self._seconds = Histogram(
            "unwind_http_request_seconds", "Time until the response.", ("route",), registry=registry, buckets=BUCKETS
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_at, status = perf_counter(), 500
        scope.setdefault("state", {})

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = _with_default_headers(message.get("headers", ()))
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:  # noqa: BLE001 - Starlette would raise it again, for uvicorn to log with its text
            response = scope["app"].state.answer_failure(Request(scope), error)
            await response(scope, receive, send_with_headers)
        finally:
            self._log_and_count_request(scope, status, perf_counter() - started_at)

    def _log_and_count_request(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unknown")
        method = scope["method"] if scope["method"] in ("GET", "POST", "HEAD") else "other"
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        if route not in QUIET or status >= 400:
            facts: dict[str, Any] = {"method": method, "route": route, "status": status}
            facts |= {name: scope["state"][name] for name in ("key_name", "task") if name in scope["state"]}
            log.info("request", **facts, milliseconds=round(seconds * 1000, 1))


def _with_default_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    sent = list(headers)
    names = {name.lower() for name, _ in sent}
    return [*sent, *(header for header in HEADERS if header[0] not in names)]
