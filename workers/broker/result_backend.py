"""Celery's Redis result backend, connected through `RedisUrl` like every other client of the project."""

from __future__ import annotations

from typing import Any

from celery.backends.redis import RedisBackend
from celery.exceptions import NotRegistered

from workers.broker.redis_url import RedisUrl
from workers.errors import suggest_task


class ResultBackend(RedisBackend):
    def mark_as_failure(self, task_id: str, exc: BaseException, *args: Any, **options: Any) -> Any:
        """celery.backends.base.Backend.mark_as_failure: a caller of an unknown task gets a sentence."""
        if isinstance(exc, NotRegistered):
            name = str(exc.args[0])
            exc = NotRegistered(
                f"{name} is no task of this worker. {suggest_task(name, self.app.tasks)} "
                "If it is a new one, the worker is older than it."
            )
        return super().mark_as_failure(task_id, exc, *args, **options)

    def as_uri(self, include_password: bool = False) -> str:
        """celery.backends.redis.RedisBackend.as_uri: options may hold a password, too."""
        url = self.url or ""
        if include_password or not url.startswith("sentinel://"):
            return str(super().as_uri(include_password=include_password))
        return RedisUrl.parse(url).masked()

    def _params_from_url(self, url: str, defaults: dict[str, Any]) -> dict[str, Any]:
        """celery.backends.redis.RedisBackend._params_from_url: options of the URL override ours."""
        # Celery strips the `redis+` of a socket's URL.
        address = RedisUrl.parse(f"redis+{url}" if url.startswith("socket://") else url)
        options = {**defaults, **address.connection_options()}
        if "path" in options:
            for name in ("host", "port", "socket_keepalive"):
                options.pop(name, None)
        return options
