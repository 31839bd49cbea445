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
from workers.task import execute

Command = tuple[str, dict[str, Any]]
TIMEOUT = 60.0
"""Seconds after which a racer that does not answer has failed: far above the lock timeout and its retries."""


def run(pipe: Connection, starts: Mapping[int, Barrier]) -> None:
    database: db.Database | None = None
    while (told := pipe.recv()) is not None:
        if isinstance(told, str):
            if database is not None:
                database.dispose()
            database = db.connect(told)
            db.set_database(database)
            with database.transaction() as conn:
                database.clock.now(conn)  # connected before the first round
            pipe.send(None)
            continue
        task, arguments, message_id, late, racers, at = told
        assert database is not None
        database.clock = db.DatabaseClock() if at is None else db.SimulatedClock(at)
        starts[racers].wait(TIMEOUT)
        time.sleep(late)  # this is the race: so much behind the others
        try:
            answer = execute(app.tasks[task], arguments, message_id)
        except Exception as error:  # noqa: BLE001 - the test shall see what went wrong, whatever it is
            answer = {"outcome": "crashed", "code": f"{type(error).__name__}: {error}"}
        pipe.send(answer)


class ConcurrentProcesses:
    def __init__(self, most: int) -> None:
        context = multiprocessing.get_context("spawn")
        # A barrier counts its parties once and for all, so there is one for each number of racers in a round.
        # Kept, because a semaphore that its owner forgets is gone before the racers open it.
        self._barriers = {racers: context.Barrier(racers) for racers in range(2, most + 1)}
        self._lanes = []
        for _ in range(most):
            ours, theirs = context.Pipe()
            process = context.Process(target=run, args=(theirs, self._barriers), daemon=True)
            process.start()
            self._lanes.append((ours, process))
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
            # Each third of the rounds starts level, with the first ahead, and with the last ahead.
            ahead = (0, lane, len(commands) - 1 - lane)[self._rounds % 3]
            lanes[lane][0].send((task, arguments, message_id, ahead * 0.002 * (self._rounds % 4), len(lanes), at))
        return [_received(pipe) for pipe, _ in lanes]


def _received(pipe: Connection) -> Any:
    if not pipe.poll(TIMEOUT):
        raise TimeoutError("a racer does not answer")
    return pipe.recv()
