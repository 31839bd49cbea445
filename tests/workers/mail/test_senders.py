"""Tests of sending email to servers that accept, refuse, hang or close, and to a folder."""

from __future__ import annotations

import asyncio
import email
import itertools
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any, cast

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword, Session
from aiosmtpd.smtp import Envelope as Received
from sqlalchemy import text

from models import dead_jobs
from models.unit_of_work import unit_of_work
from policies.emails.email import Email, Quote
from policies.verdicts import OutboxMessage
from tasks import mailer
from tasks.mailer import OutgoingEmail, UndeliverableEmail
from workers.embedded.data_dir import free_port
from workers.mail.mime_message import (
    MailBranding,
    build_mime_message,
    encode_mime_address,
    render_html_part,
    render_text_part,
    sanitize_mime_header,
)
from workers.mail.senders import FolderMailer
from workers.mail.smtp import SmtpMailer
from workers.simulation.engine import Simulation

BRANDING = MailBranding("Unwind <no-reply@market.example>", "the brick market", "https://market.example")
CREATED_AT = datetime(2026, 4, 4, 10, tzinfo=UTC)
EMAIL = Email("Order 1003: the buyer asks to cancel", ("The buyer asks to cancel.",), Quote("The buyer", "Sorry."))


class Mailbox:
    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []
        self.recipient_answer: Callable[[str], str] = lambda address: "250 OK"
        self.data_answer = "250 OK"
        self.closes_after_data = False
        self.hangs: threading.Event | None = None

    async def handle_RCPT(  # noqa: N802 - aiosmtpd names it
        self, server: SMTP, session: Session, envelope: Received, address: str, options: list[str]
    ) -> str:
        answer = self.recipient_answer(address)
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Received) -> str:  # noqa: N802
        message = email.message_from_bytes(cast(bytes, envelope.content), policy=default)
        self.messages.append(message)
        if self.closes_after_data:
            cast(asyncio.Transport, server.transport).abort()
        if self.hangs is not None:
            await asyncio.get_running_loop().run_in_executor(None, self.hangs.wait)
        return self.data_answer


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def server(mailbox: Mailbox) -> Iterator[Controller]:
    controller = Controller(mailbox, hostname="127.0.0.1", port=free_port())
    controller.start()
    yield controller
    if mailbox.hangs is not None:
        mailbox.hangs.set()
    controller.stop()


@pytest.fixture
def simulation_with_smtp(simulation: Simulation, server: Controller) -> Iterator[Simulation]:
    simulation.clock.instant = CREATED_AT
    for name in ("sam", "sue"):
        answer = simulation.do("members.record", member_id=name, handle=name.title(), email=f"{name}@example.org")
        assert answer["outcome"] == "done"
    mailer.set_mailer(SmtpMailer(f"smtp://127.0.0.1:{server.port}", BRANDING, timeout=0.5, pause=0))
    yield simulation
    mailer.set_mailer(None)


def enqueue(*recipients: str) -> None:
    with unit_of_work() as work:
        work.enqueue(
            [
                OutboxMessage(
                    "notices.tell_seller",
                    f"ocr_filed:1003:2:{recipient}",
                    None,
                    {
                        "event": "ocr_filed",
                        "recipient": recipient,
                        "role": "seller",
                        "facts": {"reason": "B_MUTUAL", "comment": "Please."},
                    },
                )
                for recipient in recipients
            ]
        )


def states(simulation: Simulation) -> dict[str, tuple[str, int]]:
    with simulation.database.transaction() as conn:
        rows = conn.execute(text("SELECT recipient, state, attempts FROM unwind.notices"))
        return {r.recipient: (r.state, r.attempts) for r in rows}


def dead_jobs_waiting(simulation: Simulation) -> list[Any]:
    with simulation.database.transaction() as conn:
        return dead_jobs.list_waiting_jobs(conn)


def deliver_after(simulation: Simulation, **by: float) -> None:
    simulation.clock.instant += timedelta(**by)
    simulation.do("notices.deliver")


