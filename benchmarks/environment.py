"""Servers and worker groups of a benchmark run, with fsync on, in a temporary directory."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg
import redis

from benchmarks.market import Market, build
from workers.embedded.client import ServerUrls, embedded_servers
from workers.embedded.servers import OWNER
from workers.local.parent_death import with_parent_death
from workers.local.preforker import Preforker
from workers.local.process_specs import WORKER_GROUPS, worker_program
from workers.local.supervisor import SupervisedProgram, Supervisor
from workers.migrate import migrate
from workers.settings import CHECKOUT, Settings, load_settings

START_TIMEOUT_SECONDS = 180.0
DROP_ATTEMPTS = 10
EMPTY = "empty"
SUPERUSER_SETTINGS = {"log_min_messages": "fatal"}


@dataclass
class Environment:
    """Both servers, a supervisor for workers and references, and databases to fill and drop."""

    folder: Path
    urls: ServerUrls
    supervisor: Supervisor
    templates: dict[str, Market | None] = field(default_factory=dict)

    def url(self, database: str) -> str:
        return f"{self.urls.database_url.rpartition('/')[0]}/{database}"

    def plain(self, database: str) -> str:
        return self.url(database).replace("postgresql+psycopg:", "postgresql:", 1)

    def connect(self, database: str = "unwind") -> psycopg.Connection:
        return psycopg.connect(self.plain(database), autocommit=True)

    def broker(self, number: int = 0) -> str:
        return f"{self.urls.broker_url.rpartition('/')[0]}/{number}"

    def redis(self, number: int = 0) -> redis.Redis:
        client: redis.Redis = redis.Redis.from_url(self.broker(number))
        return client

    def create(self, database: str) -> None:
        if EMPTY not in self.templates:
            with self.connect() as conn:
                conn.execute(f"CREATE DATABASE {EMPTY} TEMPLATE template0")
            migrate(self.url(EMPTY))
            self.templates[EMPTY] = None
        self.copy(EMPTY, database)

    def template(self, database: str, market: Market) -> None:
        """Return the name of a database with that market, created once per run."""
        if self.templates.get(database) != market:
            self.create(database)
            with self.connect(database) as conn:
                build(conn, market)
            self.templates[database] = market

    def copy(self, template: str, database: str) -> None:
        """Copy `template` under a new name, so that every measurement starts with the same pages on disk."""
        self.drop(database)
        with self.connect() as conn:
            conn.execute(f"CREATE DATABASE {database} TEMPLATE {template} STRATEGY FILE_COPY")
            conn.execute("CHECKPOINT")

    def drop(self, database: str) -> None:
        with self.connect() as conn:
            for _ in range(DROP_ATTEMPTS):
                try:
                    conn.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
                    return
                except psycopg.errors.InsufficientPrivilege:  # to end an autovacuum worker: a plain DROP ends those
                    with contextlib.suppress(psycopg.errors.ObjectInUse):
                        conn.execute(f"DROP DATABASE IF EXISTS {database}")
            raise RuntimeError(f"{database} is still in use after {DROP_ATTEMPTS} attempts to drop it")

    def settings(self, database: str, *, broker: int = 0, **overrides: Any) -> Settings:
        settings_ = load_settings(
            database_url=self.url(database),
            broker_url=self.broker(broker),
            result_backend=self.broker(broker + 1),
            **{"data_dir": self.folder, "log_level": "WARNING", **overrides},
        )
        for number in (broker, broker + 1):
            with contextlib.closing(self.redis(number)) as connection:
                connection.flushdb()
        return settings_

    def workers(
        self, settings: Settings, *groups: str, processes: int = 2, suffix: str = ""
    ) -> list[SupervisedProgram]:
        """Run the product's worker groups as `./run up` does; `suffix` distinguishes those of several markets.

        The group `commands` on its own leaves what follows from commands, so that commands alone are measured.
        """
        chosen = settings.model_copy(update={"concurrency": processes})
        programs = []
        for group in groups:
            name = f"{group}{suffix}"
            queues = ("commands", "submissions") if groups == ("commands",) else WORKER_GROUPS[group]
            program = worker_program(chosen, group, queues)
            programs.append(replace(program, name=name))
        return programs

    @contextlib.contextmanager
    def programs(self, programs: Sequence[SupervisedProgram]) -> Iterator[None]:
        started: list[str] = []
        try:
            for program in programs:
                self.supervisor.start(program)
                started.append(program.name)
            self.supervisor.wait_ready(START_TIMEOUT_SECONDS, started)
            yield
        finally:
            self.supervisor.stop(started)

    def celery(self, name: str, application: str, environment: dict[str, str], *words: str) -> SupervisedProgram:
        command = ["-A", application, "worker", "-n", f"{name}@%h", "-l", "WARNING", *words]
        command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        variables = {**environment, "PYTHONPATH": str(CHECKOUT)}
        return SupervisedProgram(name, with_parent_death(command), variables, restart=False)


def wait_until(condition: Callable[[], object], seconds: float, every: float = 0.02) -> None:
    """Poll until the answer is true.  Raises TimeoutError."""
    end = time.monotonic() + seconds
    waiting = threading.Event()
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not done within {seconds:.0f} s")
        waiting.wait(every)


@contextlib.contextmanager
def running_environment() -> Iterator[Environment]:
    for name in ("DATABASE_URL", "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "UNWIND_APP_DATABASE_URL"):
        os.environ.pop(name, None)  # a benchmark must never fill a database of the user
    base = Path(os.environ.get("UNWIND_DATA") or CHECKOUT / ".unwind")
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=base))
    try:
        with (
            embedded_servers(folder, durable=True, postgres_settings=SUPERUSER_SETTINGS) as urls,
            contextlib.closing(Preforker(folder / "preforker.log")) as preforker,
            Supervisor(
                folder, on_event=lambda message: print(message, file=sys.stderr), preforker=preforker
            ) as supervisor,
        ):
            with psycopg.connect(urls.admin_url.replace("postgresql+psycopg:", "postgresql:", 1)) as admin:
                # Markets are inserted without triggers, and each workload begins with a checkpoint.
                admin.execute(f"GRANT SET ON PARAMETER session_replication_role TO {OWNER}")
                admin.execute(f"GRANT pg_checkpoint TO {OWNER}")
            yield Environment(folder, urls, supervisor)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
