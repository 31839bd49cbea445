"""PostgreSQL and Valkey servers of the test run.

They start once per run and are shared by all pytest-xdist workers (the servers' own lease counts them).  Every test
that uses `database_url` gets a database of its own, copied from a migrated template; every test that
uses `broker_url` gets an empty pair of Valkey databases.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import redis

from workers.embedded.client import ServerUrls, embedded_servers
from workers.embedded.servers import OWNER
from workers.migrate import migrate
from workers.transport.reclaim import PROCESSING_LISTS_KEY, UNACKED_KEY

TEMPLATE = "unwind_template"
MEMORY_FILES = Path("/dev/shm")
MEMORY_BYTES = 8 << 30
"""Bytes that must be free, as memory and for files in it, before the servers of a test run are put there."""
FOLDER_VARIABLE = "TEST_SERVERS_DIR"
"""Environment variable by which the xdist workers of a run find the folder of its servers."""
_numbers = itertools.count(1)
_used_databases: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    """Remove server addresses from the environment, so that the suite never touches real data."""
    for name in list(os.environ):
        is_ours = name in {"DATABASE_URL", "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"}
        if is_ours or (name.startswith("UNWIND_") and name != "UNWIND_VENV"):
            del os.environ[name]
    if not hasattr(config, "workerinput"):
        _make_servers_dir(config)


def _make_servers_dir(config: pytest.Config) -> None:
    """Make the folder of the run's servers until its end: in memory where there is plenty.

    A copy of the template has 500 files.  Creating them on a disk takes ten times as long as in memory.
    """
    parent = MEMORY_FILES if _has_memory_for_files() else None
    folder = os.environ[FOLDER_VARIABLE] = tempfile.mkdtemp(prefix="unwind-tests-", dir=parent)
    # Also when this process is killed: then the pipe closes, and the servers end within a minute.
    command = ["/bin/sh", "-c", 'read -r line; [ -n "$line" ] || sleep 60; rm -rf "$0"', folder]
    remover = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, cwd="/")

    def remove() -> None:
        remover.communicate(b"now\n")

    config.add_cleanup(remove)


def _has_memory_for_files() -> bool:
    return (
        MEMORY_FILES.is_dir()
        and os.access(MEMORY_FILES, os.W_OK)
        and min(shutil.disk_usage(MEMORY_FILES).free, psutil.virtual_memory().available) > MEMORY_BYTES
    )


@pytest.fixture(scope="session")
def servers_dir() -> Path:
    return Path(os.environ[FOLDER_VARIABLE]) / "embedded"


@pytest.fixture(scope="session")
def servers(servers_dir: Path) -> Iterator[ServerUrls]:
    """PostgreSQL (as the owner, in an empty database) and Valkey, without fsync."""
    with embedded_servers(servers_dir, durable=False) as urls:
        yield urls


@pytest.fixture(scope="session")
def admin(servers: ServerUrls) -> Iterator[psycopg.Connection]:
    """An autocommit connection of the superuser, outside every test's database."""
    with psycopg.connect(libpq_url(servers.admin_url), autocommit=True) as connection:
        # Tests plant what the triggers refuse, and fill markets for plans and benchmarks.
        with _one_at_a_time(connection):  # processes that grant at the same time fail: "tuple concurrently updated"
            connection.execute(f"GRANT SET ON PARAMETER session_replication_role TO {OWNER}")
            connection.execute(f"GRANT pg_checkpoint TO {OWNER}")
        yield connection


@pytest.fixture(scope="session")
def template_database(servers: ServerUrls, admin: psycopg.Connection) -> str:
    with _one_at_a_time(admin):
        if not admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", [TEMPLATE]).fetchone():
            unfinished = f"{TEMPLATE}_unfinished"
            admin.execute(f"DROP DATABASE IF EXISTS {unfinished} WITH (FORCE)")
            admin.execute(f"CREATE DATABASE {unfinished} OWNER {OWNER} TEMPLATE template0")
            migrate(in_database(servers.database_url, unfinished))
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
                [unfinished],
            )
            admin.execute(f"ALTER DATABASE {unfinished} RENAME TO {TEMPLATE}")
    return TEMPLATE


