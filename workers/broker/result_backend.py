"""Celery's Redis result backend, connected through `RedisUrl` like every other client of the project."""

from __future__ import annotations

from typing import Any

from celery.backends.redis import RedisBackend

from workers.broker.redis_url import RedisUrl


class ResultBackend(RedisBackend):
    def _params_from_url(self, url: str, defaults: dict[str, Any]) -> dict[str, Any]:
        """celery.backends.redis.RedisBackend._params_from_url: options of the URL override ours."""
        # Celery strips the `redis+` of a socket's URL.
        address = RedisUrl.parse(f"redis+{url}" if url.startswith("socket://") else url)
        options = {**defaults, **address.connection_options()}
        if "path" in options:
            for name in ("host", "port", "socket_keepalive"):
                options.pop(name, None)
        return options
