"""Tests of deliveries by an SMTP server that accepts, refuses, hangs or closes: retries, pauses, parked notices."""

from __future__ import annotations

import asyncio
import email
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from email.message import EmailMessage
from email.policy import default
from typing import Any, cast

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword, Session
from aiosmtpd.smtp import Envelope as Received

from models import dead_jobs
from models.notices import NoticeRow
from models.unit_of_work import unit_of_work
from policies.verdicts import OutboxMessage
from tasks import mailer
from tasks.mailer import OutgoingEmail
from tasks.process_services import services
from tests.plugins.stored_rows import load_rows
from tests.workers.mail.emails import BRANDING, CREATED_AT, outgoing
from workers.embedded.data_dir import free_port
from workers.mail.smtp import SmtpMailer
from workers.simulation.engine import Simulation


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


@pytest.fixture(autouse=True)
def impatient_mailer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SmtpMailer, "RESPONSE_TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(SmtpMailer, "RETRY_PAUSE_SECONDS", 0.0)


@pytest.fixture
def simulation_with_smtp(simulation: Simulation, server: Controller) -> Iterator[Simulation]:
    simulation.clock.instant = CREATED_AT
    for name in ("sam", "sue"):
        answer = simulation.do("members.record", member_id=name, handle=name.title(), email=f"{name}@example.org")
        assert answer["outcome"] == "done"
    services.mailer = SmtpMailer(f"smtp://127.0.0.1:{server.port}", BRANDING)
    yield simulation
    services.mailer = None


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
        return {notice.recipient: (notice.state, notice.attempts) for notice in load_rows(conn, NoticeRow)}


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

    alive = services.mailer
    assert alive is not None
    enqueue("sam")
    services.mailer = Dies(alive)
    with pytest.raises(SystemExit):
        simulation_with_smtp.process_outbox()
    services.mailer = alive
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
    alive = services.mailer
    services.mailer = SmtpMailer(f"smtp://127.0.0.1:{free_port()}", BRANDING)
    enqueue("sam")
    simulation_with_smtp.process_outbox()
    assert states(simulation_with_smtp) == {"sam": ("pending", 1)}
    services.mailer = alive
    deliver_after(simulation_with_smtp, minutes=1)
    assert states(simulation_with_smtp) == {"sam": ("sent", 2)}


def test_unavailable_server_pauses_without_using_attempts(
    simulation_with_smtp: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SmtpMailer, "RETRY_PAUSE_SECONDS", 60.0)
    services.mailer = SmtpMailer(f"smtp://127.0.0.1:{free_port()}", BRANDING)
    enqueue("sam")
    simulation_with_smtp.process_outbox()
    assert states(simulation_with_smtp) == {"sam": ("pending", 1)}
    for _ in range(20):
        deliver_after(simulation_with_smtp, minutes=5)
    assert states(simulation_with_smtp) == {"sam": ("pending", 1)}


def test_wrong_password_parks_no_email(
    simulation: Simulation, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    monkeypatch.setattr(SmtpMailer, "RESPONSE_TIMEOUT_SECONDS", 2.0)
    box = SmtpMailer(f"smtp://me:planted-secret@127.0.0.1:{controller.port}", BRANDING)
    (error,) = box.send([outgoing()])
    controller.stop()
    assert isinstance(error, mailer.ServerUnavailable)
    assert "planted-secret" not in str(error)


def test_server_without_encryption_gets_neither_password_nor_email(
    mailbox: Mailbox, server: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SmtpMailer, "RESPONSE_TIMEOUT_SECONDS", 2.0)
    box = SmtpMailer(f"smtp://me:planted-secret@127.0.0.1:{server.port}?starttls=1", BRANDING)
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
