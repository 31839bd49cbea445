"""Tests of the listener: wake-ups, repeated losses, unresponsive servers, failovers."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from models.submissions import CHANNEL
from tests.plugins.postgres import PostgresServer, new_server
from tests.plugins.sql_interface import submit_command
from workers.embedded.processes import wait_until
from workers.submissions import listener as listen
from workers.submissions.listener import Listener


class RunningListener(Listener):
    """A listener that counts its notifications."""

    def __init__(self, url: str) -> None:
        self.heard = threading.Semaphore(0)
        super().__init__(url, self.heard.release)


@pytest.fixture
def listener_(other_server: PostgresServer) -> Iterator[RunningListener]:
    with closing(RunningListener(other_server.url())) as listener:
        listener.start()
        assert listener.listening.wait(20)
        assert listener.heard.acquire(timeout=10)  # once for earlier submissions
        yield listener


def backends(server: PostgresServer) -> list[int]:
    """The server processes that serve listeners."""
    with server.connect() as conn:
        rows = conn.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'unwind listen' ORDER BY pid")
        return [pid for (pid,) in rows.fetchall()]


def end_backends(server: PostgresServer) -> None:
    with server.connect() as conn:
        conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'unwind listen'")


def test_notification_is_received_between_server_checks(
    listener_: RunningListener, other_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listen, "POLL_INTERVAL", 0.0)
    monkeypatch.setattr(listen, "MIN_WAKE_INTERVAL", 0.0)
    with other_server.connect() as conn:
        for _ in range(300):
            conn.execute(f"NOTIFY {CHANNEL}")
            assert listener_.heard.acquire(timeout=10)


def test_loss_after_a_healthy_connection_starts_with_the_initial_wait(
    listener_: RunningListener, other_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long healthy connection resets the backoff."""
    monkeypatch.setattr(listen, "HEALTHY_AFTER", 0.0)
    monkeypatch.setattr(listen, "INITIAL_WAIT", 0.05)
    for _ in range(9):  # doubled each time, the wait would be 12 s by now
        end_backends(other_server)
        assert listener_.heard.acquire(timeout=8), "it listens again, and checks for earlier submissions"


def test_repeated_losses_wait_longer(
    listener_: RunningListener, other_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that accepts and cuts connections is not tried twenty times a second."""
    monkeypatch.setattr(listen, "INITIAL_WAIT", 0.05)
    waits: list[float] = []
    real = listener_._stop_requested.wait

    def record_wait(seconds: float) -> bool:
        waits.append(seconds)
        return real(0.01)

    monkeypatch.setattr(listener_._stop_requested, "wait", record_wait)
    for _ in range(4):
        end_backends(other_server)
        assert listener_.heard.acquire(timeout=8)
    lost = [seconds for seconds in waits if seconds >= listen.INITIAL_WAIT * 2]
    assert lost == sorted(lost)
    assert len(lost) >= 3


def test_unresponsive_server_is_disconnected(
    listener_: RunningListener, other_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped process keeps its connection, and the kernel answers keep-alives for it."""
    monkeypatch.setattr(listen, "LISTENER_CHECK_TIMEOUT", 0.5)
    (stopped,) = backends(other_server)
    os.kill(stopped, signal.SIGSTOP)
    try:
        assert listener_.heard.acquire(timeout=20), "it listens again, elsewhere"
        assert [pid for pid in backends(other_server) if pid != stopped]
        with other_server.connect() as conn:
            conn.execute(f"NOTIFY {CHANNEL}")
        assert listener_.heard.acquire(timeout=10)
    finally:
        os.kill(stopped, signal.SIGCONT) if stopped in backends(other_server) else None


def test_listener_follows_a_failover() -> None:
    with new_server() as first, new_server() as second:
        first.create()
        first.start()
        second.follow(first)
        second.start()
        several = second.url().replace(f":{second.port}/", f":{second.port},127.0.0.1:{first.port}/")
        with closing(RunningListener(several)) as listener:
            listener.start()
            assert listener.heard.acquire(timeout=20)
            assert (len(backends(first)), backends(second)) == (1, [])
            first.stop()
            second.promote()
            assert listener.heard.acquire(timeout=30)
            assert len(backends(second)) == 1
            with second.connect() as conn:
                conn.execute(f"NOTIFY {CHANNEL}")
            assert listener.heard.acquire(timeout=10)


@pytest.mark.long
def test_listener_waits_until_a_standby_is_promoted() -> None:
    with new_server() as first, new_server() as second:
        first.create()
        first.start()
        second.follow(first)
        second.start()
        with closing(RunningListener(second.url())) as listener:
            listener.start()
            assert not listener.listening.wait(2)
            second.promote()
            assert wait_until(listener.listening.is_set, 20)


def test_listener_wakes_at_once_after_a_commit(caller: psycopg.Connection, database_url: str) -> None:
    """By NOTIFY, which a rollback discards."""
    woken = threading.Semaphore(0)
    listener = Listener(database_url, woken.release)
    listener.start()
    try:
        assert listener.listening.wait(10)
        assert woken.acquire(timeout=10)  # once for earlier submissions
        submit_command(caller, "npb.file", {"order_id": 1, "member_id": "x"})
        caller.commit()
        assert woken.acquire(timeout=10)
    finally:
        listener.close()


def test_many_commits_cause_one_more_wakeup(caller: psycopg.Connection, database_url: str) -> None:
    """One run takes everything that is due; more messages would delay other commands."""
    calls, wakeups, go_on = [0], threading.Semaphore(0), threading.Event()

    def wake() -> None:
        calls[0] += 1
        wakeups.release()
        assert go_on.wait(20)

    listener = Listener(database_url, wake)
    listener.start()
    try:
        assert wakeups.acquire(timeout=10)  # the first call, for earlier submissions, is still running
        for order_id in range(1, 31):
            submit_command(caller, "npb.file", {"order_id": order_id, "member_id": "x"})
            caller.commit()
        go_on.set()
        assert wakeups.acquire(timeout=10)
        while wakeups.acquire(timeout=1.0):
            pass
        assert calls[0] <= 4, "one before, one for all of them; two more if the network cut them into pieces"
    finally:
        go_on.set()
        listener.close()
