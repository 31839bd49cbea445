"""Tests that programs forked by the preforker log, end and restart like programs started on their own."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from workers.embedded.client import ServerUrls
from workers.embedded.processes import identify_process, is_alive, wait_until
from workers.local.preforker import Preforker
from workers.local.supervisor import SupervisedProgram, Supervisor, kill_leftover_programs
from workers.settings import load_settings


@pytest.fixture
def environment(servers: ServerUrls) -> dict[str, str]:
    return load_settings().with_servers(servers).environment()


@pytest.fixture(scope="module")
def preforker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Preforker]:
    with contextlib.closing(Preforker(tmp_path_factory.mktemp("preforker") / "preforker.log")) as running:
        yield running


def listening_program(servers: ServerUrls) -> list[str]:
    """A program of Celery's that runs until it is stopped."""
    return ["-b", servers.broker_url, "events", "--dump"]


def test_forked_program_has_its_own_log_and_exit_status(
    preforker: Preforker, environment: dict[str, str], tmp_path: Path
) -> None:
    """Arguments that Celery rejects end in status 2."""
    good = preforker.fork("good", ["--version"], environment, tmp_path / "good.log")
    bad = preforker.fork("bad", ["no-such-command"], environment, tmp_path / "bad.log")
    assert wait_until(lambda: good.poll() is not None and bad.poll() is not None, 30)
    assert (good.poll(), bad.poll()) == (0, 2)
    assert "5.7" in (tmp_path / "good.log").read_text()
    assert "no-such-command" in (tmp_path / "bad.log").read_text()


def test_forked_programs_lead_process_groups_and_end_by_signals(
    preforker: Preforker, environment: dict[str, str], servers: ServerUrls, tmp_path: Path
) -> None:
    program = preforker.fork("events", listening_program(servers), environment, tmp_path / "events.log")
    assert wait_until(lambda: os.getpgid(program.pid) == program.pid, 10)
    assert program.poll() is None
    os.kill(program.pid, signal.SIGKILL)
    assert wait_until(lambda: program.poll() == -9, 10)


def test_forked_programs_end_with_the_preforker(
    environment: dict[str, str], servers: ServerUrls, tmp_path: Path
) -> None:
    preforker = Preforker(tmp_path / "preforker.log")
    program = preforker.fork("events", listening_program(servers), environment, tmp_path / "events.log")
    mark = identify_process(program.pid)
    log = tmp_path / "events.log"
    assert wait_until(lambda: log.exists() and "evdump" in log.read_text(), 20)
    os.kill(preforker.pid, signal.SIGKILL)
    assert wait_until(lambda: not is_alive(mark), 20)
    assert program.poll() is not None
    preforker.close()


def test_supervisor_restarts_a_forked_program(
    preforker: Preforker, environment: dict[str, str], servers: ServerUrls, tmp_path: Path
) -> None:
    with Supervisor(tmp_path, preforker=preforker) as supervisor:
        words = listening_program(servers)
        supervisor.start(SupervisedProgram("events", ["/bin/false"], environment, celery_args=words))
        first = identify_process(supervisor.pid("events"))
        os.kill(first.pid, signal.SIGKILL)
        assert wait_until(lambda: supervisor.restarts == 1, 20)
        second = identify_process(supervisor.pid("events"))
        assert second != first
    assert not is_alive(second)


def test_forked_programs_of_a_killed_supervisor_are_recognized(
    preforker: Preforker, environment: dict[str, str], servers: ServerUrls, tmp_path: Path
) -> None:
    """The kernel shows the environment of the fork server's start."""
    with Supervisor(tmp_path, preforker=preforker) as supervisor:
        words = listening_program(servers)
        supervisor.start(SupervisedProgram("events", ["/bin/false"], environment, restart=False, celery_args=words))
        left = identify_process(supervisor.pid("events"))
        copy = tmp_path / "record.json"
        copy.write_text((tmp_path / "run" / "programs.json").read_text())
        kill_leftover_programs(copy)
        assert not is_alive(left)
