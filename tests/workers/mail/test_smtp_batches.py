"""Tests of batches of emails over few SMTP connections."""

from __future__ import annotations

import itertools
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from policies.emails.email import Email
from tasks import mailer
from tasks.mailer import UndeliverableEmail
from tests.workers.mail.emails import BRANDING, outgoing
from workers.mail.smtp import SmtpMailer


class Script:
    """A mail server that answers from a script, counts its connections, and notes what arrives together."""

    def __init__(self, *, pipelining: bool = True, answers: Callable[[int, bytes], str | None] | None = None) -> None:
        self.pipelining, self.answers = pipelining, answers or (lambda connection, command: None)
        self.received: list[bytes] = []
        self.groups: list[int] = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"smtp://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(client, self.connections), daemon=True).start()

    def _serve(self, client: socket.socket, number: int) -> None:
        unread, in_data, content = b"", False, b""
        with client:
            client.sendall((self.answers(number, b"CONNECT") or "220 ready").encode() + b"\r\n")
            while data := client.recv(1 << 20):
                unread += data
                *lines, unread = unread.split(b"\r\n")
                replies: list[str] = []
                for line in lines:
                    if in_data and line != b".":
                        content += line + b"\r\n"
                        continue
                    command = b"." if in_data else line.split(b":")[0].split(b" ")[0].upper()
                    reply = self.answers(number, command) or self._reply(command)
                    if content and reply.startswith("250"):
                        self.received.append(content)
                    in_data, content = command == b"DATA" and reply.startswith("354"), b""
                    replies.append(reply)
                self.groups.append(len(replies))
                client.sendall("".join(f"{reply}\r\n" for reply in replies).encode())
                if replies and replies[-1][:3] in ("421", "221"):
                    return

    def _reply(self, command: bytes) -> str:
        if command == b"EHLO":
            return "250-here\r\n250 PIPELINING" if self.pipelining else "250 here"
        return {b"DATA": "354 go on", b"QUIT": "221 bye"}.get(command, "250 OK")

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def script() -> Iterator[Callable[..., Script]]:
    scripts: list[Script] = []

    def start(**options: Any) -> Script:
        scripts.append(Script(**options))
        return scripts[-1]

    yield start
    for started in scripts:
        started.close()


def send(server: Script, count: int, **changed: Any) -> list[Exception | None]:
    emails = [outgoing(message_id=f"{number:032}", **changed) for number in range(count)]
    return SmtpMailer(server.url, BRANDING).send(emails)


@pytest.mark.parametrize("pipelining", [True, False])
def test_a_batch_is_sent_over_a_few_connections_each_email_once(
    script: Callable[..., Script], pipelining: bool
) -> None:
    server = script(pipelining=pipelining)
    assert send(server, 450, content=Email("Dots", (".", ".. two", "end"))) == [None] * 450
    assert len(set(server.received)) == len(server.received) == 450
    assert {max(server.groups)} == {4 if pipelining else 1}
    assert 5 <= server.connections <= 8  # a hundred emails at most over one, four at a time
    assert {re.sub(rb"(?m)^\.\.", b".", content).count(b"\r\n.. two") for content in server.received} == {1}


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize("command", [b"MAIL", b"RCPT", b"DATA", b"."])
@pytest.mark.parametrize(("code", "reason"), [("550 no", UndeliverableEmail), ("451 later", mailer.TemporaryFailure)])
def test_a_rejected_email_is_the_only_one_rejected(
    script: Callable[..., Script], pipelining: bool, command: bytes, code: str, reason: type[Exception]
) -> None:
    """At whatever step; the server asks for the content of an email without recipient, too."""
    seen = itertools.count(1)
    server = script(
        pipelining=pipelining, answers=lambda _, arrived: code if arrived == command and next(seen) == 3 else None
    )
    results = send(server, 9)
    assert [type(result) for result in results if result is not None] == [reason]
    assert len(set(server.received)) == len(server.received) == 8


def test_a_server_that_allows_one_connection_gets_all_emails(script: Callable[..., Script]) -> None:
    for command in (b"CONNECT", b"MAIL"):
        server = script(
            answers=lambda connection, arrived, command=command: (
                "421 too many" if connection > 1 and arrived == command else None
            )
        )
        assert send(server, 40) == [None] * 40
        assert len(set(server.received)) == len(server.received) == 40


def test_a_server_that_allows_few_emails_per_connection_gets_all(script: Callable[..., Script]) -> None:
    mails: Counter[int] = Counter()

    def answer(connection: int, command: bytes) -> str | None:
        mails[connection] += command == b"MAIL"
        return "421 too many" if mails[connection] > 7 else None

    server = script(answers=answer)
    assert send(server, 40) == [None] * 40
    assert len(set(server.received)) == len(server.received) == 40


def test_a_server_that_closes_midway_costs_one_email_an_attempt(script: Callable[..., Script]) -> None:
    """R102: those that were accepted are sent, those that were not tried lose no attempt."""
    contents = itertools.count(1)
    server = script(answers=lambda _, command: "421 closing" if command == b"." and next(contents) > 6 else None)
    results = send(server, 40)
    assert results.count(None) == len(server.received) == 6
    tried = [result for result in results if isinstance(result, mailer.ServerUnavailable) and result.tried]
    assert 1 <= len(tried) <= 4
    assert all(isinstance(result, mailer.ServerUnavailable) for result in results if result is not None)


def test_a_slow_server_leaves_emails_without_an_attempt(
    script: Callable[..., Script], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.mail.smtp.SmtpMailer.MAX_BATCH_SECONDS", 0)
    results = send(script(), 5)
    assert all(isinstance(result, mailer.MailerOutOfTime) for result in results)
