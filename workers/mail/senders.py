"""The two ways to send email: over SMTP, or as `.eml` files in a folder.

A 4xx answer is retried later and a 5xx answer parks the email.  When the server cannot be reached at all (no
connection, no answer in time, wrong password), the answer is not about this email, so all emails wait.
"""

from __future__ import annotations

import contextlib
import os
import re
import smtplib
import ssl
import tempfile
import time
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from policies.emails.email import sanitize_line
from tasks.mailer import Mailer, OutgoingEmail, ServerUnavailable, TemporaryFailure, Undeliverable
from workers.mail.mime_message import Branding, build_mail, encode_address
from workers.settings import Settings

RESPONSE_TIMEOUT_SECONDS = 10.0
"""Per server answer: a batch stays within its lease (`policies.notices.DELIVERY_LEASE`) even if the server hangs."""
RETRY_PAUSE_SECONDS = 40.0
"""Time before an unavailable server is tried again: a hanging one costs a process a fifth of its time."""
SERVICE_CLOSING = 421
"""The one 4xx code that is about the server, not about the email."""


class SmtpMailer:
    """Sends email over SMTP, one connection per batch.  `url`: `smtp://user:password@host:587?starttls=1`."""

    def __init__(
        self,
        url: str,
        branding: Branding,
        *,
        timeout: float = RESPONSE_TIMEOUT_SECONDS,
        pause: float = RETRY_PAUSE_SECONDS,
    ) -> None:
        self._url = urlsplit(url)
        self._starttls = parse_qs(self._url.query).get("starttls", ["0"])[-1] in ("1", "true", "yes")
        self._branding = branding
        self._timeout = timeout
        self._pause = pause
        self._paused_until = 0.0
        self._server: smtplib.SMTP | None = None

    def send(self, envelope: OutgoingEmail) -> None:
        message = build_mail(envelope, self._branding)
        recipient = encode_address(envelope.email)
        if time.monotonic() < self._paused_until:
            raise ServerUnavailable("the mail server was unavailable a moment ago", tried=False)
        try:
            server = self._connected()
        except (OSError, smtplib.SMTPException) as error:
            raise self._unavailable(f"the mail server cannot be reached: {_summarize_smtp_error(error)}") from error
        try:
            server.send_message(message, self._branding.sender_address, [recipient])
        except smtplib.SMTPRecipientsRefused as error:
            code, answer = next(iter(error.recipients.values()))
            self._raise_for_code(code, answer, error)
        except smtplib.SMTPResponseException as error:
            self._raise_for_code(error.smtp_code, error.smtp_error, error)
        except (OSError, smtplib.SMTPException) as error:
            raise self._unavailable(f"the mail server closed the connection: {_summarize_smtp_error(error)}") from error

    def close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            with contextlib.suppress(OSError, smtplib.SMTPException):
                server.quit()
            server.close()

    def _connected(self) -> smtplib.SMTP:
        if self._server is not None:
            return self._server
        url = self._url
        host, port = url.hostname or "", url.port or 0
        if url.scheme == "smtps":
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                host, port, timeout=self._timeout, context=ssl.create_default_context()
            )
        else:
            server = smtplib.SMTP(host, port, timeout=self._timeout)
        self._server = server
        if self._starttls:
            server.starttls(context=ssl.create_default_context())
        if url.username:
            server.login(unquote(url.username), unquote(url.password or ""))
        return server

    def _unavailable(self, reason: str) -> ServerUnavailable:
        self._paused_until = time.monotonic() + self._pause
        server, self._server = self._server, None
        if server is not None:
            server.close()  # no QUIT: that would wait for an answer once more
        return ServerUnavailable(reason)

    def _raise_for_code(self, code: int, answer: bytes | str, error: Exception) -> None:
        reply = (
            f"{code} {sanitize_line(answer.decode('utf-8', 'replace') if isinstance(answer, bytes) else answer, 200)}"
        )
        if code == SERVICE_CLOSING:
            raise self._unavailable(f"the mail server is closing: {reply}") from error
        if 500 <= code < 600:
            raise Undeliverable(f"the mail server rejected the email: {reply}") from error
        raise TemporaryFailure(f"the mail server deferred the email: {reply}") from error


class FolderMailer:
    """Writes each email as an `.eml` file.  Sending an email again overwrites its file."""

    def __init__(self, directory: Path, branding: Branding) -> None:
        self._directory = directory
        self._branding = branding

    def send(self, envelope: OutgoingEmail) -> None:
        message = build_mail(envelope, self._branding)
        event = re.sub(r"[^a-z_]", "", envelope.event)
        name = f"{envelope.written_at:%Y%m%dT%H%M%SZ}-{event}-{envelope.message_id[:12]}.eml"
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Readable for the owner only: emails quote what members wrote to each other.
            descriptor, unfinished_email = tempfile.mkstemp(dir=self._directory, prefix=".", suffix=".part")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(message.as_bytes())
                Path(unfinished_email).replace(self._directory / name)
            except BaseException:
                Path(unfinished_email).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise ServerUnavailable(f"the mail directory cannot be written: {_summarize_smtp_error(error)}") from error

    def close(self) -> None: ...


def mailer_from_settings(settings: Settings) -> Mailer:
    branding = Branding(settings.mail_from, settings.site_name, settings.marketplace_url)
    if settings.smtp_url is None:
        return FolderMailer(settings.mail_dir, branding)
    return SmtpMailer(settings.smtp_url.get_secret_value(), branding)


def _summarize_smtp_error(error: Exception) -> str:
    # Describe the error without the server's text, which may echo a password.
    if isinstance(error, smtplib.SMTPResponseException):
        return f"{type(error).__name__} {error.smtp_code}"
    return f"{type(error).__name__}{f' {error.strerror}' if isinstance(error, OSError) and error.strerror else ''}"
