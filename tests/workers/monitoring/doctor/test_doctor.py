"""Tests of the whole doctor on real servers: healthy runs, exit codes, and a test for every code."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.nodes import ProcessNode, wait_until
from tests.workers.monitoring.doctor.findings import codes, run, severity
from workers.lifecycle import SUPPORTED_POOLS
from workers.monitoring.doctor import Context, Finding, Severity, broker, exit_status, run_checks
from workers.monitoring.doctor.context import Pool

CHECKOUT = Path(__file__).resolve().parents[4]


def test_where_nothing_is_wrong_nothing_is_found(with_broker: Context) -> None:
    found = run_checks(with_broker)
    assert (codes(found), severity(found)) == (["BROKER_FORGETS"], "note")
    assert exit_status(found) == 0


def test_where_nothing_was_ever_started_nothing_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be the first command after a clone."""
    monkeypatch.setenv("UNWIND_DATA", str(tmp_path / "data"))
    said = run()
    assert said.exit_code == 0
    assert "SERVERS_NOT_RUNNING" in said.output
    assert "Nothing is wrong." in said.output
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("severities", "status"),
    [([], 0), (["note"], 0), (["note", "warning"], 1), (["warning", "error"], 2), (["error"], 2)],
)
def test_the_exit_code_is_that_of_the_worst_finding(severities: list[str], status: int) -> None:
    """Contract 1."""
    assert exit_status([Finding("X", Severity(one), "m", "d") for one in severities]) == status


@pytest.mark.e2e
def test_a_worker_is_asked_which_queues_it_reads(
    context: Context, broker_url: str, result_backend: str, database_url: str, tmp_path: Path
) -> None:
    """By a broadcast, so that whoever answers is counted, however it was started."""
    environment = {
        "DATABASE_URL": database_url,
        "CELERY_BROKER_URL": broker_url,
        "CELERY_RESULT_BACKEND": result_backend,
        "UNWIND_DATA": str(tmp_path),
    }
    words = [
        "celery",
        "-A",
        "workers.app",
        "worker",
        "-Q",
        "commands,notices",
        "-c",
        "1",
        "-n",
        "doctors@%h",
        "-l",
        "INFO",
    ]
    node = ProcessNode("worker", [*words, "--without-gossip", "--without-mingle"], environment, tmp_path)
    try:
        wait_until(lambda: b" ready." in node.logs(), what="a worker that is ready")
        # It says so before it listens, and a broadcast reaches only those who do.
        ((name, queues),) = wait_until(
            lambda: broker.fetch_consumed_queues(broker_url), what="a worker that answers"
        ).items()
        assert name.startswith("doctors@")
        assert sorted(queues) == ["commands", "notices"]
        assert broker.fetch_pools(broker_url) == {name: Pool(SUPPORTED_POOLS[0], 1)}
    finally:
        node.kill()
    assert broker.fetch_consumed_queues(broker_url) == {}


@pytest.mark.e2e
@pytest.mark.long
@pytest.mark.timeout(120)
def test_a_fresh_start_is_healthy_and_a_stopped_worker_is_seen(tmp_path: Path) -> None:
    """Exit 0 after `up`. A worker that was stopped (not killed: nobody restarts it) leaves its queues unread."""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "UNWIND_DATA": str(tmp_path / "data")}

    def typed(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "workers", *words]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100, check=False)

    started = typed("up", "--detach")
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        healthy = typed("doctor", "--json")
        assert (healthy.returncode, json.loads(healthy.stdout)) == (0, {"findings": []}), healthy.stderr
        worker = json.loads((tmp_path / "data" / "run" / "programs.json").read_text())["programs"]["sweeps"]["pid"]
        os.kill(worker, signal.SIGSTOP)
        try:
            ill = typed("doctor", "--json")
        finally:
            os.kill(worker, signal.SIGCONT)
        said = {one["code"]: one for one in json.loads(ill.stdout)["findings"]}
        assert set(said) <= {"QUEUE_UNREAD", "WORKERS_MISSING"}
        assert ill.returncode in (1, 2)
        assert all("commands" not in one["message"] for one in said.values())
    finally:
        typed("down")


def test_every_code_is_broken_on_purpose_here() -> None:
    """A code that no test brings about may never come when it should."""
    told = set()
    for file in (CHECKOUT / "workers" / "monitoring" / "doctor").glob("*.py"):
        told |= set(re.findall(r'"([A-Z]+(?:_[A-Z]+)+)"', file.read_text()))
    asserted = set()
    for file in Path(__file__).parent.glob("test_*.py"):
        asserted |= set(re.findall(r'"([A-Z]+(?:_[A-Z]+)+)"', file.read_text()))
    assert told - asserted == set()
