"""Ownership of messages in flight, and their return to the queue when their consumer is dead.

A worker's messages are in two places: in the processing lists into which the broker moves them, and among those
recorded as unacknowledged, whose delivery tags begin with the consumer's name.  Every consumer writes a heartbeat every
few seconds, and requeues what belongs to a consumer without one.  A consumer that is taken for dead by mistake does no
harm: it cannot process a message that was reclaimed from it (`Reclaimed`), and a message processed twice has one
effect.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any

import structlog

log = structlog.get_logger(__name__)

PROCESSING_LISTS_KEY = "unwind.handed"
"""Hash of the lists into which the broker moves messages: list -> "consumer queue"."""
UNACKED_KEY = "unwind.unacked"
"""Hash of unacknowledged messages.  Not kombu's default name: another Celery with a shorter visibility timeout on the
same Redis database would redeliver our messages while they are processed."""
HEARTBEAT_PREFIX = "unwind.alive."
HEARTBEAT_TTL_SECONDS = 30
"""Age of its last heartbeat at which a consumer counts as dead: a killed worker's messages are back within a minute."""
ORPHANED_LIST_SECONDS = 60.0
"""Seconds for which a list without a living consumer is still checked, for a move that the broker executes late."""


class Reclaimed(Exception):
    """Another consumer took this one for dead and reclaimed the message."""


class ConsumerId:
    _current: ConsumerId | None = None

    def __init__(self) -> None:
        self.pid, self.space = os.getpid(), self.own_space()
        self.name = f"{self.space}/{self.pid}/{secrets.token_hex(4)}"
        self._list_numbers = count(1)
        self._orphaned_since: dict[str, float] = {}

    @staticmethod
    def own_space() -> str:
        """Return a name of the space in which this process' id means one process: host, boot and PID namespace.

        Containers with the host's network have one host name and a namespace each.
        """
        host = socket.gethostname()
        try:
            boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
            namespace = os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116 - follows the link to the namespace
        except OSError:  # without /proc nobody may conclude anything from a process id
            return f"{host}.{secrets.token_hex(8)}"
        return f"{host}.{boot}.{namespace}"

    @classmethod
    def current(cls) -> ConsumerId:
        if cls._current is None or cls._current.pid != os.getpid():
            cls._current = cls()
        return cls._current

    def new_list(self) -> str:
        return f"{PROCESSING_LISTS_KEY}.{self.name}.{next(self._list_numbers)}"

    def new_tag(self) -> str:
        return f"{self.name}/{secrets.token_hex(8)}"

    def heartbeat_and_reclaim(
        self,
        client: Any,
        index: str,
        lists: dict[str, str],
        is_processing: Callable[[str], bool],
        restore: Callable[[str], None],
    ) -> None:
        """Write this consumer's heartbeat and requeue the messages of dead consumers.

        `index` is the sorted set of unacknowledged delivery tags, `lists` maps the processing lists in use here to
        their queues, `is_processing` returns whether the message with a tag is in progress here, and `restore` requeues
        a recorded message.
        """
        pipe = client.pipeline(transaction=False).set(HEARTBEAT_PREFIX + self.name, 1, ex=HEARTBEAT_TTL_SECONDS)
        for name, queue in lists.items():
            pipe.hset(PROCESSING_LISTS_KEY, name, f"{self.name} {queue}")
        *_, entries, tags = pipe.hgetall(PROCESSING_LISTS_KEY).zrange(index, 0, -1).execute()
        list_owners = {name.decode(): value.decode().partition(" ") for name, value in entries.items()}
        tag_owners = {
            tag: tag.rpartition("/")[0] for tag in map(bytes.decode, tags) if tag.count("/") == self.name.count("/") + 1
        }
        dead = self._find_dead(client, {owner for owner, _, _ in list_owners.values()} | set(tag_owners.values()))
        orphaned = {
            name: queue
            for name, (owner, _, queue) in list_owners.items()
            if owner in dead or (owner == self.name and name not in lists)
        }
        self._requeue_lists(client, orphaned)
        for tag, owner in tag_owners.items():
            if owner in dead or (owner == self.name and not is_processing(tag)):
                restore(tag)
                log.warning("unacked_message_reclaimed", owner=owner)

    def _find_dead(self, client: Any, owners: set[str]) -> set[str]:
        others = sorted(owners - {self.name})
        heartbeats = client.mget([HEARTBEAT_PREFIX + owner for owner in others]) if others else []
        return {
            owner
            for owner, heartbeat in zip(others, heartbeats, strict=True)
            if heartbeat is None or self._has_exited(owner)
        }

    def _has_exited(self, owner: str) -> bool:
        # Whether the consumer's process could be seen here and has ended: no need to wait for its heartbeat's expiry.
        space, _, rest = owner.partition("/")
        pid = rest.partition("/")[0]
        if space != self.space or not pid.isdigit() or int(pid) == self.pid:
            return False
        try:
            os.kill(int(pid), 0)
        except OSError as error:
            return isinstance(error, ProcessLookupError)
        return False

    def _requeue_lists(self, client: Any, orphaned: dict[str, str]) -> None:
        names = list(orphaned)
        while names:
            pipe = client.pipeline(transaction=False)
            for name in names:  # the newest first, so that the oldest is the next one out
                pipe.lmove(name, orphaned[name], "LEFT", "RIGHT")
            names = [name for name, moved in zip(names, pipe.execute(), strict=True) if moved is not None]
            if names:
                log.warning("processing_lists_reclaimed", lists=len(names))
        now = monotonic()
        self._orphaned_since = {name: self._orphaned_since.get(name, now) for name in orphaned}
        expired = [name for name, since in self._orphaned_since.items() if now - since > ORPHANED_LIST_SECONDS]
        if expired:
            client.hdel(PROCESSING_LISTS_KEY, *expired)
