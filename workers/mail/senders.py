"""By which way does a letter leave the house?  To a mail server, or as a file into a folder where there is none.

What a mail server says decides what becomes of a letter: 4xx is tried again, 5xx is parked.  A server that cannot be
talked to at all (no connection, no answer in time, wrong password) says nothing about the letter: all letters wait.
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
from workers.mail.templates import Branding, build_mail, encode_address
from workers.settings import Settings

RESPONSE_TIMEOUT_SECONDS = 10.0
"""Seconds for each answer of the server: a round of letters stays well within its lease even when it starts to hang."""
RETRY_PAUSE_SECONDS = 40.0
"""Seconds in which a server that was silent is not asked again: while it hangs, a process gives it a fifth of its time."""
SERVICE_CLOSING = 421
"""The one 4xx that is about the server, not about the letter."""


class SmtpMailer:
    """Hands letters to a mail server, one connection a round.  `url` as `smtp://user:password@host:587?starttls=1`."""

    def __init__(
        self,
        url: str,
        stationery: Branding,
        *,
        timeout: float = RESPONSE_TIMEOUT_SECONDS,
        pause: float = RETRY_PAUSE_SECONDS,
    ) -> None:
        self._url = urlsplit(url)
        self._starttls = parse_qs(self._url.query).get("starttls", ["0"])[-1] in ("1", "true", "yes")
        self._stationery = stationery
        self._timeout = timeout
        self._pause = pause
        self._paused_until = 0.0
        self._server: smtplib.SMTP | None = None

    def send(self, envelope: OutgoingEmail) -> None:
        """Hand one letter over.  Raises `Undeliverable`, `TryLater` or `ServerSilent`."""
        message = build_mail(envelope, self._stationery)
        recipient = encode_address(envelope.email)
        if time.monotonic() < self._paused_until:
            raise ServerUnavailable("the mail server was silent a moment ago", tried=False)
        try:
            server = self._connected()
        except (OSError, smtplib.SMTPException) as error:
            raise self._silent(f"no mail server to talk to: {_said(error)}") from error
        try:
            server.send_message(message, self._stationery.sender_address, [recipient])
        except smtplib.SMTPRecipientsRefused as error:
            code, answer = next(iter(error.recipients.values()))
            self._judge(code, answer, error)
        except smtplib.SMTPResponseException as error:
            self._judge(error.smtp_code, error.smtp_error, error)
        except (OSError, smtplib.SMTPException) as error:
            raise self._silent(f"the mail server broke off: {_said(error)}") from error

    def close(self) -> None:
        """Give the connection back."""
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

    def _silent(self, reason: str) -> ServerUnavailable:
        """Give the connection up and the server time."""
        self._paused_until = time.monotonic() + self._pause
        server, self._server = self._server, None
        if server is not None:
            server.close()  # no QUIT: that would wait for an answer once more
        return ServerUnavailable(reason)

    def _judge(self, code: int, answer: bytes | str, error: Exception) -> None:
        said = (
            f"{code} {sanitize_line(answer.decode('utf-8', 'replace') if isinstance(answer, bytes) else answer, 200)}"
        )
        if code == SERVICE_CLOSING:
            raise self._silent(f"the mail server is closing: {said}") from error
        if 500 <= code < 600:
            raise Undeliverable(f"the mail server refused it for good: {said}") from error
        raise TemporaryFailure(f"the mail server did not take it now: {said}") from error


class FolderMailer:
    """Writes each letter as an `.eml` file.  The same letter is the same file, however often it is sent."""

    def __init__(self, folder: Path, stationery: Branding) -> None:
        self._folder = folder
        self._stationery = stationery

    def send(self, envelope: OutgoingEmail) -> None:
        """Write the file whole or not at all.  Raises `Undeliverable`, or `ServerSilent` if it cannot."""
        message = build_mail(envelope, self._stationery)
        event = re.sub(r"[^a-z_]", "", envelope.event)
        name = f"{envelope.written_at:%Y%m%dT%H%M%SZ}-{event}-{envelope.message_id[:12]}.eml"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Readable for the owner only: letters quote what members wrote to each other.
            descriptor, unfinished = tempfile.mkstemp(dir=self._folder, prefix=".", suffix=".part")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(message.as_bytes())
                Path(unfinished).replace(self._folder / name)
            except BaseException:
                Path(unfinished).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise ServerUnavailable(f"the mail folder cannot be written: {_said(error)}") from error

    def close(self) -> None:
        """Nothing to give back."""


def mailer_from_settings(settings: Settings) -> Mailer:
    """The postbox that the settings ask for."""
    stationery = Branding(settings.mail_from, settings.site_name, settings.marketplace_url)
    if settings.smtp_url is None:
        return FolderMailer(settings.mail_dir, stationery)
    return SmtpMailer(settings.smtp_url.get_secret_value(), stationery)


def _said(error: Exception) -> str:
    """What kind of trouble, without what a server may echo of passwords."""
    if isinstance(error, smtplib.SMTPResponseException):
        return f"{type(error).__name__} {error.smtp_code}"
    return f"{type(error).__name__}{f' {error.strerror}' if isinstance(error, OSError) and error.strerror else ''}"
