"""The server process: one event loop that accepts connections; PostgreSQL is used in threads."""

from __future__ import annotations

import socket

import uvicorn

from web.app import create_app
from web.settings import WebSettings

BACKLOG = 1024
SHUTDOWN_TIMEOUT_SECONDS = 10
KEEP_ALIVE_SECONDS = 30


def serve(settings: WebSettings) -> None:
    """Serve until TERM or INT; requests that have begun get `SHUTDOWN_TIMEOUT_SECONDS` to end."""
    config = uvicorn.Config(
        create_app(settings),
        log_config=None,  # the process that starts us has configured logging
        access_log=False,  # `web.access` writes it, without what is private in addresses
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_SECONDS,
    )
    with bind(settings.address, settings.port) as listener:
        print(address_of(listener), flush=True)
        uvicorn.Server(config).run(sockets=[listener])


def bind(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, port), family=family, backlog=BACKLOG)


def address_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
