"""Workers that only record what they receive, in processes that may be killed at any moment.

Tests compare the producer's own list of sent numbers with an append-only list in the broker.
"""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import redis

from tests.e2e.effect_task import EFFECTS, TASK
from tests.plugins.servers import count_in_flight
from tests.workers.transport.hostile_messages import EMBED, message
from workers.local.parent_death import with_parent_death
from workers.local.preforker import Preforker
from workers.local.supervisor import SupervisedProgram, Supervisor
from workers.settings import load_settings
from workers.transport.reclaim import PROCESSING_LISTS_KEY

PRODUCER = "producer"
"""The name of connections that are not cut: a push whose answer is lost may have happened or not."""


class RecordingWorkers:
    def __init__(self, folder: Path, *, database_url: str, broker_url: str, result_backend: str) -> None:
        self._settings = load_settings(
            database_url=database_url, broker_url=broker_url, result_backend=result_backend, data_dir=folder
        )
        self._notes = result_backend
        self.preforker = Preforker(folder / "preforker.log")
        self.supervisor = Supervisor(folder, preforker=self.preforker)
        self.broker: Any = redis.Redis.from_url(broker_url, client_name=PRODUCER)
        self.notes: Any = redis.Redis.from_url(result_backend, client_name=PRODUCER)
        self.sent: list[int] = []
        self._aside: set[int] = set()
        self._started = 0

    def __enter__(self) -> Self:
        self.supervisor.__enter__()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.supervisor.__exit__(None, None, None)
        self.preforker.close()
        for client in (self.broker, self.notes):
            client.close()

    def start(
        self, *, concurrency: int = 1, transport: str = "ours", at: Callable[[str], str] = str, ready: float = 60.0
    ) -> str:
        """Start a worker, wait until it takes messages, and return its name.  `at` is its broker address."""
        self._started += 1
        name = f"taker-{self._started}"
        words = ["-A", "tests.e2e.effect_task", "worker", "-Q", "commands,consequences", "-c", str(concurrency)]
        words += ["-n", f"{name}@%h", "--without-gossip", "--without-mingle", "-l", "INFO"]
        environment = self._settings.environment()
        environment |= {name: at(environment[name]) for name in ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND")}
        environment |= {"TEST_TRANSPORT": transport, "TEST_NOTES": self._notes}
        program = SupervisedProgram(name, with_parent_death(words), environment, restart=False, celery_args=words)
        self.supervisor.start(program)
        self.supervisor.wait_ready(ready, [name])
        return name

    def kill(self, name: str) -> None:
        os.killpg(self.supervisor.pid(name), signal.SIGKILL)

    def processor_time(self, name: str) -> float:
        head = psutil.Process(self.supervisor.pid(name))
        spent = [process.cpu_times() for process in (head, *head.children(recursive=True))]
        return sum(times.user + times.system for times in spent)

    def send(self, count: int) -> list[int]:
        """Push that many messages and return their numbers."""
        numbers = list(range(len(self.sent) + 1, len(self.sent) + count + 1))
        self.broker.lpush("commands", *[_envelope(number) for number in numbers])
        self.sent += numbers
        return numbers

    def send_for(self, done: threading.Event, rate: int) -> None:
        began, batches = time.monotonic(), 0
        while not done.wait(max(0.0, began + batches * 0.02 - time.monotonic())):
            self.send(rate // 50)
            batches += 1

    def effect_counts(self) -> Counter[int]:
        return Counter(int(number) for number in self.notes.lrange(EFFECTS, 0, -1))

    def count_effects(self) -> int:
        return int(self.notes.llen(EFFECTS))

    def lost(self) -> set[int]:
        """Return what was sent and neither processed nor set aside."""
        return set(self.sent) - set(self.effect_counts()) - self._aside

    def set_aside(self, but: int) -> None:
        """Remove the newest messages from the queue: they are not lost, and processing them shows nothing more."""
        pipe = self.broker.pipeline()
        rest, _ = pipe.lrange("commands", 0, -but - 1).ltrim("commands", -but, -1).execute()
        self._aside |= {int(number) for number in re.findall(rb'"effect-(\d+)-"', b"".join(rest))}

    def is_drained(self) -> bool:
        return not self.broker.llen("commands") and not count_in_flight(self.broker)

    def wait_drained(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self.is_drained():
            if time.monotonic() > end:
                raise AssertionError(self.describe_message_locations())
            threading.Event().wait(0.02)

    def describe_message_locations(self) -> str:
        lists = {name.decode(): self.broker.llen(name) for name in self.broker.hgetall(PROCESSING_LISTS_KEY)}
        names = [f"taker-{number}" for number in (self._started - 1, self._started)]
        tails = "\n".join(f"{name}:\n{self.supervisor.tail(name, 30)}" for name in names)
        return (
            f"in the queue {self.broker.llen('commands')}, in flight {count_in_flight(self.broker)}, "
            f"lists { ({name: n for name, n in lists.items() if n}) }, lost so far {len(self.lost())}\n{tails}"
        )

    def cut_connections(self) -> int:
        """Kill the connections of this test's workers, as `CLIENT KILL TYPE normal` does; returns their number."""
        own_databases = {str(client.connection_pool.connection_kwargs["db"]) for client in (self.broker, self.notes)}
        connections = [c for c in self.broker.client_list() if c["db"] in own_databases and c["name"] != PRODUCER]
        for client in connections:
            self.broker.client_kill_filter(_id=client["id"])
        return len(connections)


def _envelope(number: int) -> str:
    return json.dumps(message([[], {"number": number}, EMBED], headers={"task": TASK, "id": f"effect-{number}-"}))
