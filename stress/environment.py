"""The installation of a torture run: servers behind proxies, three worker groups, two beats, HTTP and an SMTP server.

The supervisor restarts whatever dies.  The run signals only processes that it started, and all of them end with it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from models import api_keys
from models.db import database as db
from schedules.routes import QUEUES
from stress import worker_hooks
from stress.smtp_stub import SmtpStub
from tests.plugins.proxy import Proxy
from tests.plugins.sentinel import SentinelGroup
from workers.embedded.client import RunningServers, embedded_servers, running_servers
from workers.local.parent_death import with_parent_death
from workers.local.preforker import Preforker
from workers.local.process_specs import WORKER_GROUPS, web_program
from workers.local.supervisor import SupervisedProgram, Supervisor
from workers.settings import CHECKOUT, Settings, load_settings

GROUPS = {
    "first": ",".join(WORKER_GROUPS["commands"]),
    "second": ",".join(WORKER_GROUPS["sweeps"] + WORKER_GROUPS["emails"]),
    "both": ",".join(QUEUES),
}
BEATS = ("beat-one", "beat-two")
WEB = "web"
STEPPED_BEAT = "beat-two"
"""The beat whose machine's clock is stepped while it runs."""
STRAY_GROUP = "both"
"""The group whose machine's clock is wrong: the database's decides (guarantees.md)."""
SKEWED_CLOCK_PATH = CHECKOUT / "tests" / "e2e" / "skewed_clock"
VISIBILITY_TIMEOUT_SECONDS = 6
"""Seconds after which an unacknowledged message is redelivered; a paused worker pauses for longer."""
START_TIMEOUT_SECONDS = 60.0
FAILOVER_TIMEOUT_MS = 2_000
"""Sentinel waits for twice as long between two failovers."""


@dataclass
class Environment:
    """The running installation.  `settings` lead through the proxies, `direct` around them."""

    folder: Path
    direct: Settings
    settings: Settings
    supervisor: Supervisor
    smtp_stub: SmtpStub
    broker_path: Proxy
    database_path: Proxy
    effects: Path
    skew: int
    """Seconds by which one group's clock is wrong."""
    http_url: str
    api_key: str
    sentinel_group: SentinelGroup | None
    """The broker instead of the single server; no proxy stands before it."""

    @property
    def database_url(self) -> str:
        assert self.direct.database_url is not None
        return self.direct.database_url.get_secret_value()

    @property
    def broker_url(self) -> str:
        assert self.direct.broker_url is not None
        return self.direct.broker_url.get_secret_value()

    @property
    def result_backend(self) -> str:
        assert self.direct.result_backend is not None
        return self.direct.result_backend.get_secret_value()

    def client_settings(self) -> dict[str, Any]:
        """How an application without product code reaches the broker and the result backend."""
        if self.sentinel_group is not None:
            return self.sentinel_group.celery_settings()
        return {"broker_url": self.broker_url, "result_backend": self.result_backend, "broker_transport_options": {}}

    def servers(self) -> RunningServers | None:
        return running_servers(self.folder)

    def start(self, name: str) -> None:
        self.supervisor.start(self._program(name))

    def children(self, name: str) -> list[int]:
        try:
            return [child.pid for child in psutil.Process(self.supervisor.pid(name)).children()]
        except (psutil.NoSuchProcess, KeyError):
            return []

    def head(self, name: str) -> int | None:
        try:
            return self.supervisor.pid(name) if self.supervisor.is_alive(name) else None
        except KeyError:
            return None

    def _program(self, name: str) -> SupervisedProgram:
        if name in BEATS:
            words = ["-A", "workers.app", "beat", "-l", "WARNING"]
        else:
            words = ["-A", "workers.app", "worker", "-Q", GROUPS[name], "-n", f"{name}@%h", "-c", "2", "-l", "INFO"]
            words += ["--without-gossip", "--without-mingle", "-I", "stress.worker_hooks"]
        hook_settings = {"effects": str(self.effects), "visibility": VISIBILITY_TIMEOUT_SECONDS}
        environment = {**self.settings.environment(), worker_hooks.SETTINGS: json.dumps(hook_settings)}
        apart = name in (
            STRAY_GROUP,
            STEPPED_BEAT,
        )  # the wrong clock must be installed before any import: the preforker can't fork it
        if apart:
            environment["PYTHONPATH"] = os.pathsep.join((str(SKEWED_CLOCK_PATH), str(CHECKOUT)))
            clock_settings = (
                {"SKEW_SECONDS": str(self.skew)} if name == STRAY_GROUP else {"SKEW_FILE": str(self._clock)}
            )
            environment |= clock_settings
        return SupervisedProgram(
            name,
            with_parent_death(words),
            environment,
            max_restart_delay=0.0,  # faults kill programs often, and each must be back at once
            celery_args=None if apart else words,
        )

    @property
    def _clock(self) -> Path:
        return self.folder / "clock"

    def set_clock(self, seconds: float) -> None:
        beside = self._clock.with_suffix(".new")
        beside.write_text(str(seconds))
        beside.replace(self._clock)  # readers see the old or the new step


