"""Tests of the embedded servers: start, sharing, restart, crash recovery, access rights and shutdown."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import redis

from models.ddl import grants
from tests.plugins.servers import libpq_url
from tests.workers.embedded.clients import marks, other_client, running
from workers.embedded import servers as embedded
from workers.embedded.client import ServerUrls, embedded_servers, running_servers
from workers.embedded.data_dir import (
    FAILURE_FILE,
    DataDirNotAccessible,
    FileLock,
    ensure_servers_dir,
    free_port,
    write_json,
)
from workers.embedded.processes import identify_process, is_alive, wait_until
from workers.embedded.servers import Valkey

pytestmark = pytest.mark.long


def remember(urls: ServerUrls, word: str) -> None:
    with psycopg.connect(libpq_url(urls.database_url)) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS words (word text)")
        connection.execute("INSERT INTO words VALUES (%s)", [word])
    with redis.Redis.from_url(urls.broker_url) as broker:
        broker.rpush("words", word)


def remembered(urls: ServerUrls) -> tuple[list[str], list[str]]:
    with psycopg.connect(libpq_url(urls.database_url)) as connection:
        rows = [str(row[0]) for row in connection.execute("SELECT word FROM words ORDER BY word")]
    with redis.Redis.from_url(urls.broker_url, decode_responses=True) as broker:
        words = broker.lrange("words", 0, -1)
    assert isinstance(words, list)
    return rows, sorted(str(word) for word in words)


def test_broker_starts_in_a_folder_whose_name_is_not_utf8(tmp_path: Path) -> None:
    """Many disks hold names in older encodings."""
    folder = tmp_path / os.fsdecode(b"caf\xe9 \xc5\x81")
    folder.mkdir()
    server = Valkey(folder, "secret", durable=True, settings={})
    server.start(free_port())
    try:
        assert wait_until(server.ready, 20)
    finally:
        server.stop()
    assert (folder / "valkey" / "appendonlydir").is_dir()


def test_database_fixture_is_migrated_and_empty(database_url: str) -> None:
    with psycopg.connect(libpq_url(database_url)) as connection:
        row = connection.execute("SELECT current_setting('TimeZone'), current_user").fetchone()
    assert row == ("UTC", "unwind_owner")


def test_data_survives_a_restart(tmp_path: Path) -> None:
    with embedded_servers(tmp_path) as urls:
        remember(urls, "first")
        ports = (running(tmp_path).postgres_port, running(tmp_path).valkey_port)
    assert running_servers(tmp_path) is None
    with embedded_servers(tmp_path) as urls:
        assert remembered(urls) == (["first"], ["first"])
        assert (running(tmp_path).postgres_port, running(tmp_path).valkey_port) == ports


def test_data_survives_kill_9_of_all_processes(tmp_path: Path) -> None:
    """P1: killing any process at any moment loses no committed data."""
    with other_client(tmp_path, "durable") as (process, _), embedded_servers(tmp_path) as urls:
        remember(urls, "kept")
        with redis.Redis.from_url(urls.broker_url) as broker:
            broker.execute_command(
                "WAITAOF", 1, 0, 2000
            )  # appendfsync everysec: an acknowledged write may not be on disk yet
        running_pair = running(tmp_path)
        process.kill()
        for mark in marks(running_pair):
            os.kill(mark.pid, signal.SIGKILL)
        assert wait_until(lambda: not any(is_alive(mark) for mark in marks(running_pair)), 10)
    with embedded_servers(tmp_path) as urls:
        assert remembered(urls) == (["kept"], ["kept"])


def test_login_is_no_superuser(tmp_path: Path) -> None:
    with embedded_servers(tmp_path, durable=False) as urls:
        assert _rights_of_the_login(urls) == ("unwind_owner", False, False)
        with psycopg.connect(libpq_url(urls.admin_url)) as connection:
            assert connection.execute("SELECT rolname FROM pg_roles WHERE rolsuper").fetchall() == [("unwind_admin",)]


def test_servers_create_the_roles_of_the_schema() -> None:
    """The login can't create roles."""
    assert embedded.EMBEDDED_ROLES == grants.ROLES


