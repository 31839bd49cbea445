"""The two ways to send email: over SMTP, or as `.eml` files in a folder.

A 4xx answer is retried later and a 5xx answer parks the email.  When the server cannot be reached at all (no
connection, no answer in time, wrong password), the answer is not about this email, so all emails wait.
"""

from __future__ import annotations

import os
import re
import smtplib
import ssl
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from tasks.mailer import Mailer, OutgoingEmail, OutOfTime, ServerUnavailable
from workers.mail.mime_message import MailBranding, build_mime_message, encode_mail_address
from workers.mail.smtp_connection import (
    SmtpBatch,
    SmtpConnection,
    SmtpMessage,
    SmtpMessages,
    SmtpResults,
    describe_smtp_error,
)
from workers.settings import Settings


class SmtpMailer:
    """Sends email over SMTP, on a few connections per batch.  `url`: `smtp://user:password@host:587?starttls=1`."""

    RESPONSE_TIMEOUT_SECONDS = 10.0
    """Per answer of the server: a batch stays within `policies.notices.DELIVERY_LEASE` even if the server hangs."""
    RETRY_PAUSE_SECONDS = 40.0
    """Time before an unavailable server is tried again: a hanging one costs a process a fifth of its time."""
    MAX_BATCH_SECONDS = 10.0
    """Afterwards no further email of a batch is begun: a run ends before its process is killed for taking too long."""

    def __init__(
        self,
        url: str,
        branding: MailBranding,
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
        self._local_hostname: str | None = None  # looked up by the first connection only

    def send(self, emails: Sequence[OutgoingEmail]) -> list[Exception | None]:
        if time.monotonic() < self._paused_until:
            return [ServerUnavailable("the mail server was unavailable a moment ago", tried=False)] * len(emails)
        results: SmtpResults = {}
        left: Exception = OutOfTime("the mail server is slow")
        messages = SmtpMessages(self._build_messages(emails, results))
        try:
            SmtpBatch(messages, results, self._connect_smtp, self._timeout).send()
        except ServerUnavailable as error:
            self._paused_until = time.monotonic() + self._pause
            left = ServerUnavailable(str(error), tried=False)
        return [results.get(index, left) for index in range(len(emails))]

    def _build_messages(self, emails: Sequence[OutgoingEmail], results: SmtpResults) -> Iterator[SmtpMessage]:
        # Each is built when a connection needs it, while the server handles others.
        end = time.monotonic() + self.MAX_BATCH_SECONDS
        for index, email in enumerate(emails):
            if time.monotonic() > end:
                return
            try:
                yield SmtpMessage(index, encode_mail_address(email.email), build_mime_message(email, self._branding))
            except Exception as error:  # noqa: BLE001 - an email that cannot be built must not stop the others
                results[index] = error

    def _connect_smtp(self) -> SmtpConnection:
        url, host, port = self._url, self._url.hostname or "", self._url.port or 0
        if url.scheme == "smtps":
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                host, port, self._local_hostname, timeout=self._timeout, context=ssl.create_default_context()
            )
        else:
            server = smtplib.SMTP(host, port, self._local_hostname, timeout=self._timeout)
        self._local_hostname = server.local_hostname
        try:
            if self._starttls:
                server.starttls(context=ssl.create_default_context())
            if url.username:
                server.login(unquote(url.username), unquote(url.password or ""))
            server.ehlo_or_helo_if_needed()
        except BaseException:
            server.close()
            raise
        return SmtpConnection(server, self._branding.sender_address)


class FolderMailer:
    def __init__(self, directory: Path, branding: MailBranding) -> None:
        self._directory = directory
        self._branding = branding

    def send(self, emails: Sequence[OutgoingEmail]) -> list[Exception | None]:
        results: list[Exception | None] = []
        for email in emails:
            try:
                self._write_eml_file(email)
                results.append(None)
            except OSError as error:
                reason = f"the mail directory cannot be written: {describe_smtp_error(error)}"
                left = ServerUnavailable(reason, tried=False)
                return [*results, ServerUnavailable(reason), *[left] * (len(emails) - len(results) - 1)]
            except Exception as error:  # noqa: BLE001 - an email that cannot be built must not stop the others
                results.append(error)
        return results

    def _write_eml_file(self, email: OutgoingEmail) -> None:
        message = build_mime_message(email, self._branding)
        event = re.sub(r"[^a-z_]", "", email.event)
        name = f"{email.written_at:%Y%m%dT%H%M%SZ}-{event}-{email.message_id[:12]}.eml"
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Readable for the owner only: emails quote what members wrote to each other.
        descriptor, unfinished_email = tempfile.mkstemp(dir=self._directory, prefix=".", suffix=".part")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(message)
            Path(unfinished_email).replace(self._directory / name)
        except BaseException:
            Path(unfinished_email).unlink(missing_ok=True)
            raise


def mailer_from_settings(settings: Settings) -> Mailer:
    branding = MailBranding(settings.mail_from, settings.site_name, settings.marketplace_url)
    if settings.smtp_url is None:
        return FolderMailer(settings.mail_dir, branding)
    return SmtpMailer(settings.smtp_url.get_secret_value(), branding)
