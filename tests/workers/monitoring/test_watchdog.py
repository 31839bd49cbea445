"""Tests of when the watchdog ends a program and when it does not, counted in checks without waiting."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis

from tests.plugins.servers import in_valkey_database
from workers.embedded import ServerUrls
from workers.monitoring.watchdog import MAX_BUSY_POLLS, MAX_SILENT_POLLS, POLL_INTERVAL, BrokerProbe, Watchdog


@dataclass
class Program:
    """What a watcher sees of one."""

    moved: int = 0
    waiting: int | Exception = 1
    busy: bool = False
    ended: list[int] = field(default_factory=list)

    def ask(self) -> int:
        """How much waits for it."""
        if isinstance(self.waiting, Exception):
            raise self.waiting
        return self.waiting

    def watched(self) -> Watchdog:
        """Looked at once already."""
        watcher = Watchdog(
            progress=lambda: self.moved, count_waiting=self.ask, is_busy=lambda: self.busy, on_stall=self.ended.append
        )
        watcher.poll()
        return watcher


def looked_at(watcher: Watchdog, times: int) -> None:
    for _ in range(times):
        watcher.poll()


def test_a_program_that_takes_nothing_though_messages_wait_is_ended_after_three_canaries() -> None:
    """And not one look earlier."""
    program = Program(waiting=3)
    watcher = program.watched()
    looked_at(watcher, MAX_SILENT_POLLS - 1)
    assert program.ended == []
    watcher.poll()
    assert program.ended == [3]
    assert MAX_SILENT_POLLS * POLL_INTERVAL == 45


@pytest.mark.parametrize(
    "waiting", [0, redis.ConnectionError("away"), redis.TimeoutError("hangs"), redis.ResponseError("OOM")]
)
def test_idle_programs_and_those_of_a_broker_in_trouble_are_never_ended(waiting: int | Exception) -> None:
    """No storm of restarts, which would fix nothing."""
    program = Program(waiting=waiting)
    looked_at(program.watched(), 10 * MAX_BUSY_POLLS)
    assert program.ended == []


@pytest.mark.parametrize("away", [1, 3, MAX_SILENT_POLLS])
def test_a_broker_that_comes_back_is_given_as_long_again_as_it_was_away(away: int) -> None:
    """The consumer waits longer the longer it has tried, half a minute at most, before it tries to connect again."""
    program = Program()
    watcher = program.watched()
    looked_at(watcher, MAX_SILENT_POLLS - 1)
    program.waiting = redis.ConnectionError("away")
    looked_at(watcher, away)
    program.waiting = 5
    looked_at(watcher, min(away, MAX_SILENT_POLLS - 1))
    assert program.ended == []
    looked_at(watcher, 1)
    assert program.ended == [5]


def test_a_broker_that_stumbles_now_and_then_does_not_save_a_program_that_takes_nothing() -> None:
    """An error says nothing about what waits, so it is not counted as if nothing did."""
    program = Program()
    watcher = program.watched()
    for _ in range(4 * MAX_SILENT_POLLS):
        program.waiting = 7
        looked_at(watcher, 2)
        program.waiting = redis.TimeoutError("hangs")
        watcher.poll()
    assert program.ended
    assert set(program.ended) == {7}


def test_a_watcher_that_cannot_ask_says_so_and_vouches_for_nobody(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An address that the client cannot use used to look like an empty queue, and a deaf worker like a healthy one."""
    alive = tmp_path / "alive"
    monkeypatch.setenv("UNWIND_ALIVE_FILE", str(alive))
    program = Program(waiting=TypeError("unexpected keyword argument"))
    watcher = program.watched()
    alive.unlink(missing_ok=True)
    looked_at(watcher, MAX_SILENT_POLLS)
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


def test_one_message_now_and_then_is_enough_of_a_sign_of_life() -> None:
    """A busy worker takes one whenever it has finished one."""
    program = Program(waiting=10_000)
    watcher = program.watched()
    for _ in range(20):
        looked_at(watcher, MAX_SILENT_POLLS - 1)
        program.moved += 1
        watcher.poll()
    assert program.ended == []


def test_jobs_in_hand_are_given_until_the_hard_limit_and_no_longer() -> None:
    """A worker whose children all do something long takes nothing meanwhile; past the hard limit they cannot."""
    program = Program(busy=True)
    watcher = program.watched()
    looked_at(watcher, MAX_BUSY_POLLS - 1)
    assert program.ended == []
    watcher.poll()
    assert program.ended == [1]


def test_a_program_that_is_being_stopped_is_left_alone() -> None:
    """It takes nothing on purpose."""
    program = Program()
    watcher = program.watched()
    watcher.close()
    looked_at(watcher, MAX_BUSY_POLLS)
    assert program.ended == []


def test_depth_is_asked_of_the_real_broker_with_whatever_rights_there_are(broker_url: str, servers: ServerUrls) -> None:
    """A login that may not write the probe still counts."""
    with redis.Redis.from_url(broker_url) as client:
        client.lpush("commands", "a", "b")
        client.lpush("notices", "c")
    assert BrokerProbe(broker_url).count_waiting(["commands", "sweeps"]) == 2
    with redis.Redis.from_url(in_valkey_database(servers.broker_url, 0)) as server:
        server.execute_command("ACL", "SETUSER", "reader", "on", ">only-reads", "~*", "+@read", "+select")
        try:
            as_reader = f"redis://reader:only-reads@{broker_url.rpartition('@')[2]}"
            assert BrokerProbe(as_reader).count_waiting(["commands"]) == 2
        finally:
            server.execute_command("ACL", "DELUSER", "reader")