@contextlib.contextmanager
def running_environment(
    folder: Path, write_past: Callable[[str], None], skew: int = 0, *, sentinel: bool = False
) -> Iterator[Environment]:
    """Start an installation; `write_past` fills its empty database."""
    with contextlib.ExitStack() as held:
        held.enter_context(_importable_by_children())
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        preforker = Preforker(folder / "preforker.log")
        held.callback(preforker.close)
        urls = held.enter_context(
            embedded_servers(
                folder,
                valkey_settings={"enable-debug-command": "local"},
                # A killed process loses nothing that the kernel has: fsync protects only from power loss, and after a
                # kill the server would spend seconds on flushing all its files.
                postgres_settings={"fsync": "off"},
            )
        )
        write_past(urls.database_url)
        broker = held.enter_context(Proxy(urlsplit(urls.broker_url).port or 0))
        database = held.enter_context(Proxy(urlsplit(urls.database_url).port or 0))
        smtp_stub = SmtpStub()
        smtp_stub.start()
        held.callback(smtp_stub.stop)
        group, broker_urls = None, {"broker_url": broker.url(urls.broker_url)}
        broker_urls["result_backend"] = broker.url(urls.result_backend)
        if sentinel:
            (group_folder := folder / "sentinel").mkdir()
            group = SentinelGroup(group_folder, FAILOVER_TIMEOUT_MS)
            held.callback(group.stop)
            broker_urls = {"broker_url": group.url(0), "result_backend": group.url(1)}
            urls = dataclasses.replace(urls, **broker_urls)
        direct = load_settings(data_dir=folder).with_servers(urls).model_copy(update={"smtp_url": None})
        settings = load_settings(
            data_dir=folder,
            database_url=database.url(urls.database_url),
            **broker_urls,
            smtp_url=smtp_stub.url,
        )
        supervisor = held.enter_context(Supervisor(folder, preforker=preforker))
        web, http_url = web_program(settings)
        environment = Environment(
            folder=folder,
            direct=direct,
            settings=settings,
            supervisor=supervisor,
            smtp_stub=smtp_stub,
            broker_path=broker,
            database_path=database,
            effects=folder / "effects.jsonl",
            skew=skew,
            http_url=http_url,
            api_key=_create_api_key(urls.database_url),
            sentinel_group=group,
        )
        environment.set_clock(0)
        for name in (*GROUPS, *BEATS):
            environment.start(name)
        supervisor.start(dataclasses.replace(web, max_restart_delay=0.0))
        supervisor.wait_ready(START_TIMEOUT_SECONDS)
        yield environment


def _create_api_key(database_url: str) -> str:
    key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    database = db.connect(database_url)
    try:
        with database.transaction() as conn:
            api_keys.insert_key(conn, "storefront", "staff", key_id, secret, database.clock.now(conn))
    finally:
        database.dispose()
    return f"{key_id}.{secret}"


@contextlib.contextmanager
def _importable_by_children() -> Iterator[None]:
    path = {"PYTHONPATH": str(CHECKOUT)}
    foreign = ("DATABASE_URL", "UNWIND_APP_DATABASE_URL", "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND")
    before = {name: os.environ.get(name) for name in (*path, *foreign)}
    os.environ.update(path)
    for name in foreign:
        os.environ.pop(name, None)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