@pytest.fixture
def database_url(servers: ServerUrls, admin: psycopg.Connection, template_database: str) -> Iterator[str]:
    """A migrated, otherwise empty database of the test's own (SQLAlchemy URL, as the owner)."""
    with fresh_database(servers, admin, template_database) as url:
        yield url


@pytest.fixture
def empty_database_url(servers: ServerUrls, admin: psycopg.Connection) -> Iterator[str]:
    """A database without tables (SQLAlchemy URL, as the owner)."""
    with fresh_database(servers, admin, "template0") as url:
        yield url


@pytest.fixture
def broker_url(servers: ServerUrls) -> str:
    """An empty Valkey database of the test's own; the next number is its `result_backend`."""
    first = 2 + 2 * int((_xdist_worker() or "gw0")[2:])
    urls = [in_valkey_database(servers.broker_url, number) for number in (first, first + 1)]
    for url in urls:
        with contextlib.closing(redis.Redis.from_url(url)) as connection:
            connection.flushdb()
    return urls[0]


@pytest.fixture
def result_backend(broker_url: str) -> str:
    return in_valkey_database(broker_url, int(broker_url.rpartition("/")[2]) + 1)


@contextlib.contextmanager
def fresh_database(servers: ServerUrls, admin: psycopg.Connection, template: str) -> Iterator[str]:
    """A copy of `template`.  It is dropped, with all its connections, when the next copy of the process was used.

    FILE_COPY: 30 ms in memory, against 60 ms by WAL_LOG.  A session lasts some milliseconds longer than its connection,
    and a drop that meets it sleeps for 100 ms.
    """
    name = f"test_{_xdist_worker() or 'main'}_{os.getpid()}_{next(_numbers)}"
    with _one_at_a_time(admin):  # PostgreSQL refuses two copies of one template at the same time
        admin.execute(f"CREATE DATABASE {name} OWNER {OWNER} TEMPLATE {template} STRATEGY FILE_COPY")
        if template != "template0":
            admin.execute(
                f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC"
            )  # a copy does not have its template's rights
    try:
        yield in_database(servers.database_url, name)
    finally:
        for used in _used_databases:
            admin.execute(f"DROP DATABASE IF EXISTS {used} WITH (FORCE)")
        _used_databases[:] = [name]


def in_database(url: str, name: str) -> str:
    return f"{url.rpartition('/')[0]}/{name}"


def in_valkey_database(url: str, number: int) -> str:
    return f"{url.rpartition('/')[0]}/{number}"


def count_in_flight(client: Any) -> int:
    """Count the messages that are neither in a queue nor acknowledged."""
    pipe = client.pipeline(transaction=False).hlen(UNACKED_KEY)
    for name in client.hgetall(PROCESSING_LISTS_KEY):
        pipe.llen(name)
    return sum(pipe.execute())


def libpq_url(url: str) -> str:
    """A SQLAlchemy URL as psycopg wants it."""
    return re.sub(r"^postgresql\+psycopg:", "postgresql:", url)


@contextlib.contextmanager
def _one_at_a_time(admin: psycopg.Connection) -> Iterator[None]:
    admin.execute("SELECT pg_advisory_lock(7243)")
    try:
        yield
    finally:
        admin.execute("SELECT pg_advisory_unlock(7243)")


def _xdist_worker() -> str:
    return os.environ.get("PYTEST_XDIST_WORKER", "")


FULL_DISK_BYTES = 20 << 20
"""Bytes.  Above a file of the write-ahead log, which has 16 MB from its beginning and which every process writes."""


def limit_file_size(postmaster: int, size: int) -> None:
    """Limit the file size of a server, for its present and future processes (RLIMIT_FSIZE)."""
    head = psutil.Process(postmaster)
    for process in (head, *head.children()):
        with contextlib.suppress(ProcessLookupError):
            _, hard_limit = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, hard_limit))
