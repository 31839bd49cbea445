"""Tests of sending email to servers that accept, refuse, hang or close, and to a folder."""

from __future__ import annotations

import asyncio
import email
import socket
import threading
from collections.abc import Callable, Iterator
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
from models.unit_of_work import UnitOfWork, unit_of_work
from policies.emails.email import Email, Quote
from policies.verdicts import OutboxMessage
from tasks import mailer
from tasks.mailer import OutgoingEmail, Undeliverable
from workers.mail.mime_message import Branding, build_mail, encode_address, sanitize_header
from workers.mail.senders import FolderMailer, SmtpMailer
from workers.simulation.engine import Simulation

BRANDING = Branding("Unwind <no-reply@market.example>", "the brick market", "https://market.example")
CREATED_AT = datetime(2026, 4, 4, 10, tzinfo=UTC)
EMAIL = Email("Order 1003: the buyer asks to cancel", ("The buyer asks to cancel.",), Quote("The buyer", "Sorry."))


def free_port() -> int:
    """A free port: aiosmtpd connects to the given port at start, so 0 does not work."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


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
def sam(simulation: Simulation, server: Controller) -> Iterator[Simulation]:
    simulation.clock.instant = CREATED_AT
    for name in ("sam", "sue"):
        answer = simulation.do("members.record", member_id=name, handle=name.title(), email=f"{name}@example.org")
        assert answer["outcome"] == "done"
    mailer.set_mailer(SmtpMailer(f"smtp://127.0.0.1:{server.port}", BRANDING, timeout=0.5, pause=0))
    yield simulation
    mailer.set_mailer(None)


def enqueue(*recipients: str) -> None:
    work: UnitOfWork[Any]
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


def test_sent_email_is_marked_and_never_sent_again(sam: Simulation, mailbox: Mailbox) -> None:
    enqueue("sam")
    sam.process_outbox()
    deliver_after(sam, days=1)
    assert states(sam) == {"sam": ("sent", 1)}
    assert [m["To"] for m in mailbox.messages] == ["Sam <sam@example.org>"]
    assert mailbox.messages[0]["Auto-Submitted"] == "auto-generated"
    assert {part.get_content_type() for part in mailbox.messages[0].walk()} == {
        "multipart/alternative",
        "text/plain",
        "text/html",
    }


def test_4xx_is_retried_with_growing_delays_then_parked(sam: Simulation, mailbox: Mailbox) -> None:
    """R102: over hours, and visible when given up."""
    mailbox.recipient_answer = lambda address: "450 try again"
    enqueue("sam")
    sam.process_outbox()
    assert states(sam) == {"sam": ("pending", 1)}
    deliver_after(sam, seconds=59)
    assert states(sam) == {"sam": ("pending", 1)}
    deliver_after(sam, seconds=1)
    assert states(sam) == {"sam": ("pending", 2)}
    deliver_after(sam, minutes=4, seconds=59)
    assert states(sam) == {"sam": ("pending", 2)}
    for _ in range(10):
        deliver_after(sam, hours=8)
    assert states(sam) == {"sam": ("parked", 12)}
    (job,) = dead_jobs_waiting(sam)
    assert (job.task, list(job.arguments)) == ("notices.deliver", ["notice_id"])
    mailbox.recipient_answer = lambda address: "250 OK"
    assert sam.do("notices.deliver", **job.arguments)["effects"]["sent"] == 1
    assert states(sam) == {"sam": ("sent", 1)}


def test_deferred_email_does_not_delay_others(sam: Simulation, mailbox: Mailbox) -> None:
    mailbox.recipient_answer = lambda address: "450 greylisted" if address.startswith("sam") else "250 OK"
    enqueue("sam", "sue")
    sam.process_outbox()
    assert states(sam) == {"sam": ("pending", 1), "sue": ("sent", 1)}


def test_5xx_is_parked_at_once_and_visible(sam: Simulation, mailbox: Mailbox) -> None:
    mailbox.recipient_answer = lambda address: "550 no such user"
    enqueue("sam")
    sam.process_outbox()
    assert states(sam) == {"sam": ("parked", 1)}
    assert "550" in dead_jobs_waiting(sam)[0].error


def test_retry_after_a_lost_connection_has_the_same_message_id(sam: Simulation, mailbox: Mailbox) -> None:
    """So the mailbox can drop the duplicate."""
    mailbox.closes_after_data = True
    enqueue("sam")
    sam.process_outbox()
    assert states(sam) == {"sam": ("pending", 1)}
    mailbox.closes_after_data = False
    deliver_after(sam, minutes=1)
    assert states(sam) == {"sam": ("sent", 2)}
    assert len({m["Message-ID"] for m in mailbox.messages}) == 1
    assert len(mailbox.messages) == 2


def test_retry_after_a_worker_crash_has_the_same_message_id(sam: Simulation, mailbox: Mailbox) -> None:
    class Dies:
        def __init__(self, behind: mailer.Mailer) -> None:
            self.behind = behind

        def send(self, envelope: OutgoingEmail) -> None:
            self.behind.send(envelope)
            raise SystemExit(9)

        def close(self) -> None:
            self.behind.close()

    alive = mailer.current_mailer()
    enqueue("sam")
    mailer.set_mailer(Dies(alive))
    with pytest.raises(SystemExit):
        sam.process_outbox()
    mailer.set_mailer(alive)
    deliver_after(sam, minutes=9)
    assert len(mailbox.messages) == 1
    deliver_after(sam, minutes=1)
    assert states(sam) == {"sam": ("sent", 2)}
    assert len({m["Message-ID"] for m in mailbox.messages}) == 1


def test_hanging_server_costs_one_timeout_and_no_attempts_of_other_emails(sam: Simulation, mailbox: Mailbox) -> None:
    """R102: the round stops at the first timeout."""
    mailbox.hangs = threading.Event()
    enqueue("sam", "sue")
    sam.process_outbox()
    assert states(sam) == {"sam": ("pending", 1), "sue": ("pending", 0)}
    mailbox.hangs.set()
    mailbox.hangs = None
    deliver_after(sam, minutes=1)
    assert states(sam) == {"sam": ("sent", 2), "sue": ("sent", 1)}


def test_emails_wait_for_an_unreachable_server(sam: Simulation) -> None:
    """R102: nothing is lost and nothing else waits."""
    alive = mailer.current_mailer()
    mailer.set_mailer(SmtpMailer(f"smtp://127.0.0.1:{free_port()}", BRANDING, timeout=0.5, pause=0))
    enqueue("sam")
    sam.process_outbox()
    assert states(sam) == {"sam": ("pending", 1)}
    mailer.set_mailer(alive)
    deliver_after(sam, minutes=1)
    assert states(sam) == {"sam": ("sent", 2)}


def test_unavailable_server_pauses_without_using_attempts(sam: Simulation, mailbox: Mailbox) -> None:
    mailer.set_mailer(SmtpMailer(f"smtp://127.0.0.1:{free_port()}", BRANDING, timeout=0.5, pause=60))
    enqueue("sam")
    sam.process_outbox()
    assert states(sam) == {"sam": ("pending", 1)}
    for _ in range(20):
        deliver_after(sam, minutes=5)
    assert states(sam) == {"sam": ("pending", 1)}


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
    with pytest.raises(mailer.ServerUnavailable) as caught:
        box.send(outgoing())
    controller.stop()
    assert "planted-secret" not in str(caught.value)


def test_server_without_encryption_gets_neither_password_nor_email(mailbox: Mailbox, server: Controller) -> None:
    box = SmtpMailer(f"smtp://me:planted-secret@127.0.0.1:{server.port}?starttls=1", BRANDING, timeout=2)
    with pytest.raises(mailer.ServerUnavailable):
        box.send(outgoing())
    assert mailbox.messages == []


def test_emails_go_to_the_address_at_the_time_of_sending(sam: Simulation, mailbox: Mailbox) -> None:
    mailbox.recipient_answer = lambda address: "450 later"
    enqueue("sam")
    sam.process_outbox()
    mailbox.recipient_answer = lambda address: "250 OK"
    sam.do("members.record", member_id="sam", handle="Samuel", email="new@example.org")
    deliver_after(sam, minutes=1)
    assert mailbox.messages[0]["To"] == "Samuel <new@example.org>"


def test_notice_for_an_unknown_member_is_parked(sam: Simulation) -> None:
    enqueue("ghost")
    sam.process_outbox()
    assert states(sam) == {"ghost": ("parked", 1)}


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
    box.send(outgoing())
    box.send(outgoing())
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
    message = build_mail(outgoing(handle=hostile, content=Email(f"Order 1003: {hostile}", ("Hello.",))), BRANDING)
    again = email.message_from_bytes(message.as_bytes(), policy=default)
    assert "Bcc" not in again
    assert "X" not in again
    assert [a.addr_spec for a in again["To"].addresses] == ["sam@example.org"]
    assert all(c.isprintable() for c in again["Subject"] + str(again["To"]))
    assert "\u202e" not in sanitize_header(hostile)


@pytest.mark.parametrize(
    "address",
    ["", "sam", "@example.org", "sam@", "sam@@example.org", "sam@exa mple.org", "sam@example.org\nBcc: x@y.z",
     "sam@-example.org", "a" * 65 + "@example.org", "sam@" + "a." * 130 + "org", "sam@example..org", "<s@example.org>",
     "sam,sue@example.org", "sam@example.org,sue@example.org", "Sam <sam@example.org>", "sam@[127.0.0.1]"],
)  # fmt: skip
def test_invalid_addresses_are_undeliverable(address: str) -> None:
    with pytest.raises(Undeliverable):
        encode_address(address)


def test_an_international_domain_is_written_in_ascii() -> None:
    assert encode_address("sam.o'neil+market@bücher.example") == "sam.o'neil+market@xn--bcher-kva.example"
