"""An SMTP server on loopback whose answers can be switched to refusals, delays or disconnections."""

from __future__ import annotations

import asyncio
import email
import email.policy
import threading
from typing import cast

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from workers.embedded.data_dir import free_port

KIND, BUSY, REFUSING, HANGING, CLOSING = "kind", "4xx", "5xx", "hangs", "closes"


class SmtpStub:
    """Records the ids of received emails.  `mood` may be changed at any time."""

    def __init__(self) -> None:
        self.mood = KIND
        self.taken: list[str] = []
        self._lock = threading.Lock()
        port = free_port()  # aiosmtpd connects to the given port to see whether it has started: 0 does not work
        self._controller = Controller(self, hostname="127.0.0.1", port=port)
        self.url = f"smtp://127.0.0.1:{port}"

    def start(self) -> None:
        self._controller.start()

    def stop(self) -> None:
        self.mood = KIND
        self._controller.stop()

    async def handle_RCPT(  # noqa: N802 - aiosmtpd names it
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.mood == BUSY:
            return "451 try again later"
        if self.mood == REFUSING:
            return "550 nobody here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        while self.mood == HANGING:  # noqa: ASYNC110 - the mood is changed by another thread
            await asyncio.sleep(0.05)
        message = email.message_from_bytes(cast(bytes, envelope.content), policy=email.policy.default)
        with self._lock:
            self.taken.append(str(message["Message-ID"]).strip("<>").partition("@")[0])
        if self.mood == CLOSING:
            cast(asyncio.Transport, server.transport).abort()
        return "250 OK"
