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

from tests.e2e.nodes import ProcessNode
from tests.waiting import wait_until
from tests.workers.monitoring.doctor.findings import codes, run, severity
from workers.lifecycle import SUPPORTED_POOLS
from workers.monitoring.doctor import broker, run_checks
from workers.monitoring.doctor.context import Context, Pool
from workers.monitoring.doctor.findings import Finding, Severity, exit_status

CHECKOUT = Path(__file__).resolve().parents[4]


def test_healthy_installation_has_no_findings(with_broker: Context) -> None:
    findings = run_checks(with_broker)
    assert (codes(findings), severity(findings)) == (["BROKER_FORGETS"], "note")
    assert exit_status(findings) == 0


def test_doctor_starts_no_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Doctor may be the first command after a clone."""
    monkeypatch.setenv("UNWIND_DATA", str(tmp_path / "data"))
    result = run()
    assert result.exit_code == 0
    assert "SERVERS_NOT_RUNNING" in result.output
    assert re.search(r"^\d checks: nothing is wrong\.$", result.output, re.MULTILINE)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("severities", "status"),
    [([], 0), (["note"], 0), (["note", "warning"], 1), (["warning", "error"], 2), (["error"], 2)],
)
def test_exit_code_is_that_of_the_worst_finding(severities: list[str], status: int) -> None:
    assert exit_status([Finding("X", Severity(severity), "m", "d") for severity in severities]) == status


@pytest.mark.e2e
def test_queues_of_a_running_worker_are_known(
    context: Context, broker_url: str, result_backend: str, database_url: str, tmp_path: Path
) -> None:
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
        # The worker reports readiness before it listens for broadcasts.
        ((name, queues),) = wait_until(
            lambda: broker.inspect_worker_queues(broker_url), what="a worker that answers"
        ).items()
        assert name.startswith("doctors@")
        assert sorted(queues) == ["commands", "notices"]
        assert broker.inspect_worker_pools(broker_url) == {name: Pool(SUPPORTED_POOLS[0], 1)}
    finally:
        node.kill()
    assert broker.inspect_worker_queues(broker_url) == {}


@pytest.mark.e2e
@pytest.mark.long
@pytest.mark.timeout(120)
def test_started_installation_is_healthy_and_a_stopped_worker_is_reported(tmp_path: Path) -> None:
    """A suspended worker isn't restarted, and its queues are unread."""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "UNWIND_DATA": str(tmp_path / "data")}

    def doctor(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "workers", *words]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100, check=False)

    started = doctor("up", "--detach")
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        healthy = doctor("doctor", "--json")
        assert (healthy.returncode, json.loads(healthy.stdout)) == (0, {"findings": []}), healthy.stderr
        worker = json.loads((tmp_path / "data" / "run" / "programs.json").read_text())["programs"]["sweeps"]["pid"]
        os.kill(worker, signal.SIGSTOP)
        try:
            broken = doctor("doctor", "--json")
        finally:
            os.kill(worker, signal.SIGCONT)
        findings = {finding["code"]: finding for finding in json.loads(broken.stdout)["findings"]}
        assert set(findings) <= {"QUEUE_UNREAD", "WORKERS_MISSING"}
        assert broken.returncode in (1, 2)
        assert all("commands" not in finding["message"] for finding in findings.values())
    finally:
        doctor("down")


def test_every_code_is_tested() -> None:
    tested_codes = set()
    for file in (CHECKOUT / "workers" / "monitoring" / "doctor").glob("*.py"):
        tested_codes |= set(re.findall(r'"([A-Z]+(?:_[A-Z]+)+)"', file.read_text()))
    asserted = set()
    for file in Path(__file__).parent.glob("test_*.py"):
        asserted |= set(re.findall(r'"([A-Z]+(?:_[A-Z]+)+)"', file.read_text()))
    assert tested_codes - asserted == set()