def test_sent_email_is_marked_and_never_sent_again(simulation_with_smtp: Simulation, mailbox: Mailbox) -> None:
    enqueue("sam")
    simulation_with_smtp.process_outbox()
    deliver_after(simulation_with_smtp, days=1)
    assert states(simulation_with_smtp) == {"sam": ("sent", 1)}
    assert [m["To"] for m in mailbox.messages] == ["Sam <sam@example.org>"]
    assert mailbox.messages[0]["Auto-Submitted"] == "auto-generated"
    assert {part.get_content_type() for part in mailbox.messages[0].walk()} == {
        "multipart/alternative",
        "text/plain",
        "text/html",
    }


def test_4xx_is_retried_with_growing_delays_then_parked(simulation_with_smtp: Simulation, mailbox: Mailbox) -> None:
    """R102: over hours, and visible when parked."""
    mailbox.recipient_answer = lambda address: "450 try again"
    enqueue("sam")
    simulation_with_smtp.process_outbox()
    assert states(simulation_with_smtp) == {"sam": ("pending", 1)}
    deliver_after(simulation_with_smtp, seconds=59)
    assert states(simulation_with_smtp) == {"sam": ("pending", 1)}
    deliver_after(simulation_with_smtp, seconds=1)
    assert states(simulation_with_smtp) == {"sam": ("pending", 2)}
    deliver_after(simulation_with_smtp, minutes=4, seconds=59)
    assert states(simulation_with_smtp) == {"sam": ("pending", 2)}
    for _ in range(10):
        deliver_after(simulation_with_smtp, hours=8)
    assert states(simulation_with_smtp) == {"sam": ("parked", 12)}
    (job,) = dead_jobs_waiting(simulation_with_smtp)
    assert (job.task, list(job.arguments)) == ("notices.deliver", ["notice_id"])
    mailbox.recipient_answer = lambda address: "250 OK"
    assert simulation_with_smtp.do("notices.deliver", **job.arguments)["effects"]["sent"] == 1
    assert states(simulation_with_smtp) == {"sam": ("sent", 1)}


def test_deferred_email_does_not_delay_others(simulation_with_smtp: Simulation, mailbox: Mailbox) -> None:
    mailbox.recipient_answer = lambda address: "450 greylisted" if address.startswith("sam") else "250 OK"
    enqueue("sam", "sue")
    simulation_with_smtp.process_outbox()
    assert states(simulation_with_smtp) == {"sam": ("pending", 1), "sue": ("sent", 1)}


def test_5xx_is_parked_at_once_and_visible(simulation_with_smtp: Simulation, mailbox: Mailbox) -> None:
    mailbox.recipient_answer = lambda address: "550 no such user"
    enqueue("sam")
    simulation_with_smtp.process_outbox()
    assert states(simulation_with_smtp) == {"sam": ("parked", 1)}
    assert "550" in dead_jobs_waiting(simulation_with_smtp)[0].error


def test_retry_after_a_lost_connection_has_the_same_message_id(
    simulation_with_smtp: Simulation, mailbox: Mailbox
) -> None:
    """So the mailbox can drop the duplicate."""
    mailbox.closes_after_data = True
    enqueue("sam")
    simulation_with_smtp.process_outbox()
    assert states(simulation_with_smtp) == {"sam": ("pending", 1)}
    mailbox.closes_after_data = False
    deliver_after(simulation_with_smtp, minutes=1)
    assert states(simulation_with_smtp) == {"sam": ("sent", 2)}
    assert len({m["Message-ID"] for m in mailbox.messages}) == 1
    assert len(mailbox.messages) == 2


def test_retry_after_a_worker_crash_has_the_same_message_id(simulation_with_smtp: Simulation, mailbox: Mailbox) -> None:
    class Dies:
        def __init__(self, behind: mailer.Mailer) -> None:
            self.behind = behind

        def send(self, emails: Sequence[OutgoingEmail]) -> list[Exception | None]:
            self.behind.send(emails)
            raise SystemExit(9)

    alive = mailer.current_mailer()
    enqueue("sam")
    mailer.set_mailer(Dies(alive))
    with pytest.raises(SystemExit):
        simulation_with_smtp.process_outbox()
    mailer.set_mailer(alive)
    deliver_after(simulation_with_smtp, minutes=9)
    assert len(mailbox.messages) == 1
    deliver_after(simulation_with_smtp, minutes=1)
    assert states(simulation_with_smtp) == {"sam": ("sent", 2)}
    assert len({m["Message-ID"] for m in mailbox.messages}) == 1


