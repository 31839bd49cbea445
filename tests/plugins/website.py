"""The HTTP interface on a free port with seed data, and a consumer that answers what is submitted through it.

It is not in the global plugins: modules that need it define a fixture of `website`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import psycopg
import uvicorn
from sqlalchemy import Connection

from models import api_keys
from models.db import database as db
from tests.plugins.market import Market
from tests.plugins.servers import fresh_database
from tests.plugins.stored_rows import DatabaseRows, StoredRows
from tests.waiting import wait_until
from web.app import create_app
from web.server import LimitedProtocol, bind, http_server_address
from web.settings import WebSettings
from workers.embedded.client import ServerUrls
from workers.simulation.engine import Simulation
from workers.submissions import consumer
from workers.submissions.listener import Listener

TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass
class Website(StoredRows):
    url: str
    database: db.Database
    """For tests; the server has connections of its own."""
    keys: dict[str, str] = field(default_factory=dict)
    paused: threading.Event = field(default_factory=threading.Event)
    """Set: nothing that is submitted is executed."""
    wake: threading.Event = field(default_factory=threading.Event)

    def new_key(self, scope: str, name: str | None = None) -> str:
        key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        with self.database.transaction() as conn:
            assert api_keys.insert_key(conn, name or key_id, scope, key_id, secret, self.database.clock.now(conn))
        return f"{key_id}.{secret}"

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        key: str | None = None,
    ) -> Reply:
        """Send a request; `key` is a scope, or a whole key."""
        address = urlsplit(self.url)
        sent = dict(headers or {})
        if key is not None:
            if key in api_keys.SCOPES and key not in self.keys:
                self.keys[key] = self.new_key(key)
            sent["Authorization"] = f"Bearer {self.keys.get(key, key)}"
        with contextlib.closing(
            http.client.HTTPConnection(str(address.hostname), address.port, timeout=TIMEOUT_SECONDS)
        ) as connection:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())

    def get(self, path: str, *, key: str | None = "read", **headers: str) -> Reply:
        return self.request("GET", path, headers=headers, key=key)

    def command(
        self,
        task: str,
        arguments: Any,
        request_id: str | None = None,
        *,
        key: str | None = "submit",
        wait: int | None = 60,
    ) -> Reply:
        headers = {"Content-Type": "application/json"}
        headers |= {"Idempotency-Key": request_id} if request_id is not None else {}
        headers |= {"Prefer": f"wait={wait}"} if wait is not None else {}
        body = arguments if isinstance(arguments, bytes) else json.dumps(arguments).encode()
        return self.request("POST", f"/v1/commands/{task}", body, headers, key=key)

    def resume(self) -> None:
        self.paused.clear()
        self.wake.set()

    def read(self) -> contextlib.AbstractContextManager[Connection]:
        return self.database.transaction()


@contextlib.contextmanager
def website(
    servers: ServerUrls,
    admin: psycopg.Connection,
    template_database: str,
    seed: Callable[[Market], None],
    **settings: Any,
) -> Iterator[Website]:
    """Serve a database in which `seed` has played a history that begins eight days ago."""
    with fresh_database(servers, admin, template_database) as url:
        with Simulation(url, at=DatabaseRows(url).server_time() - timedelta(days=8)) as simulation:
            seed(Market(simulation))
        database = db.connect(url, pool_size=2)
        db.set_database(database)
        try:
            with serving(WebSettings(url, **settings)) as address:
                site = Website(address, database)
                with _consuming(site):
                    yield site
        finally:
            db.set_database(None)
            database.dispose()


@contextlib.contextmanager
def serving(settings: WebSettings) -> Iterator[str]:
    app = create_app(settings)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, http=LimitedProtocol, ws="none"
    )
    server = uvicorn.Server(config)
    with bind(settings.address, 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="web")
        thread.start()
        try:
            wait_until(lambda: server.started and app.state.submitter.listening.is_set())
            yield http_server_address(listener)
        finally:
            server.should_exit = True
            thread.join(TIMEOUT_SECONDS)


@contextlib.contextmanager
def _consuming(site: Website) -> Iterator[None]:
    # What a worker does with what is submitted, in a thread of this process.
    ended = threading.Event()

    def consume() -> None:
        while not ended.is_set():
            site.wake.wait(1)
            site.wake.clear()
            if not site.paused.is_set():
                consumer.drain_submissions.run()

    listener = Listener(site.database.address, site.wake.set)
    thread = threading.Thread(target=consume, name="consumer")
    listener.start()
    thread.start()
    try:
        yield
    finally:
        ended.set()
        site.wake.set()
        thread.join(TIMEOUT_SECONDS)
        listener.close()
