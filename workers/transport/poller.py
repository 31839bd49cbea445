"""Polling: one connection to the broker per queue."""

# mypy: disable-error-code="no-untyped-call"
# kombu has no type annotations, and this module uses its internals.

from __future__ import annotations

import contextlib
from typing import Any

from kombu.transport import redis as stock


class QueueReader:
    def __init__(self, queue: str, client: Any) -> None:
        self.queue, self.client = queue, client
        self.processing_list = ""
        self.waiting_since: float | None = None
        self.held: bytes | None = None
        self.held_since = 0.0


class Poller(stock.MultiChannelPoller):
    """Polls one connection per queue, where kombu has one for all: BLMOVE waits for a single list."""

    def _register_BRPOP(self, channel: Any) -> None:  # noqa: N802 - kombu's name
        """kombu.transport.redis.MultiChannelPoller._register_BRPOP: our queues by BLMOVE, any other as before."""
        channel.request_messages(self)
        if channel.other_queues():
            super()._register_BRPOP(channel)

    def on_readable(self, fileno: int) -> Any:
        """kombu.transport.redis.MultiChannelPoller.on_readable: read a reader's response even when no slot is free."""
        channel, reader = self._fd_to_chan.get(fileno, (None, None))
        if isinstance(reader, QueueReader):
            return channel.receive(reader)
        return super().on_readable(fileno)

    def maintain_readers(self) -> None:
        """Run each channel's periodic work.  Connection errors surface where messages are read."""
        for channel in list(self._channels):
            with contextlib.suppress(*channel.connection_errors):
                channel.maintain_readers()

    def forget_reader(self, channel: Any, reader: QueueReader) -> None:
        self._chan_to_sock.pop((channel, reader.client, reader), None)
        for fd in [fd for fd, watched in self._fd_to_chan.items() if watched == (channel, reader)]:
            del self._fd_to_chan[fd]
            self._unregister_from_poll(fd)
