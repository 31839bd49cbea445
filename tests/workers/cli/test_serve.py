"""Tests of `up`, `down` and `env`: one command starts an installation, another ends all of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import psycopg
import pytest

from workers.embedded.client import running_servers
from workers.embedded.processes import identify_process, is_alive, wait_until
from workers.local.process_specs import WORKER_GROUPS

CHECKOUT = Path(__file__).resolve().parents[3]
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


class Installation:
    """A data directory and the commands that a user types for it."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "UNWIND_DATA": str(data)}

    def type(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "workers", *words],
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=200,
            check=False,
        )

    def up(self) -> str:
        done = self.type("up", "--detach")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Ready after" in done.stdout
        return done.stdout

    def processes(self) -> list[psutil.Process]:
        """The living processes of this installation."""
        processes = []
        for process in psutil.process_iter():
            try:
                belongs = process.environ().get("UNWIND_DATA") == str(self.data) or str(self.data) in " ".join(
                    process.cmdline()
                )
                if belongs and process.status() != psutil.STATUS_ZOMBIE:
                    processes.append(process)
            except psutil.Error:
                continue
        return processes


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation(tmp_path / "data")


@pytest.mark.long
def test_up_starts_an_installation_that_survives_kill_9_and_down_stops_it(installation: Installation) -> None:
    """P1: after kill -9 the kernel ends the programs and the daemon its servers; the next start finds the data."""
    result = installation.up()
    try:
        running = running_servers(installation.data)
        assert running is not None
        programs = json.loads((installation.data / "run" / "programs.json").read_text())["programs"]
        assert list(programs) == [*WORKER_GROUPS, "beat", "flower", "metrics", "web"]

        again = installation.type("up")
        assert again.returncode == 1
        assert "Already running" in again.stderr

        shell = dict(re.findall(r"^export (\w+)=(\S+)$", installation.type("env").stdout, re.MULTILINE))
        assert shell.keys() == {"DATABASE_URL", "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"}
        assert str(running.postgres_port) in shell["DATABASE_URL"]
        with psycopg.connect(shell["DATABASE_URL"]) as connection:
            assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'unwind'").fetchone() != (0,)
            connection.execute("CREATE TABLE public.kept (word text)")

        address = next(word for word in result.split() if word.startswith("http://127.0.0.1:"))
        assert refused(address + "api/worker/shutdown/commands@x")
        with urllib.request.urlopen(address + "healthcheck", timeout=10) as page:
            assert page.status == 200

        numbers = next(word for word in result.split() if word.endswith("/metrics"))
        for page, expected in (
            ("/metrics", 'unwind_up{part="broker"} 1.0'),
            ("/livez", "alive"),
            ("/readyz", "answers"),
        ):
            with urllib.request.urlopen(numbers.replace("/metrics", page), timeout=10) as answer:
                assert expected in answer.read().decode()

        worker = identify_process(programs["commands"]["pid"])
        os.kill(worker.pid, signal.SIGKILL)
        record = installation.data / "run" / "programs.json"

        def replaced() -> bool:
            now = json.loads(record.read_text())["programs"]["commands"]["pid"]
            return now != worker.pid and (installation.data / "run" / "commands.ready").exists()

        assert wait_until(replaced, 30)
        report = json.loads((installation.data / "run" / "up.json").read_text())
        os.kill(report["pid"], signal.SIGKILL)
        assert wait_until(lambda: installation.processes() == [], 60), installation.processes()
        assert not is_alive(worker)

        installation.up()
        shell = dict(re.findall(r"^export (\w+)=(\S+)$", installation.type("env").stdout, re.MULTILINE))
        with psycopg.connect(shell["DATABASE_URL"]) as connection:
            assert connection.execute("SELECT count(*) FROM public.kept").fetchone() == (0,)
    finally:
        down = installation.type("down")
    assert (down.returncode, down.stdout) == (0, "Stopped.\n")
    assert installation.processes() == []
    assert installation.type("down").stdout == "Nothing is running.\n"


@pytest.mark.long
def test_failed_start_is_explained_and_leaves_nothing(installation: Installation) -> None:
    installation.environment["UNWIND_LOG_FORMAT"] = "xml"
    wrong = installation.type("up")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("UNWIND_LOG_FORMAT: ")
    del installation.environment["UNWIND_LOG_FORMAT"]
    installation.environment["DATABASE_URL"] = "postgresql://nobody:secret-word@127.0.0.1:1/unwind"
    absent = installation.type("up", "--detach")
    assert absent.returncode == 1
    assert "secret-word" not in absent.stdout + absent.stderr
    assert wait_until(lambda: installation.processes() == [], 30)


def refused(url: str) -> bool:
    """Whether Flower refuses the request."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=10).close()
    except urllib.error.HTTPError as error:
        with error:
            return error.code in {401, 403, 405}
    return False


@pytest.mark.parametrize("after", [pytest.param("servers", marks=pytest.mark.long), "schema"])
def test_hangups_during_the_start_stop_it_cleanly(installation: Installation, after: str) -> None:
    words = [sys.executable, "-m", "workers", "up"]
    with subprocess.Popen(
        words, env=installation.environment | {"PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert any(line.strip().startswith(after) for line in process.stdout)
        for _ in range(3):
            process.send_signal(signal.SIGHUP)
        assert "Stopped: everything has shut down cleanly." in process.stdout.read()
        assert process.wait(60) == 0
    assert wait_until(lambda: not installation.processes(), 30)
