"""Processes with a database connection each, released by one barrier.

A round runs one command per process.  All start at the same moment, or a few milliseconds apart where the round says
so; over many rounds each side comes first.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Mapping
from datetime import datetime
from multiprocessing.connection import Connection
from threading import Barrier
from types import TracebackType
from typing import Any, Self

from models.db import database as db
from workers.app import app
from workers.simulation.engine import SimulatedClock

Command = tuple[str, dict[str, Any]]
TIMEOUT = 60.0
"""Seconds after which a process without an answer has failed: far above the lock timeout and its retries."""


def run(pipe: Connection, starts: Mapping[int, Barrier]) -> None:
    database: db.Database | None = None
    while (instruction := pipe.recv()) is not None:
        if isinstance(instruction, str):
            if database is not None:
                database.dispose()
            database = db.connect(instruction)
            db.set_database(database)
            with database.transaction() as conn:
                database.clock.now(conn)  # connects before the first round
            pipe.send(None)
            continue
        task, arguments, message_id, delay, processes, at = instruction
        assert database is not None
        database.clock = db.DatabaseClock() if at is None else SimulatedClock(at)
        starts[processes].wait(TIMEOUT)
        time.sleep(delay)  # the start is staggered by this delay
        try:
            answer = app.tasks[task].validate_and_run(arguments, message_id)
        except Exception as error:  # noqa: BLE001 - the test sees every error
            answer = {"outcome": "crashed", "code": f"{type(error).__name__}: {error}"}
        pipe.send(answer)


class ConcurrentProcesses:
    def __init__(self, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        # A barrier has a fixed number of parties, so there is one for each number of processes in a round.
        # Kept: a semaphore disappears with its owner's reference, before the processes open it.
        self._barriers = {processes: context.Barrier(processes) for processes in range(2, count + 1)}
        self._lanes = []
        for _ in range(count):
            parent_end, child_end = context.Pipe()
            process = context.Process(target=run, args=(child_end, self._barriers), daemon=True)
            process.start()
            self._lanes.append((parent_end, process))
        self._rounds = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for pipe, process in self._lanes:
            pipe.send(None)
            process.join(TIMEOUT)
            pipe.close()

    def at(self, database_url: str) -> Self:
        for pipe, _ in self._lanes:
            pipe.send(database_url)
        for pipe, _ in self._lanes:
            _received(pipe)
        return self

    def race(self, *commands: Command, at: datetime | None = None) -> list[dict[str, Any]]:
        self._rounds += 1
        lanes = self._lanes[: len(commands)]
        for lane, (task, arguments) in enumerate(commands):
            message_id = f"race-{self._rounds}-{lane}"
            # A third of the rounds starts at the same time, a third with the first ahead, a third with the last.
            offset = (0, lane, len(commands) - 1 - lane)[self._rounds % 3]
            lanes[lane][0].send((task, arguments, message_id, offset * 0.002 * (self._rounds % 4), len(lanes), at))
        return [_received(pipe) for pipe, _ in lanes]


def _received(pipe: Connection) -> Any:
    if not pipe.poll(TIMEOUT):
        raise TimeoutError("a process does not answer")
    return pipe.recv()