def test_roles_of_a_newer_release_are_created(tmp_path: Path) -> None:
    with embedded_servers(tmp_path) as urls:
        remember(urls, "first")
        with psycopg.connect(libpq_url(urls.admin_url), autocommit=True) as admin:
            admin.execute("DROP ROLE unwind_web")
    write_json(tmp_path / "servers" / "postgres.logins.json", {})
    with embedded_servers(tmp_path) as urls:
        assert _rights_of_the_login(urls) == ("unwind_owner", False, False)
        assert remembered(urls) == (["first"], ["first"])
        with psycopg.connect(libpq_url(urls.database_url)) as connection:
            connection.execute("SET ROLE unwind_web")


def _rights_of_the_login(urls: ServerUrls) -> tuple[object, ...] | None:
    with psycopg.connect(libpq_url(urls.database_url)) as connection:
        return connection.execute(
            "SELECT rolname, rolsuper, rolcreaterole FROM pg_roles WHERE rolname = session_user"
        ).fetchone()


def test_kill_9_of_the_only_client_leaves_no_server(tmp_path: Path) -> None:
    with other_client(tmp_path) as (process, _):
        running_pair = running(tmp_path)
        process.kill()
        assert wait_until(lambda: not any(is_alive(mark) for mark in marks(running_pair)), 20)
    with embedded_servers(tmp_path, durable=False) as urls:
        remember(urls, "again")


def test_kill_9_of_the_daemon_ends_its_servers(tmp_path: Path) -> None:
    """By PR_SET_PDEATHSIG."""
    with other_client(tmp_path) as (_, _url):
        running_pair = running(tmp_path)
        os.kill(running_pair.daemon.pid, signal.SIGKILL)
        assert wait_until(lambda: not any(is_alive(mark) for mark in marks(running_pair)), 20)
        with embedded_servers(tmp_path, durable=False) as urls:
            remember(urls, "a new daemon")


SILENT_SERVERS = """
import sys
from pathlib import Path
from workers.embedded import daemon, servers
from workers.embedded.data_dir import FileLock
servers.Valkey.answers = lambda *_: False
folder = Path(sys.argv[1])
options = {"durable": False, "postgres": {}, "valkey": {}}
daemon.Daemon(folder, options, FileLock(folder / "in-use.lock")).run()
"""


@pytest.mark.parametrize("ended_by", ["signal", "last client"])
def test_daemon_that_waits_for_a_silent_server_can_be_stopped(tmp_path: Path, ended_by: str) -> None:
    """Recovery may take minutes; who stops it meanwhile leaves no server."""
    folder = ensure_servers_dir(tmp_path)
    with contextlib.closing(FileLock(folder / "in-use.lock")) as in_use:
        assert in_use.acquire(shared=True)
        with subprocess.Popen([sys.executable, "-c", SILENT_SERVERS, str(folder)], stderr=subprocess.PIPE) as waiting:
            try:
                files = (folder / "valkey.log", folder / "postgres" / "postmaster.pid")
                assert wait_until(lambda: all(file.exists() for file in files), 30)
                servers = psutil.Process(waiting.pid).children()
                assert len(servers) == 2
                waiting.terminate() if ended_by == "signal" else in_use.close()
                _, error = waiting.communicate(timeout=20)
            finally:
                waiting.kill()
    assert b"stopped while valkey was starting" in error
    assert not any(server.is_running() for server in servers)
    assert not (folder / FAILURE_FILE).exists(), "a start that was stopped is no failure for the doctor"


@pytest.mark.parametrize("name", ["postgres", "valkey"])
def test_killed_server_restarts_at_its_address(tmp_path: Path, name: str) -> None:
    """P1: workers reconnect to the same address."""
    with embedded_servers(tmp_path) as urls:
        remember(urls, "before")
        with redis.Redis.from_url(urls.broker_url) as broker:
            broker.execute_command("WAITAOF", 1, 0, 2000)
        victim = getattr(running(tmp_path), name)
        os.kill(victim.pid, signal.SIGKILL)
        assert wait_until(lambda: getattr(running(tmp_path), name) != victim, 20)
        assert remembered(urls) == (["before"], ["before"])


def test_two_clients_share_servers_until_the_last_one_ends(tmp_path: Path) -> None:
    with other_client(tmp_path) as (process, url):
        running_pair = running(tmp_path)
        with embedded_servers(tmp_path) as urls:
            assert urls.database_url == url
            process.communicate("\n", timeout=30)
            assert is_alive(running_pair.daemon), "ended under a user"
            remember(urls, "still here")
        assert not any(is_alive(mark) for mark in marks(running_pair))


