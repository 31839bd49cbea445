"""What Flower may do and for whom it listens, whatever starts it and whichever options it is given.

`flowerconfig.py` says what Flower shows. What protects others is not left to a file that Flower may not read, and that options and
`FLOWER_...` variables override: the effective options are checked when Flower is about to listen.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from celery import signals

from workers.local import FLOWER_CONFIG

if TYPE_CHECKING:
    from workers.settings import Settings

log = structlog.get_logger(__name__)

QUEUE_LENGTHS_TIMEOUT = 2.0
UNAUTHENTICATED_API = "FLOWER_UNAUTHENTICATED_API"
"""Opens the API without a login, and every page to any other site in a reader's browser (`Access-Control-Allow-Origin: *`)."""


def choose_config() -> None:
    """Let `celery -A workers.app flower` read our configuration wherever it stands, unless told otherwise."""
    loaded = sys.modules.get("flower.options")
    if loaded is not None and FLOWER_CONFIG.exists():
        loaded.options.conf = str(FLOWER_CONFIG)


@signals.import_modules.connect
def _guard(**_: Any) -> None:
    """Flower's application sends this while it is made, before it listens."""
    if "flower.app" not in sys.modules:
        return
    from flower.app import Flower
    from flower.views import BaseHandler

    if Flower.start_http_server is not _start_http_server:
        Flower.start_http_server, Flower.unguarded_start = _start_http_server, Flower.start_http_server
        BaseHandler.get_broker = _queue_lengths


def _start_http_server(flower: Any) -> Any:
    """flower.app.Flower.start_http_server: not for everybody, and with nothing that commands."""
    from workers.settings import load_settings  # importing the application needs no settings

    settings = load_settings()
    restrict_options(flower, settings)
    port = flower.unguarded_start()
    _record(settings, flower.options, port)
    return port


def restrict_options(flower: Any, settings: Settings) -> None:
    """Set what options may not change. Raise ClickException for an address beyond loopback without a login."""
    import click

    options = flower.options
    if not options.address and not options.unix_socket:
        options.address = settings.flower_address  # to Flower an empty one means every interface
    if not (options.unix_socket or is_loopback(options.address) or _has_login(options)):
        raise click.ClickException(
            f"Flower shows every order's traffic, and at {options.address} it is open to others. "
            "Set UNWIND_FLOWER_LOGIN=user:password, or let it listen on 127.0.0.1."
        )
    if os.environ.pop(UNAUTHENTICATED_API, None):
        log.warning("is not followed: Flower's API and pages are not for everybody", variable=UNAUTHENTICATED_API)
    if settings.flower_read_only:
        options.read_only = True
        prefix = f"/{options.url_prefix.strip('/')}" if options.url_prefix else ""
        flower.add_handlers(".*", [(f"{prefix}/api/.*", _closed_handler())])


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach a listener at this address or name."""
    import ipaddress

    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)}
    except OSError:
        return False
    return bool(found) and all(ipaddress.ip_address(one.partition("%")[0]).is_loopback for one in found)


def find_running_flower(settings: Settings) -> dict[str, Any]:
    """Where the Flower of this data directory listens, and what it may; empty while none runs."""
    from workers.embedded.data_dir import read_json
    from workers.embedded.processes import ProcessIdentity, is_alive

    record = read_json(_record_of(settings))
    mark = ProcessIdentity(int(record.get("pid", 0)), int(record.get("started", 0)))
    return record if record and is_alive(mark) else {}


def _has_login(options: Any) -> bool:
    logins = options.basic_auth or []
    return bool(options.auth) or (bool(logins) and all(all(one.partition(":")) for one in logins))


def _record(settings: Settings, options: Any, port: int | None) -> None:
    from workers.embedded.data_dir import write_json
    from workers.embedded.processes import identify_process

    mark = identify_process(os.getpid())
    record = {
        "pid": mark.pid,
        "started": mark.started,
        "address": "" if options.unix_socket else options.address,
        "port": port,
        "read_only": bool(options.read_only),
    }
    with contextlib.suppress(OSError):  # a full disk or a read-only folder keeps nobody from looking
        settings.flower_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_json(_record_of(settings), record)


def _record_of(settings: Settings) -> Path:
    return settings.flower_dir / "listening.json"


def _closed_handler() -> type:
    from flower.api import BaseApiHandler
    from tornado.web import HTTPError

    class Closed(BaseApiHandler):
        """Programs ask `/metrics` and the database: what the API would give them, results above all, is not for the window."""

        def prepare(self) -> None:
            super().prepare()  # without a login 401 comes first
            raise HTTPError(403, "Flower's API is closed here (UNWIND_FLOWER_READ_ONLY).")

    return Closed


def _queue_lengths(handler: Any) -> QueueLengths:
    """flower.views.BaseHandler.get_broker: by our own client, as Flower's knows fewer kinds of addresses."""
    return QueueLengths(str(handler.capp.conf.broker_url))


class QueueLengths:
    """What Flower's page of the broker shows."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def queues(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """How many messages wait in each, and which of them are paused; of each paused task the same."""
        import asyncio

        return await asyncio.get_running_loop().run_in_executor(None, self._lengths, list(names))

    def _lengths(self, names: list[str]) -> list[dict[str, Any]]:
        from workers.broker.redis_url import connect
        from workers.transport.channel import PARKED_PREFIX, PAUSES_KEY

        with contextlib.closing(connect(self._url, timeout=QUEUE_LENGTHS_TIMEOUT)) as client:
            paused = json.loads(client.get(PAUSES_KEY) or "{}")  # workers say it there, for Flower has no database
            queues = paused.get("queues", [])
            rows = [(name, f"{name} (paused)" if name in queues else name) for name in names]
            rows += [(PARKED_PREFIX + task, f"{task} (paused task)") for task in paused.get("tasks", [])]
            return [{"name": shown, "messages": client.llen(key)} for key, shown in rows]
