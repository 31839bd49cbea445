"""The server process: one event loop that accepts connections; PostgreSQL is used in threads."""

from __future__ import annotations

import asyncio
import socket

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from web.app import create_app
from web.settings import WebSettings

SHUTDOWN_TIMEOUT_SECONDS, KEEP_ALIVE_SECONDS, HEADER_TIMEOUT_SECONDS = 10, 30, 20
BACKLOG, MAX_HEADER_BYTES = 1024, 2**16


class _JoinedWrites:
    # The transport of one response: its headers leave with the beginning of its body. uvicorn writes them apart.
    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport, self._headers = transport, b""
        self.close, self.is_closing = transport.close, transport.is_closing

    def write(self, data: bytes) -> None:
        if self._headers:
            self.write = self._transport.write  # type: ignore[method-assign]
        elif not data.startswith(b"HTTP/1.1 100 "):
            self._headers = data
            return
        self._transport.write(self._headers + data)


class LimitedProtocol(HttpToolsProtocol):
    """HTTP whose headers must arrive in time and be of limited size; uvicorn limits neither."""

    _header_timeout: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.on_message_begin()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._header_timeout is not None:
            self._header_timeout.cancel()
        self._header_timeout = self.loop.call_later(HEADER_TIMEOUT_SECONDS, self.transport.close)
        self._header_bytes = 0

    def on_headers_complete(self) -> None:
        assert self._header_timeout is not None
        self._header_timeout.cancel()
        super().on_headers_complete()
        if self.scope["method"] != "HEAD":
            self.cycle.transport = _JoinedWrites(self.transport)  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        before = self._header_timeout
        super().data_received(data)
        if before is self._header_timeout and before is not None and not before.cancelled():
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES:
                self.send_400_response("The headers are too large.")


def serve(settings: WebSettings) -> None:
    """Serve until TERM or INT; requests that have begun get `SHUTDOWN_TIMEOUT_SECONDS` to end."""
    config = uvicorn.Config(
        create_app(settings),
        log_config=None,  # the process that starts us has configured logging
        access_log=False,  # `web.access` writes it, without the private parts of addresses
        server_header=False,
        proxy_headers=False,
        http=LimitedProtocol,
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_SECONDS,
    )
    with bind(settings.address, settings.port) as listener:
        print(http_server_address(listener), flush=True)
        uvicorn.Server(config).run(sockets=[listener])


def bind(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, port), family=family, backlog=BACKLOG)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # inherited; asyncio leaves out such a socket
    return listener


def http_server_address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