def test_two_data_directories_have_separate_servers(tmp_path: Path) -> None:
    with embedded_servers(tmp_path / "a", durable=False) as a, embedded_servers(tmp_path / "b", durable=False) as b:
        assert a != b
        first, second = running(tmp_path / "a"), running(tmp_path / "b")
        ports = {first.postgres_port, first.valkey_port, second.postgres_port, second.valkey_port}
    assert len(ports) == 4


def test_servers_listen_on_loopback_and_require_a_password(servers: ServerUrls, servers_dir: Path) -> None:
    running_pair = running(servers_dir)
    for mark in (running_pair.postgres, running_pair.valkey):
        listening = [c for c in psutil.Process(mark.pid).net_connections("inet") if c.status == "LISTEN"]
        assert {str(c.laddr[0]) for c in listening} == {"127.0.0.1"}
        socket_names = [str(c.laddr) for c in psutil.Process(mark.pid).net_connections("unix")]
        assert not any(socket_names), socket_names
    without = re.sub(r":[^:@/]*@", ":wrong@", libpq_url(servers.database_url))
    with pytest.raises(psycopg.OperationalError, match="password"), psycopg.connect(without):
        pass
    with redis.Redis(port=running_pair.valkey_port) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()


def test_only_the_owner_can_read_data_and_passwords(servers: ServerUrls, servers_dir: Path) -> None:
    """P9: only the owner can read embedded data, and no command line shows a password."""
    folder = servers_dir / "servers"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "credentials.json").stat().st_mode) == 0o600
    secret = libpq_url(servers.database_url).split(":")[2].split("@")[0]
    other = servers.broker_url.split(":")[2].split("@")[0]
    for mark in marks(running(servers_dir)):
        process = psutil.Process(mark.pid)
        shown = " ".join(process.cmdline()) + " ".join(process.environ().values())
        assert secret not in shown
        assert other not in shown
    assert secret not in repr(servers)


def test_stale_pid_file_that_names_another_process_is_ignored(tmp_path: Path) -> None:
    """Process ids repeat after a restart of a container."""
    with embedded_servers(tmp_path, durable=False):
        pass
    lines = [str(os.getpid()), str(tmp_path / "servers" / "postgres"), "0", "1", "", "127.0.0.1", "", "ready"]
    (tmp_path / "servers" / "postgres" / "postmaster.pid").write_text("\n".join(lines) + "\n")
    with embedded_servers(tmp_path, durable=False) as urls:
        remember(urls, "started")
    assert is_alive(identify_process(os.getpid()))


def test_interrupted_setup_is_discarded(tmp_path: Path) -> None:
    """initdb works in a temporary folder, which is renamed at the end."""
    left_over = tmp_path / "servers" / "postgres.new-1"
    left_over.mkdir(parents=True)
    (left_over / "PG_VERSION").write_text("18\n")
    with embedded_servers(tmp_path, durable=False) as urls:
        remember(urls, "fresh")
    assert not left_over.exists()


def test_port_that_is_in_use_is_replaced(tmp_path: Path) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        (tmp_path / "servers").mkdir(mode=0o700)
        write_json(tmp_path / "servers" / "ports.json", {"postgres": port, "valkey": port})
        with embedded_servers(tmp_path, durable=False) as urls:
            remember(urls, "elsewhere")
            assert port not in (running(tmp_path).postgres_port, running(tmp_path).valkey_port)


@pytest.mark.parametrize("recorded", ["15432", 99_999, -1, 1.5, [15432]])
def test_a_recorded_port_that_is_no_port_is_replaced(recorded: Any) -> None:
    assert isinstance(free_port(recorded), int)


def test_no_outgoing_connection_can_take_a_chosen_port() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(free_port() for _ in range(200)) < lowest


def test_unusable_folder_is_refused_with_a_fix(tmp_path: Path) -> None:
    """A file in its place stands for any unusable folder, for root too."""
    (tmp_path / "servers").write_text("not a folder")
    with pytest.raises(DataDirNotAccessible, match="UNWIND_DATA"), embedded_servers(tmp_path):
        pass