def test_hanging_server_costs_one_timeout_and_no_attempts_of_other_emails(
    simulation_with_smtp: Simulation, mailbox: Mailbox
) -> None:
    """R102: the round stops at the first timeout."""
    mailbox.hangs = threading.Event()
    enqueue("sam", "sue")
    simulation_with_smtp.process_outbox()
    assert states(simulation_with_smtp) == {"sam": ("pending", 1), "sue": ("pending", 0)}
    mailbox.hangs.set()
    mailbox.hangs = None
    deliver_after(simulation_with_smtp, minutes=1)
    assert states(simulation_with_smtp) == {"sam": ("sent", 2), "sue": ("sent", 1)}


def test_emails_wait_for_an_unreachable_server(simulation_with_smtp: Simulation) -> None:
    """R102: nothing is lost and nothing else waits."""
    alive = mailer.current_mailer()
    mailer.set_mailer(SmtpMailer(f"smtp://127.0.0.1:{free_port()}", BRANDING, timeout=0.5, pause=0))
    enqueue("sam")
    simulation_with_smtp.process_outbox()
    assert states(simulation_with_smtp) == {"sam": ("pending", 1)}
    mailer.set_mailer(alive)
    deliver_after(simulation_with_smtp, minutes=1)
    assert states(simulation_with_smtp) == {"sam": ("sent", 2)}


def test_unavailable_server_pauses_without_using_attempts(simulation_with_smtp: Simulation, mailbox: Mailbox) -> None:
    mailer.set_mailer(SmtpMailer(f"smtp://127.0.0.1:{free_port()}", BRANDING, timeout=0.5, pause=60))
    enqueue("sam")
    simulation_with_smtp.process_outbox()
    assert states(simulation_with_smtp) == {"sam": ("pending", 1)}
    for _ in range(20):
        deliver_after(simulation_with_smtp, minutes=5)
    assert states(simulation_with_smtp) == {"sam": ("pending", 1)}


def test_wrong_password_parks_no_email(simulation: Simulation, mailbox: Mailbox) -> None:
    """A 5xx about the login is not about the email; the reason must not contain the password."""

    def refuse_login(
        server: SMTP, session: Session, envelope: Received, mechanism: str, data: LoginPassword
    ) -> AuthResult:
        return AuthResult(success=False, handled=False)

    controller = Controller(
        mailbox,
        hostname="127.0.0.1",
        port=free_port(),
        authenticator=refuse_login,
        auth_require_tls=False,
    )
    controller.start()
    box = SmtpMailer(f"smtp://me:planted-secret@127.0.0.1:{controller.port}", BRANDING, timeout=2)
    (error,) = box.send([outgoing()])
    controller.stop()
    assert isinstance(error, mailer.ServerUnavailable)
    assert "planted-secret" not in str(error)


def test_server_without_encryption_gets_neither_password_nor_email(mailbox: Mailbox, server: Controller) -> None:
    box = SmtpMailer(f"smtp://me:planted-secret@127.0.0.1:{server.port}?starttls=1", BRANDING, timeout=2)
    (error,) = box.send([outgoing()])
    assert isinstance(error, mailer.ServerUnavailable)
    assert mailbox.messages == []


def test_emails_go_to_the_address_at_the_time_of_sending(simulation_with_smtp: Simulation, mailbox: Mailbox) -> None:
    mailbox.recipient_answer = lambda address: "450 later"
    enqueue("sam")
    simulation_with_smtp.process_outbox()
    mailbox.recipient_answer = lambda address: "250 OK"
    simulation_with_smtp.do("members.record", member_id="sam", handle="Samuel", email="new@example.org")
    deliver_after(simulation_with_smtp, minutes=1)
    assert mailbox.messages[0]["To"] == "Samuel <new@example.org>"


def test_notice_for_an_unknown_member_is_parked(simulation_with_smtp: Simulation) -> None:
    enqueue("ghost")
    simulation_with_smtp.process_outbox()
    assert states(simulation_with_smtp) == {"ghost": ("parked", 1)}


