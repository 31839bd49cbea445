"""Tests of the liveness and readiness probes: files, systemd notifications, and a check that loads no Celery."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.nodes import CHECKOUT, ProcessNode
from tests.waiting import wait_until
from workers import local
from workers.monitoring import probes
from workers.monitoring.watchdog import Watchdog


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a program's readiness files."""
    monkeypatch.setenv(local.READY_FILE_ENV, str(tmp_path / "ready"))
    monkeypatch.setenv(local.ALIVE_FILE_ENV, str(tmp_path / "alive"))
    return tmp_path


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket on which systemd listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


def test_program_is_ready_from_its_announcement_to_its_end(files: Path) -> None:
    assert probes.find_probe_problem("ready") == f"not ready: {files}/ready does not exist."
    assert probes.find_probe_problem("alive") == f"not alive: {files}/alive does not exist."
    probes.report_ready_to_probes()
    assert (probes.find_probe_problem("ready"), probes.find_probe_problem("alive")) == (None, None)
    probes.report_stopping_to_probes()
    assert probes.find_probe_problem("ready") is not None
    assert probes.find_probe_problem("alive") is None


def test_program_without_progress_for_a_minute_is_not_alive(files: Path) -> None:
    probes.report_ready_to_probes()
    old = (files / "alive").stat().st_mtime - probes.MAX_AGE_SECONDS - 1
    os.utime(files / "alive", (old, old))
    assert probes.find_probe_problem("alive") == "not alive: no progress for 61 s."
    ahead = old + 3600 + 2 * probes.MAX_AGE_SECONDS
    os.utime(files / "alive", (ahead, ahead))  # the clock was set back an hour, without progress since
    assert probes.find_probe_problem("alive") is not None
    assert probes.find_probe_problem("ready") is None


@pytest.mark.parametrize(
    ("waiting", "moves", "busy", "alive"),
    [(0, False, False, True), (5, True, False, True), (5, False, False, False), (5, False, True, True)],
)
def test_program_is_alive_if_it_progresses_or_has_nothing_to_do(
    files: Path, waiting: int, moves: bool, busy: bool, alive: bool
) -> None:
    moved = 0
    watcher = Watchdog(
        progress=lambda: moved, count_waiting=lambda: waiting, is_busy=lambda: busy, on_stall=lambda _waiting: None
    )
    watcher.poll()
    (files / "alive").unlink(missing_ok=True)
    moved += moves
    watcher.poll()
    assert (files / "alive").exists() is alive


def test_systemd_is_notified(files: Path, systemd: socket.socket) -> None:
    probes.report_ready_to_probes()
    probes.report_alive_to_probes()
    probes.report_stopping_to_probes()
    assert [systemd.recv(100) for _ in range(4)] == [b"WATCHDOG=1", b"READY=1", b"WATCHDOG=1", b"STOPPING=1"]


def test_missing_socket_and_folder_are_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    monkeypatch.setenv(local.ALIVE_FILE_ENV, str(tmp_path / "no" / "folder"))
    probes.report_alive_to_probes()


def run_check(*words: str, **environment: str) -> tuple[int, str]:
    """Run the check as a container does, and list the modules that it loads."""
    program = (
        "import atexit, runpy, sys\n"
        "atexit.register(lambda: print(sorted({'celery', 'workers.app'} & set(sys.modules))))\n"
        f"sys.argv[1:] = {list(words)!r}\n"
        "runpy.run_module('workers.monitoring.probes', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout


def test_check_imports_no_application_code(files: Path) -> None:
    """It runs every few seconds beside each worker."""
    environment = {local.READY_FILE_ENV: str(files / "ready"), local.ALIVE_FILE_ENV: str(files / "alive")}
    assert run_check("alive", **environment) == (1, f"not alive: {files}/alive does not exist.\n[]\n")
    probes.report_ready_to_probes()
    assert run_check("ready", **environment) == (0, "ready\n[]\n")
    assert run_check("else")[0] == 2
    assert run_check("alive")[0] == 1


@pytest.mark.e2e
@pytest.mark.long
def test_beat_is_alive_and_answers_pings_until_it_is_stopped(
    files: Path, database_url: str, broker_url: str, result_backend: str
) -> None:
    """Celery 5.7 answers for beat (`beat_enable_remote_control`)."""
    environment = {
        "DATABASE_URL": database_url,
        "CELERY_BROKER_URL": broker_url,
        "CELERY_RESULT_BACKEND": result_backend,
        "UNWIND_DATA": str(files / "data"),
        local.READY_FILE_ENV: str(files / "ready"),
        local.ALIVE_FILE_ENV: str(files / "alive"),
    }
    node = ProcessNode(
        "beat",
        ["celery", "-A", "workers.app", "beat"],
        environment,
        files,
    )

    def ping() -> int:
        words = ["celery", "-A", "workers.app", "inspect", "ping", "--timeout", "3"]
        words += ["-d", f"celerybeat@{socket.gethostname()}"]
        return subprocess.run(
            [sys.executable, "-m", *words],
            cwd=CHECKOUT,
            env={**os.environ, **environment},
            capture_output=True,
            check=False,
        ).returncode

    try:
        wait_until(lambda: probes.find_probe_problem("ready") is None, what="a beat that is ready")
        assert probes.find_probe_problem("alive") is None
        wait_until(lambda: ping() == 0, what="beat's answer")
        os.killpg(node.pid, signal.SIGSTOP)
        try:
            assert ping() != 0
        finally:
            os.killpg(node.pid, signal.SIGCONT)
    finally:
        node.remove()
