"""Restrictions on Flower: its address, its login and read-only mode.

`flowerconfig.py` sets what Flower shows, but Flower may not read that file, and options and `FLOWER_...` variables
override it. So the effective options are checked here, just before Flower listens."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import socket
import sys
from collections.abc import Iterable
from typing import Any

import click
import structlog
from celery import signals

from workers.broker.redis_url import connect_to_redis
from workers.embedded.data_dir import read_json, write_json
from workers.embedded.processes import ProcessIdentity, identify_process, is_alive
from workers.local import FLOWER_CONFIG
from workers.settings import Settings, load_settings
from workers.transport.pausing import PAUSES_KEY
from workers.transport.postponed import PARKED_PREFIX

log = structlog.get_logger(__name__)

UNAUTHENTICATED_API = "FLOWER_UNAUTHENTICATED_API"
"""Flower's variable that opens the API without a login and sets `Access-Control-Allow-Origin: *`."""
RECORD_FILE = "listening.json"


def guard_flower_config() -> None:
    """Make `celery -A workers.app flower` read our configuration in any directory, unless it names another."""
    options_module = sys.modules.get("flower.options")
    if options_module is not None and FLOWER_CONFIG.exists():
        options_module.options.conf = str(FLOWER_CONFIG)


@signals.import_modules.connect
def _patch_flower(**_: Any) -> None:
    # Patch Flower while its application is created, before it listens.
    if "flower.app" not in sys.modules:
        return
    from flower.app import Flower  # noqa: PLC0415 - only where Flower runs
    from flower.views import BaseHandler  # noqa: PLC0415 - only where Flower runs

    if Flower.start_http_server is not _start_http_server:
        Flower.start_http_server, Flower.unguarded_start = _start_http_server, Flower.start_http_server
        # Flower's own supports fewer kinds of URLs than our client.
        BaseHandler.get_broker = lambda handler: FlowerQueueLengths(str(handler.capp.conf.broker_url))


def _start_http_server(flower: Any) -> Any:
    # Replace `flower.app.Flower.start_http_server`: apply the restrictions first.
    settings, options = load_settings(), flower.options
    if not options.address and not options.unix_socket:
        options.address = settings.flower_address  # Flower takes an empty address as every interface
    logins = options.basic_auth or []
    has_login = options.auth or (logins and all(all(login.partition(":")) for login in logins))
    if not (options.unix_socket or is_flower_loopback_only(options.address) or has_login):
        raise click.ClickException(
            f"Flower shows every order's traffic, and at {options.address} others can reach it. "
            "Set UNWIND_FLOWER_LOGIN=user:password, or let it listen on 127.0.0.1."
        )
    if os.environ.pop(UNAUTHENTICATED_API, None):
        log.warning("flower_unauthenticated_api_ignored", variable=UNAUTHENTICATED_API)
    if settings.flower_read_only:
        options.read_only = True
        prefix = f"/{options.url_prefix.strip('/')}" if options.url_prefix else ""
        flower.add_handlers(".*", [(f"{prefix}/api/.*", _closed_flower_api_handler())])
    port = flower.unguarded_start()
    record = {
        **identify_process(os.getpid()).as_json(),
        "address": "" if options.unix_socket else options.address,
        "port": port,
        "read_only": bool(options.read_only),
    }
    with contextlib.suppress(OSError):  # a full disk or a read-only folder must not stop Flower
        settings.flower_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_json(settings.flower_dir / RECORD_FILE, record)
    return port


def is_flower_loopback_only(address: str) -> bool:
    try:
        addresses = {str(entry[4][0]) for entry in socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)}
    except OSError:
        return False
    return bool(addresses) and all(ipaddress.ip_address(ip.partition("%")[0]).is_loopback for ip in addresses)


def find_running_flower(settings: Settings) -> dict[str, Any]:
    record = read_json(settings.flower_dir / RECORD_FILE)
    return record if is_alive(ProcessIdentity.from_json(record)) else {}


def _closed_flower_api_handler() -> type:
    from flower.api import BaseApiHandler  # noqa: PLC0415 - only where Flower runs
    from tornado.web import HTTPError  # noqa: PLC0415 - only where Flower runs

    class Closed(BaseApiHandler):
        # The API would show results; programs read `/metrics` and the database instead.

        def prepare(self) -> None:
            super().prepare()  # answers 401 first when there is no login
            raise HTTPError(403, "Flower's API is closed here (UNWIND_FLOWER_READ_ONLY).")

    return Closed


class FlowerQueueLengths:
    def __init__(self, url: str) -> None:
        self._url = url

    async def queues(self, names: Iterable[str]) -> list[dict[str, Any]]:
        return await asyncio.get_running_loop().run_in_executor(None, self._lengths, list(names))

    def _lengths(self, names: list[str]) -> list[dict[str, Any]]:
        with contextlib.closing(connect_to_redis(self._url)) as client:
            paused = json.loads(client.get(PAUSES_KEY) or "{}")  # workers write it there, since Flower has no database
            queues = paused.get("queues", [])
            rows = [(name, f"{name} (paused)" if name in queues else name) for name in names]
            rows += [(PARKED_PREFIX + task, f"{task} (paused task)") for task in paused.get("tasks", [])]
            return [{"name": label, "messages": client.llen(key)} for key, label in rows]
