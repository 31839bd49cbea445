"""The sender of emails over SMTP: its connections to the mail server, and batches sent over a few of them.

A 4xx answer is retried later and a 5xx answer parks the email.  When the server cannot be reached at all (no
connection, no answer in time, wrong password), the answer is not about this email, so all emails wait.

Where the server takes PIPELINING (RFC 2920) the content of one email and the envelope of the next travel together, so
an email costs one round trip instead of four.
"""

from __future__ import annotations

import contextlib
import smtplib
import ssl
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from time import monotonic
from typing import NamedTuple, NoReturn
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from policies.emails.email import sanitize_email_line
from tasks.mailer import MailerOutOfTime, OutgoingEmail, ServerUnavailable, TemporaryFailure, UndeliverableEmail
from workers.mail.mime_message import MailBranding, build_mime_message, encode_mime_address

MAX_CONNECTIONS = 4
"""Of one process: while the server stores one email, others are under way."""
MAX_EMAILS = 100
"""Emails of one connection; servers limit them."""
MIN_SMTP_TIMEOUT_SECONDS = 0.1
"""For SMTP replies that have arrived when the time is up."""
SERVICE_CLOSING = 421
"""The one 4xx code that is about the server, not about the email."""


class SmtpMailer:
    """Sends email over SMTP, on a few connections per batch.  `url`: `smtp://user:password@host:587?starttls=1`."""

    RESPONSE_TIMEOUT_SECONDS = 10.0
    """Per answer of the server: a batch stays within `policies.notices.DELIVERY_LEASE` even if the server hangs."""
    RETRY_PAUSE_SECONDS = 40.0
    """Time before an unavailable server is tried again: a hanging one costs a process a fifth of its time."""
    MAX_BATCH_SECONDS = 10.0
    """Afterwards no further email of a batch is begun: a run ends before its process is killed for taking too long."""

    def __init__(self, url: str, branding: MailBranding) -> None:
        self._url = urlsplit(url)
        self._branding = branding
        self._paused_until = 0.0
        self._local_hostname: str | None = None  # looked up by the first connection only

    def send(self, emails: Sequence[OutgoingEmail]) -> list[Exception | None]:
        if monotonic() < self._paused_until:
            return [ServerUnavailable("the mail server was unavailable a moment ago", tried=False)] * len(emails)
        results: SmtpResults = {}
        left: Exception = MailerOutOfTime("the mail server is slow")
        try:
            SmtpBatch(self, self._build_messages(emails, results), results).send()
        except ServerUnavailable as error:
            self._paused_until = monotonic() + self.RETRY_PAUSE_SECONDS
            left = ServerUnavailable(str(error), tried=False)
        return [results.get(index, left) for index in range(len(emails))]

    def _build_messages(self, emails: Sequence[OutgoingEmail], results: SmtpResults) -> Iterator[SmtpMessage]:
        # Each is built when a connection needs it, while the server handles others.
        end = monotonic() + self.MAX_BATCH_SECONDS
        for index, email in enumerate(emails):
            if monotonic() > end:
                return
            try:
                yield SmtpMessage(index, encode_mime_address(email.email), build_mime_message(email, self._branding))
            except Exception as error:  # noqa: BLE001 - an email that cannot be built must not stop the others
                results[index] = error

    def connect(self) -> SmtpConnection:
        url, server = self._url, open_smtp(self._url, self.RESPONSE_TIMEOUT_SECONDS, self._local_hostname)
        self._local_hostname = server.local_hostname
        try:
            if requires_starttls(url):
                server.starttls(context=ssl.create_default_context())
            if url.username:
                server.login(unquote(url.username), unquote(url.password or ""))
            server.ehlo_or_helo_if_needed()
        except BaseException:
            server.close()
            raise
        return SmtpConnection(server, self._branding.sender_address)


class SmtpMessage(NamedTuple):
    number: int
    recipient: str
    content: bytes


SmtpResults = dict[int, Exception | None]
"""By the number of the message: None if the server took it."""


class SmtpConnection:
    """`begin`, `write` and `read` are one exchange; many connections write before the first of them reads.

    `unanswered` are messages without a result. The content of the first has been sent if `is_in_doubt`.
    """

    def __init__(self, server: smtplib.SMTP, sender: str) -> None:
        self._server, self._sender = server, smtplib.quoteaddr(sender)
        self._pipelining, self._states_size = server.has_extn("pipelining"), server.has_extn("size")
        self._commands: deque[tuple[str, bytes]] = deque()
        self._written: list[str] = []
        self._accepted: SmtpMessage | None = None
        self._refusal: Exception | None = None
        self._begun = 0
        self.unanswered: list[SmtpMessage] = []
        self.is_in_doubt = False
        self.has_delivered = False

    def begin(self, messages: Iterator[SmtpMessage]) -> bool:
        if self._commands:
            return True
        if self._accepted is not None:
            content = self._accepted.content.replace(b"\r\n.", b"\r\n..")
            self._commands.append(("content", content + b".\r\n"))
            self._accepted = None
        if self._begun < MAX_EMAILS and (message := next(messages, None)) is not None:
            self._begun += 1
            self._refusal = None
            self.unanswered.append(message)
            size = f" SIZE={len(message.content)}" if self._states_size else ""
            self._commands += [
                ("mail", f"MAIL FROM:{self._sender}{size}\r\n".encode()),
                ("rcpt", f"RCPT TO:<{message.recipient}>\r\n".encode()),
                ("data", b"DATA\r\n"),
            ]
        return bool(self._commands)

    def write(self) -> None:
        commands = [self._commands.popleft() for _ in range(len(self._commands) if self._pipelining else 1)]
        self._written = [kind for kind, _ in commands]
        self.is_in_doubt = "content" in self._written
        self._server.send(b"".join(command for _, command in commands))

    def read(self, until: float, results: SmtpResults) -> None:
        for kind in self._written:
            if self._server.sock is not None:
                self._server.sock.settimeout(max(MIN_SMTP_TIMEOUT_SECONDS, until - monotonic()))
            code, text = self._server.getreply()
            if code == SERVICE_CLOSING:
                raise smtplib.SMTPResponseException(code, text)
            self._take_reply(kind, code, text, results)

    def _take_reply(self, kind: str, code: int, text: bytes, results: SmtpResults) -> None:
        if kind == "content":
            self.is_in_doubt, self.has_delivered = False, True
            results[self.unanswered.pop(0).number] = None if 200 <= code < 300 else _smtp_reply_error(code, text)
        elif kind in ("mail", "rcpt"):
            if not 200 <= code < 300:
                self._refusal = self._refusal or _smtp_reply_error(code, text)
        elif kind == "data":
            if self._refusal is None and code == 354:
                self._accepted = self.unanswered[-1]
            else:
                results[self.unanswered.pop().number] = self._refusal or _smtp_reply_error(code, text)
                # A server that asks for the content of an email without recipient gets an empty one (RFC 2920, 3.1).
                self._commands.append(("reset", b".\r\n" if code == 354 else b"RSET\r\n"))

    def close(self) -> None:
        if not self.unanswered:  # otherwise the server would take QUIT for content, or not answer
            with contextlib.suppress(OSError, smtplib.SMTPException):
                self._server.quit()
        self._server.close()