def outgoing(**changed: Any) -> OutgoingEmail:
    fields: dict[str, Any] = {
        "message_id": "0" * 32,
        "event": "ocr_filed",
        "order_id": 1003,
        "email": "sam@example.org",
        "handle": "Sam",
        "written_at": CREATED_AT,
        "content": EMAIL,
    }
    return OutgoingEmail(**(fields | changed))


def test_folder_has_each_email_once_and_complete(tmp_path: Path) -> None:
    box = FolderMailer(tmp_path / "mail", BRANDING)
    assert box.send([outgoing()]) == box.send([outgoing()]) == [None]
    (file,) = (tmp_path / "mail").iterdir()
    assert file.name == "20260404T100000Z-ocr_filed-000000000000.eml"
    assert file.stat().st_mode & 0o077 == 0
    message = email.message_from_bytes(file.read_bytes(), policy=default)
    assert message["Subject"] == EMAIL.subject


@pytest.mark.parametrize(
    "hostile",
    ["Sam\r\nBcc: all@example.org", "Sam\nX: y", "Sam\x00\x1b[31m", "Sam\u2028Bcc: x", "\u202emaS", '"Sam" <x@y.z>'],
)
def test_a_name_cannot_add_a_header(hostile: str) -> None:
    message = build_mime_message(
        outgoing(handle=hostile, content=Email(f"Order 1003: {hostile}", ("Hello.",))), BRANDING
    )
    again = email.message_from_bytes(message, policy=default)
    assert "Bcc" not in again
    assert "X" not in again
    assert [a.addr_spec for a in again["To"].addresses] == ["sam@example.org"]
    assert all(c.isprintable() for c in again["Subject"] + str(again["To"]))
    assert "\u202e" not in sanitize_mime_header(hostile)


@pytest.mark.parametrize(
    "address",
    ["", "sam", "@example.org", "sam@", "sam@@example.org", "sam@exa mple.org", "sam@example.org\nBcc: x@y.z",
     "sam@-example.org", "a" * 65 + "@example.org", "sam@" + "a." * 130 + "org", "sam@example..org", "<s@example.org>",
     "sam,sue@example.org", "sam@example.org,sue@example.org", "Sam <sam@example.org>", "sam@[127.0.0.1]"],
)  # fmt: skip
def test_invalid_addresses_are_undeliverable(address: str) -> None:
    with pytest.raises(UndeliverableEmail):
        encode_mime_address(address)


def test_an_international_domain_is_written_in_ascii() -> None:
    assert encode_mime_address("sam.o'neil+market@bücher.example") == "sam.o'neil+market@xn--bcher-kva.example"


@pytest.mark.parametrize("handle", ["Sam", "Sam, the “Brick” & Söhne", "S. O'Neil", "שם", "S" * 80])
def test_a_mail_reads_as_it_was_written(handle: str) -> None:
    """Names, dots, long and trailing spaces survive quoting and folding; no line is too long for a server."""
    paragraph = "x" * 1_500 + " ends. \n.\n. dot  =3D ü€👍"
    sent = outgoing(handle=handle, email="s.o'neil+a@bücher.example", content=Email(f"Ä{'b' * 90}", (paragraph,)))
    raw = build_mime_message(sent, BRANDING)
    assert raw.isascii()
    assert b"\n" not in raw.replace(b"\r\n", b"")
    assert max(map(len, raw.split(b"\r\n"))) < 90
    message = email.message_from_bytes(raw, policy=default)
    assert not message.defects
    (to,) = message["To"].addresses
    assert (to.display_name, to.addr_spec) == (sanitize_mime_header(handle), "s.o'neil+a@xn--bcher-kva.example")
    assert message["Subject"] == sent.content.subject
    assert message["Date"].datetime == CREATED_AT
    for subtype, body in (("plain", render_text_part(sent, BRANDING)), ("html", render_html_part(sent, BRANDING))):
        part = message.get_body((subtype,))
        assert part is not None
        assert part.get_content().replace("\r\n", "\n").rstrip("\n") == body.rstrip("\n")


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
    return SmtpMailer(server.url, BRANDING, timeout=30).send(emails)


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
