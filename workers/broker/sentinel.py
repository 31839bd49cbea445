"""Connections to the primary that Redis Sentinel names: each new connection asks Sentinel first."""

# mypy: disable-error-code="no-untyped-call"
# redis-py has no annotations there.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

SENTINEL_TIMEOUT_SECONDS = 1.0
"""For each sentinel that does not answer, before the next one is asked."""


class PrimaryConnection(redis.Connection):
    def __init__(
        self,
        *,
        sentinels: Sequence[tuple[str, int]],
        primary_name: str,
        sentinel_login: Mapping[str, str],
        **options: Any,
    ) -> None:
        self._sentinels, self._primary_name, self._sentinel_login = list(sentinels), primary_name, sentinel_login
        super().__init__(**options)

    def _connect(self) -> Any:
        """redis.Connection._connect: to the server that is the primary now."""
        options = {
            "socket_timeout": SENTINEL_TIMEOUT_SECONDS,
            "socket_connect_timeout": SENTINEL_TIMEOUT_SECONDS,
            "retry": Retry(NoBackoff(), 0),
        }
        sentinel = Sentinel(self._sentinels, sentinel_kwargs=options | dict(self._sentinel_login))
        try:
            self.host, self.port = sentinel.discover_master(self._primary_name)
        finally:
            sentinel.close()
        return super()._connect()

    def read_response(self, *args: Any, **options: Any) -> Any:
        """redis.Connection.read_response: a demoted server counts as a lost connection."""
        try:
            return super().read_response(*args, **options)
        except redis.ResponseError as error:
            is_demoted = isinstance(error, (redis.exceptions.ReadOnlyError, redis.exceptions.MasterDownError))
            if not is_demoted and not str(error).startswith("UNBLOCKED"):
                raise
            self.disconnect()
            raise redis.ConnectionError("the server is no longer the primary") from error
