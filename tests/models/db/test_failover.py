"""A failover under load: the primary is killed, its synchronous standby promoted, and no name changes."""

from __future__ import annotations

import os
import signal
import threading
from time import monotonic
from typing import Any

from sqlalchemy.exc import DBAPIError

from models.members import MemberRow
from models.migrations import upgrade
from tests.plugins.postgres import new_server
from tests.plugins.stored_rows import DatabaseRows
from workers.embedded.processes import wait_until
from workers.simulation.engine import Simulation

COMMANDS = 30
KILLED_AT = 10


def record(simulation: Simulation, number: int) -> dict[str, Any]:
    """Sends one command until it is answered, as a worker does."""
    end = monotonic() + 60
    while True:
        try:
            return simulation.do(
                "members.record",
                member_id=f"m-{number}",
                handle=f"m_{number}",
                email=f"m-{number}@example.org",
                request_id=f"r-{number}",
            )
        except DBAPIError:
            assert monotonic() < end
            threading.Event().wait(0.1)


def test_no_answer_is_lost_when_a_synchronous_standby_takes_over() -> None:
    with new_server() as first, new_server() as second:
        first.create()
        first.start()
        upgrade(first.url())
        second.follow(first)
        second.start()
        with first.connect() as conn:
            conn.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            conn.execute("SELECT pg_reload_conf()")
        several = first.url().replace(f":{first.port}/", f":{first.port},127.0.0.1:{second.port}/")

        def fail_over() -> None:
            # The standby hears nothing more, so what is answered from here on without it would be lost.
            with second.connect() as conn:
                receiver = conn.execute("SELECT pid FROM pg_stat_wal_receiver").fetchone()
            assert receiver is not None
            os.kill(receiver[0], signal.SIGSTOP)
            with first.connect() as conn:
                waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
                is_waiting.append(wait_until(lambda: conn.execute(waiting).fetchone() is not None, 30))
            first.kill()
            os.kill(receiver[0], signal.SIGCONT)
            second.promote()

        is_waiting: list[bool] = []

        failover = threading.Thread(target=fail_over)
        with Simulation(several) as simulation:
            answers = []
            for number in range(COMMANDS):
                if number == KILLED_AT:
                    failover.start()
                answers.append(record(simulation, number))
            failover.join(60)
            assert is_waiting == [True], "a command waited for the standby when the primary was lost"
            assert {answer["outcome"] for answer in answers} == {"done"}
            again = [record(simulation, number) for number in range(COMMANDS)]
            assert [answer | {"replayed": False} for answer in again] == [
                answer | {"replayed": False} for answer in answers
            ]
            assert all(answer["replayed"] for answer in again), "each first answer was committed where it is now"
        assert DatabaseRows(second.url()).count(MemberRow) == COMMANDS
