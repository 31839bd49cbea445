"""Kombu's `Connection` and `Transport`, adapted: Celery reaches the broker by our channel and poller."""

# mypy: disable-error-code="no-untyped-call"
# kombu has no type annotations, and this module uses its internals.

from __future__ import annotations

from typing import Any

from kombu import connection as kombu_connection
from kombu.transport import redis as stock

from workers.broker.redis_url import REDIS_SCHEMES, RedisUrl
from workers.transport.channel import MAX_HOLD_SECONDS, Channel
from workers.transport.poller import Poller

TRANSPORT_NAME = f"{__name__}:Transport"


class Transport(stock.Transport):
    Channel = Channel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """kombu.transport.redis.Transport.__init__: use our poller."""
        super().__init__(*args, **kwargs)
        self.cycle: Any = Poller()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """kombu.transport.redis.Transport.register_with_event_loop: add a timer."""
        super().register_with_event_loop(connection, loop)
        loop.call_repeatedly(MAX_HOLD_SECONDS, self.cycle.maintain_readers)


class Connection(kombu_connection.Connection):
    """A connection that uses this transport for Redis URLs and keeps the URL as the user wrote it."""

    def __init__(
        self,
        hostname: Any = "localhost",
        *args: Any,
        ssl: Any = False,
        transport_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """kombu.Connection.__init__: parse the URL as `RedisUrl`; its options override ours."""
        if isinstance(hostname, str) and "://" in hostname and hostname.partition("://")[0] in REDIS_SCHEMES:
            address = RedisUrl.parse(hostname)
            hostname = address.kombu_url
            ssl = dict(address.tls_options) or ssl
            transport_options = {**(transport_options or {}), **address.client_options, "address": address}
        super().__init__(hostname, *args, **kwargs, ssl=ssl, transport_options=transport_options)  # type: ignore[misc]

    def _info(self, resolve: bool = True) -> Any:
        """kombu.Connection._info: pooled connections, of a class of kombu's, get this transport; JSON, no address."""
        info = dict(super()._info(resolve=resolve))
        if resolve:
            options = self.transport_options or {}
            info["transport_options"] = {name: value for name, value in options.items() if name != "address"}
        elif self.get_transport_cls() is Transport:
            info["transport"] = TRANSPORT_NAME
        return tuple(info.items())

    # Kombu's.
    def as_uri(self, include_password: bool = False, mask: str = "**", getfields: Any = None) -> str:  # noqa: ARG002
        """kombu.Connection.as_uri: as `RedisUrl` writes it, so that an IPv6 address keeps its brackets."""
        address: RedisUrl | None = (self.transport_options or {}).get("address")
        if address is None:
            return str(super().as_uri(include_password=include_password, mask=mask))
        if include_password:
            return str(address) if address.primary_options else address.kombu_url
        return address.masked(mask)

    def get_transport_cls(self) -> Any:
        """kombu.Connection.get_transport_cls."""
        transport = super().get_transport_cls()
        return Transport if transport is stock.Transport else transport
