"""A minimal SMTP server with PIPELINING: it accepts every email and answers `HELP` with how many it has received.

`python -m benchmarks.smtp_server` prints its port and serves until its input ends.
"""

from __future__ import annotations

import asyncio
import re
import sys

MESSAGE_ID = re.compile(rb"^Message-ID: <([^@>]*)", re.MULTILINE)


class Session(asyncio.Protocol):
    received = 0
    message_ids: set[bytes] = set()  # noqa: RUF012 - of all sessions

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.unread, self.in_data = transport, b"", False
        transport.write(b"220 localhost\r\n")

    def data_received(self, data: bytes) -> None:
        self.unread += data
        replies = []
        while True:
            if self.in_data:
                content, end, rest = self.unread.partition(b"\r\n.\r\n")
                if not end:
                    break
                self._receive(content)
                replies.append(b"250 OK\r\n")
            else:
                line, end, rest = self.unread.partition(b"\r\n")
                if not end:
                    break
                replies.append(self._answer(line[:4].upper()))
            self.unread = rest
        self.transport.write(b"".join(replies))
        if replies and replies[-1].startswith(b"221"):
            self.transport.close()

    def _answer(self, command: bytes) -> bytes:
        if command == b"EHLO":
            return b"250-localhost\r\n250-8BITMIME\r\n250 PIPELINING\r\n"
        if command == b"HELP":
            return b"214 %d %d\r\n" % (Session.received, len(Session.message_ids))
        if command == b"DATA":
            self.in_data = True
            return b"354 Go ahead\r\n"
        return b"221 Bye\r\n" if command == b"QUIT" else b"250 OK\r\n"

    def _receive(self, content: bytes) -> None:
        self.in_data = False
        Session.received += 1
        if match := MESSAGE_ID.search(content):
            Session.message_ids.add(match[1])


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Session, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve())
