"""The interface to the mailer of a process, with its errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from policies.emails.email import Email


@dataclass(frozen=True, slots=True)
class OutgoingEmail:
    """One email and its recipient. `message_id` is the same at every attempt, so that mailboxes can drop duplicates."""

    message_id: str
    event: str
    order_id: int | None
    email: str
    handle: str
    written_at: datetime
    content: Email


class UndeliverableEmail(Exception):
    """The email was rejected permanently (5xx); a retry would not help."""


class TemporaryFailure(Exception):
    """The email was rejected for now (4xx); others may be accepted."""


class ServerUnavailable(TemporaryFailure):
    """The mail server does not respond, so no other email needs to be attempted.

    `tried` is False if this email was not attempted either; the attempt is then not counted.
    """

    def __init__(self, reason: str, *, tried: bool = True) -> None:
        super().__init__(reason)
        self.tried = tried


class MailerOutOfTime(TemporaryFailure):
    """The server is slow: this email was not attempted in the time of one call, and is due at once."""


class Mailer(Protocol):
    def send(self, emails: Sequence[OutgoingEmail], /) -> Sequence[Exception | None]:
        """Send emails, in bounded time. Return for each why it was not sent; None if it was.

        The reasons are `UndeliverableEmail`, `TemporaryFailure` and its subclasses; other errors are retried too.
        """
        ...