class SmtpBatch:
    """Messages on their way.

    In a round every connection writes before the first one reads. Another connection is opened after each round, so a
    server that hangs from the start has one email.
    """

    def __init__(self, mailer: SmtpMailer, messages: Iterator[SmtpMessage], results: SmtpResults) -> None:
        self._mailer, self._messages, self._results = mailer, messages, results
        self._connections: list[SmtpConnection] = []
        self._max_connections = MAX_CONNECTIONS

    def send(self) -> None:
        """Send the messages.  Raises ServerUnavailable; its message has a result, those that follow have none."""
        try:
            while True:
                if len(self._connections) < self._max_connections and (message := next(self._messages, None)):
                    self._messages = chain([message], self._messages)
                    self._open_another(message)
                busy = [connection for connection in self._connections if connection.begin(self._messages)]
                for connection in [c for c in self._connections if c not in busy]:
                    self._close(connection)
                if not busy:
                    return
                self._exchange_smtp(busy)
        finally:
            for connection in list(self._connections):
                self._close(connection)

    def _open_another(self, first: SmtpMessage) -> None:
        try:
            self._connections.append(self._mailer.connect())
        except (OSError, smtplib.SMTPException) as error:
            if not self._connections:
                self._fail_message(first, f"the mail server cannot be reached: {describe_smtp_error(error)}")
            self._max_connections = len(self._connections)  # servers limit the connections of a client

    def _exchange_smtp(self, connections: Sequence[SmtpConnection]) -> None:
        until = monotonic() + self._mailer.RESPONSE_TIMEOUT_SECONDS
        lost: dict[SmtpConnection, Exception] = {}
        for exchange in (SmtpConnection.write, partial(SmtpConnection.read, until=until, results=self._results)):
            for connection in connections:
                if connection not in lost:
                    try:
                        exchange(connection)
                    except (OSError, smtplib.SMTPException) as error:
                        lost[connection] = error
        for connection in lost:
            self._close(connection)
        for connection, cause in lost.items():
            # The server allows no more connections, or no more emails over this one: others send its messages.
            if not connection.is_in_doubt and (self._connections or connection.has_delivered):
                self._max_connections = max(1, len(self._connections))
                self._messages = chain(connection.unanswered, self._messages)
                continue
            closing = isinstance(cause, smtplib.SMTPResponseException) and cause.smtp_code == SERVICE_CLOSING
            event = "is closing" if closing else "closed the connection"
            self._fail_message(connection.unanswered[0], f"the mail server {event}: {describe_smtp_error(cause)}")

    def _fail_message(self, message: SmtpMessage, reason: str) -> NoReturn:
        error = ServerUnavailable(reason)
        self._results[message.number] = error
        raise error

    def _close(self, connection: SmtpConnection) -> None:
        self._connections.remove(connection)
        connection.close()


def open_smtp(url: SplitResult, timeout: float, local_hostname: str | None = None) -> smtplib.SMTP:
    host, port = url.hostname or "", url.port or 0
    if url.scheme == "smtps":
        tls = ssl.create_default_context()
        return smtplib.SMTP_SSL(host, port, local_hostname, timeout=timeout, context=tls)
    return smtplib.SMTP(host, port, local_hostname, timeout=timeout)


def requires_starttls(url: SplitResult) -> bool:
    return parse_qs(url.query).get("starttls", ["0"])[-1] in ("1", "true", "yes")


def describe_smtp_error(error: Exception) -> str:
    """Describe an error without the server's text, which may echo a password."""
    if isinstance(error, smtplib.SMTPResponseException):
        return f"{type(error).__name__} {error.smtp_code}"
    return f"{type(error).__name__}{f' {error.strerror}' if isinstance(error, OSError) and error.strerror else ''}"


def _smtp_reply_error(code: int, text: bytes) -> Exception:
    reply = f"{code} {sanitize_email_line(text.decode('utf-8', 'replace'), 200)}"
    if 500 <= code < 600:
        return UndeliverableEmail(f"the mail server rejected the email: {reply}")
    return TemporaryFailure(f"the mail server deferred the email: {reply}")
