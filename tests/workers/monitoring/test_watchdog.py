"""Tests of when the watchdog ends a program and when it does not, counted in checks without waiting."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis

from tests.plugins.servers import in_valkey_database
from workers.broker.redis_url import connect_to_redis
from workers.embedded.client import ServerUrls
from workers.monitoring.watchdog import (
    MAX_SILENT_POLLS,
    MAX_SILENT_POLLS_WHEN_BUSY,
    POLL_INTERVAL,
    Watchdog,
    count_waiting_messages,
)


@dataclass
class Program:
    """A program as a watchdog sees it."""

    moved: int = 0
    waiting: int | Exception = 1
    busy: bool = False
    ended: list[int] = field(default_factory=list)

    def ask(self) -> int:
        """The number of waiting messages."""
        if isinstance(self.waiting, Exception):
            raise self.waiting
        return self.waiting

    def watched(self) -> Watchdog:
        """A watchdog after its first check."""
        watcher = Watchdog(
            progress=lambda: self.moved, count_waiting=self.ask, is_busy=lambda: self.busy, on_stall=self.ended.append
        )
        watcher.poll()
        return watcher


def check_repeatedly(watcher: Watchdog, times: int) -> None:
    for _ in range(times):
        watcher.poll()


def test_program_that_takes_no_waiting_messages_is_ended_after_three_heartbeats() -> None:
    program = Program(waiting=3)
    watcher = program.watched()
    check_repeatedly(watcher, MAX_SILENT_POLLS - 1)
    assert program.ended == []
    watcher.poll()
    assert program.ended == [3]
    assert MAX_SILENT_POLLS * POLL_INTERVAL == 45


@pytest.mark.parametrize(
    "waiting", [0, redis.ConnectionError("away"), redis.TimeoutError("hangs"), redis.ResponseError("OOM")]
)
def test_programs_that_are_idle_or_without_broker_are_not_ended(waiting: int | Exception) -> None:
    """A restart would fix nothing."""
    program = Program(waiting=waiting)
    check_repeatedly(program.watched(), 10 * MAX_SILENT_POLLS_WHEN_BUSY)
    assert program.ended == []


@pytest.mark.parametrize("away", [1, 3, MAX_SILENT_POLLS])
def test_program_has_as_long_as_the_broker_was_away_to_reconnect(away: int) -> None:
    """A consumer waits up to half a minute before it reconnects."""
    program = Program()
    watcher = program.watched()
    check_repeatedly(watcher, MAX_SILENT_POLLS - 1)
    program.waiting = redis.ConnectionError("away")
    check_repeatedly(watcher, away)
    program.waiting = 5
    check_repeatedly(watcher, min(away, MAX_SILENT_POLLS - 1))
    assert program.ended == []
    check_repeatedly(watcher, 1)
    assert program.ended == [5]


def test_occasional_broker_errors_do_not_reset_the_count() -> None:
    """An error is not counted as an empty queue."""
    program = Program()
    watcher = program.watched()
    for _ in range(4 * MAX_SILENT_POLLS):
        program.waiting = 7
        check_repeatedly(watcher, 2)
        program.waiting = redis.TimeoutError("hangs")
        watcher.poll()
    assert program.ended
    assert set(program.ended) == {7}


def test_failing_check_is_logged_and_does_not_count_as_alive(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    alive = tmp_path / "alive"
    monkeypatch.setenv("UNWIND_ALIVE_FILE", str(alive))
    program = Program(waiting=TypeError("unexpected keyword argument"))
    watcher = program.watched()
    alive.unlink(missing_ok=True)
    check_repeatedly(watcher, MAX_SILENT_POLLS)
    assert not alive.exists()
    assert program.ended == []
    # An earlier test may have configured structlog to log through the standard library.
    assert (capsys.readouterr().out + caplog.text).count("watchdog_query_failed") == 1
    program.moved += 1
    watcher.poll()
    assert alive.exists(), "it was seen to come on"
    alive.unlink()
    program.waiting = redis.ConnectionError("away")
    watcher.poll()
    assert alive.exists(), "a broker that is away is no fault of the program"


def test_occasional_messages_keep_a_program_alive() -> None:
    program = Program(waiting=10_000)
    watcher = program.watched()
    for _ in range(20):
        check_repeatedly(watcher, MAX_SILENT_POLLS - 1)
        program.moved += 1
        watcher.poll()
    assert program.ended == []


def test_running_jobs_delay_the_end_until_the_hard_limit() -> None:
    """A worker whose children are all busy takes nothing; after the hard limit they can't be."""
    program = Program(busy=True)
    watcher = program.watched()
    check_repeatedly(watcher, MAX_SILENT_POLLS_WHEN_BUSY - 1)
    assert program.ended == []
    watcher.poll()
    assert program.ended == [1]


def test_stopping_program_is_not_ended() -> None:
    program = Program()
    watcher = program.watched()
    watcher.close()
    check_repeatedly(watcher, MAX_SILENT_POLLS_WHEN_BUSY)
    assert program.ended == []


def test_queue_length_is_read_with_limited_rights(broker_url: str, servers: ServerUrls) -> None:
    with redis.Redis.from_url(broker_url) as client:
        client.lpush("commands", "a", "b")
        client.lpush("notices", "c")
    assert count_waiting_messages(connect_to_redis(broker_url), ["commands", "sweeps"]) == 2
    with redis.Redis.from_url(in_valkey_database(servers.broker_url, 0)) as server:
        server.execute_command("ACL", "SETUSER", "reader", "on", ">only-reads", "~*", "+@read", "+select")
        try:
            as_reader = f"redis://reader:only-reads@{broker_url.rpartition('@')[2]}"
            assert count_waiting_messages(connect_to_redis(as_reader), ["commands"]) == 2
        finally:
            server.execute_command("ACL", "DELUSER", "reader")
