"""What does a check look at?  One installation: its settings, its servers where they answer, and what should be running."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.embedded.data_dir import read_json
from workers.embedded.processes import ProcessIdentity, is_alive
from workers.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from models.db.database import Database


def wall_clock() -> float:
    """This machine's clock, only ever compared with those of the servers."""
    return time.time()  # noqa: TID251 - the clock itself is what is examined here; nothing is decided by it


def disk_free(folder: Path) -> int:
    """Bytes that are free where the folder is or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


@dataclass(frozen=True, slots=True)
class Pool:
    """What runs a worker's jobs.  `ready`: how many of its processes can be given one; None when the pool does not tell."""

    name: str
    ready: int | None


@dataclass
class Context:
    """One installation as it is found.  A server that does not answer is None, and so is what was learnt from it."""

    settings: Settings
    external_servers: bool = True
    """Whether the environment names both servers, as it does where an installation is meant to last."""
    embedded_broker: bool = False
    """Whether the broker is one that we start ourselves."""
    supervised_since: datetime | None = None
    """Since when `./run up` has been running here; None when it is not."""
    database: Database | None = None
    has_schema: bool = False
    broker: Any = None
    """A connection of redis-py to the broker."""
    broker_info: dict[str, Any] = field(default_factory=dict)
    consumers: dict[str, list[str]] = field(default_factory=dict)
    """The queues of each worker that answered, by its name."""
    pools: dict[str, Pool] = field(default_factory=dict)
    """The pool of each worker that answered, by its name."""
    clock: Callable[[], float] = wall_clock
    free: Callable[[Path], int] = disk_free
    _conn: Connection | None = None

    @property
    def should_run(self) -> bool:
        """Whether workers are to be expected: `up` runs, some worker answers, or the servers are a real installation's."""
        return self.supervised_since is not None or bool(self.consumers) or self.external_servers

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """One transaction for one check, so that a check which breaks spoils no other's."""
        assert self.database is not None
        with self.database.transaction() as conn:
            self._conn = conn
            try:
                yield
            finally:
                self._conn = None

    @property
    def conn(self) -> Connection:
        """The transaction of the check that is being asked."""
        assert self._conn is not None
        return self._conn

    def now(self) -> datetime:
        """What time it is for the rules: the database's."""
        assert self.database is not None
        return self.database.clock.now(self.conn)


def supervised_since(data_dir: Path) -> datetime | None:
    """Since when `./run up` has been ready for this data directory; None when it is not running."""
    report = data_dir / "run" / "up.json"
    said = read_json(report)
    if not is_alive(ProcessIdentity(int(said.get("pid", 0)), int(said.get("started", 0)))):
        return None
    return datetime.fromtimestamp(report.stat().st_mtime, UTC)
