"""Whose are the messages that are in no queue and not done, and what becomes of them when their owner is gone?

A worker has messages in two places: in the lists into which the broker hands them, and among those recorded as unacknowledged,
whose tags begin with its name.  It says every few seconds that it lives.  Whoever else looks gives back what belongs to
nobody alive, under whatever name that worker comes back.  To be buried alive is no harm: what was given back is refused to the
one who still holds it (`workers.transport.channel.Reclaimed`), and what both carry out has one effect (P2).
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from itertools import count
from time import monotonic
from typing import Any

import structlog

log = structlog.get_logger(__name__)

PROCESSING_LISTS_KEY = "unwind.handed"
"""Hash of the lists into which messages are handed: list -> "owner queue"."""
UNACKED_KEY = "unwind.unacked"
"""Hash of the messages that are recorded: a name of our own, so that another Celery with a shorter patience, which uses the same
Redis database, does not give our messages back while they are at work (F08)."""
HEARTBEAT_PREFIX = "unwind.alive."
HEARTBEAT_TTL_SECONDS = 30
"""Seconds after its last sign at which a worker counts as dead: a killed worker's messages are back within a minute."""
ORPHANED_LIST_SECONDS = 60.0
"""Seconds for which a list without an owner is looked at, for a command that the broker carries out late."""


class ConsumerId:
    """A process that takes messages; a new one after a fork."""

    _me: ConsumerId | None = None

    def __init__(self) -> None:
        self.pid, self.host = os.getpid(), socket.gethostname()
        self.name = f"{self.host}/{self.pid}/{secrets.token_hex(4)}"
        self._numbers = count(1)
        self._idle_since: dict[str, float] = {}

    @classmethod
    def me(cls) -> ConsumerId:
        """This process."""
        if cls._me is None or cls._me.pid != os.getpid():
            cls._me = cls()
        return cls._me

    def new_list(self) -> str:
        """A name for a list that nobody has used."""
        return f"{PROCESSING_LISTS_KEY}.{self.name}.{next(self._numbers)}"

    def new_tag(self) -> str:
        """A delivery tag that tells whose it is."""
        return f"{self.name}/{secrets.token_hex(8)}"

    def heartbeat_and_reclaim(
        self,
        client: Any,
        index: str,
        lists: dict[str, str],
        working_on: Callable[[str], bool],
        restore: Callable[[str], None],
    ) -> None:
        """Say that this worker lives, and give back whatever belongs to nobody who does.

        `lists`: those in use here, with their queues; `working_on`: whether a message with this tag is at work here;
        `restore`: gives a recorded one back; `index`: where the tags of those are.
        """
        pipe = client.pipeline(transaction=False).set(HEARTBEAT_PREFIX + self.name, 1, ex=HEARTBEAT_TTL_SECONDS)
        for name, queue in lists.items():
            pipe.hset(PROCESSING_LISTS_KEY, name, f"{self.name} {queue}")
        *_, known, tags = pipe.hgetall(PROCESSING_LISTS_KEY).zrange(index, 0, -1).execute()
        owned = {name.decode(): value.decode().partition(" ") for name, value in known.items()}
        taken = {
            tag: tag.rpartition("/")[0] for tag in map(bytes.decode, tags) if tag.count("/") == self.name.count("/") + 1
        }
        dead = self._dead(client, {owner for owner, _, _ in owned.values()} | set(taken.values()))
        idle = {n: q for n, (o, _, q) in owned.items() if o in dead or (o == self.name and n not in lists)}
        self._give_back(client, idle)
        for tag, owner in taken.items():
            if owner in dead or (owner == self.name and not working_on(tag)):
                restore(tag)
                log.warning("a message of nobody alive is back in its queue", owner=owner)

    def _dead(self, client: Any, owners: set[str]) -> set[str]:
        others = sorted(owners - {self.name})
        signs = client.mget([HEARTBEAT_PREFIX + owner for owner in others]) if others else []
        return {owner for owner, sign in zip(others, signs, strict=True) if sign is None or self._saw_it_end(owner)}

    def _saw_it_end(self, owner: str) -> bool:
        """Whether it ran on this machine and does not any more: no need to wait until its sign runs out."""
        host, _, rest = owner.partition("/")
        pid = rest.partition("/")[0]
        return host == self.host and pid.isdigit() and int(pid) != self.pid and not _runs(int(pid))

    def _give_back(self, client: Any, idle: dict[str, str]) -> None:
        names = list(idle)
        while names:
            pipe = client.pipeline(transaction=False)
            for name in names:
                pipe.lmove(
                    name, idle[name], "LEFT", "RIGHT"
                )  # the newest first, so that the oldest is the next one out
            names = [name for name, moved in zip(names, pipe.execute(), strict=True) if moved is not None]
            if names:
                log.warning("messages that were handed to nobody alive are back in their queues", lists=len(names))
        now = monotonic()
        self._idle_since = {name: self._idle_since.get(name, now) for name in idle}
        forgotten = [name for name, since in self._idle_since.items() if now - since > ORPHANED_LIST_SECONDS]
        if forgotten:
            client.hdel(PROCESSING_LISTS_KEY, *forgotten)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def count_in_flight(client: Any) -> int:
    """How many messages are neither in a queue nor done: handed over, or not acknowledged.  `client` is one of redis-py."""
    pipe = client.pipeline(transaction=False).hlen(UNACKED_KEY)
    for name in client.hgetall(PROCESSING_LISTS_KEY):
        pipe.llen(name)
    return sum(pipe.execute())
