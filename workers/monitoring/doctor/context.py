"""The context of a check: the settings of an installation, its reachable servers, and the processes that should run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection

from models.db.database import Database
from workers.local.supervisor import supervised_since
from workers.settings import Settings


class Pool(NamedTuple):
    name: str
    ready: int | None


@dataclass
class Context:
    settings: Settings
    external_servers: bool = True
    """Whether the environment names both servers."""
    embedded_broker: bool = False
    """Whether `./run up` starts the broker."""
    supervised_since: datetime | None = None
    """When `./run up` became ready; None when it is not running."""
    check_count: int = 0
    connections: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    """Closes what the doctor connects to."""
    database: Database | None = None
    has_schema: bool = False
    broker: Any = None
    """A redis-py client of the broker."""
    broker_info: dict[str, Any] = field(default_factory=dict)
    consumers: dict[str, list[str]] = field(default_factory=dict)
    """The queues of each worker that answered, by the worker's name."""
    pools: dict[str, Pool] = field(default_factory=dict)
    """The pool of each worker that answered, by the worker's name."""
    clock: Callable[[], float] = time.time  # noqa: TID251 - only compared with the clocks of the servers
    conn: Connection = field(init=False, repr=False)
    """The transaction of the check that runs."""

    @property
    def workers_expected(self) -> bool:
        """Whether workers should run: `up` runs, a worker answers, or the environment names the servers."""
        return self.supervised_since is not None or bool(self.consumers) or self.external_servers

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        assert self.database is not None
        with self.database.transaction() as self.conn:
            yield

    def now(self) -> datetime:
        assert self.database is not None
        return self.database.clock.now(self.conn)


@contextlib.contextmanager
def open_context(settings: Settings) -> Iterator[Context]:
    with contextlib.ExitStack() as connections:
        yield Context(
            settings,
            external_servers=settings.has_servers,
            embedded_broker=settings.broker_url is None,
            supervised_since=supervised_since(settings.data_dir),
            connections=connections,
        )
