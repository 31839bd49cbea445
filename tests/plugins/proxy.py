"""A TCP proxy between a program and a server that can cut, delay, swallow and refuse.

It runs in one thread with its own event loop; tests only set what it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")
CHUNK = 65536


@dataclass
class Cut:
    """One connection to cut at a chosen point.  `happened` is set afterwards."""

    requested: bytes | None = None
    """Bytes of the client that never reach the server."""
    replied: bytes | None = None
    """Bytes of the server that never reach the client."""
    after_asking: bytes | None = None
    """What the client says: it reaches the server, whose next reply never comes back."""
    happened: threading.Event = field(default_factory=threading.Event)


class Proxy:
    def __init__(
        self, port: int, host: str = "127.0.0.1", *, listen: str = "127.0.0.1", tls: ssl.SSLContext | None = None
    ) -> None:
        """`port` is the server behind.  `tls`: clients must use TLS to this proxy; the server behind is plain."""
        self._behind = (host, port)
        self._listen, self._tls = listen, tls
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._passing: set[asyncio.Task[None]] = set()
        self._cuts: list[Cut] = []
        self.delay = 0.0
        """Seconds that every piece waits."""
        self.silent = False
        """Half-open: connections stand, and nothing comes through."""
        self.closed = False
        """New connections are closed at once."""
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._meet, self._listen, 0, ssl=self._tls))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def url(self, url: str) -> str:
        host, port = self._behind
        return url.replace(f"{host}:{port}", f"127.0.0.1:{self.port}")

    def cut_all(self) -> None:
        """Reset every connection."""
        self._loop.call_soon_threadsafe(self._abort_all)

    def cut(self, cut: Cut) -> Cut:
        self._loop.call_soon_threadsafe(self._cuts.append, cut)
        return cut

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _end(self) -> None:
        self._server.close()
        self._abort_all()
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)

    def _abort_all(self) -> None:
        for pair in list(self._pairs):
            self._abort(pair)

    def _abort(self, pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter]) -> None:
        self._pairs.discard(pair)
        for writer in pair:
            writer.transport.abort()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.closed:
            writer.transport.abort()
            return
        try:
            server_reader, onward = await asyncio.open_connection(*self._behind)
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, onward)
        self._pairs.add(pair)
        waiting: list[Cut] = []
        for source, target, asking in ((reader, onward, True), (server_reader, writer, False)):
            task = asyncio.ensure_future(self._pass(pair, source, target, waiting, asking=asking))
            self._passing.add(task)
            task.add_done_callback(self._passing.discard)

    async def _pass(
        self,
        pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        waiting: list[Cut],
        *,
        asking: bool,
    ) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while piece := await source.read(CHUNK):
                if self.delay:
                    await asyncio.sleep(self.delay)
                if self.silent:
                    continue
                if self._is_cut(piece, waiting, asking=asking):
                    break
                target.write(piece)
                await target.drain()
        self._abort(pair)

    def _is_cut(self, piece: bytes, waiting: list[Cut], *, asking: bool) -> bool:
        if not asking and waiting:
            waiting.pop().happened.set()
            return True
        for cut in list(self._cuts):
            pattern = cut.requested if asking else cut.replied
            if pattern is not None and pattern in piece:
                self._cuts.remove(cut)
                cut.happened.set()
                return True
            if asking and cut.after_asking is not None and cut.after_asking in piece:
                self._cuts.remove(cut)
                waiting.append(cut)
        return False
