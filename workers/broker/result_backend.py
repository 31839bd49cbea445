"""Celery's Redis result backend, connected as every other client here is."""

from __future__ import annotations

from typing import Any

from celery.backends.redis import RedisBackend

from workers.broker.redis_url import RedisUrl


class ResultBackend(RedisBackend):
    """Stores answers where `CELERY_RESULT_BACKEND` says."""

    def _params_from_url(self, url: str, defaults: dict[str, Any]) -> dict[str, Any]:
        """celery.backends.redis.RedisBackend._params_from_url: options of the address count more than ours."""
        address = RedisUrl.parse(f"redis+{url}" if url.startswith("socket://") else url)  # Celery's own has lost it
        options = {**defaults, **address.connection_options()}
        if "path" in options:
            for name in ("host", "port", "socket_keepalive"):
                options.pop(name, None)
        return options
